"""The metrics: each is in the documentation as it is in the code, and says what it claims."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch
from uuid import uuid4

import pytest
from prometheus_client import CollectorRegistry

from engine.harness import SECOND
from engine.shop import payment
from kasaga.api.metrics import ApiMetrics
from kasaga.orchestrator.census import Census
from kasaga.orchestrator.clock import to_datetime
from kasaga.orchestrator.functions import Functions
from kasaga.orchestrator.metrics import Metrics
from kasaga.orchestrator.relay import Relay
from kasaga.orchestrator.shards import Shard
from kasaga.orchestrator.tracing import NoTracer
from kasaga.store.base import Attention, Offsets, OutboxRow, RowKind, SagaState, ShardRow
from kasaga.store.memory import MemoryStore
from kasaga_participant.metrics import Metrics as ParticipantMetrics
from kasaga_wire.codec import Schemas
from kasaga_wire.errors import DeliveryError
from observability.traced import Traced
from store.samples import T0

IDLE = Functions(1, Schemas(), 1)
TABLES = Path(__file__).parents[2] / "orchestrator" / "metrics.md"


def registered(registry: CollectorRegistry) -> Iterator[str]:
    """A table's row for each metric of ours."""
    collectors: dict[Any, list[str]] = registry._collector_to_names  # pyright: ignore[reportPrivateUsage]
    for each in collectors:
        kind: str | None = getattr(each, "_type", None)
        if kind is None:
            continue
        name = each._name + ("_total" if kind == "counter" else "")
        labels = ", ".join(f"`{label}`" for label in each._labelnames)
        yield f"| `{name}` | {kind} | {labels + ' ' if labels else ''}| {each._documentation} |"


@pytest.mark.parametrize("heading", ["Orchestrator", "Participants", "HTTP API"])
def test_the_documentation_has_every_metric_as_it_is(heading: str) -> None:
    registry = CollectorRegistry()
    if heading == "Orchestrator":
        registry = Metrics().registry
    elif heading == "HTTP API":
        registry = ApiMetrics().registry
    else:
        ParticipantMetrics(registry)
    section = TABLES.read_text(encoding="utf-8").split(f"## {heading}\n")[1].split("\n## ")[0]
    written = [line for line in section.splitlines() if line.startswith("| `kasaga_")]
    assert written == list(registered(registry))


def test_names_and_meanings_follow_prometheus() -> None:
    for each in Metrics().registry.collect():
        if each.name.startswith("process_"):
            continue
        assert each.name.startswith("kasaga_")
        assert not each.documentation.endswith(".")
        for unit in ("_ms", "_millis", "_minutes", "_kb"):
            assert not each.name.endswith(unit)


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


# --- what is counted


def test_decisions_are_counted_by_what_they_are() -> None:
    metrics = Metrics(["payment"])
    play = Traced(payment).begin()
    play.done(1)
    play.refused(2)
    play.undo(1)
    metrics.committed(play.happened, 1)
    metrics.committed([], 0)
    assert value(metrics, "kasaga_sagas_started_total", saga="payment") == 1
    assert value(metrics, "kasaga_saga_moves_total", saga="payment", state="COMPENSATED") == 1
    assert value(metrics, "kasaga_commands_sent_total", type="inventory.release", form="undo") == 1
    assert value(metrics, "kasaga_steps_settled_total", type="payments.charge", outcome="refused") == 1
    assert value(metrics, "kasaga_undos_total", how="undone") == 1
    assert value(metrics, "kasaga_step_seconds_count", type="inventory.reserve") == 1
    assert value(metrics, "kasaga_batch_sagas_count") == 1


def test_a_sagas_life_is_measured_from_its_start_to_its_end() -> None:
    metrics = Metrics(["payment"])
    play = Traced(payment).begin()
    play.now += 3 * SECOND
    play.refused(1)
    metrics.committed(play.happened, 1)
    ended = {"saga": "payment", "state": "COMPENSATED"}
    assert value(metrics, "kasaga_saga_seconds_count", **ended) == 1
    assert value(metrics, "kasaga_saga_seconds_sum", **ended) == 3


def test_shards_are_counted_by_what_their_last_owner_did() -> None:
    metrics = Metrics()
    for dead in (True, False, False):
        metrics.took(dead=dead)
    found = [value(metrics, "kasaga_shards_taken_total", how=how) for how in ("died", "handed over")]
    assert found == [1, 2]


def test_names_that_somebody_made_up_share_one_label() -> None:
    metrics = Metrics(["refund"])
    metrics.committed(Traced(payment).begin().happened, 1)
    assert value(metrics, "kasaga_saga_moves_total", saga="other", state="RUNNING") == 1
    assert value(metrics, "kasaga_saga_moves_total", saga="payment", state="RUNNING") is None


