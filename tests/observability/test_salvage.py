"""No crash makes a hole in a trace: what a dead owner had committed and not exported, its heir exports."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from engine.shop import payment
from kasaga.engine.codec import decode, encode
from kasaga.engine.state import State, extend
from kasaga.orchestrator import salvage as module
from kasaga.orchestrator.clock import to_datetime, to_micros
from kasaga.orchestrator.salvage import Salvage
from kasaga.orchestrator.spans import Builder
from kasaga.orchestrator.traceids import ALL, EVERY_SAGA, Sampling
from kasaga.orchestrator.tracing import Attempt, Job, Tracer, jobs
from kasaga.store.base import HistoryRow, SagaWrite, StoreUnavailable
from kasaga.store.memory import MemoryStore
from kasaga_wire.tracing import SpanExport
from observability.traced import Traced, attributes, ids, named
from orchestrator.node import Node
from orchestrator.test_chaos import PROFILES, moody
from orchestrator.test_crash_windows import nth, until_over
from orchestrator.world import World
from store.samples import Owner, saga_row, start

log = logging.getLogger("kasaga.tracing")


# --- the mark


def by_hand(delivered: list[ReadableSpan], name: str = "p-1") -> tuple[Tracer, ByHand]:
    export = ByHand(Backend(delivered), Builder("trips", name, "", {}))
    return Tracer(export, EVERY_SAGA), export


class Backend(SpanExporter):
    """Whoever shows the traces."""

    def __init__(self, delivered: list[ReadableSpan]) -> None:
        self._delivered = delivered

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self._delivered += spans
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        pass


class ByHand(SpanExport[Job]):
    """Exports when it is told to, in the thread of the test."""

    def __init__(self, backend: Backend, build: Builder) -> None:
        super().__init__([backend], build, log)

    def flush(self, seconds: float) -> bool:
        self.turn()
        return True


def test_the_mark_stays_at_the_oldest_commit_that_is_not_exported() -> None:
    tracer, export = by_hand([])
    play = Traced(payment).begin()
    assert tracer.mark(0, 100) == 100
    play.now += 1_000_000
    play.done(1)
    first = play.now
    tracer.committed(play.happened)
    play.now += 1_000_000
    play.done(2)
    tracer.committed(play.happened[-1:])
    assert tracer.mark(0, play.now) == first
    assert tracer.mark(0, first - 5) == first - 5, "never later than the commit that leaves it"
    export.turn()
    assert tracer.mark(0, play.now) == play.now


def test_what_ends_nothing_holds_no_mark_back() -> None:
    tracer, _ = by_hand([])
    tracer.committed(Traced(payment).begin().happened)
    assert tracer.mark(0, 7) == 7


def test_a_mark_is_kept_back_by_what_is_inherited_until_that_is_exported() -> None:
    tracer, export = by_hand([])
    tracer.inherit(Salvage(MemoryStore(), 3, 50, 90, "dead"))
    assert (tracer.mark(3, 100), tracer.mark(4, 100)) == (50, 100)
    while export.turn():
        pass
    assert tracer.mark(3, 100) == 100


# --- one take-over


def kept(play: Traced, store: MemoryStore, shard: int = 3) -> None:
    """Write a play's history down."""
    run = UUID(play.state.run_id)
    rows = [HistoryRow(each.seq, to_datetime(each.at), "", "", encode(each)) for each in play.records]
    row = saga_row(shard, run.int % 1000, saga_id=play.state.run_id, run_id=run)
    Owner(store).claim(shard).commit(SagaWrite(shard, run, rows, row, new=True))


def played(number: int, *, at: int = 0) -> Traced:
    play = Traced(payment, run_id=str(UUID(int=number)))
    play.now += at
    play.begin()
    for path in (1, 2, 3):
        play.now += 1_000_000
        play.done(path)
    return play


def salvaged(salvage: Salvage, sampling: Sampling = EVERY_SAGA) -> list[Job]:
    found: list[Job] = []
    while (some := salvage.step(sampling)) is not None:
        found += some
    return found


def test_only_what_was_decided_since_the_mark_is_made_again_in_the_dead_ones_name() -> None:
    store, play = MemoryStore(), played(1)
    kept(play, store)
    since = play.records[2].at
    found = salvaged(Salvage(store, 3, since, play.now, "the dead one"))
    spans = [Builder("shop", "the heir", "test.", {})(job) for job in found]
    assert [span.name for span in spans] == ["payments.charge", "shipping.schedule", "payment"]
    first = {ids(span): span for span in play.spans}
    for span in spans:
        assert span.resource.attributes["service.instance.id"] == "the dead one"
        mine = first[ids(span)]
        assert (span.start_time, span.end_time, attributes(span), span.status.status_code) == (
            mine.start_time,
            mine.end_time,
            attributes(mine),
            mine.status.status_code,
        )


