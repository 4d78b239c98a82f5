"""Scenarios of what sagas cost: CPU, bytes, rows, statements; what an idle system uses; start-up; memory."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

import psycopg

from bench.bed import STOP_SECONDS, Bed, Setup
from bench.driver import Measured
from bench.errors import BenchError
from bench.machine import cpu_seconds, resident_bytes
from bench.scenarios import Run, scenario
from kasaga.dev.process import wait_until

STEPS = 3
"""Of a payment saga: rows and statements are told by step, too."""

SIDES = ("orchestrator", "participants")

SETTLE_SECONDS = 3.0
"""After the last saga: sweeps and the commits of offsets come a second later."""

COUNTED_SECONDS = 12.0
"""After which every session of Postgres has told its row writes: it does so when it was idle for ten."""

IDLE_SHARDS = 64
"""The default of `kasaga migrate`."""
IDLE_SECONDS = 30.0
FIRST_SAGAS = 20
"""Before an idle time: everything is connected, and has been used."""

PARKED = 20_000
"""Sagas that a process keeps live by default, see `max_live_sagas`."""
PARK_SECONDS = 86_400.0
BEGUN_SECONDS = 600.0

STATEMENTS = "CREATE EXTENSION IF NOT EXISTS pg_stat_statements"
COUNTED_STATEMENTS = {
    "shared_preload_libraries": "pg_stat_statements",
    "pg_stat_statements.track_utility": "off",
}
"""Without BEGIN, COMMIT and savepoints: it forgets those once they are prepared. Their exact number, and all
others', of a saga alone is in `counters/test_work_counters.py`."""


@scenario("cost", "CPU by process, bytes in Postgres and in Kafka, rows and statements, a saga")
def cost(run: Run) -> None:
    for name, sku, end in (("happy", "book", "COMPLETED"), ("undone", "unshippable", "COMPENSATED")):
        setup = Setup()
        with run.bed(setup) as bed:
            bed.load.closed(run.in_flight, run.warm_up, inputs={"sku": sku}, expect=end)
            found: list[tuple[Measured, dict[str, float], Counter[str]]] = []
            before = _settled(bed)
            for _ in range(run.rounds):
                meter = bed.meter()
                measured = bed.load.closed(run.in_flight, run.seconds, inputs={"sku": sku}, expect=end)
                meter.stop()
                after = _settled(bed)
                kept = Counter({what: number - before[what] for what, number in after.items()})
                found.append((measured, {**meter.cpu, "others": meter.others}, kept))
                before = after
        _put_cost(run, found, {**setup.parameters(), "path": name, "in_flight": run.in_flight})
    _statements(run)


def _put_cost(
    run: Run, found: list[tuple[Measured, dict[str, float], Counter[str]]], about: Mapping[str, object]
) -> None:
    others = max(cpu.pop("others") for _, cpu, _ in found)
    about = {**about, "others_cores": others}
    for process in found[0][1]:
        spent = [cpu[process] / measured.ended * 1000 for measured, cpu, _ in found]
        run.put("cpu_per_1000", spent, "s", process=process, **about)
    totals = [sum(cpu.values()) / measured.ended * 1000 for measured, cpu, _ in found]
    run.put("cpu_per_1000", totals, "s", process="all", **about)
    for what in sorted(set[str]().union(*(kept for _, _, kept in found))):
        place, _, unit = what.rpartition(": ")
        each = [kept[what] / measured.ended for measured, _, kept in found]
        if not any(each):
            continue
        run.put("rows_per_saga" if unit == "rows" else "bytes_per_saga", each, unit, place=place, **about)


def _statements(run: Run) -> None:
    """In a system of its own: counting them costs Postgres something."""
    setup = Setup(postgres=COUNTED_STATEMENTS)
    with run.bed(setup) as bed:
        for url in (bed.store, bed.services):
            with psycopg.connect(url, autocommit=True) as connection:
                connection.execute(STATEMENTS)
        for in_flight in (1, run.in_flight):
            bed.load.closed(in_flight, run.warm_up)
            time.sleep(SETTLE_SECONDS)
            _reset(bed)
            measured = bed.load.closed(in_flight, run.seconds)
            for side, url in zip(SIDES, (bed.store, bed.services), strict=True):
                statements = _asked(url) / measured.ended
                about = {**setup.parameters(), "process": side, "in_flight": in_flight}
                run.put("statements_per_saga", statements, "statements", **about)
                run.put("statements_per_step", statements / STEPS, "statements", **about)


def _reset(bed: Bed) -> None:
    with psycopg.connect(bed.store, autocommit=True) as connection:
        connection.execute("SELECT pg_stat_statements_reset()")


def _asked(url: str) -> int:
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute(
            "SELECT coalesce(sum(calls), 0) FROM pg_stat_statements WHERE toplevel AND dbid = "
            "(SELECT oid FROM pg_database WHERE datname = current_database())"
        ).fetchone()
    assert row is not None
    return int(row[0])


def _settled(bed: Bed) -> Counter[str]:
    time.sleep(COUNTED_SECONDS)
    return stored(bed)


