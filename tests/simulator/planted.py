"""Real bugs, planted one at a time: the simulator has to find each.

Each replaces a function of the real code by one with a mistake that somebody could make, and did somewhere.
Nothing in the code that runs in production knows of them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

from kasaga.engine import mail, relevance, scheduling, turn, undo
from kasaga.engine import state as states
from kasaga.engine.model import COMMAND, SCOPE, UNDONE, Event, Fired, Pivot, Replied, Settle, Signalled
from kasaga.engine.state import State
from kasaga.orchestrator import gather, intake, ownership
from kasaga.orchestrator.loop import Loop
from kasaga.orchestrator.relay import Relay
from kasaga.orchestrator.shards import Shard
from kasaga.store.base import Batch, LostShards, OutboxRow, ShardWrite
from kasaga.store.memory import MemoryStore
from kasaga.store.memory_tables import Staged
from kasaga_participant.answers import Answers
from kasaga_participant.inbox import algorithm
from kasaga_participant.inbox.memory import MemoryInbox
from kasaga_participant.inbox.rows import FAILED, NewRow
from kasaga_participant.progress import Progress
from kasaga_participant.runtime import Runtime
from simulator.planting import both, plant


@plant("the token isn't checked at the commit", freeze=0.02)
def _token() -> contextlib.AbstractContextManager[Any]:
    def fence(self: MemoryStore, writes: list[ShardWrite]) -> bool:
        shards = self._shards  # pyright: ignore[reportPrivateUsage]
        return any(shards[write.shard].commit_seq != write.commit_seq for write in writes)

    return patch.object(MemoryStore, "_fence", fence)


@plant("the fence counts rows in a pipeline: what follows is written all the same", freeze=0.02)
def _row_count() -> contextlib.AbstractContextManager[Any]:
    real = MemoryStore.commit

    def commit(self: MemoryStore, batch: Batch, replace: Any) -> Any:
        try:
            return real(self, batch, replace)
        except LostShards:
            staged = Staged(self._tables)  # pyright: ignore[reportPrivateUsage]
            for write in batch.sagas:
                staged.add(write)
            kept = Batch([], batch.sagas, [], [])
            self._apply(kept, staged)  # pyright: ignore[reportPrivateUsage]
            raise

    return patch.object(MemoryStore, "commit", commit)


@plant("a commit whose answer was lost is written once more", unknown_commit=0.1)
def _known() -> contextlib.AbstractContextManager[Any]:
    real = MemoryStore._fence  # pyright: ignore[reportPrivateUsage]

    def fence(self: MemoryStore, writes: list[ShardWrite]) -> bool:
        real(self, writes)
        return True

    return patch.object(MemoryStore, "_fence", fence)


@plant("a participant commits the offset before the command is answered")
def _offset() -> contextlib.AbstractContextManager[Any]:
    real = Runtime.accept

    def accept(self: Runtime, topic: str, records: Any) -> None:
        real(self, topic, records)
        for record, progress in records:
            progress.finish(record.offset)

    return patch.object(Runtime, "accept", accept)


@plant("a participant commits the highest offset that is answered, not the lowest that isn't")
def _highest() -> contextlib.AbstractContextManager[Any]:
    real = Progress.finish

    def finish(self: Progress, offset: int) -> None:
        real(self, offset)
        self.position = max(self.position or 0, offset + 1)

    return patch.object(Progress, "finish", finish)


@plant("a participant finishes a command when its reply is sent, not when it is acknowledged")
def _unacknowledged() -> contextlib.AbstractContextManager[Any]:
    real = Answers._reply  # pyright: ignore[reportPrivateUsage]

    def reply(self: Answers, job: Any, answer: Any, done: Callable[[], None]) -> None:
        real(self, job, answer, _nothing)
        done()

    return patch.object(Answers, "_reply", reply)


def _nothing() -> None:
    """Do nothing when it is acknowledged."""


@plant("an outbox row is deleted before Kafka has acknowledged it", drop=0.1)
def _deleted() -> contextlib.AbstractContextManager[Any]:
    real = Relay._produce  # pyright: ignore[reportPrivateUsage]

    def produce(self: Relay, sent: Any, row: Any) -> None:
        real(self, sent, row)
        self._acked(sent, row)  # pyright: ignore[reportPrivateUsage]

    return patch.object(Relay, "_produce", produce)


@plant("a batch is sent before it is committed", store=0.02)
def _early() -> contextlib.AbstractContextManager[Any]:
    real = Loop._commit  # pyright: ignore[reportPrivateUsage]

    def commit(self: Loop, work: Any, batch: Batch) -> None:
        now = self._clock.now()  # pyright: ignore[reportPrivateUsage]
        for write in batch.sagas:
            self._relay.send(write.opens, now)  # pyright: ignore[reportPrivateUsage]
        real(self, work, batch)

    return patch.object(Loop, "_commit", commit)


@plant("a new owner doesn't send what isn't known to be sent", die=0.02)
def _resend() -> contextlib.AbstractContextManager[Any]:
    def to_send(row: OutboxRow, acked: int) -> bool:
        return row.send_at is not None

    return patch.object(ownership, "_to_send", to_send)


@plant("a void or an undo leaves no tombstone", delay=0.3, again=1.0)
def _tombstone() -> contextlib.AbstractContextManager[Any]:
    real = algorithm._claims  # pyright: ignore[reportPrivateUsage]

    def claims(works: Any, rules: Any, now: float) -> tuple[NewRow, ...]:
        own = {work.id for work in works}
        return tuple(row for row in real(works, rules, now) if row.id in own)

    return patch.object(algorithm, "_claims", claims)


@plant("the inbox looks first and claims then", handler_slow=0.6, kafka_cut=1.0, pause=1.0)
def _select() -> contextlib.AbstractContextManager[Any]:
    async def claim(self: MemoryInbox, row: NewRow, mine: Any) -> bool:
        if row.id in self._kept:  # pyright: ignore[reportPrivateUsage]
            return False
        self._claims[row.id] = mine  # pyright: ignore[reportPrivateUsage]
        return True

    real = MemoryInbox.end

    def end(self: MemoryInbox, claimed: dict[str, NewRow], written: Any, mine: Any) -> None:
        for id_ in claimed:
            self._claims.setdefault(id_, mine)  # pyright: ignore[reportPrivateUsage]
        real(self, claimed, written, mine)

    return both(patch.object(MemoryInbox, "claim", claim), patch.object(MemoryInbox, "end", end))


@plant("a failure is stored, and so can never succeed again", handler_fails=0.2)
def _cached() -> contextlib.AbstractContextManager[Any]:
    real = algorithm._Batch.run  # pyright: ignore[reportPrivateUsage]
    batch_type = algorithm._Batch  # pyright: ignore[reportPrivateUsage]

    def run(self: Any, work: Any, verdict: Any) -> Any:
        before = len(self.released)
        yield from real(self, work, verdict)
        answer = self.answers[-1]
        if answer.outcome == FAILED and work.original is None:
            del self.released[before:]
            self.outcomes.append(algorithm.Outcome(work.id, FAILED, answer.payload))

    return patch.object(batch_type, "run", run)


@plant("the failure of an old attempt counts for the current one", handler_fails=0.3, again=1.0)
def _old() -> contextlib.AbstractContextManager[Any]:
    real = relevance.stale

    def stale(state: State, event: Any, at: int) -> str:
        why = real(state, event, at)
        return "" if why == "old attempt" else why

    return both(patch.object(relevance, "stale", stale), patch.object(turn, "stale", stale))


@plant("timers fire before the replies that are there are read", store_away=1.0)
def _timers() -> contextlib.AbstractContextManager[Any]:
    def ready(self: Shard, now: int, end_of: Any) -> bool:
        due = self.next_due
        self.read_at = now
        return due is not None and due <= now

    real = intake.order_of

    def order(item: Any) -> int:
        return -1 if isinstance(getattr(item, "event", None), Fired) else real(item)

    return both(patch.object(Shard, "ready", ready), patch.object(gather, "order_of", order))


@plant("a saga is completed with a step of unknown outcome", handler_slow=0.3)
def _unknown() -> contextlib.AbstractContextManager[Any]:
    real = undo.send

    def send(decisions: Any, step: Any, reason: str, failed_step: str) -> None:
        if decisions.state.phase != "RUNNING":
            real(decisions, step, reason, failed_step)

    return patch.object(undo, "send", send)


@plant("compensations run in the order of their steps")
def _forward() -> contextlib.AbstractContextManager[Any]:
    def advance(decisions: Any) -> bool:
        state = decisions.state
        for step in state.order:
            if step.to_undo and step.blocked is None:
                undo.send(decisions, step, state.undo_reason, state.undo_step)
            if step.undo_open or step.blocked is not None:
                return False
        return True

    return patch.object(undo, "advance", advance)


@plant("a duplicate of an answer is decided twice")
def _twice() -> contextlib.AbstractContextManager[Any]:
    real = relevance.irrelevant

    def irrelevant(state: State, event: Event, at: int) -> str:
        why = real(state, event, at)
        known = isinstance(event, Replied) and event.form == COMMAND and event.step in state.steps
        return "" if why == "late" and known and not state.final else why

    from kasaga.engine import decide

    return patch.object(decide, "irrelevant", irrelevant)


@plant("the pivot is forgotten: a cancel is taken after it", delay=0.3)
def _pivot() -> contextlib.AbstractContextManager[Any]:
    def forget(state: State, decision: Any, row: int) -> None:
        """Keep nothing of it."""

    return patch.dict(states._APPLY, {Pivot: forget})  # pyright: ignore[reportPrivateUsage]


@plant("an undo doesn't wait for its turn")
def _at_once() -> contextlib.AbstractContextManager[Any]:
    def advance(decisions: Any) -> bool:
        state = decisions.state
        for step in reversed(state.order):
            if step.to_undo and step.blocked is None and not step.undo_open:
                undo.send(decisions, step, state.undo_reason, state.undo_step)
        return not any(step.undo_open or step.blocked is not None for step in state.order)

    return patch.object(undo, "advance", advance)


@plant("the code goes on behind a scope before what was done in it is undone", drop=0.2)
def _scope_early() -> contextlib.AbstractContextManager[Any]:
    real = undo.advance_lost

    def advance(decisions: Any) -> bool:
        over = real(decisions)
        for steps in decisions.state.lost or ():
            if steps[0].kind == SCOPE and not steps[0].outcome:
                decisions.add(Settle(steps[0].path, UNDONE))
        return over

    return patch.object(undo, "advance_lost", advance)


@plant("a scope forgets the steps of the branches that were spawned in it", drop=0.2)
def _scope_spawned() -> contextlib.AbstractContextManager[Any]:
    real = scheduling.Scheduling._spawned_ended  # pyright: ignore[reportPrivateUsage]

    def forget(self: Any, parent: Any, branch: Any) -> None:
        if branch.has_more and branch.more.home is not None:
            branch.asked = None
        real(self, parent, branch)

    return patch.object(scheduling.Scheduling, "_spawned_ended", forget)


@plant("a signal is forgotten when it is taken, and counts again when it comes again")
def _again() -> contextlib.AbstractContextManager[Any]:
    real = relevance._known  # pyright: ignore[reportPrivateUsage]

    def known(state: State, event: Any) -> str:
        why = real(state, event)
        mail = state.mail
        if why != "duplicate signal" or mail is None:
            return why
        waiting = {each.signal_id for signals in mail.waiting.values() for each in signals}
        return why if event.signal_id in waiting else ""

    return patch.object(relevance, "_known", known)


@plant("the newest signal is taken first")
def _newest() -> contextlib.AbstractContextManager[Any]:
    real = mail.note

    def note(state: State, event: Any) -> None:
        real(state, event)
        if isinstance(event, Signalled) and state.mail is not None:
            state.mail.waiting[event.name].rotate(1)

    return patch.object(mail, "note", note)


@plant("a signal that comes while the saga is parked is accepted, and isn't recorded")
def _parked_signal() -> contextlib.AbstractContextManager[Any]:
    real = relevance.irrelevant

    def irrelevant(state: State, event: Event, at: int) -> str:
        if isinstance(event, Signalled) and state.parked:
            return "duplicate signal"
        return real(state, event, at)

    from kasaga.engine import decide

    return patch.object(decide, "irrelevant", irrelevant)
