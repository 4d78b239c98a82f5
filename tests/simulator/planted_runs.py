"""Bugs that are planted in how a saga goes on as a new run."""

from __future__ import annotations

import contextlib
from typing import Any
from unittest.mock import patch

from kasaga.engine import renewing
from kasaga.engine.renewals import Continue
from kasaga.engine.state import State
from simulator.planting import plant


def _made(**other: Any) -> contextlib.AbstractContextManager[Any]:
    real = renewing._made  # pyright: ignore[reportPrivateUsage]

    def made(state: State, version: int) -> Continue:
        return real(state, version)._replace(**other)

    return patch.object(renewing, "_made", made)


@plant("a new run forgets the signals that nobody has taken")
def _forgets() -> contextlib.AbstractContextManager[Any]:
    return _made(waiting=())


@plant("a new run forgets which signals it has had", again=1.0)
def _twice() -> contextlib.AbstractContextManager[Any]:
    return _made(seen=())


@plant("a new run numbers its steps from the first one on")
def _numbers() -> contextlib.AbstractContextManager[Any]:
    return _made(steps=0)


@plant("a new run forgets its search attributes")
def _attributes() -> contextlib.AbstractContextManager[Any]:
    return _made(attributes=b"")
