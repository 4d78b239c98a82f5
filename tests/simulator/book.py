"""What must be true, during a run and after it, whatever went wrong.

Station: told by the world of each commit; keeps its own account, which the code under test can't see. The
table in ARCHITECTURE.md says which fault takes which promise away; the same is here, in code.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any
from uuid import UUID

from kasaga.engine.codec import decode
from kasaga.engine.kinship import Recall
from kasaga.engine.model import (
    COMMAND,
    UNDO,
    VOID,
    Fired,
    Record,
    Send,
)
from kasaga.engine.relevance import KNOWLEDGE
from kasaga.orchestrator.early import is_kept
from kasaga.store.base import (
    FINAL_STATES,
    Batch,
    LostShards,
    OutboxRow,
    SagaState,
    ShardRow,
)
from kasaga.testing.network import Headers
from kasaga_wire.children import ChildEnvelope
from kasaga_wire.envelope import CommandEnvelope, ReplyEnvelope
from kasaga_wire.kafka import Record as KafkaRecord
from simulator import kin, news
from simulator.audit import Audit

if TYPE_CHECKING:
    from simulator.postgres import Effect
    from simulator.world import World

MARGIN_MS = 50
"""Between the engine's clock, Kafka's and a timer."""


class Book:
    """Of one world."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.violations: list[str] = []
        self.rewritten: dict[tuple[str, int], int] = {}
        """Partitions that have lost their last records or all: offsets below these are given twice."""
        self.purged: set[str] = set()
        """Rows of inboxes that were forgotten too early."""
        self.inbox_lost: set[str] = set()
        """Rows of inboxes that a database has lost by going back in time."""
        self.lost_rows: dict[UUID, list[tuple[int, bytes]]] = defaultdict(list)
        """Rows of histories that Postgres has lost, by run and number."""
        self._tokens: dict[int, UUID | None] = {}
        self._rows: Counter[UUID] = Counter()
        self._answered: set[tuple[str, int]] = set()
        self._opened: set[tuple[str, int]] = set()

    def say(self, violation: str) -> None:
        """Note what isn't so."""
        if violation not in self.violations:
            self.violations.append(violation)

    # --- during the run

    def claimed(self, row: ShardRow) -> None:
        self._tokens[row.shard] = row.token

    def released(self, tokens: list[tuple[int, UUID]]) -> None:
        for shard, token in tokens:
            if self._tokens.get(shard) == token:
                self._tokens[shard] = None

    def committed(self, batch: Batch, by: str) -> None:
        """A commit has gone through: nobody else may own its shards, and rows follow each other."""
        for write in batch.shards:
            if self._tokens.get(write.shard) != write.token:
                self.say(f"{by} committed shard {write.shard} under an old token")
        read = {write.shard: write.offsets.replies for write in batch.shards}
        for saga in batch.sagas:
            self._opened.update((f"{saga.run_id}.{row.step}", row.attempt) for row in saga.opens)
            for row in saga.history:
                if row.seq == 1 and (why := kin.unasked(self._world, saga.run_id, row.body)):
                    self.say(why)
                if row.kind == "Fired":
                    self._fired(saga.run_id, row.seq, saga.shard, read[saga.shard], by)
        self.count()

    def _fired(self, run_id: UUID, seq: int, shard: int, read: int, by: str) -> None:
        """A timer has fired: no answer to its step may lie unread in Kafka that came before it was due."""
        history = self._world.store._tables.history[run_id]  # pyright: ignore[reportPrivateUsage]
        event = decode(seq, history[seq].body).event
        if not isinstance(event, Fired) or event.form not in (COMMAND, UNDO, VOID):
            return
        sends = [
            decision
            for number in range(1, seq)
            for decision in decode(number, history[number].body).decisions
            if isinstance(decision, Send) and (decision.step, decision.form) == (event.step, event.form)
        ]
        name = event.step if event.form == COMMAND else f"{event.step}~{event.form}"
        log = self._world.kafka.logs[self._world.topics.replies, shard]
        due = sends[-1].due_at // 1000 - MARGIN_MS
        for record in log.records[max(read - log.first, 0) :] if read >= log.first else []:
            if record.timestamp_ms < due:
                reply = ReplyEnvelope.parse(record.headers)
                if reply.command_id == f"{run_id}.{name}" and reply.outcome in KNOWLEDGE[event.form]:
                    self.say(f"{by} let step {name} time out, though its answer had come and wasn't read")

    def produced(self, topic: str, headers: Headers, by: str) -> None:
        """A process hands a record to its producer: a command must be committed by then."""
        if topic.endswith(".commands"):
            self._is_open(CommandEnvelope.parse(headers), by)
        elif any(name == "ce_kasagachild" for name, _ in headers):
            self._is_open(ChildEnvelope.parse(headers), by)

    def _is_open(self, command: CommandEnvelope | ChildEnvelope, by: str) -> None:
        if (command.command_id, command.attempt) not in self._opened:
            self.say(f"{by} sent attempt {command.attempt} of a command that isn't committed")

    def appended(self, record: KafkaRecord) -> None:
        """A record has reached its log."""
        if record.topic == self._world.topics.replies:
            reply = ReplyEnvelope.parse(record.headers)
            self._answered.add((reply.command_id, reply.attempt))

    def passed(self, place: tuple[str, int], before: int, after: int) -> None:
        """A group has moved its offset: what lies behind it must have been answered."""
        log = self._world.kafka.logs[place]
        for record in log.records[max(before - log.first, 0) : max(after - log.first, 0)]:
            command = CommandEnvelope.parse(record.headers)
            twice = record.offset < self.rewritten.get(place, 0)
            if not twice and (command.command_id, command.attempt) not in self._answered:
                self.say(f"the offset of {place[0]} has passed a command that wasn't answered")

    def count(self) -> None:
        """Note how long the histories are."""
        tables = self._world.store._tables  # pyright: ignore[reportPrivateUsage]
        self._rows = Counter({run: len(rows) for run, rows in tables.history.items()})

    def refused(self, batch: Batch, lost: LostShards, by: str) -> None:
        """A commit was refused: nothing of it may be there."""
        tables = self._world.store._tables  # pyright: ignore[reportPrivateUsage]
        for write in batch.sagas:
            if len(tables.history.get(write.run_id, {})) != self._rows[write.run_id]:
                self.say(f"{by} lost shards {sorted(lost.shards)}, and its rows were written all the same")

    def rewound(self, before: Any) -> None:
        """Postgres is about to lose what isn't in `before`."""
        tables, shards = before
        now = self._world.store._tables  # pyright: ignore[reportPrivateUsage]
        for run_id, rows in now.history.items():
            kept = tables.history.get(run_id, {})
            gone = [(seq, row.body) for seq, row in sorted(rows.items()) if seq not in kept]
            if gone:
                self.lost_rows[run_id] += gone
                self._world.tracer.note(None, "restore", run=run_id, rows=[seq for seq, _ in gone])
        self._tokens = {number: shard.token for number, shard in shards.items()}
        self._rows = Counter({run: len(rows) for run, rows in tables.history.items()})

    def check_broken(self) -> None:
        """No process may end by an error of its own, no callback may raise one."""
        for process, error in self._world.machine.broken:
            self.say(f"{process.name} ended by {type(error).__name__}: {error}")
        for node in self._world.participants:
            for context in node.loop.errors:
                self.say(f"{node.process.name}: {context.get('message')}: {context.get('exception')!r}")
            runtime = node.runtime
            if runtime is not None and runtime.error.done():
                self.say(f"{node.process.name} failed: {runtime.error.result()!r}")

    # --- the end

    def expected(self) -> set[str]:
        """The ids of the sagas that must be there: those whose start Kafka hasn't lost."""
        started = self._world.people.started
        lost = {
            record.key.decode()
            for record in self._world.kafka.lost
            if record.topic == self._world.topics.sagas and record.key
        }
        return started.keys() - lost - self._overtaken()

    def _overtaken(self) -> set[str]:
        """Starts that came to an offset that was given before: its owner may be behind it already."""
        return {
            record.key.decode()
            for place, end in self.rewritten.items()
            if place[0] == self._world.topics.sagas
            for record in self._world.kafka.logs[place].records
            if record.key and record.offset < end
        }

    def waits_in_vain(self, row: OutboxRow) -> bool:
        """Whether a row keeps a signal, for a day, whose saga's start Kafka has lost."""
        saga_id = (row.key or b"").decode()
        return is_kept(row) and saga_id not in {each.saga_id for each in self._world.sagas()}

    def never_over(self) -> None:
        """The run came to no end: say what is missing."""
        rows = {row.saga_id: row for row in self._world.sagas()}
        for saga_id in sorted(self.expected() - rows.keys()):
            self.say(f"{saga_id} was never begun, though Kafka has its start")
        for row in rows.values():
            if row.state not in FINAL_STATES and not self._world.people.leaves(row):
                self.say(f"{row.saga_id} comes to no end: {row.state} {row.code} {row.reason}")
        stuck = self._world.people.left(rows.values())
        for shard in range(self._world.shards):
            for open_row in self._world.store.open_rows(shard):
                if open_row.run_id not in stuck and not self.waits_in_vain(open_row):
                    what = f"{open_row.kind.name} {open_row.run_id} {open_row.step}"
                    self.say(f"a row stays open in the outbox: {what}")
                    break
        if not self.violations:
            self.say("the run came to no end")

    def unmoved(self, before: dict[UUID, SagaState]) -> None:
        """What comes late changes no end."""
        for row in self._world.sagas():
            was = before.get(row.run_id, row.state)
            if was in FINAL_STATES and row.state is not was and not self._taken_back(row.run_id, was):
                self.say(f"{row.saga_id} was {was}, and is {row.state} now")

    def _taken_back(self, run_id: UUID, was: SagaState) -> bool:
        """Whether a child was undone after its end, by a parent that was STUCK before."""
        records = kin.records_of(self._world, run_id) if was is SagaState.COMPLETED else []
        return any(isinstance(each, Recall) for record in records for each in record.decisions)

    def audit(self) -> None:
        """Look at every saga: its history, what was sent for it, and what the participants did."""
        world = self._world
        effects: dict[str, list[Effect]] = defaultdict(list)
        for database in world.databases.values():
            for effect in database.effects:
                effects[effect.command_id.partition(".")[0]].append(effect)
        sent, told = self._sent(), self._told()
        rows = world.sagas()
        ids = Counter(row.saga_id for row in rows)
        for saga_id, times in ids.items():
            if times > 1:
                self.say(f"{saga_id} was begun {times} times")
        for saga_id in sorted(self.expected() - ids.keys()):
            self.say(f"{saga_id} was never begun, though Kafka has its start")
        audits = {row.run_id: Audit(self, world, row) for row in rows}
        for row, audit in zip(rows, audits.values(), strict=True):
            audit.history()
            audit.pivot()
            audit.ends()
            audit.attempts()
            audit.letters()
            audit.labels()
            audit.told(told)
            audit.wire(sent.get(str(row.run_id), []))
            audit.effects(effects.get(str(row.run_id), []))
            audit.runs(effects.get(str(row.run_id), []))
        for audit, why in kin.Ties(world, audits).wrong():
            audit.say(why)
        known = {str(row.run_id) for row in rows}
        for run_id in effects.keys() - known:
            if run_id not in {str(run) for run in self.lost_rows}:
                self.say(f"commands of {run_id} were executed, a run that nobody knows")

    def _sent(self) -> dict[str, list[CommandEnvelope]]:
        found: dict[str, list[CommandEnvelope]] = defaultdict(list)
        for place, log in self._world.kafka.logs.items():
            if place[0].endswith(".commands"):
                for record in log.records:
                    envelope = CommandEnvelope.parse(record.headers)
                    found[envelope.command_id.partition(".")[0]].append(envelope)
        return found

    def _told(self) -> set[str]:
        """The ids of all answers and events that Kafka has."""
        topics = self._world.topics
        return {
            (value or b"").decode()
            for place, log in self._world.kafka.logs.items()
            if place[0] in (topics.answers, topics.events, news.TOPIC)
            for record in log.records
            for name, value in record.headers
            if name == "ce_id"
        }

    def changed(self, run_id: UUID, records: list[Record]) -> bool:
        """Whether Postgres has lost decisions of a run, and they were made otherwise the second time."""
        lost = self.lost_rows.get(run_id)
        if not lost:
            return False
        now = {record.seq: _gist(record) for record in records}
        return any(now.get(seq) != _gist(decode(seq, body)) for seq, body in lost)

    def forgot(self, run_id: UUID) -> bool:
        """Whether an inbox has forgotten, or a database lost, rows of a run."""
        run = f"{run_id}."
        return any(id_.startswith(run) for id_ in self.purged | self.inbox_lost)


def _gist(record: Record) -> tuple[object, ...]:
    """What a record decides, whenever it does."""
    event = record.event
    decisions = tuple(
        (type(each).__name__, getattr(each, "step", ""), getattr(each, "form", ""))
        for each in record.decisions
    )
    return type(event).__name__, getattr(event, "step", ""), getattr(event, "form", ""), decisions
