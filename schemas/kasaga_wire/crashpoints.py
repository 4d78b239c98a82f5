"""Named places where a process can be told to die, so that each crash window has a test.

Station: called between any two lines whose order matters, by the participants and by the orchestrator;
reads two environment variables, calls nothing of ours.

`KASAGA_CRASH_AT=<name>` or `<name>:<n>` kills the process with SIGKILL at the first or the n-th passage
of the point. SIGKILL, because nothing may run after it: no `finally`, no flush, no goodbye to the
brokers. `KASAGA_FREEZE_AT` stops it there with SIGSTOP instead, until somebody sends SIGCONT: so zombies
are made.
"""

from __future__ import annotations

import os
import signal
import threading

VARIABLE = "KASAGA_CRASH_AT"
FREEZE_VARIABLE = "KASAGA_FREEZE_AT"


def _armed(setting: str) -> tuple[str, int]:
    """Split `<name>[:n]`. A setting that can't be read is an error, else a test would prove nothing."""
    name, _, count = setting.partition(":")
    passages = int(count) if count else 1
    if passages < 1:
        raise ValueError(f"{VARIABLE}={setting!r}: passages are counted from 1")
    return name, passages


_signal = signal.SIGSTOP if os.environ.get(FREEZE_VARIABLE) else signal.SIGKILL
_name, _left = _armed(os.environ.get(FREEZE_VARIABLE) or os.environ.get(VARIABLE, ""))
_lock = threading.Lock()


def crash_point(name: str) -> None:
    """Die or freeze here if the process was told to. One comparison of two strings when it was not."""
    if name == _name:
        _pass()


def _pass() -> None:
    """Count the passage, and end at the last one."""
    global _left  # noqa: PLW0603 (one process, one crash)
    with _lock:
        _left -= 1
        if _left == 0:
            os.kill(os.getpid(), _signal)
