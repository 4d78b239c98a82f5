"""The drill: the compensations of sagas that went well, run where nothing comes of them.

`choose.py` which sagas, and the undo that each of their steps would get · `line.py` sends them to those in
drill mode, and collects what they say · `tally.py` the report. Called by `cli/drill.py`.

Nothing of it can reach a real saga: each topic has a name of its own (`drill.` before it), so that no
orchestrator reads an answer and no participant that serves sagas reads a question; each undo has a command id
of its own; the orchestrator's database is only read.
"""
