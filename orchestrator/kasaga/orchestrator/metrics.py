"""Every metric of the orchestrator, in one place. Counted once a batch or sampled, never once a record.

`orchestrator/metrics.md` has the table of them. A process counts what it does and the shards that it owns, so
that the sum over all processes is the whole.
"""

from __future__ import annotations

import time
from collections import Counter as Tally
from collections.abc import Iterable, Mapping, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from kasaga_wire import __version__

from ..engine.driver import GRAVEYARD
from ..engine.keylocks import LOCK
from ..engine.lifecycle import FINAL, PAUSED
from ..engine.model import (
    MESSAGES,
    SCOPE,
    SIGNAL,
    Clear,
    Decision,
    Hold,
    Move,
    Record,
    Send,
    Settle,
    Signalled,
)
from ..engine.renewals import Continue, Swell
from ..engine.run import Run
from ..store.base import Attention, SagaState
from .functions import Functions
from .relay import Relay
from .shards import Shard
from .tracing import Tracing
from .work import Happened

BATCHES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)
STEP_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 3600)
SAGA_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 3600, 86400)
COMMIT_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)

OTHER = "other"
"""Stands for names of sagas that the App doesn't have: whoever starts sagas could make up any number."""


class Metrics:
    """The metrics of one process; `registry` is what /metrics shows."""

    def __init__(self, sagas: Iterable[str] = ()) -> None:
        """`sagas`: the App's; those of other names share one label."""
        self.registry = CollectorRegistry()
        self._sagas = frozenset(sagas)
        self._drained: dict[str, float] = {}
        self._heads: dict[int, tuple[int, float]] = {}
        self._shown: set[tuple[str, str]] = set()
        self._far = 0
        ProcessCollector(registry=self.registry)
        self._count_sagas(self.registry)
        self._count_deleted(self.registry)
        self._count_work(self.registry)
        self._measure_process(self.registry)

    def _count_sagas(self, reg: CollectorRegistry) -> None:
        self._started = Counter("kasaga_sagas_started_total", "Sagas begun", ["saga"], registry=reg)
        self._moves = Counter(
            "kasaga_saga_moves_total", "Sagas by the state they came to", ["saga", "state"], registry=reg
        )
        self._saga_seconds = Histogram(
            "kasaga_saga_seconds",
            "From a saga's start to its end, by how it ended",
            ["saga", "state"],
            buckets=SAGA_SECONDS,
            registry=reg,
        )
        self._renewed = Counter(
            "kasaga_runs_continued_total", "Runs that went on as new ones", ["saga"], registry=reg
        )
        self._swollen = Counter(
            "kasaga_histories_long_total", "Runs whose history has become long", ["saga"], registry=reg
        )
        self._attention = Gauge(
            "kasaga_sagas",
            "Sagas that neither just run nor have ended, by state; every 10 s",
            ["saga", "state"],
            registry=reg,
        )
        self._stuck_age = Gauge(
            "kasaga_stuck_oldest_seconds", "Age of the oldest STUCK saga; 0 where none is", registry=reg
        )
        self._waiting = Gauge(
            "kasaga_sagas_waiting", "Sagas that wait for an answer or a time; every 10 s", registry=reg
        )
        self._live = Gauge("kasaga_live_sagas", "Sagas in memory", registry=reg)
        self._unclosed = Gauge(
            "kasaga_coroutines_unclosed", "Evicted coroutines whose code refuses to end", registry=reg
        )
        self._sent = Counter(
            "kasaga_commands_sent_total", "Attempts by command and form", ["type", "form"], registry=reg
        )
        self._settled = Counter(
            "kasaga_steps_settled_total", "Steps by what is known of them", ["type", "outcome"], registry=reg
        )
        self._seconds = Histogram(
            "kasaga_step_seconds",
            "From a step's scheduling to its outcome, all attempts together",
            ["type"],
            buckets=STEP_SECONDS,
            registry=reg,
        )
        self._cleared = Counter(
            "kasaga_undos_total", "Steps that need no undo any more, by how that came", ["how"], registry=reg
        )
        self._messages = Counter(
            "kasaga_messages_total",
            "Signals and updates: recorded, or refused",
            ["kind", "outcome"],
            registry=reg,
        )
        self._running = Gauge("kasaga_functions_running", "Functions of ctx.run at work", registry=reg)
        self._abandoned = Gauge(
            "kasaga_functions_abandoned",
            "Functions of ctx.run given up and still at work: each keeps a thread",
            registry=reg,
        )

    def _count_deleted(self, reg: CollectorRegistry) -> None:
        self._objects = Counter(
            "kasaga_payload_objects_total",
            "Objects of large payloads, and whether they could be",
            ["done", "outcome"],
            registry=reg,
        )
        self._deleted = Counter("kasaga_sagas_deleted_total", "Finished sagas deleted", registry=reg)
        self._kept = Counter(
            "kasaga_retention_rounds_failed_total", "Rounds of deleting that were broken off", registry=reg
        )
        self._archived = Counter(
            "kasaga_sagas_archived_total", "Finished sagas written to the archive", registry=reg
        )
        self._archived_bytes = Counter(
            "kasaga_archive_bytes_total", "Bytes written to the archive, compressed", registry=reg
        )
        self._not_archived = Counter(
            "kasaga_archive_failures_total", "Objects that the archive did not take", registry=reg
        )
        self._archiving_since: float | None = None
        Gauge(
            "kasaga_archive_held_back_seconds",
            "For how long the archive hasn't taken what was to be deleted; 0 when it takes it",
            registry=reg,
        ).set_function(self._held_back)

    def _count_work(self, reg: CollectorRegistry) -> None:
        self._ignored = Counter(
            "kasaga_inputs_ignored_total",
            "Inputs that changed nothing: duplicates and what came late",
            ["why"],
            registry=reg,
        )
        self._heard = Counter(
            "kasaga_listener_records_total",
            "Records of topics that sagas listen to, by what came of them",
            ["topic", "outcome"],
            registry=reg,
        )
        self._unheard = Gauge(
            "kasaga_listener_topics_missing",
            "1 for a topic that sagas listen to and that isn't there",
            ["topic"],
            registry=reg,
        )
        self._fired = Counter(
            "kasaga_schedule_firings_total",
            "Due times of schedules, by what came of them",
            ["schedule", "outcome"],
            registry=reg,
        )
        self._dead = Counter("kasaga_dead_letters_total", "Inputs that nobody could read", registry=reg)
        self._lag = Gauge(
            "kasaga_input_lag_records",
            "Records of an input topic that wait to be decided; every 10 s",
            ["topic"],
            registry=reg,
        )
        self._batch = Histogram("kasaga_batch_sagas", "Sagas in one commit", buckets=BATCHES, registry=reg)
        self._commit = Histogram(
            "kasaga_commit_seconds",
            "One commit, tries that failed left out",
            buckets=COMMIT_SECONDS,
            registry=reg,
        )
        self._fenced = Counter(
            "kasaga_fence_refusals_total", "Commits refused since a shard had another owner", registry=reg
        )
        self._lost = Counter(
            "kasaga_store_unavailable_total", "Times that Postgres did not answer", registry=reg
        )
        self._open = Gauge(
            "kasaga_outbox_open_rows",
            "Commands and timers that wait for an answer or their time",
            registry=reg,
        )
        self._unacked = Gauge(
            "kasaga_outbox_unacknowledged", "Records handed to Kafka and not acknowledged", registry=reg
        )
        self._unacked_age = Gauge(
            "kasaga_outbox_oldest_seconds",
            "For how long the oldest unacknowledged record has been so",
            registry=reg,
        )
        self._produced = Counter("kasaga_relay_produced_total", "Records produced", registry=reg)
        self._failed = Counter("kasaga_relay_failed_total", "Deliveries that failed", registry=reg)
        self._stalls = Counter(
            "kasaga_partition_stalls_total", "Partitions that were found not to be read", registry=reg
        )

    def _measure_process(self, reg: CollectorRegistry) -> None:
        self._shards = Gauge("kasaga_shards_owned", "Shards that this process owns", registry=reg)
        self._taken = Counter(
            "kasaga_shards_taken_total", "Shards taken, by what their last owner did", ["how"], registry=reg
        )
        self._lacking = Gauge(
            "kasaga_sagas_lacking_version",
            "Sagas that wait for a process that has their version",
            registry=reg,
        )
        self._suspects = Gauge("kasaga_shards_suspect", "Owned shards in suspect mode", registry=reg)
        self._cpu = Counter(
            "kasaga_loop_cpu_seconds_total",
            "CPU time of the loop's thread; at 1 a second the process is full",
            registry=reg,
        )
        self._spans = Counter(
            "kasaga_spans_total", "Spans exported, failed and dropped", ["result"], registry=reg
        )
        Gauge("kasaga_build_info", "The release; always 1", ["version"], registry=reg).labels(
            __version__
        ).set(1)

    def took(self, *, dead: bool) -> None:
        """A shard was taken; `dead`: its last owner didn't hand it over."""
        self._taken.labels("died" if dead else "handed over").inc()

    def ignored(self, why: str) -> None:
        """An input changed nothing."""
        self._ignored.labels(why).inc()

    def dead_letter(self) -> None:
        """An input was unreadable."""
        self._dead.inc()

    def heard(self, topic: str, outcome: str) -> None:
        """A record was read that sagas listen to; in the listener's thread."""
        self._heard.labels(topic, outcome).inc()

    def unheard(self, topics: Mapping[str, bool]) -> None:
        """Of each topic that sagas listen to, whether it is missing."""
        for topic, missing in topics.items():
            self._unheard.labels(topic).set(missing)

    def fired(self, schedule: str, outcome: str) -> None:
        """A due time of a schedule is settled; in the scheduler's thread."""
        self._fired.labels(schedule, outcome).inc()

    def store_lost(self) -> None:
        """Postgres did not answer."""
        self._lost.inc()

    def stalled(self) -> None:
        """A partition was assigned, and not read."""
        self._stalls.inc()

    def deleted(self, sagas: int) -> None:
        """Finished sagas were deleted; in the thread of retention."""
        self._deleted.inc(sagas)

    def not_deleted(self) -> None:
        """A round of deleting was broken off; in the thread of retention."""
        self._kept.inc()

    def object(self, done: str, well: bool, times: int = 1) -> None:
        """A large payload was (`done`) `write`, `read` or `delete`, or couldn't be."""
        self._objects.labels(done, "done" if well else "failed").inc(times)

    def archiving(self) -> None:
        """An object is on its way to the archive; in the thread of retention, as the next three."""
        if self._archiving_since is None:
            self._archiving_since = time.monotonic()

    def archived(self, sagas: int, size: int) -> None:
        """The archive has taken so many sagas and bytes."""
        self._archiving_since = None
        self._archived.inc(sagas)
        self._archived_bytes.inc(size)

    def not_archived(self) -> None:
        """The archive has not taken an object."""
        self._not_archived.inc()

    def off_duty(self) -> None:
        """Another process deletes, and says how the archive is doing."""
        self._archiving_since = None

    def _held_back(self) -> float:
        since = self._archiving_since
        return 0.0 if since is None else time.monotonic() - since

    def fenced(self) -> None:
        """A commit was refused: somebody else has a shard of it."""
        self._fenced.inc()

    def commit_took(self, seconds: float) -> None:
        """A commit was answered."""
        self._commit.observe(seconds)

    def observe(
        self,
        shards: Iterable[Shard],
        relay: Relay,
        live: int,
        functions: Functions,
        now: float,
        tracer: Tracing,
    ) -> None:
        """Sample what is cheap; called by the loop's thread. `now`: monotonic seconds."""
        owned = list(shards)
        self._shards.set(len(owned))
        self._suspects.set(sum(shard.suspects for shard in owned))
        self._lacking.set(sum(len(shard.lacking) for shard in owned))
        self._open.set(sum(len(shard.open) for shard in owned) + self._far)
        self._unacked.set(relay.unacknowledged)
        self._unacked_age.set(self._oldest(owned, relay, now))
        self._live.set(live)
        self._unclosed.set(len(GRAVEYARD))
        self._running.set(functions.running)
        self._abandoned.set(functions.abandoned)
        self._drain("produced", self._produced, relay.produced)
        self._drain("failed", self._failed, relay.failed)
        self._drain("cpu", self._cpu, time.thread_time())
        for result, spans in zip(("exported", "failed", "dropped"), tracer.totals, strict=True):
            self._drain(f"spans {result}", self._spans.labels(result), spans)

    def _drain(self, name: str, counter: Counter, total: float) -> None:
        """Bring a counter up to a total that somebody else counts."""
        counter.inc(max(0.0, total - self._drained.get(name, 0.0)))
        self._drained[name] = total

    def _oldest(self, shards: Sequence[Shard], relay: Relay, now: float) -> float:
        """To the second: the same record is still the first one, one sweep after the other."""
        heads: dict[int, tuple[int, float]] = {}
        for shard in shards:
            first = relay.acknowledged(shard.number, shard.sent_row) + 1
            if first < shard.sent_row:
                known, since = self._heads.get(shard.number, (-1, now))
                heads[shard.number] = (first, since if known == first else now)
        self._heads = heads
        return max((now - since for _, since in heads.values()), default=0.0)

    def sampled(self, attention: Iterable[Attention], waiting: int, far: int, lag: Mapping[str, int]) -> None:
        """Show what the census has found; `far`: open rows that aren't in memory."""
        oldest = 0.0
        sagas: Tally[tuple[str, str]] = Tally()
        for each in attention:
            sagas[self._label(each.name), each.state.value] += each.sagas
            if each.state is SagaState.STUCK:
                oldest = max(oldest, each.oldest)
        for gone in self._shown - sagas.keys():
            self._attention.remove(*gone)
        self._shown = set(sagas)
        for labels, number in sagas.items():
            self._attention.labels(*labels).set(number)
        self._stuck_age.set(oldest)
        self._far = far
        self._waiting.set(waiting + far)
        for topic, records in lag.items():
            self._lag.labels(topic).set(records)

    def _label(self, saga: str) -> str:
        return saga if saga in self._sagas or not self._sagas else OTHER

    def committed(self, records: Sequence[Happened], sagas: int) -> None:
        """Count what a batch has decided."""
        if not records:
            return
        started: Tally[tuple[str, ...]] = Tally()
        moves: Tally[tuple[str, ...]] = Tally()
        sent: Tally[tuple[str, ...]] = Tally()
        settled: Tally[tuple[str, ...]] = Tally()
        cleared: Tally[tuple[str, ...]] = Tally()
        for _, run, record, _, steps in records:
            if isinstance(record.event, MESSAGES):
                self._messages_of(record)
            if record.seq == 1:
                started[self._label(run.state.name),] += 1
            for decision in record.decisions:
                if isinstance(decision, Send):
                    sent[decision.type, decision.form] += 1
                elif isinstance(decision, Settle):
                    step = steps[decision.step]
                    type_ = step.kind if step.kind in (SIGNAL, SCOPE, LOCK) else step.type or step.kind
                    settled[type_, decision.outcome] += 1
                    self._seconds.labels(type_).observe((record.at - step.first_at) / 1e6)
                elif isinstance(decision, Move):
                    moves[self._label(run.state.name), decision.state] += 1
                    if decision.state in FINAL:
                        seconds = (record.at - run.state.started_at) / 1e6
                        self._saga_seconds.labels(self._label(run.state.name), decision.state).observe(
                            seconds
                        )
                elif isinstance(decision, Hold):
                    moves[self._label(run.state.name), PAUSED] += 1
                elif isinstance(decision, Clear):
                    cleared[decision.how,] += 1
                else:
                    self._lives_on(decision, run)
        _add(self._started, started)
        _add(self._moves, moves)
        _add(self._sent, sent)
        _add(self._settled, settled)
        _add(self._cleared, cleared)
        self._batch.observe(sagas)

    def _lives_on(self, decision: Decision, run: Run) -> None:
        """Count a new run, or a history that has become long."""
        if isinstance(decision, Continue):
            self._renewed.labels(self._label(run.state.name)).inc()
        elif isinstance(decision, Swell):
            self._swollen.labels(self._label(run.state.name)).inc()

    def _messages_of(self, record: Record) -> None:
        """Count a signal or an update that was recorded."""
        kind = "signal" if isinstance(record.event, Signalled) else "update"
        self._messages.labels(kind, "recorded").inc()

    def message_refused(self, kind: str) -> None:
        """A signal or an update was refused: its sender is told, or it is a dead letter."""
        self._messages.labels(kind, "refused").inc()


def _add(counter: Counter, tally: Tally[tuple[str, ...]]) -> None:
    for labels, number in tally.items():
        counter.labels(*labels).inc(number)
