"""Semantic locks: what a saga asks for, what it is told, and what it keeps to its end.

A step of the kind `lock` waits for keys. Which saga holds a key isn't the engine's to know: the shell asks
the store, which has one queue for each key, and tells what it says as an event. Here is what follows of that:
a granted step is done; a refused one raises. What a saga holds it keeps until it has ended, also while it is
undone; what it has asked for and isn't waiting for any more it gives up at once. The keys that a record gives
up stand in `State.freed`, and the commit that writes the record takes the saga out of their queues.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from .keylocks import LOCK, Barred, Granted
from .model import DONE, REFUSED, Settle

if TYPE_CHECKING:
    from .decisions import Decisions
    from .state import State
    from .step import Step


def keys_of(step: Step) -> tuple[str, ...]:
    """What a step of the kind `lock` asks for."""
    return tuple(step.key.decode().split("\n"))


def packed(keys: Iterable[str]) -> bytes:
    """The same as it is kept: no key has a line break."""
    return "\n".join(keys).encode()


def note(turn: Decisions, step: Step, event: Granted | Barred) -> None:
    """Settle the step with the store's answer."""
    if isinstance(event, Granted):
        turn.add(Settle(step.path, DONE))
    else:
        turn.add(Settle(step.path, REFUSED, b"", event.code, event.reason))


def settled(state: State, step: Step) -> None:
    """A step has its outcome: what it was granted is the saga's; what it waits for no more is given up."""
    locks = state.locks or {}
    if step.outcome == DONE:
        state.locks = {**locks, **dict.fromkeys(keys_of(step))}
        return
    wanted = {key for each in _open(state) for key in keys_of(each)}
    state.freed += tuple(key for key in keys_of(step) if key not in locks and key not in wanted)


def ended(state: State) -> None:
    """The saga is over: it keeps nothing."""
    if state.locks is not None:
        asked = (key for step in _open(state) for key in keys_of(step))
        state.freed += tuple(dict.fromkeys((*state.locks, *asked)))
        state.locks = None


def held(state: State) -> tuple[str, ...]:
    """The keys that a saga holds."""
    return tuple(state.locks or ())


def waiting(state: State) -> list[Step]:
    """The steps that wait for keys."""
    return list(_open(state)) if state.locks is not None else []


def _open(state: State) -> Iterable[Step]:
    return (step for step in state.order if step.kind == LOCK and not step.outcome)
