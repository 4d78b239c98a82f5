"""The one hash seed of all processes that step sagas. Imports nothing that takes time: see `__main__`."""

from __future__ import annotations

import os
import sys

VARIABLE, SEED = "PYTHONHASHSEED", "0"


def hash_steadily() -> None:
    """Start this program anew with PYTHONHASHSEED=0, unless it has it: then return.

    Iterating over a set of texts must give the same order in every process that replays a saga, and Python
    takes the seed at its start only. Whoever sets the variable beforehand starts faster.
    """
    if os.environ.get(VARIABLE) != SEED:
        os.environ[VARIABLE] = SEED
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
