"""The orchestrator's one loop: read, decide, commit, relay; then again.

One plain thread without an event loop. While a commit is in flight the next batch gathers in
librdkafka by itself, so batches are as large as the load makes them and nothing ever waits on
purpose. Every way in (Kafka, timers, ctx.run, refusals of Kafka) becomes an `Item`; every way out
is a row that was committed first.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable, Sequence
from uuid import UUID

from kasaga_wire.crashpoints import crash_point
from kasaga_wire.kafka import Record
from kasaga_wire.records import Answer

from ..engine.codec import HistoryUnreadable, decode
from ..engine.decide import Definitions, Ignored, Run, decide, record_parked
from ..engine.lifecycle import FINAL
from ..engine.model import (
    COMMAND,
    DEADLINE,
    SLEEP,
    Asked,
    CodeArrived,
    Event,
    Faulted,
    Fired,
    Started,
    Undeliverable,
)
from ..engine.model import Record as Decided
from ..errors import EngineBug, KilledProcess, RefusedByStore, SagaCodeError
from ..saga import App
from ..settings import Settings
from ..store.base import (
    Batch,
    Committed,
    LostShards,
    OutboxRow,
    RowKind,
    SagaRow,
    SagaWrite,
    Store,
    StoreUnavailable,
)
from . import answers
from .clock import Clock
from .functions import Functions
from .intake import Dead, Intake, Item, Misplaced
from .metrics import Metrics
from .ownership import Ownership
from .relay import Relay
from .rows import Addresses, add_record, split_step
from .runs import Runs
from .shards import PARDON_AFTER, Due, Shard
from .source import Source
from .watchdog import Watchdog
from .work import Work

log = logging.getLogger("kasaga.orchestrator")

LONGEST_WAIT = 0.2
"""Seconds for which the loop waits for a record when nothing is due."""

FUNCTION_WAIT = 0.003
"""The same while functions of ctx.run are out: their answers can't wake the wait for Kafka."""

SWEEP_SECONDS = 1_000_000
"""Microseconds after which an idle shard's acknowledged position and records are written down."""


