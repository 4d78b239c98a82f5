"""Which figures stand where in BENCHMARKS.md. The words around them are in `page.md`."""

from __future__ import annotations

from typing import NamedTuple

PRELIMINARY = """\
**Preliminary.** Lines are marked so: the machine was shared while they were measured. Read the CPU for a saga
rather than the throughput; both are to be measured again on a quiet machine.
"""

BY_HAND = "Nothing was written here yet.\n"


class Section(NamedTuple):
    """A table of some figures."""

    title: str
    text: str
    figures: tuple[str, ...]


SECTIONS = (
    Section(
        "Throughput",
        "Payment sagas: three steps. Undone: shipping refuses for good, and two compensations run.",
        ("throughput", "throughput_happy", "throughput_compensated", "compensated_share"),
    ),
    Section(
        "Latency",
        "Payment sagas, start to end: one in flight, and at half of the throughput measured just before.",
        ("latency_1_p50", "latency_1_p99", "latency_half_p50", "latency_half_p99"),
    ),
    Section(
        "Cost",
        "Of a payment saga under load. Bytes in Postgres are files as they lie there, dead rows and free "
        "space included; WAL is the whole server's, full-page images included; bytes in Kafka are logs "
        "without their indexes. What doesn't depend on the load is held exactly by a test.",
        ("cpu_per_1000", "rows_per_saga", "statements_per_saga", "statements_per_step", "bytes_per_saga"),
    ),
    Section(
        "Idle, start and memory",
        "Idle: connected to Kafka and Postgres, all shards owned, no saga. Start: from starting the process "
        "to the end of a first saga, with servers up; the CPU is that of the started processes. Memory is "
        "anonymous pages.",
        ("idle_cpu", "idle_memory", "startup", "startup_cpu", "memory_per_live_saga"),
    ),
)


class Curve(NamedTuple):
    """Figures that have a `size`: a chart for each, and one table."""

    title: str
    across: str
    text: str
    figures: tuple[str, ...]


CURVES = (
    Curve(
        "Sagas in flight",
        "sagas asleep",
        "Payments, while so many other sagas are parked in `ctx.sleep`; and the orchestrator's memory then.",
        ("growth_in_flight", "growth_in_flight_cpu", "growth_in_flight_memory"),
    ),
    Curve(
        "Length of a history",
        "steps in one saga",
        "One saga after the other, each of so many steps: all of them, their last tenth alone, and CPU.",
        ("growth_history", "growth_history_last_tenth", "growth_history_cpu"),
    ),
    Curve(
        "Finished sagas",
        "finished sagas kept",
        "Payments beside sagas that ended ten days ago. Those were written by SQL as the store would have "
        "written them, each with four rows of history, and vacuumed; inboxes don't have them.",
        ("growth_finished", "growth_finished_cpu", "growth_finished_bytes"),
    ),
    Curve("Shards", "shards", "Payments.", ("growth_shards", "growth_shards_cpu")),
    Curve(
        "Orchestrators",
        "processes",
        "Payments. All processes share the same cores: more of them can't bring more than is left of these.",
        ("growth_orchestrators", "growth_orchestrators_cpu"),
    ),
    Curve(
        "Payload",
        "bytes",
        "Sagas of three steps: the start and each command carry so many bytes, replies a few. In flight "
        "are as many as elsewhere, or as many as make 32 MB.",
        ("growth_payload", "growth_payload_cpu"),
    ),
    Curve(
        "Fan-out",
        "steps side by side",
        "Sagas of one `ctx.gather`, as many steps in flight as sagas elsewhere; and the time of one alone.",
        ("growth_fan_out", "growth_fan_out_cpu", "growth_fan_out_alone"),
    ),
    Curve(
        "Steps of a saga",
        "steps",
        "At most 200 sagas in flight, one step after the other.",
        ("growth_steps", "growth_steps_cpu"),
    ),
)
