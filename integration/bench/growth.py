"""Scenarios of growth: the same work while one thing grows. A point of a curve is a figure with its `size`.

What fills the store in `growth-finished` is written by SQL and not by sagas; `filled.sql` says how.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from statistics import median

import psycopg

from bench.bed import Bed, Setup
from bench.errors import BenchError
from bench.figures import tell
from bench.machine import resident_bytes
from bench.scenarios import Run, scenario

PARKED_SECONDS = 7 * 86_400
"""How long a parked saga sleeps: longer than any bench."""

PATIENCE_SECONDS = 60.0
"""How long nothing may move while sagas are parked."""

LOOK_SECONDS = 0.5
"""Between two looks at how many sleep: counting a million takes Postgres a while."""

SINGLE_STEPS = 200
"""Steps that a round of `growth-history` takes at least: as many sagas as that needs."""

LONG_IN_FLIGHT = 200
"""Sagas in flight in `growth-steps`: the last of them end long after the round."""

IN_FLIGHT_BYTES = 32_000_000
"""Payloads that are in flight at most in `growth-payload`, at each place where they are kept."""

LARGE = 2_000_000
"""A record of Kafka, for a payload of a million bytes."""


def _rate(
    run: Run,
    bed: Bed,
    figure: str,
    size: int,
    *,
    saga: str = "payment",
    inputs: Mapping[str, object] | None = None,
    in_flight: int = 0,
    steps: bool = False,
) -> None:
    """One point of a curve: sagas per second, or steps where their number is what grows; and CPU for each."""
    in_flight = in_flight or run.in_flight
    measure = partial(bed.load.closed, in_flight, saga=saga, inputs=inputs)
    measure(run.warm_up)
    others: list[float] = []
    by_process: list[dict[str, float]] = []

    def one() -> tuple[float, float]:
        done = _replies(bed) if steps else 0
        meter = bed.meter()
        found = measure(run.seconds)
        meter.stop()
        others.append(meter.others)
        units = _replies(bed) - done if steps else found.ended
        by_process.append({name: cpu / units * 1000 for name, cpu in meter.cpu.items()})
        used = sum(cpu for name, cpu in by_process[-1].items() if name != "load")
        if not steps:
            return found.rate, used
        assert found.begun is not None
        # Of sagas that end after the measured time, the steps in it count as well.
        taken = _replies(bed, found.begun + timedelta(seconds=run.seconds)) - _replies(bed, found.begun)
        return taken / run.seconds, used

    found = run.repeat(one)
    unit = "steps" if steps else "sagas"
    about = {"size": size, **bed.setup.parameters(), "in_flight": in_flight, "others_cores": median(others)}
    run.put(figure, [rate for rate, _ in found], f"{unit}/s", **about)
    middle = {name: round(median(each[name] for each in by_process), 4) for name in by_process[0]}
    run.put(f"{figure}_cpu", [cpu for _, cpu in found], f"CPU s/1,000 {unit}", by_process=middle, **about)


def _replies(bed: Bed, until: datetime | None = None) -> int:
    """Steps whose outcome was recorded so far, or until a time."""
    statement = "SELECT count(*) FROM kasaga.history WHERE kind = 'Replied' AND at < %s"
    return int(str(bed.query(statement, until or "infinity")[0][0]))


@scenario(
    "growth-in-flight", "throughput of active sagas while 1 to 100,000 (--full: 1,000,000) others sleep"
)
def in_flight(run: Run) -> None:
    with run.bed(Setup()) as bed:
        parked = 0
        for size in run.sizes(1, 1_000, 10_000, 100_000, full=1_000_000):
            rate = bed.load.park(size - parked, inputs={"seconds": PARKED_SECONDS}).rate
            parked = size
            tell(f"  {rate:.0f} starts a second to Kafka; waiting for {size} sagas to sleep")
            _wait_for_parked(bed, size)
            _rate(run, bed, "growth_in_flight", size)
            memory = sum(map(resident_bytes, bed.pids()["orchestrator"]))
            run.put("growth_in_flight_memory", memory / 2**20, "MiB", size=size, **bed.setup.parameters())


def _wait_for_parked(bed: Bed, size: int) -> None:
    found, moved = 0, time.monotonic()
    while found < size:
        time.sleep(LOOK_SECONDS)
        [(count,)] = bed.query("SELECT count(*) FROM kasaga.saga WHERE name = 'nap'")
        if int(str(count)) > found:
            found, moved = int(str(count)), time.monotonic()
        elif time.monotonic() > moved + PATIENCE_SECONDS:
            raise BenchError(f"no more than {found} of {size} sagas have begun to sleep: {bed.logs()}")


@scenario("growth-history", "time per step in one saga of 10 to 10,000 steps")
def history(run: Run) -> None:
    with run.bed(Setup()) as bed:
        bed.load.single(100)
        for steps in run.sizes(10, 100, 1_000, 10_000):
            count = max(1, SINGLE_STEPS // steps)

            def measure(steps: int = steps, count: int = count) -> tuple[float, float, float]:
                meter = bed.meter()
                rate = bed.load.single(count, saga="plan", inputs={"steps": steps}).rate
                meter.stop()
                cpu = meter.cpu["orchestrator"] * 1000 / (count * steps)
                return 1000 / rate / steps, _last_tenth(bed, steps), cpu

            whole, last, cpu = zip(*run.repeat(measure), strict=True)
            about = {"size": steps, **bed.setup.parameters(), "in_flight": 1}
            run.put("growth_history", list(whole), "ms/step", **about)
            run.put("growth_history_last_tenth", list(last), "ms/step", **about)
            run.put("growth_history_cpu", list(cpu), "orchestrator's CPU ms/step", **about)


def _last_tenth(bed: Bed, steps: int) -> float:
    """Milliseconds per step at the end of the saga that was started last, by its history's times."""
    rows = bed.query(
        "SELECT at FROM kasaga.history WHERE (shard, run_id) = (SELECT shard, run_id FROM kasaga.saga "
        "WHERE name = 'plan' ORDER BY started_at DESC LIMIT 1) ORDER BY seq"
    )
    times = [each for (each,) in rows if isinstance(each, datetime)]
    tail = max(1, steps // 10)
    return (times[-1] - times[-1 - tail]).total_seconds() * 1000 / tail


@scenario("growth-finished", "throughput beside 0 to 1,000,000 (--full: 10,000,000) finished sagas")
def finished(run: Run) -> None:
    setup = Setup()
    with run.bed(setup) as bed:
        bed.load.single(1)
        filled = 0
        for size in run.sizes(0, 100_000, 1_000_000, full=10_000_000):
            _fill(bed, filled, size)
            filled = size
            _rate(run, bed, "growth_finished", size)
        stored = int(str(bed.query("SELECT pg_database_size(current_database())")[0][0]))
        run.put("growth_finished_bytes", stored, "bytes", size=filled, **setup.parameters())


def _fill(bed: Bed, begin: int, end: int) -> None:
    """Write finished sagas by SQL, then do what autovacuum would have done by and by."""
    statements = (Path(__file__).parent / "filled.sql").read_text().encode()
    with psycopg.connect(bed.store, autocommit=True) as connection:
        for at in range(begin, end, 100_000):
            connection.execute("SELECT set_config('bench.begin', %s, false)", [str(at)])
            connection.execute("SELECT set_config('bench.end', %s, false)", [str(min(at + 100_000, end))])
            connection.execute(statements)
            tell(f"  filled {min(at + 100_000, end)} of {end}")
        for statement in (b"VACUUM ANALYZE kasaga.saga", b"VACUUM ANALYZE kasaga.history", b"CHECKPOINT"):
            connection.execute(statement)


@scenario("growth-shards", "throughput with 8 to 256 shards")
def shards(run: Run) -> None:
    for size in run.sizes(8, 16, 64, 256):
        with run.bed(Setup(shards=size)) as bed:
            _rate(run, bed, "growth_shards", size)


@scenario("growth-orchestrators", "throughput of 1, 2 and 4 orchestrators on the same cores")
def orchestrators(run: Run) -> None:
    for size in run.sizes(1, 2, 4):
        with run.bed(Setup(orchestrators=size)) as bed:
            _rate(run, bed, "growth_orchestrators", size)


@scenario("growth-payload", "throughput with a start and three commands of 100 bytes to 1 MB each")
def payload(run: Run) -> None:
    limits = {
        "KASAGA_MAX_PAYLOAD_BYTES": "1040000",
        "KASAGA_KAFKA_MESSAGE_MAX_BYTES": str(LARGE),
    }
    with run.bed(Setup(environment=limits, kafka={"message.max.bytes": str(LARGE)})) as bed:
        for size in run.sizes(100, 1_000, 10_000, 100_000, 1_000_000):
            inputs = {"steps": 3, "filler": "x" * size}
            in_flight = max(8, min(run.in_flight, IN_FLIGHT_BYTES // size))
            _rate(run, bed, "growth_payload", size, saga="plan", inputs=inputs, in_flight=in_flight)


@scenario("growth-fan-out", "steps per second, and one saga's time, with 1 to 1,000 steps side by side")
def fan_out(run: Run) -> None:
    with run.bed(Setup()) as bed:
        for size in run.sizes(1, 10, 100, 1_000):
            inputs = {"steps": 1, "width": size}
            in_flight = max(2, run.in_flight // size)
            _rate(
                run, bed, "growth_fan_out", size, saga="plan", inputs=inputs, in_flight=in_flight, steps=True
            )
            alone = run.repeat(partial(bed.load.single, 10, saga="plan", inputs=inputs))
            about = {"size": size, **bed.setup.parameters(), "in_flight": 1}
            run.put("growth_fan_out_alone", [median([each.p50_ms]) for each in alone], "ms", **about)


@scenario("growth-steps", "steps per second of sagas with 1 to 100 steps")
def steps(run: Run) -> None:
    with run.bed(Setup()) as bed:
        for size in run.sizes(1, 3, 10, 30, 100):
            _rate(
                run,
                bed,
                "growth_steps",
                size,
                saga="plan",
                inputs={"steps": size},
                in_flight=min(run.in_flight, LONG_IN_FLIGHT),
                steps=True,
            )
