"""The orchestrator's one loop: read, decide, commit, relay; then again.

One plain thread without an event loop. While a commit is in flight the next batch gathers in
librdkafka by itself, so batches are as large as the load makes them and nothing ever waits on
purpose. Every way in (Kafka, timers, ctx.run, refusals of Kafka) becomes an `Item`; every way out
is a row that was committed first.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Sequence
from uuid import UUID

from kasaga_wire.crashpoints import crash_point

from ..engine.decide import Definitions
from ..engine.lifecycle import STUCK
from ..engine.model import Event, Faulted
from ..errors import RefusedByStore, SagaCodeError
from ..fleet import Fleet
from ..saga import App
from ..settings import Settings
from ..store.base import (
    Batch,
    Committed,
    LostShards,
    OutboxRow,
    RowKind,
    SagaWrite,
    Store,
    StoreUnavailable,
    Suspect,
)
from . import about, suspects
from .arrivals import Arrivals
from .clock import Clock
from .decider import Decider
from .functions import Functions
from .gather import MAX_ITEMS, Gatherer
from .holding import Holding
from .intake import CONTROL, REPLY, Input, Item, shard_of
from .locking import Locks
from .metrics import Metrics
from .ownership import Ownership
from .relay import Relay
from .rows import Addresses
from .runs import Runs
from .salvage import Salvage
from .shards import Shard
from .sleepers import Sleepers
from .source import Source
from .stuck_lines import StuckLines
from .tracing import NO_TRACER, Tracing
from .waking import woken
from .watchdog import Watchdog
from .work import Work

log = logging.getLogger("kasaga.orchestrator")

LONGEST_WAIT = 0.2
"""Seconds for which the loop waits for a record when nothing is due."""

FUNCTION_WAIT = 0.003
"""The same while functions of ctx.run are out: their answers can't wake the wait for Kafka."""

SWEEP_SECONDS = 1.0
"""Seconds after which an idle shard's acknowledged position and records are written down."""

FIRST_PAUSE, LONGEST_PAUSE = 0.02, 0.5
"""Seconds between two tries to reach Postgres."""

AWAY_LINES = 20
"""Tries for which one log line is enough."""

