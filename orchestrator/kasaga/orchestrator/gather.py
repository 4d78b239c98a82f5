"""Gathers what has happened since the last turn, in the order in which it is decided.

Called by the loop once a turn; asks the intake, the threads of ctx.run, the relay and the shards' timers.
"""

from __future__ import annotations

from collections.abc import Mapping

from kasaga_wire.kafka import Record

from ..engine.model import COMMAND, DEADLINE, SIGNAL, SLEEP, Fired, Started, Undeliverable
from ..store.base import RowKind
from . import early
from .functions import Functions
from .holding import Holding
from .intake import CONTROL, REPLY, TIMER, Input, Intake, Item, order_of
from .relay import Relay
from .rows import LATE, split_step
from .runs import Runs
from .shards import Due, Shard
from .source import Source

MAX_ITEMS = 5_000
"""Items decided in one transaction, timers and sagas that new code wakes among them."""


class Gatherer:
    """Of one loop."""

    def __init__(
        self,
        shards: Mapping[int, Shard],
        *,
        source: Source,
        holding: Holding,
        intake: Intake,
        functions: Functions,
        relay: Relay,
        runs: Runs,
        max_timers: int,
    ) -> None:
        """`max_timers`: of one shard in one batch."""
        self._shards, self._source, self._holding, self._intake = shards, source, holding, intake
        holding.peek = intake.peek
        self._functions, self._relay, self._runs, self._max_timers = functions, relay, runs, max_timers

    def gather(self, carried: list[Input], records: list[Record], now: int) -> list[Input]:
        """Bring what was left over, what was read and what has happened here into order."""
        if self._intake.desk is not None:
            records = self._intake.desk.sift(records, self._shards, now)
        records = self._holding.sift(records, self._shards, now)
        found = [*carried, *self._intake.read(records, now // 1000), *self._functions.take()]
        while self._relay.refusals:
            refusal = self._relay.refusals.popleft()
            step, form = split_step(refusal.step)
            event = Undeliverable(step, form, refusal.attempt, refusal.error)
            found.append(Item(REPLY, refusal.shard, str(refusal.run_id), "", event, None))
        self._source.hear()
        for shard in self._shards.values():
            self._source.note(shard)
            if shard.kept:
                found += early.items(self._intake, early.due(shard, now))
            if shard.ready(now, self._source.end_of):
                found += [_timer(shard, due) for due in shard.pop_due(now, self._max_timers)]
        self._source.ask(now)
        found.sort(key=order_of)
        return self._starts_first(found)

    def _starts_first(self, found: list[Input]) -> list[Input]:
        """What is asked of a saga that begins in this very batch comes after its start."""
        if not found or found[0].order != CONTROL or len(found) > MAX_ITEMS:
            return found
        begun = {item.saga_id for item in found if isinstance(item, Item) and isinstance(item.event, Started)}
        early = [
            item
            for item in found
            if isinstance(item, Item)
            and item.order == CONTROL
            and item.saga_id in begun
            and self._runs.id_of(item.saga_id) is None
            and not self._suspects(item)
        ]
        return [*(item for item in found if item not in early), *early] if early else found

    def _suspects(self, item: Item) -> bool:
        shard = self._shards.get(item.shard)
        return shard is not None and shard.suspects


def _timer(shard: Shard, due: Due) -> Item:
    step, form = split_step(due.step)
    if due.kind is RowKind.TIMER:
        form = DEADLINE if not step else SIGNAL if form == SIGNAL else COMMAND if form == LATE else SLEEP
    return Item(TIMER, shard.number, str(due.run_id), "", Fired(step, form or COMMAND), None)
