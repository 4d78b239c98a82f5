"""Tries new code on the histories of sagas that have really run, before it is deployed.

Station: called by `kasaga replay` and `kasaga export`. Reads the store or a file, writes nothing.

    histories  a history as it is taken along: from the store, into a file, out of it
    choose     which sagas of a database: those that run, and a sample of those that have ended
    judge      one history on the new code, by the engine's own replay
    tally      many verdicts, for people and for programs
"""

from .choose import Choice, choose
from .histories import History, read_file, write_file
from .judge import Kind, Verdict, judge
from .tally import Tally

__all__ = ["Choice", "History", "Kind", "Tally", "Verdict", "choose", "judge", "read_file", "write_file"]