FLUSH_SECONDS, TRACES_SECONDS, SETTLE_SECONDS = 5.0, 0.3, 0.05
"""For which the end waits for what is on its way to Kafka, and a hand-over for the export of spans and for
what is on its way."""


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
        tracer: Tracing | None = None,
    ) -> None:
        self._app, self._settings, self._defs, self._where = app, settings, defs, where
        self._store, self._source, self._relay = store, source, relay
        self._clock, self._metrics = clock, metrics
        self._tracer = tracer or NO_TRACER
        self._runs = Runs(store, settings.max_live_sagas)
        self._functions = Functions.of(settings, defs.schemas, where.sampling)
        self._stuck_lines = StuckLines()
        self._watchdog = Watchdog(limit=settings.saga_step_seconds, kill_after=settings.saga_kill_seconds)
        self._holding = Holding(where.topics, defs.schemas)
        self._shards: dict[int, Shard] = {}
        self.fleet = Fleet(app.sagas)
        self._decider = Decider(
            app,
            fleet=self.fleet,
            defs=defs,
            where=where,
            shards=self._shards,
            store=store,
            runs=self._runs,
            watchdog=self._watchdog,
            metrics=metrics,
        )
        self._gatherer = Gatherer(
            self._shards,
            source=source,
            holding=self._holding,
            intake=self._decider.intake,
            functions=self._functions,
            relay=relay,
            runs=self._runs,
            max_timers=settings.max_timers,
        )
        self._arrivals = Arrivals(store, app, where.sealer)
        self._sleepers = Sleepers(store, settings.sleepers_in_memory)
        self._locks = Locks(store, self._shards, clock)
        self._ownership = Ownership(self, settings, store, source, relay, clock, self._sleepers)
        self._stop = threading.Event()
        self._carried: list[Input] = []
        """What has come in and isn't committed: this process's own items, and those of a turn that failed."""
        self._swept = self._turned = clock.seconds()
        self._away = 0
        """How often in a row Postgres hasn't answered."""
        self._store_answers = True
        self._stored_schemas = 0
        relay.now = clock.now

    # --- what ownership needs ---

    @property
    def shards(self) -> dict[int, Shard]:
        """The shards that this process owns, by number."""
        return self._shards

    @property
    def fingerprint(self) -> str:
        """The code that this process runs."""
        return self._defs.fingerprint

    def took(self, shard: Shard, rows: Sequence[OutboxRow], parked: Sequence[UUID]) -> None:
        """Begin with a shard just claimed: its open rows go to the timers and to the functions' threads."""
        self._shards[shard.number] = shard
        self._metrics.took(dead=shard.deaths > 0)
        for row in rows:
            shard.opened(row)
            if row.kind is RowKind.LOCAL:
                self._functions.add(row)
        self._carried += woken(shard.number, rows, parked, self._defs)
        if shard.convicted is not None:
            culprit, fault = str(shard.convicted.run_id), suspects.killed(shard.convicted)
            self._carried.append(Item(CONTROL, shard.number, culprit, "", fault, None))

    def gave_up(self, number: int) -> None:
        """Forget a shard, its sagas and its records."""
        self._shards.pop(number, None)
        self._runs.drop_shard(number)
        self._functions.drop_shard(number)
        self._holding.drop_shard(number)
        self._carried = [item for item in self._carried if shard_of(item) != number]

    def settle(self, shards: Sequence[Shard]) -> None:
        """Before a hand-over: wait a moment for Kafka, and write down what it has. The rest is sent again."""
        self._relay.settle(shards, self._clock, SETTLE_SECONDS)
        self._process([], self._clock.now(), [shard for shard in shards if self._relay.has_more(shard)])

    def hands_over(self) -> None:
        """Have exported what is there: a shard's next owner relies on that."""
        self._tracer.flush(TRACES_SECONDS)

    def inherited(self, shard: int, since: int, owner: str) -> None:
        """Have exported what the shard's last owner, who died, had decided since and perhaps not exported."""
        if self._tracer.exports:
            self._tracer.inherit(Salvage(self._store, shard, since, self._clock.now(), owner))

    # --- the loop ---

    def quiet_seconds(self) -> float:
        """Return how long the turn at hand has taken; any thread may ask."""
        return self._clock.seconds() - self._turned

    def ready(self) -> tuple[bool, dict[str, object]]:
        """Say whether Postgres and Kafka answer; any thread may ask."""
        silent = self._source.silent_for()
        about: dict[str, object] = {
            "shards": len(self._shards),
            "store": self._store_answers,
            "kafka_silent_seconds": round(silent, 1),
        }
        return self._store_answers and silent < self._settings.brokers_lost_seconds, about

    @property
    def next_due(self) -> int | None:
        """When the next timer, delayed record or function comes, in microseconds; None: nothing will."""
        if self._carried:
            return 0
        dues = [shard.wakes_at for shard in self._shards.values()]
        dues += (self._relay.next_due, self._functions.next_due, self._locks.next_due)
        return min((due for due in dues if due is not None), default=None)

    @property
    def functions_running(self) -> int:
        """How many functions of ctx.run are out in their threads."""
        return self._functions.running

    def stop(self) -> None:
        """Ask the loop to end, as soon as others have its shards; any thread may."""
        self._stop.set()

    @property
    def over(self) -> bool:
        """Whether it was asked to end, and turning on would be of no use to those who go on."""
        return self._stop.is_set() and self._ownership.gone

    def run(self) -> None:
        """Turn until `stop`; then hand the shards over, one by one where somebody is there to take them."""
        self._watchdog.start()
        try:
            while not self.over:
                self.once()
        finally:
            self.finish()

    def once(self) -> None:
        """Keep the leases, and turn once; without Postgres wait a moment."""
        try:
            self._turned = self._clock.seconds()
            if self._stop.is_set():
                self._ownership.leave()
            self._ownership.keep()
            self.turn()
            self._store_answers, self._away = True, 0
        except StoreUnavailable as error:
            self._ride_out("postgres is away", error)

    def finish(self) -> None:
        """Wait for what is on its way, write down how far it came, and hand the shards over."""
        left = self._relay.close(FLUSH_SECONDS)
        try:
            if self._shards:
                self._process([], self._clock.now(), list(self._shards.values()))
            self._ownership.give_all()
        except StoreUnavailable as error:
            log.warning("shards not handed over: their leases run out", extra={"error": str(error)})
        self._runs.close()
        self._functions.close()
        self._watchdog.stop()
        log.info("orchestrator stopped", extra={"unacknowledged": left})

    def _ride_out(self, what: str, error: Exception) -> None:
        self._metrics.store_lost()
        # A turn that needs nothing of the store would pass for its return.
        self._store_answers = False
        self._ownership.ask_again()
        self._turned = self._clock.seconds()
        if self._away % AWAY_LINES == 0:
            log.warning(what, extra={"error": str(error), "tries": self._away + 1})
        self._relay.poll(self._clock.now())
        wait = min(FIRST_PAUSE * 2 ** min(self._away, 10), LONGEST_PAUSE)
        self._away += 1
        self._clock.wait(self._stop if not self._stop.is_set() else threading.Event(), wait)

    def turn(self) -> None:
        """Read what is there, decide and commit it, hand it to Kafka."""
        if self._relay.unacknowledged > self._settings.max_unacknowledged:
            self._relay.poll(self._clock.now())
            self._clock.wait(threading.Event(), 0.005)
            return
        self._throttle()
        self._sleepers.keep(self._shards)
        self._carried += self._arrivals.look(self._shards)
        self._ownership.mend_truncated()
        self._carried += self._locks.ask()
        room = self._settings.max_batch - len(self._carried)
        records = self._source.read(room, self._wait(self._clock.now())) if room > 0 else []
        if records:
            crash_point("orchestrator.after_read")
        now = self._clock.now()
        self._carried = self._gatherer.gather(self._carried, records, now)
        plain = [item for item in self._carried if not self._suspects(item)]
        sweep = self._to_sweep(now)
        if plain or sweep:
            self._process(plain[:MAX_ITEMS], now, sweep)
        for item in [item for item in self._carried if self._suspects(item)]:
            self._process_alone(item, now)
        self._start_functions(self._clock.now())
        self._relay.poll(self._clock.now())
        self._runs.trim()

    def _throttle(self) -> None:
        """Pause starts under pressure, so that a burst of them can't delay replies into time-outs.

        Sleeping sagas await no reply: counted as well, many of them would keep all others out for as long.
        """
        in_flight = sum(shard.in_flight for shard in self._shards.values())
        self._source.pause_starts(in_flight > self._settings.max_in_flight)

    def _wait(self, now: int) -> float:
        """Return the seconds for which the loop may wait for a record."""
        if self._carried or self._relay.refusals:
            return 0.0
        wait = min(FUNCTION_WAIT if self._functions.running else LONGEST_WAIT, self._ownership.interval)
        due = self.next_due
        return wait if due is None else min(wait, max((due - now) / 1e6, 0.002))

    def _suspects(self, item: Input) -> bool:
        shard = self._shards.get(shard_of(item))
        return shard is not None and shard.suspects

    def _process_alone(self, item: Input, now: int) -> None:
        """Suspect mode: mark the saga, step it, commit; whoever dies in between leaves the mark."""
        shard = self._shards.get(shard_of(item))
        run_id = self._decider.run_id_of(item) if shard is not None else ""
        if shard is not None and run_id and isinstance(item, Item):
            self._mark(shard, run_id, item.event, now)
        self._process([item], now)

    def _mark(self, shard: Shard, run_id: str, event: Event | None, now: int) -> None:
        """Write down who is about to be stepped, and where it stands, so that the next owner may know."""
        for place in self._decider.places(shard.number, run_id, event):
            mark = Work(self._where, self._defs.fingerprint)
            mark.touch(shard)
            self._commit(mark, mark.batch(self._relay, now, Suspect(UUID(run_id), place), self._tracer))
            if self._shards.get(shard.number) is not shard:
                return

    def _to_sweep(self, now: int) -> list[Shard]:
        """Return the shards of which Kafka has acknowledged more than is written down."""
        seconds = self._clock.seconds()
        if seconds - self._swept < SWEEP_SECONDS:
            return []
        self._swept = seconds
        self._metrics.observe(
            self._shards.values(), self._relay, len(self._runs), self._functions, seconds, self._tracer
        )
        return [
            shard
            for shard in self._shards.values()
            if self._relay.has_more(shard) or (shard.untraced and self._tracer.mark(shard.number, now) == now)
        ]

    def _process(self, found: Sequence[Input], now: int, sweep: Iterable[Shard] = ()) -> None:
        """Decide a batch and commit it. Until then it stays carried: the next turn begins with it."""
        work = Work(self._where, self._defs.fingerprint)
        try:
            later = self._decider.decide(work, found, now)
        except StoreUnavailable:
            for each in work.records:
                self._runs.drop(*each.key)
            raise
        for shard in sweep:
            work.touch(shard)
        if work.shards:
            crash_point("orchestrator.before_commit")
            self._commit(work, work.batch(self._relay, now, None, self._tracer))
        handled = {id(item) for item in found} - {id(item) for item in later}
        self._carried = [item for item in self._carried if id(item) not in handled]

    # --- committing ---

    def _commit(self, work: Work, batch: Batch) -> None:
        """Write the batch, however often Postgres has to be asked, and hand its rows on."""
        while True:
            try:
                self._keep_schemas()
                began = self._clock.seconds()
                committed = self._store.commit(
                    batch, lambda write, why, tries: self._replace(work, write, why, tries)
                )
                self._metrics.commit_took(self._clock.seconds() - began)
                break
            except LostShards as lost:
                self._metrics.fenced()
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
            shard.offsets = work.offsets[written.shard]
            self._source.committed(shard.number, written.offsets)
            shard.acked_row, shard.sent_row = written.acked_seq, shard.next_row
        work.keep_replacements(committed.replaced)
        for write in work.written(batch):
            shard = self._shards[write.shard]
            for seq in write.closes:
                shard.closed(seq)
                self._relay.closed(write.shard, seq)
            for row in write.opens:
                shard.opened(row)
                if row.kind is RowKind.LOCAL:
                    self._functions.add(row)
            self._relay.send(write.opens, now)
            if write.frees:
                self._locks.freed()
        dropped = {(row.shard, row.seq) for row, _ in committed.dropped}
        work.keep(dropped)
        self._relay.send([row for row in batch.loose if (row.shard, row.seq) not in dropped], now)
        for row, why in committed.dropped:
            log.error("the store refused a record", extra={"topic": row.topic, "error": why})
        self._tell(work, committed, len(batch.sagas))

    def _tell(self, work: Work, committed: Committed, sagas: int) -> None:
        """Log, count and trace what the store has; let go of what has ended or isn't to be trusted."""
        for number in work.convicted & self._shards.keys():
            self._shards[number].convicted = None
        for key, parked in work.replacements.items():
            of = about.saga(parked.records[0].run.state) if parked.records else {"run_id": key[1]}
            extra = {**of, "error": committed.replaced.get(UUID(key[1]))}
            log.error("the store refused a saga's rows: it is STUCK", extra=extra)
            self._runs.drop(*key)
        happened = work.happened
        if self._functions.holds:
            for each in happened:
                if not each.run.state.held:
                    self._functions.went_on(*each.key)
        self._metrics.committed(happened, sagas)
        self._tracer.committed(happened)
        for each in happened:
            if each.run.state.final:
                self._runs.drop(*each.key)
            elif each.run.state.state == STUCK or each.run.state.swollen is not None:
                self._stuck_lines.tell(each, self._clock.seconds())

    def _replace(self, work: Work, write: SagaWrite, why: str, tries: int) -> SagaWrite:
        """Park a saga whose rows the store refuses: its events undecided, on the third try not even those."""
        run_id = str(write.run_id)
        fault = Faulted(RefusedByStore.code, why, RefusedByStore.default_remedy)
        key = (write.shard, run_id)
        events = work.events[key] if tries < 3 else []
        shard = self._shards[write.shard]
        parked = self._decider.parked(shard, run_id, events, fault, self._clock.now())
        work.replacements[key] = parked
        return parked.write

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
        unread = self._decider.load([(row.shard, str(row.run_id)) for row in rows])
        for row in rows:
            found = unread.get((row.shard, str(row.run_id)))
            if found is not None:
                self._functions.hold(row)
                self._carried.append(Item(REPLY, row.shard, str(row.run_id), "", found.fault, None))
            shard, run = self._shards.get(row.shard), self._runs.get(row.shard, str(row.run_id))
            if shard is None or run is None:
                continue
            if shard.suspects:
                self._mark(shard, str(row.run_id), None, now)
                if self._shards.get(row.shard) is not shard:
                    continue
            try:
                self._functions.start(row, run, self._defs, self._watchdog.guard)
            except SagaCodeError as error:
                fault = Faulted(error.code, error.message, error.remedy, self._defs.fingerprint)
                self._carried.append(Item(REPLY, row.shard, str(row.run_id), "", fault, None))
            if shard.suspects:
                self._process([], now, [shard])  # takes the mark back: the function may run for long
