"""Bugs that are planted in what sagas and their children tell each other, and in search attributes."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any
from unittest.mock import patch

from kasaga.engine import halt
from kasaga.engine.kinship import Recalled
from kasaga.engine.leftovers import Leftover, leftovers
from kasaga.engine.lifecycle import COMPENSATED, COMPLETED
from kasaga.engine.model import Started
from kasaga.engine.state import State
from kasaga.orchestrator import children
from kasaga.orchestrator.children import Said
from kasaga.store import memory
from kasaga.store.base import SagaRow
from kasaga_wire.attributes import Stored
from simulator.planting import plant


@plant("a child that has ended well is taken for undone")
def _kept() -> contextlib.AbstractContextManager[Any]:
    real = children.to_recall

    def to_recall(event: Recalled, known: State | SagaRow | None, now: int) -> Said | None:
        return Said("undone") if known is not None and known.state == COMPLETED else real(event, known, now)

    return patch.object(children, "to_recall", to_recall)


@plant("the undo of a child that hasn't begun doesn't keep it from beginning", delay=0.3, again=1.0)
def _unfenced() -> contextlib.AbstractContextManager[Any]:
    real = children.to_recall

    def to_recall(event: Recalled, known: State | SagaRow | None, now: int) -> Said | None:
        nothing = Said("nothing" if event.form == "undo" else "voided")
        return nothing if known is None else real(event, known, now)

    return patch.object(children, "to_recall", to_recall)


@plant("a child whose id another saga has is taken for that one")
def _anybody() -> contextlib.AbstractContextManager[Any]:
    real = children.to_start

    def to_start(event: Started, run_id: str, known: State | SagaRow | None) -> Said | None:
        return real(event, str(known.run_id) if known is not None else run_id, known)

    return patch.object(children, "to_start", to_start)


@plant("a child that was undone tells its parent that it is done")
def _done() -> contextlib.AbstractContextManager[Any]:
    real = children.ended

    def ended(state: str, saga_id: str, result: bytes | None, reason: str) -> Said:
        return real(COMPLETED if state == COMPENSATED else state, saga_id, result, reason)

    return patch.object(children, "ended", ended)


@plant("an older value of a search attribute stays when a newer one is set")
def _older() -> contextlib.AbstractContextManager[Any]:
    def merged(known: Mapping[str, Stored], changes: Mapping[str, Stored | None]) -> dict[str, Stored]:
        return {name: value for name, value in {**changes, **known}.items() if value is not None}

    return patch.object(memory, "merged", merged)


@plant("a saga that is terminated doesn't say which children it leaves")
def _unsaid() -> contextlib.AbstractContextManager[Any]:
    def forget(state: State) -> list[Leftover]:
        return [each for each in leftovers(state) if not state.steps[each.step].child]

    return patch.object(halt, "leftovers", forget)