class Loop:
    """Everything here belongs to the thread that calls `run`."""

    def __init__(
        self,
        app: App,
        settings: Settings,
        *,
        defs: Definitions,
        where: Addresses,
        store: Store,
        source: Source,
        relay: Relay,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self._app, self._settings, self._defs, self._where = app, settings, defs, where
        self._store, self._source, self._relay, self._clock, self._metrics = (
            store,
            source,
            relay,
            clock,
            metrics,
        )
        self._runs = Runs(store, settings.max_live_sagas)
        self._functions = Functions(settings.run_threads, defs.schemas, settings.max_payload_bytes)
        self._watchdog = Watchdog(limit=settings.saga_step_seconds, kill_after=settings.saga_kill_seconds)
        self._intake = Intake(where.topics, where.shards, defs.schemas, answers.MAX_START_AGE_MS)
        self._shards: dict[int, Shard] = {}
        self._ownership = Ownership(self, settings, store, source, relay, clock)
        self._stop = threading.Event()
        self._carried: list[Item] = []
        """Items of this process's own making, for the next turn."""
        self._swept = 0
        self._turned = time.monotonic()
        self._store_answers = True
        self._stored_schemas = 0
        relay.now = clock.now

    # --- what ownership needs ---

    @property
    def shards(self) -> dict[int, Shard]:
        """The shards that this process owns, by number."""
        return self._shards

    def took(self, shard: Shard, rows: Sequence[OutboxRow]) -> None:
        """Begin with a shard just claimed: its open rows go to the timers and to the functions' threads."""
        self._shards[shard.number] = shard
        for row in rows:
            shard.opened(row)
            if row.kind is RowKind.LOCAL:
                self._functions.add(row)
        for run_id in self._store.parked(shard.number, self._defs.fingerprint):
            event = CodeArrived(self._defs.fingerprint)
            self._carried.append(Item(2, shard.number, str(run_id), "", event, None))
        if shard.convicted is not None:
            self._carried.append(Item(0, shard.number, str(shard.convicted), "", _killed(), None))

    def gave_up(self, number: int) -> None:
        """Forget a shard, its sagas and its records."""
        self._shards.pop(number, None)
        self._runs.drop_shard(number)
        self._carried = [item for item in self._carried if item.shard != number]

    # --- the loop ---

    def quiet_seconds(self) -> float:
        """Return how long the turn at hand has taken; any thread may ask."""
        return time.monotonic() - self._turned

    def ready(self) -> tuple[bool, dict[str, object]]:
        """Say whether Postgres and Kafka answer; any thread may ask."""
        silent = self._source.silent_for()
        about: dict[str, object] = {
            "shards": len(self._shards),
            "store": self._store_answers,
            "kafka_silent_seconds": round(silent, 1),
        }
        return self._store_answers and silent < self._settings.kafka_lost_seconds, about

    def stop(self) -> None:
        """Ask the loop to end after the turn at hand; any thread may."""
        self._stop.set()

    def run(self) -> None:
        """Turn until `stop`; then hand the shards over."""
        self._watchdog.start()
        try:
            while not self._stop.is_set():
                try:
                    self._turned = time.monotonic()
                    self._ownership.keep()
                    self.turn()
                    self._store_answers = True
                except StoreUnavailable as error:
                    self._ride_out("postgres is away", error)
        finally:
            self._finish()

    def _finish(self) -> None:
        left = self._relay.close(5.0)
        try:
            self._ownership.give_all()
        except StoreUnavailable as error:
            log.warning("shards not handed over: their leases run out", extra={"error": str(error)})
        self._runs.close()
        self._functions.close()
        self._watchdog.stop()
        log.info("orchestrator stopped", extra={"unacknowledged": left})

    def _ride_out(self, what: str, error: Exception) -> None:
        self._metrics.store_lost()
        self._store_answers = False
        self._turned = time.monotonic()
        log.warning(what, extra={"error": str(error)})
        self._relay.poll(self._clock.now())
        self._stop.wait(0.5)

    def turn(self) -> None:
        """Read what is there, decide and commit it, hand it to Kafka."""
        if self._relay.unacknowledged > self._settings.max_unacknowledged:
            self._relay.poll(self._clock.now())
            self._stop.wait(0.005)
            return
        self._throttle()
        self._mend_truncated()
        records = self._source.read(self._settings.max_batch, self._wait(self._clock.now()))
        crash_point("orchestrator.after_read")
        now = self._clock.now()
        found = self._gather(records, now)
        plain = [item for item in found if not self._suspects(item)]
        if plain or self._to_sweep(now):
            self._process(plain, now)
        if len(plain) != len(found):
            for item in found:
                if self._suspects(item):
                    self._process_alone(item, now)
        self._start_functions(self._clock.now())
        self._relay.poll(self._clock.now())
        self._runs.trim()

    def _mend_truncated(self) -> None:
        """Kafka has lost records of a shard: ask again for every answer that is open; the inboxes have them."""
        for number, position in self._source.take_truncated().items():
            shard = self._shards.get(number)
            if shard is not None:
                shard.rewound(position)
                self._relay.send(self._store.open_rows(number), self._clock.now())

    def _throttle(self) -> None:
        """Pause starts under pressure, so that a burst of them can't delay replies into time-outs."""
        open_rows = sum(len(shard.open) for shard in self._shards.values())
        self._source.pause_starts(open_rows > self._settings.max_in_flight)

    def _wait(self, now: int) -> float:
        """Return the seconds for which the loop may wait for a record."""
        if self._carried or self._relay.refusals:
            return 0.0
        wait = FUNCTION_WAIT if self._functions.running else LONGEST_WAIT
        dues = [shard.next_due for shard in self._shards.values()]
        for due in (*dues, self._relay.next_due, self._functions.next_due):
            if due is not None:
                wait = min(wait, max((due - now) / 1e6, 0.002))
        return wait

    def _gather(self, records: list[Record], now: int) -> list[Item | Misplaced | Dead]:
        """Bring everything that has happened into the order in which it is decided."""
        found: list[Item | Misplaced | Dead] = list(self._intake.read(records, now // 1000))
        found += self._functions.take()
        found += self._carried
        self._carried = []
        while self._relay.refusals:
            refusal = self._relay.refusals.popleft()
            step, form = split_step(refusal.step)
            event = Undeliverable(step, form, refusal.attempt, refusal.error)
            found.append(Item(1, refusal.shard, str(refusal.run_id), "", event, None))
        for shard in self._shards.values():
            self._source.note(shard)
            if shard.ready(now, self._source.watermark):
                found += [_timer(shard, due) for due in shard.pop_due(now, self._settings.max_timers)]
        found.sort(key=lambda item: item.order if isinstance(item, Item) else 2)
        return found

    def _suspects(self, item: Item | Misplaced | Dead) -> bool:
        shard = self._shards.get(item.shard) if isinstance(item, Item) else None
        return shard is not None and shard.suspects

    def _process_alone(self, item: Item | Misplaced | Dead, now: int) -> None:
        """Suspect mode: mark the saga, step it, commit; whoever dies in between leaves the mark."""
        shard = self._shards.get(item.shard) if isinstance(item, Item) else None
        if shard is None or not isinstance(item, Item):
            return
        run_id = item.run_id or self._runs.id_of(item.saga_id)
        if run_id:
            mark = Work(self._where, self._defs.fingerprint)
            mark.touch(shard)
            self._commit(mark, mark.batch(self._relay, now, UUID(run_id)))
        self._process([item], now)

    def _to_sweep(self, now: int) -> bool:
        if now - self._swept < SWEEP_SECONDS:
            return False
        self._swept = now
        self._metrics.observe(self._shards.values(), self._relay, len(self._runs), self._functions.running)
        return any(
            self._relay.acknowledged(shard.number, shard.next_row) != shard.acked_row
            for shard in self._shards.values()
        )

    def _process(self, found: Sequence[Item | Misplaced | Dead], now: int) -> None:
        """Decide a batch and commit it."""
        work = Work(self._where, self._defs.fingerprint)
        rows = self._prepare(found)
        for item in found:
            if isinstance(item, Item):
                self._decide(work, item, rows, now)
            else:
                self._set_aside(work, item, now)
        if not found:
            for shard in self._shards.values():
                work.touch(shard)
        if work.shards:
            crash_point("orchestrator.before_commit")
            self._commit(work, work.batch(self._relay, now))

    # --- deciding ---

    def _prepare(self, found: Iterable[Item | Misplaced | Dead]) -> dict[str, SagaRow]:
        """Load what the batch needs, in at most two queries; return the saga rows that were looked up."""
        ask: list[tuple[int, str]] = []
        load: list[tuple[int, str]] = []
        for item in found:
            if not isinstance(item, Item) or item.shard not in self._shards:
                continue
            if isinstance(item.event, Started) or not item.run_id:
                if self._runs.id_of(item.saga_id) is None:
                    ask.append((item.shard, item.saga_id))
            elif self._runs.get(item.run_id) is None:
                load.append((item.shard, item.run_id))
        rows = self._store.find(ask) if ask else {}
        load += [(row.shard, str(row.run_id)) for row in rows.values() if row.state not in FINAL]
        if load:
            self._load(load)
        return rows

    def _load(self, wanted: list[tuple[int, str]]) -> None:
        try:
            self._runs.load(wanted)
        except HistoryUnreadable as error:
            if len(wanted) == 1:
                log.error("a history can't be read", extra={"run_id": wanted[0][1], "error": str(error)})
                return
            for one in wanted:
                self._load([one])

    def _decide(self, work: Work, item: Item, rows: dict[str, SagaRow], now: int) -> None:
        """Let one thing happen to one saga."""
        shard = self._shards.get(item.shard)
        if shard is None:
            return
        if item.source is not None:
            self._source.done(shard, item.source)
            work.touch(shard)
        if isinstance(item.event, Started):
            run, event = self._starting(work, shard, item, item.event, rows, now)
        else:
            run_id = item.run_id or self._runs.id_of(item.saga_id)
            run, event = self._runs.get(run_id) if run_id else None, item.event
        if run is None or event is None:
            if isinstance(item.event, Asked):
                self._answer(
                    work, shard, answers.to_absent(item, item.event, rows.get(item.saga_id)), item.event, now
                )
            elif event is not None:
                self._metrics.ignored("unknown saga")
            return
        self._step(work, shard, run, event, now)

    def _step(self, work: Work, shard: Shard, run: Run, event: Event, now: int) -> None:
        shard.quiet += 1
        run_id = run.state.run_id
        self._watchdog.stepping = run_id
        if shard.convicted is not None and str(shard.convicted) == run_id:
            shard.convicted = None
            fault = event if isinstance(event, Faulted) else _killed()
            events = [] if isinstance(event, Faulted) else [event]
            for record in record_parked(self._defs, run, events, fault, at=now, row=shard.next_row):
                work.add(shard, run, record)
            return
        try:
            out = decide(self._defs, run, event, at=now, row=shard.next_row, guard=self._watchdog.guard)
        except Exception as error:
            log.exception("a bug in the engine: the saga is parked", extra={"run_id": run_id})
            work.events.setdefault(run_id, []).append(event)
            fault = Faulted(EngineBug.code, f"{type(error).__name__}: {error}", EngineBug.default_remedy)
            work.writes[run_id] = self._parked(shard, run_id, work.events[run_id], fault)
            work.touch(shard)
            return
        if isinstance(out, Decided):
            if isinstance(event, Started):
                self._runs.started(run)
            work.add(shard, run, out)
            if isinstance(event, Asked) and event.action == "watch":
                self._answer(work, shard, answers.running(run.state, event), event, now)
        elif isinstance(out, Ignored):
            self._metrics.ignored(out.why)
            if isinstance(event, Asked):
                self._answer(work, shard, answers.running(run.state, event), event, now)
        elif isinstance(event, Asked):
            self._answer(work, shard, answers.refused(run.state, event, out), event, now)

    def _starting(
        self, work: Work, shard: Shard, item: Item, event: Started, rows: dict[str, SagaRow], now: int
    ) -> tuple[Run | None, Event | None]:
        """Begin a saga, unless its id is taken: then a duplicate is told so, or watches the one that is there."""
        known = self._runs.id_of(item.saga_id)
        run = self._runs.get(known) if known else None
        if run is None and item.saga_id not in rows:
            run = Run(item.run_id)
            self._runs.add(item.shard, run)
            version = event.version or self._app.latest(event.name)
            return run, event._replace(version=version)
        answer = answers.to_second_start(item, event, run.state if run else None, rows.get(item.saga_id))
        if answer is None:
            self._metrics.ignored("duplicate start")
            return None, None
        ask = Asked(item.run_id, "watch", event.source, "", "", "", event.reply_to)
        self._answer(work, shard, answer, ask, now)
        return (
            (run, ask) if run is not None and answer.what == "duplicate" and event.reply_to else (None, None)
        )

    def _answer(self, work: Work, shard: Shard, body: Answer, ask: Asked, now: int) -> None:
        if ask.reply_to:
            work.add_loose(
                shard, lambda seq: answers.row(body, ask.reply_to, seq, shard.number, now, self._where)
            )

    def _set_aside(self, work: Work, item: Misplaced | Dead, now: int) -> None:
        """Forward a record that is in the wrong partition; dead-letter one that nobody can read."""
        shard = self._shards.get(item.record.partition)
        if shard is None:
            return
        self._source.done(shard, item.record)
        if isinstance(item, Dead):
            log.warning(
                "dead letter",
                extra={"topic": item.record.topic, "offset": item.record.offset, "error": str(item.error)},
            )
            self._metrics.dead_letter()
            work.add_loose(shard, lambda seq: answers.dead_letter(item, seq, shard.number, now, self._where))
        else:
            work.add_loose(shard, lambda seq: answers.forward(item, seq, shard.number))

    # --- committing ---

    def _commit(self, work: Work, batch: Batch) -> None:
        """Write the batch, however often Postgres has to be asked, and hand its rows on."""
        self._keep_schemas()
        while True:
            try:
                committed = self._store.commit(
                    batch, lambda write, why, tries: self._replace(work, write, why, tries)
                )
                break
            except LostShards as lost:
                self._ownership.lost(lost.shards)
                work.lose(set(lost.shards))
                if not work.shards:
                    return
                batch.shards = [write for write in batch.shards if write.shard not in lost.shards]
                batch.sagas, batch.loose = list(work.writes.values()), work.loose
                batch.acked = [(shard, seq) for shard, seq in batch.acked if shard not in lost.shards]
            except StoreUnavailable as error:
                self._ride_out("postgres is away: the batch waits", error)
                if self._stop.is_set() and self._ownership.expired():
                    raise
        crash_point("orchestrator.after_commit")
        self._committed(work, batch, committed)

    def _committed(self, work: Work, batch: Batch, committed: Committed) -> None:
        self._clock.sync(committed.now)
        now = self._clock.now()
        for written in batch.shards:
            shard = self._shards[written.shard]
            shard.commit_seq = written.commit_seq
            shard.acked_row = written.acked_seq
            if shard.suspects and shard.quiet >= PARDON_AFTER:
                self._store.pardon(shard.number, shard.token)
                shard.suspects = False
        for write in batch.sagas:
            shard = self._shards[write.shard]
            for seq in write.closes:
                shard.closed(seq)
                self._relay.closed(write.shard, seq)
            for row in write.opens:
                shard.opened(row)
                if row.kind is RowKind.LOCAL:
                    self._functions.add(row)
            self._relay.send(write.opens, now)
        self._relay.send(batch.loose, now)
        for run_id, why in committed.replaced.items():
            log.error(
                "the store refused a saga's rows: it is STUCK", extra={"run_id": str(run_id), "error": why}
            )
            self._runs.drop(str(run_id))
        self._metrics.committed(work.records, len(batch.sagas))
        for run, _ in work.records:
            if run.state.final:
                self._runs.drop(run.state.run_id)

    def _replace(self, work: Work, write: SagaWrite, why: str, tries: int) -> SagaWrite:
        """Park a saga whose rows the store refuses: its events undecided, on the third try not even those."""
        run_id = str(write.run_id)
        fault = Faulted(RefusedByStore.code, why, RefusedByStore.default_remedy)
        events = work.events[run_id] if tries < 3 else []
        return self._parked(self._shards[write.shard], run_id, events, fault)

    def _parked(self, shard: Shard, run_id: str, events: Sequence[Event], fault: Faulted) -> SagaWrite:
        """Return the rows that park a saga as it was before `events`, with these undecided."""
        self._runs.drop(run_id)
        rows = self._store.load([(shard.number, UUID(run_id))]).get(UUID(run_id), [])
        run = Run(run_id, [decode(row.seq, row.body) for row in rows])
        parked = SagaWrite(shard.number, UUID(run_id))
        for record in record_parked(self._defs, run, events, fault, at=self._clock.now(), row=shard.next_row):
            add_record(parked, run.state, record, self._where, self._defs.fingerprint)
            shard.next_row = run.state.row
        return parked

    def _keep_schemas(self) -> None:
        """Keep every schema that a history may name, before the history does."""
        if len(self._defs.schemas) != self._stored_schemas:
            known = list(self._defs.schemas)
            self._store.put_schemas({schema.hash: schema.json for schema in known})
            self._stored_schemas = len(known)

    # --- ctx.run ---

    def _start_functions(self, now: int) -> None:
        rows = [
            row for row in self._functions.due(now) if row.shard in self._shards and row.run_id is not None
        ]
        if not rows:
            return
        self._load([(row.shard, str(row.run_id)) for row in rows])
        for row in rows:
            run = self._runs.get(str(row.run_id))
            if run is None:
                continue
            try:
                self._functions.start(row, run, self._defs, self._watchdog.guard)
            except SagaCodeError as error:
                fault = Faulted(error.code, error.message, error.remedy, self._defs.fingerprint)
                self._carried.append(Item(1, row.shard, str(row.run_id), "", fault, None))


def _killed() -> Faulted:
    error = KilledProcess("the process died each time it stepped this saga")
    return Faulted(error.code, error.message, error.remedy)


def _timer(shard: Shard, due: Due) -> Item:
    step, form = split_step(due.step)
    if due.kind is RowKind.TIMER:
        form = SLEEP if step else DEADLINE
    return Item(2, shard.number, str(due.run_id), "", Fired(step, form or COMMAND), None)
