"""What must be true, during a run and after it, whatever went wrong.

Station: told by the world of each commit; keeps its own account, which the code under test can't see. The
table in ARCHITECTURE.md says which fault takes which promise away; the same is here, in code.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any
from uuid import UUID

from kasaga.engine.codec import decode
from kasaga.engine.lifecycle import UNDOING
from kasaga.engine.model import (
    COMMAND,
    DONE,
    LOCAL,
    SCOPED,
    TAKES_ROW,
    UNDO,
    UNKNOWN,
    VOID,
    Clear,
    Fired,
    Move,
    Pivot,
    Record,
    Replied,
    Send,
    Settle,
    Tell,
)
from kasaga.engine.relevance import KNOWLEDGE
from kasaga.engine.state import State, extend, fold
from kasaga.orchestrator.early import is_kept
from kasaga.store.base import (
    FINAL_STATES,
    Batch,
    LostShards,
    OutboxRow,
    SagaRow,
    SagaState,
    ShardRow,
)
from kasaga.testing.network import Headers
from kasaga_wire.envelope import CommandEnvelope, ReplyEnvelope
from kasaga_wire.kafka import Record as KafkaRecord
from simulator import halted, news, scopes

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
            command = CommandEnvelope.parse(headers)
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
        stuck = {row.run_id for row in rows.values() if row.state is SagaState.STUCK}
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
            was = before.get(row.run_id)
            if was in FINAL_STATES and row.state is not was:
                self.say(f"{row.saga_id} was {was}, and is {row.state} now")

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
        for row in rows:
            audit = _Audit(self, world, row)
            audit.history()
            audit.pivot()
            audit.ends()
            audit.attempts()
            audit.letters()
            audit.told(told)
            audit.wire(sent.get(str(row.run_id), []))
            audit.effects(effects.get(str(row.run_id), []))
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


class _Audit:
    """Of one saga."""

    def __init__(self, book: Book, world: World, row: SagaRow) -> None:
        self._book, self._world, self._row = book, world, row
        self._records = [decode(each.seq, each.body) for each in world.store.history(row)]
        self._state: State = fold(str(row.run_id), self._records)
        self._excused = book.changed(row.run_id, self._records) or book.forgot(row.run_id)
        """What was done can't agree with the history: one of them was lost."""

    def say(self, text: str) -> None:
        kind = self._world.people.kinds.get(self._row.saga_id, "?")
        self._book.say(f"{self._row.saga_id} ({kind}): {text}")

    def history(self) -> None:
        """One row follows the other; nothing is settled twice, or tried again after it was."""
        row, records, state = self._row, self._records, self._state
        if [record.seq for record in records] != list(range(1, len(records) + 1)):
            self.say("its history has gaps")
        if state.state != row.state:
            self.say(f"its row says {row.state}, its history {state.state}")
        settled: set[str] = set()
        for record in records:
            for decision in record.decisions:
                if isinstance(decision, Settle):
                    if decision.step in settled:
                        self.say(f"step {decision.step} was settled twice")
                    settled.add(decision.step)
                elif isinstance(decision, Send) and decision.form == COMMAND and decision.step in settled:
                    self.say(f"step {decision.step} was sent again after its outcome was known")
        place = {step.path: index for index, step in enumerate(state.order)}
        done = {step.path for step in state.order if step.outcome == DONE and step.left != SCOPED}
        undone = [
            decision.step
            for record in records
            for decision in record.decisions
            if isinstance(decision, Clear) and decision.step in done
        ]
        if undone != sorted(undone, key=lambda path: -place[path]):
            self.say(f"its steps were undone in the order {', '.join(undone)}")
        for wrong in scopes.undone_in_order(records, state):
            self.say(wrong)

    def pivot(self) -> None:
        """Nothing that was done before the pivot is undone after it; the saga ends done or is STUCK."""
        done: set[str] = set()
        passed: int | None = None
        for record in self._records:
            for decision in record.decisions:
                if isinstance(decision, Settle) and decision.outcome == DONE and passed is None:
                    done.add(decision.step)
                elif isinstance(decision, Pivot):
                    passed = record.seq
                elif passed is None:
                    continue
                elif isinstance(decision, Send) and decision.form == UNDO and decision.step in done:
                    self.say(f"step {decision.step} was undone though row {passed} passed the pivot")
                elif isinstance(decision, Move) and decision.state in UNDOING:
                    self.say(f"it is {decision.state} though row {passed} passed the pivot")

    def ends(self) -> None:
        """It has ended, or is STUCK with a reason and a remedy."""
        row, state = self._row, self._state
        if row.state is SagaState.STUCK:
            if not (row.code and row.reason and row.remedy):
                self.say("it is STUCK without a reason and a remedy")
            return
        if row.state not in FINAL_STATES:
            self.say(f"it is {row.state} at the end")
            return
        for step in state.order:
            if step.kind not in (COMMAND, LOCAL):
                continue
            if row.state is SagaState.TERMINATED:
                continue  # it says what it leaves
            if step.outcome == UNKNOWN and step.kind == COMMAND and not step.undo_how:
                self.say(
                    f"it is {row.state}, and {step.type} (step {step.path}) is unknown and was never cleared"
                )
            compensated = row.state is SagaState.COMPENSATED
            if compensated and step.outcome == DONE and step.compensation and not step.undo_how:
                self.say(f"it is COMPENSATED, and {step.type} (step {step.path}) was never undone")

    def attempts(self) -> None:
        """How an attempt went counts for the current one alone."""
        state = State(str(self._row.run_id))
        for record in self._records:
            event = record.event
            step = state.steps.get(event.step) if isinstance(event, Replied) else None
            if isinstance(event, Replied) and step is not None and event.outcome not in KNOWLEDGE[event.form]:
                current = step.attempt if event.form == COMMAND else step.undo_attempt
                decided = any(
                    isinstance(each, Send | Settle) and each.step == event.step for each in record.decisions
                )
                if decided and event.attempt != current:
                    self.say(f"attempt {event.attempt} of step {event.step} counted in place of {current}")
            extend(state, record)

    def letters(self) -> None:
        """Each signal that was accepted is there, and was taken once at most, in order."""
        letters, row = self._world.people.letters, self._row
        for wrong in letters.wrong(row.saga_id, str(row.state), self._records, excused=self._excused):
            self.say(wrong)

    def told(self, told: set[str]) -> None:
        """Whoever was to be told of something was told of it."""
        run_id = self._row.run_id
        for record in self._records:
            rows = [each for each in record.decisions if type(each) in TAKES_ROW]
            for number, decision in enumerate(rows):
                if not isinstance(decision, Tell):
                    continue
                event = f"{run_id}.{record.seq + 1}.{record.row + number}"
                if (f"{decision.about}.{decision.what.lower()}" if decision.to else event) not in told:
                    self.say(f"nobody was told of {decision.what} (row {record.seq} of its history)")
        for wrong in news.wrong(run_id, self._records, told, excused=self._excused):
            self.say(wrong)

    def wire(self, sent: list[CommandEnvelope]) -> None:
        """Nothing was sent that wasn't committed."""
        lost = [decode(seq, body) for seq, body in self._book.lost_rows.get(self._row.run_id, [])]
        committed = {
            (
                decision.step if decision.form == COMMAND else f"{decision.step}~{decision.form}",
                decision.attempt,
            )
            for record in [*self._records, *lost]
            for decision in record.decisions
            if isinstance(decision, Send)
        }
        committed |= halted.fences([*self._records, *lost])
        for envelope in sent:
            name = envelope.command_id.partition(".")[2]
            if (name, envelope.attempt) not in committed:
                self.say(f"attempt {envelope.attempt} of {name} was sent, and isn't in the history")

    def effects(self, effects: list[Effect]) -> None:
        """Each took effect once; what stands at the end agrees with how the saga ended."""
        row, state = self._row, self._state
        times = Counter((effect.command_id, effect.type) for effect in effects)
        for (id_, type_), count in times.items():
            if count > 1 and id_ not in self._book.purged:
                self.say(f"{type_} (step {id_.partition('.')[2]}) took effect {count} times")
        if self._excused or row.state not in FINAL_STATES:
            return
        done = {id_.partition(".")[2] for id_, _ in times}
        stands = {name for name in done if "~" not in name and f"{name}~undo" not in done}
        for wrong in halted.unsaid(state, stands):
            self.say(wrong)
        for step in state.order:
            if step.kind != COMMAND or step.undo_how in ("skipped", "resolved"):
                continue
            here = step.path in stands
            kept = step.outcome == DONE and not (step.left == SCOPED and step.compensation)
            by_hand = (
                step.outcome == DONE and step.error_type == "" and halted.resolved(self._records, step.path)
            )
            if row.state is SagaState.COMPLETED and here != kept and not by_hand:
                what = "stands" if here else "doesn't stand"
                self.say(f"it is COMPLETED, and {step.type} (step {step.path}), {step.outcome}, {what}")
            if row.state is SagaState.COMPENSATED and here and (step.compensation or step.outcome != DONE):
                self.say(f"it is COMPENSATED, and {step.type} (step {step.path}) stands")
        named = {effect.command_id.partition(".")[2]: effect for effect in effects}
        for wrong in scopes.none_stands(self._records, state, named):
            self.say(wrong)
        self._order(effects)

    def _order(self, effects: list[Effect]) -> None:
        """Undos took effect in reverse; those of unknown steps, and skipped ones, may at any time."""
        place = {step.path: index for index, step in enumerate(self._state.order)}
        by_hand = ("skipped", "resolved")
        known = {
            step.path
            for step in self._state.order
            if step.outcome == DONE and step.undo_how not in by_hand and step.left != SCOPED
        }
        undone = [
            effect.command_id.partition(".")[2].partition("~")[0]
            for effect in sorted(effects, key=lambda effect: effect.at)
            if effect.command_id.endswith("~undo")
        ]
        undone = [path for path in undone if path in known]
        if undone != sorted(undone, key=lambda path: -place[path]):
            self.say(f"its participants undid the steps in the order {', '.join(undone)}")