def test_what_the_heir_decides_itself_is_its_own() -> None:
    store, play = MemoryStore(), played(1)
    kept(play, store)
    found = salvaged(Salvage(store, 3, play.records[0].at, play.records[1].at, "dead"))
    assert [job.type for job in found if isinstance(job, Attempt)] == ["inventory.reserve"]


def test_other_shards_and_sagas_that_are_not_sampled_are_left_alone() -> None:
    store, play = MemoryStore(), played(1)
    kept(play, store)
    begin = play.records[0].at
    assert salvaged(Salvage(store, 4, begin, play.now, "dead")) == []
    assert salvaged(Salvage(store, 3, begin, play.now, "dead"), Sampling(below=0)) == []
    assert len(salvaged(Salvage(store, 3, begin, play.now, "dead"), Sampling(below=ALL))) == 4


def test_many_sagas_are_read_by_slices_and_all_of_them() -> None:
    store = MemoryStore()
    plays = [played(number) for number in range(1, 121)]
    for play in plays:
        kept(play, store)
    salvage = Salvage(store, 3, plays[0].records[0].at, plays[0].now, "dead")
    sizes: list[int] = []
    while (some := salvage.step(EVERY_SAGA)) is not None:
        sizes.append(len(some))
    assert sizes == [200, 200, 80]


def test_there_is_a_limit_and_a_line_when_it_is_reached(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "MAX_RUNS", 3)
    caplog.set_level(logging.WARNING)  # another test may have asked for more
    store = MemoryStore()
    for number in range(1, 6):
        kept(played(number), store)
    begin = played(1).records[0].at
    assert len(salvaged(Salvage(store, 3, begin, begin + 10_000_000, "dead"))) == 12
    assert caplog.messages == ["a dead owner has left more than is looked for"]


def test_while_postgres_is_away_it_waits_and_goes_on_where_it_was() -> None:
    away = False

    def fault(point: str) -> None:
        if away and point in ("touched", "histories"):
            raise StoreUnavailable("away")

    store = MemoryStore(fault=fault)
    for number in range(1, 61):
        kept(played(number), store)
    delivered: list[ReadableSpan] = []
    tracer, export = by_hand(delivered)
    begin = played(1).records[0].at
    tracer.inherit(Salvage(store, 3, begin, begin + 10_000_000, "dead"))
    assert export.turn()
    away = True
    for _ in range(3):
        assert not export.turn(), "nothing to be done at once"
    assert tracer.mark(3, begin + 5) == begin
    away = False
    while export.turn():
        pass
    assert len(delivered) == len({ids(span) for span in delivered}) == 240
    assert tracer.mark(3, begin + 5) == begin + 5


def test_a_history_that_cannot_be_read_is_passed_over(caplog: pytest.LogCaptureFixture) -> None:
    store = MemoryStore()
    Owner(store).claim(3).commit(start(3, 1))
    kept(played(1), store)
    since = to_micros(store.histories([(3, start(3, 1).run_id)])[start(3, 1).run_id][0].at)
    begin = min(since, played(1).records[0].at)
    found = salvaged(
        Salvage(store, 3, begin, begin + int(timedelta(days=3650) / timedelta(microseconds=1)), "dead")
    )
    assert len(found) == 4
    assert "a history can't be read: its trace may lack something" in caplog.messages


# --- everything at once


