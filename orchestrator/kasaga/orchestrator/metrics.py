"""Every metric of the orchestrator, in one place. Counted once a batch, not once a record."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Iterable, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from ..engine.model import Clear, Move, Send, Settle
from .relay import Relay
from .shards import Shard
from .work import Happened

BATCHES = (1, 2, 5, 10, 20, 50, 100, 200, 500)
STEP_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 3600)


class Metrics:
    """The metrics of one process; `registry` is what /metrics shows."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        reg = self.registry
        self._moves = Counter(
            "kasaga_saga_moves_total", "Sagas by the state they came to", ["saga", "state"], registry=reg
        )
        self._sent = Counter(
            "kasaga_commands_sent_total", "Attempts by what they were", ["type", "form"], registry=reg
        )
        self._settled = Counter(
            "kasaga_steps_settled_total", "Steps by what is known of them", ["type", "outcome"], registry=reg
        )
        self._cleared = Counter("kasaga_undos_total", "Undone steps by how", ["how"], registry=reg)
        self._seconds = Histogram(
            "kasaga_step_seconds", "From scheduled to settled", ["type"], buckets=STEP_SECONDS, registry=reg
        )
        self._ignored = Counter(
            "kasaga_inputs_ignored_total", "Inputs that changed nothing", ["why"], registry=reg
        )
        self._dead = Counter("kasaga_dead_letters_total", "Inputs that nobody could read", registry=reg)
        self._lost = Counter("kasaga_store_unavailable_total", "Times that Postgres was away", registry=reg)
        self._batch = Histogram("kasaga_batch_sagas", "Sagas in one commit", buckets=BATCHES, registry=reg)
        self._shards = Gauge("kasaga_shards_owned", "Shards that this process owns", registry=reg)
        self._suspects = Gauge("kasaga_shards_suspect", "Owned shards in suspect mode", registry=reg)
        self._open = Gauge("kasaga_open_rows", "Open commands and timers", registry=reg)
        self._unacked = Gauge(
            "kasaga_relay_unacknowledged", "Records handed to Kafka, not acknowledged", registry=reg
        )
        self._produced = Gauge("kasaga_relay_produced", "Records produced since the start", registry=reg)
        self._failed = Gauge("kasaga_relay_failed", "Deliveries that failed since the start", registry=reg)
        self._live = Gauge("kasaga_live_sagas", "Sagas in memory", registry=reg)
        self._running = Gauge("kasaga_functions_running", "Functions of ctx.run at work", registry=reg)

    def ignored(self, why: str) -> None:
        """An input changed nothing."""
        self._ignored.labels(why).inc()

    def dead_letter(self) -> None:
        """An input was unreadable."""
        self._dead.inc()

    def store_lost(self) -> None:
        """Postgres did not answer."""
        self._lost.inc()

    def observe(self, shards: Iterable[Shard], relay: Relay, live: int, running: int) -> None:
        """Set the gauges."""
        owned = list(shards)
        self._shards.set(len(owned))
        self._suspects.set(sum(shard.suspects for shard in owned))
        self._open.set(sum(len(shard.open) for shard in owned))
        self._unacked.set(relay.unacknowledged)
        self._produced.set(relay.produced)
        self._failed.set(relay.failed)
        self._live.set(live)
        self._running.set(running)

    def committed(self, records: Sequence[Happened], sagas: int) -> None:
        """Count what a batch has decided."""
        if not records:
            return
        moves: Tally[tuple[str, str]] = Tally()
        sent: Tally[tuple[str, str]] = Tally()
        settled: Tally[tuple[str, str]] = Tally()
        cleared: Tally[str] = Tally()
        for _, run, record, _ in records:
            for decision in record.decisions:
                if isinstance(decision, Send):
                    sent[decision.type, decision.form] += 1
                elif isinstance(decision, Settle):
                    step = run.state.steps[decision.step]
                    settled[step.type or step.kind, decision.outcome] += 1
                    self._seconds.labels(step.type or step.kind).observe((record.at - step.first_at) / 1e6)
                elif isinstance(decision, Move):
                    moves[run.state.name, decision.state] += 1
                elif isinstance(decision, Clear):
                    cleared[decision.how] += 1
        for labels, number in moves.items():
            self._moves.labels(*labels).inc(number)
        for labels, number in sent.items():
            self._sent.labels(*labels).inc(number)
        for labels, number in settled.items():
            self._settled.labels(*labels).inc(number)
        for how, number in cleared.items():
            self._cleared.labels(how).inc(number)
        self._batch.observe(sagas)
