"""The audit: histories against the participants' inboxes, to prove of sagas that they are all done or undone.

`facts.py` what a history claims, in hashes · `compare.py` that against what an inbox has: pure ·
`findings.py` what can be wrong, with code and remedy · `inboxes.py` how inboxes are asked ·
`by_kafka.py`, `by_database.py` the two ways · `walk.py` which sagas, how fast, and looking twice ·
`tally.py` the report. Called by `cli/audit.py`.

The history is read before the inboxes. A participant commits its row before it replies, and the reply is in
the history: so what the history claims must be there when the inbox is read afterwards. The other way round,
a saga that ended in between would look like one whose rows are missing.
"""