def stored(bed: Bed) -> Counter[str]:
    """Bytes and row writes so far, by what they are.

    Tables and indexes as they lie in files, dead rows and free space included; WAL of the whole server; of
    Kafka the topics' logs, compressed as they are.
    """
    found: Counter[str] = Counter()
    for side, url in zip(SIDES, (bed.store, bed.services), strict=True):
        if url:
            found.update(_in_database(side, url))
    ((wal,),) = bed.query("SELECT pg_current_wal_lsn() - '0/0'::pg_lsn")
    found["wal: bytes"] = int(str(wal))
    for topic, size in log_sizes(bed.kafka.directory / "data"):
        found[f"kafka {topic}: bytes"] += size
        found["kafka: bytes"] += size
    return found


def _in_database(side: str, url: str) -> Counter[str]:
    found: Counter[str] = Counter()
    with psycopg.connect(url, autocommit=True) as connection:
        rows = connection.execute(
            "SELECT relname, n_tup_ins + n_tup_upd + n_tup_del, pg_table_size(relid), pg_indexes_size(relid)"
            " FROM pg_stat_user_tables"
        ).fetchall()
    for table, writes, size, indexes in rows:
        found[f"{side} {table}: rows"] += int(writes)
        found[f"{side}: rows"] += int(writes)
        found[f"{side} tables: bytes"] += int(size)
        found[f"{side} indexes: bytes"] += int(indexes)
    return found


def log_sizes(data: Path) -> Iterable[tuple[str, int]]:
    """Topic and bytes of each segment in a broker's folder. One may vanish while it is looked at."""
    for segment in data.glob("*/*.log"):
        try:
            yield segment.parent.name.rpartition("-")[0], segment.stat().st_size
        except FileNotFoundError:
            continue


@scenario(
    "idle", f"CPU and memory of an idle system with {IDLE_SHARDS} shards; goal: under 1% of a core each"
)
def idle(run: Run) -> None:
    setup = Setup(shards=IDLE_SHARDS)
    seconds = max(IDLE_SECONDS, run.seconds)
    with run.bed(setup) as bed:
        bed.load.single(FIRST_SAGAS)
        time.sleep(SETTLE_SECONDS)

        def rest() -> dict[str, float]:
            meter = bed.meter()
            time.sleep(seconds)
            meter.stop()
            return {**{name: spent / seconds for name, spent in meter.cpu.items()}, "others": meter.others}

        found = run.repeat(rest)
        memory = {name: sum(map(resident_bytes, pids)) for name, pids in bed.pids().items()}
    about = {**setup.parameters(), "others_cores": max(each["others"] for each in found), "idle_s": seconds}
    for name, size in memory.items():
        run.put("idle_cpu", [each[name] * 100 for each in found], "% of a core", process=name, **about)
        if name in SIDES:
            run.put("idle_memory", size, "bytes", process=name, **about)


@scenario(
    "startup", f"from starting a process to the first saga's end, {IDLE_SHARDS} shards; goal: under 2 s"
)
def startup(run: Run) -> None:
    setup = Setup(shards=IDLE_SHARDS)
    with run.bed(setup) as bed:
        bed.load.single(FIRST_SAGAS)
        for name, sides in (("orchestrator", SIDES[:1]), ("participants", SIDES[1:]), ("both", SIDES)):

            def begin(sides: tuple[str, ...] = sides) -> tuple[float, float, float]:
                _stop(bed, sides)
                meter, begun = bed.meter(), time.perf_counter()
                started = [bed.start_participants().pid] if "participants" in sides else []
                started += [bed.start_orchestrator().pid] if "orchestrator" in sides else []
                bed.load.single(1)
                seconds = time.perf_counter() - begun
                meter.stop()
                spent = sum(map(cpu_seconds, started))
                return seconds, spent, max(0.0, meter.others - spent / seconds)

            found = run.repeat(begin)
            about = {**setup.parameters(), "others_cores": max(others for _, _, others in found)}
            run.put("startup", [seconds for seconds, _, _ in found], "s", started=name, **about)
            run.put("startup_cpu", [spent for _, spent, _ in found], "s", started=name, **about)


def _stop(bed: Bed, sides: Iterable[str]) -> None:
    for side in sides:
        for process in bed.orchestrators if side == "orchestrator" else bed.participants:
            if process.ended() is None:
                process.stop(signal.SIGTERM, STOP_SECONDS)


@scenario("memory", f"of a live saga: {PARKED} of them asleep in one process")
def memory(run: Run) -> None:
    setup = Setup()
    with run.bed(setup, audit=False) as bed:  # none of the parked sagas ends
        bed.load.single(FIRST_SAGAS)
        time.sleep(SETTLE_SECONDS)
        (orchestrator,) = bed.pids()["orchestrator"]

        def park() -> float:
            before = resident_bytes(orchestrator)
            count, asleep = PARKED // run.rounds, _asleep(bed)
            bed.load.park(count, inputs={"seconds": PARK_SECONDS})
            if not wait_until(lambda: _asleep(bed) == asleep + count, BEGUN_SECONDS):
                raise BenchError(f"{_asleep(bed) - asleep} of {count} sagas have begun to sleep")
            time.sleep(SETTLE_SECONDS)
            return (resident_bytes(orchestrator) - before) / count

        found = run.repeat(park)
    run.put("memory_per_live_saga", found, "bytes", **setup.parameters(), sagas=PARKED // run.rounds)


def _asleep(bed: Bed) -> int:
    ((count,),) = bed.query("SELECT count(*) FROM kasaga.outbox")
    return int(str(count))
