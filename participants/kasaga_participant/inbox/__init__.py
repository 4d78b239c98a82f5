"""The inbox: what makes a command happen at most once, and its answer be the same each time.

`rows.py` what is kept · `judge.py` what becomes of a record · `algorithm.py` the transaction, without I/O ·
`drive.py` carries it out · `statements.py` its SQL · `postgres.py` and `memory.py` where it is kept ·
`upkeep.py` migrations and purging.
"""
