"""How a process of ours wants Python's interpreter, on either side of the wire.

Station: called once, by whoever owns the process, when it has loaded what it needs.
"""

from __future__ import annotations

import gc
import logging
import sys
from importlib.util import find_spec

from . import __version__

log = logging.getLogger("kasaga.process")

SWITCH_SECONDS = 0.0005
"""How long a thread may keep the interpreter while another wants it; Python's own 5 ms outlast a commit."""

YOUNG_OBJECTS = 10_000
"""New objects after which the collector looks for cycles.

A batch makes thousands at once, of which none is garbage before its end: at Python's own 700 the
collector goes through the same ones over and over, for 4% of the CPU time.
"""


def build() -> str:
    """`compiled` where the hot modules are extension modules, else `pure Python`; one tells for all."""
    found = find_spec(f"{__package__}.codec")
    return "pure Python" if found is None or str(found.origin).endswith(".py") else "compiled"


def tune_interpreter() -> None:
    """Hand the interpreter over quickly between threads, look for cyclic garbage seldom; log what runs."""
    log.info("running", extra={"release": __version__, "build": build()})
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, 10, 10)
    sys.setswitchinterval(SWITCH_SECONDS)