def test_what_needs_attention_comes_and_goes() -> None:
    metrics = Metrics()
    stuck = Attention("payment", SagaState.STUCK, 2, 30.0)
    undoing = Attention("payment", SagaState.COMPENSATING, 5, 90.0)
    metrics.sampled([stuck, undoing], 5, 2, {"replies": 3})
    assert value(metrics, "kasaga_sagas", saga="payment", state="STUCK") == 2
    assert value(metrics, "kasaga_sagas", saga="payment", state="COMPENSATING") == 5
    assert value(metrics, "kasaga_stuck_oldest_seconds") == 30
    assert value(metrics, "kasaga_sagas_waiting") == 7
    assert value(metrics, "kasaga_input_lag_records", topic="replies") == 3
    metrics.sampled([undoing], 0, 0, {"replies": 0})
    assert value(metrics, "kasaga_sagas", saga="payment", state="STUCK") is None
    assert value(metrics, "kasaga_stuck_oldest_seconds") == 0


# --- what is sampled


class Deaf:
    """A producer that takes records and never hears of them."""

    fatal = None

    def __init__(self) -> None:
        self.acks: list[Any] = []

    def produce(self, *record: Any) -> None:
        self.acks.append(record[-1])

    waits = False

    def hand_over(self) -> None: ...

    def poll(self, timeout: float) -> int:
        return 0


class OnePartition:
    def count(self, topic: str) -> int:
        if topic == "absent":
            raise DeliveryError("UNKNOWN_TOPIC_OR_PART", "no such topic", permanent=False)
        return 1


def relay() -> tuple[Relay, Deaf]:
    producer = Deaf()
    made = Relay(lambda: producer, OnePartition())  # type: ignore[arg-type,return-value]
    return made, producer


def shard() -> Shard:
    return Shard.taken(ShardRow(3, uuid4(), 1, Offsets(), 0, 0, 5, T0, 0, None))


def row(seq: int, topic: str = "t") -> OutboxRow:
    return OutboxRow(3, seq, RowKind.COMMAND, uuid4(), "1", topic, None, b"k", [], b"", 1, None, None)


def test_the_outbox_tells_its_depth_and_the_age_of_its_oldest_record() -> None:
    metrics, (sends, producer), owned = Metrics(), relay(), shard()
    sends.own(3)
    owned.sent_row = 5
    rows = [row(3), row(4, "absent")]

    def observe(now: float) -> tuple[float | None, float | None]:
        metrics.observe([owned], sends, 1, IDLE, now, NoTracer())
        return value(metrics, "kasaga_outbox_unacknowledged"), value(metrics, "kasaga_outbox_oldest_seconds")

    assert observe(10.0) == (0, 0)
    sends.send(rows, 0)
    assert observe(11.0) == (1, 0), "the other one waits for its topic"
    assert observe(14.0) == (1, 3)
    producer.acks[0](None)
    assert observe(15.0) == (0, 0)
    assert observe(16.0) == (0, 1)
    assert value(metrics, "kasaga_relay_produced_total") == 1
    assert value(metrics, "kasaga_relay_failed_total") == 1
    assert value(metrics, "kasaga_shards_owned") == 1
    assert (value(metrics, "kasaga_loop_cpu_seconds_total") or 0) > 0


def test_spans_are_counted_by_what_became_of_them() -> None:
    class Traces(NoTracer):
        totals = (5, 2, 1)

    metrics, (sends, _) = Metrics(), relay()
    for _ in range(2):
        metrics.observe([], sends, 0, IDLE, 0.0, Traces())
    found = [value(metrics, "kasaga_spans_total", result=each) for each in ("exported", "failed", "dropped")]
    assert found == [5, 2, 1]


# --- the census


def test_the_census_asks_for_the_shards_that_are_owned_now() -> None:
    metrics, store, owned = Metrics(), MemoryStore(shards=16), shard()
    owned.open = {1: uuid4(), 2: uuid4()}
    owned.open[3] = owned.open[1]
    mine = [owned]
    census = Census(
        store, metrics, lambda: mine, lambda number, offsets: {"replies": 4 + number}, interval=60
    )
    try:
        census.round()
        assert value(metrics, "kasaga_sagas_waiting") == 2
        assert value(metrics, "kasaga_input_lag_records", topic="replies") == 7
        assert value(metrics, "kasaga_input_lag_records", topic="sagas") == 0
        owned.horizon = (10, 3)
        with patch.object(store, "timers_behind", return_value=5) as behind:
            census.round()
        behind.assert_called_once_with([(owned.number, to_datetime(10), 3)])
        assert value(metrics, "kasaga_sagas_waiting") == 2 + 5
        sends, _ = relay()
        sends.own(owned.number)
        metrics.observe([owned], sends, 0, IDLE, 0.0, NoTracer())
        assert value(metrics, "kasaga_outbox_open_rows") == 3 + 5
        mine.clear()
        census.round()
        assert value(metrics, "kasaga_sagas_waiting") == 0
        assert value(metrics, "kasaga_input_lag_records", topic="replies") == 0
    finally:
        census.close()