class Watched(World):
    """Each process exports now and then, when chance has it; what one dies with is lost with it."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.delivered: list[ReadableSpan] = []
        self._exports: dict[str, ByHand] = {}

    def __enter__(self) -> Watched:
        super().__enter__()
        return self

    def join(self, *args: Any, **settings: Any) -> Node:
        node = super().join(*args, **settings)
        tracer, self._exports[node.name] = by_hand(self.delivered, node.name)
        node.loop._tracer = tracer  # pyright: ignore[reportPrivateUsage]
        return node

    def step(self) -> None:
        super().step()
        if self.nodes and self.dice.random() < 0.1:
            self._exports[self.dice.choice(self.nodes).name].turn()

    def expected(self) -> Iterator[ReadableSpan]:
        """Every span of every history."""
        build = Builder("trips", "", "", {})
        for row in self.sagas():
            state = State(str(row.run_id))
            for each in self.store.history(row):
                record = decode(each.seq, each.body)
                extend(state, record)
                for job in jobs(state, record, state.ended, state.known_steps):
                    yield build(job)

    def export_all(self) -> None:
        for node in self.nodes:
            while self._exports[node.name].turn():
                pass


def told(span: ReadableSpan) -> object:
    return span.name, span.start_time, span.end_time, dict(attributes(span)), span.status.description


def check(world: Watched) -> int:
    """All spans are there, and those that are there twice say the same. Returns how many are."""
    world.export_all()
    found: defaultdict[tuple[str, str, str], list[ReadableSpan]] = defaultdict(list)
    for span in world.delivered:
        found[ids(span)].append(span)
    expected = {ids(span): span for span in world.expected()}
    missing = [span.name for key, span in expected.items() if key not in found]
    assert missing == []
    assert not found.keys() - expected.keys()
    for key, spans in found.items():
        assert all(told(span) == told(expected[key]) for span in spans)
    return sum(len(spans) > 1 for spans in found.values())


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("profile", PROFILES)
def test_whatever_goes_wrong_each_trace_is_whole(profile: str, seed: int) -> None:
    with Watched(seed, odds=replace(PROFILES[profile])) as world:
        world.desk.mood = moody(world.dice)
        for _ in range(2):
            world.join()
        for number in range(12):
            world.start(
                world.dice.choice(("trip", "hasty", "stubborn", "nap", "failing", "empty")), f"s{number}"
            )
            world.run(world.dice.randint(0, 40))
        world.settle()
        world.audit()
        twice = check(world)
        if profile in ("calm", "comings and goings"):
            assert twice == 0, "what is handed over in order isn't exported twice"


@pytest.mark.parametrize(
    "point", ["before_commit", "after_commit", "after_produce", "after_claim", "after_read"]
)
def test_no_crash_window_makes_a_hole(point: str) -> None:
    for number in range(1, 9):
        with Watched(7, lease_seconds=0.4, heartbeat_seconds=0.1) as world:
            world.crash = nth(f"orchestrator.{point}", number)
            begin_four(world)
            until_over(world)
            check(world)


def begin_four(world: Watched) -> None:
    world.odds.slow = 0.0
    world.join()
    for each, saga in enumerate(("trip", "failing", "nap", "empty")):
        world.start(saga, f"{saga}-{each}")


@pytest.mark.parametrize("every", [3, 4, 5])
def test_nor_do_deaths_without_end(every: int) -> None:
    """Until sagas are stepped one by one, with a mark in between."""
    passed = 0

    def crash(point: str) -> bool:
        nonlocal passed
        passed += point in ("orchestrator.before_commit", "orchestrator.after_commit")
        return point.endswith("_commit") and passed % every == 0 and passed < 60

    with Watched(7, lease_seconds=0.4, heartbeat_seconds=0.1) as world:
        world.crash = crash
        begin_four(world)
        world.run(600)
        world.settle()
        check(world)


def test_two_deaths_in_a_row_make_no_hole_either() -> None:
    """The first heir dies before it has exported what it inherited."""
    with Watched(5, shards=1) as world:
        world.odds.slow = 0.0
        first = world.join()
        world.start("trip", "s1")
        while not world.over():
            world.turn(first)
            world.serve()
        assert world.delivered == []
        world.kill(first)
        world.pass_time(10)
        second = world.join()
        world.turns(second, 3)
        assert second.loop.shards
        world.start("trip", "s2")
        for _ in range(20):
            world.turn(second)
            world.serve()
        world.kill(second)
        world.pass_time(10)
        world.join()
        world.settle()
        check(world)
        assert {attributes(span)["kasaga.saga_id"] for span in world.delivered} == {"s1", "s2"}


def test_an_idle_shard_says_once_that_all_is_exported() -> None:
    with Watched(5, shards=1) as world:
        world.odds.slow = 0.0
        node = world.join()
        world.start("trip", "s1")
        while not world.over():
            world.turn(node)
            world.serve()
        world.export_all()
        for _ in range(3):
            world.pass_time(2)
            world.turns(node, 2)
        commits = node.loop.shards[0].commit_seq
        for _ in range(5):
            world.pass_time(2)
            world.turns(node, 2)
        assert node.loop.shards[0].commit_seq == commits, "nothing more is written"
        world.kill(node)
        world.delivered.clear()
        world.pass_time(10)
        world.turns(world.join(), 3)
        world.export_all()
        assert named(world.delivered) == {}, "and the next owner has nothing to do"
