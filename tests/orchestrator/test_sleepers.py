"""However many sagas sleep, a few are in memory; each wakes once, when its time has come and not before."""

from __future__ import annotations

from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kasaga.orchestrator.clock import to_datetime
from kasaga.orchestrator.shards import End, Shard
from kasaga.orchestrator.sleepers import Sleepers
from kasaga.store.base import OutboxRow, RowKind, SagaState, Store, StoreUnavailable
from orchestrator.test_shards import RUN, T, shard
from orchestrator.world import World

MOST = 4


def timer(seq: int, due: int) -> OutboxRow:
    return OutboxRow(
        3, seq, RowKind.TIMER, RUN, str(seq), "", None, None, [], None, 1, None, to_datetime(due)
    )


class Rows:
    """The store, as far as Sleepers need one."""

    def __init__(self) -> None:
        self.rows: dict[int, OutboxRow] = {}
        self.asked = 0

    def timers(self, number: int, after: tuple[object, int] | None, limit: int) -> list[OutboxRow]:
        self.asked += 1
        found = sorted((row.due_at, row.seq) for row in self.rows.values() if row.due_at is not None)
        return [self.rows[seq] for at, seq in found if after is None or (at, seq) > after][:limit]


class Bench:
    def __init__(self) -> None:
        self.store = Rows()
        self.sleepers = Sleepers(cast("Store", self.store), MOST)
        self.shard = self._take()
        self.fired: list[tuple[int, int]] = []

    def _take(self) -> Shard:
        taken = shard()
        for row in self.sleepers.first(taken):
            taken.opened(row)
        return taken

    def take_over(self) -> None:
        self.shard = self._take()

    def open(self, seq: int, due: int) -> None:
        self.store.rows[seq] = timer(seq, due)
        self.shard.opened(self.store.rows[seq])

    def close(self, seq: int) -> None:
        del self.store.rows[seq]
        self.shard.closed(seq)

    def turn(self, now: int, most: int = 100) -> list[int]:
        """As the loop turns: what fires is decided, and closed by the commit."""
        self.sleepers.keep({3: self.shard})
        fired: list[int] = []
        if self.shard.ready(now, lambda number, since: End(now, 0)):
            for due in self.shard.pop_due(now, most):
                assert due.at <= now, "before its time"
                fired.append(due.row)
                self.fired.append((due.at, due.row))
        for seq in fired:
            self.close(seq)
        return fired


def test_a_shard_with_few_sleepers_asks_for_nothing() -> None:
    bench = Bench()
    asked = bench.store.asked
    for seq in range(MOST):
        bench.open(seq, T + seq)
    assert bench.turn(T - 1) == []
    assert bench.turn(T + MOST) == list(range(MOST))
    assert bench.turn(T + MOST + 1) == []
    assert bench.store.asked == asked
    assert bench.shard.horizon is None


def test_of_many_those_are_in_memory_that_come_first() -> None:
    bench = Bench()
    for seq in range(100):
        bench.open(seq, T + 100 - seq)
    assert bench.turn(T) == []
    assert sorted(bench.shard.asleep) == sorted(bench.shard.open) == [98, 99]
    assert len(bench.shard.timers) == 2
    bench.open(100, T + 50)
    bench.open(101, T + 1)
    assert sorted(bench.shard.asleep) == [98, 99, 101], "the one behind the horizon isn't remembered"
    for now in range(T + 1, T + 110):
        bench.turn(now)
    assert [at for at, _ in bench.fired] == sorted(at for at, _ in bench.fired)
    assert len(bench.fired) == 102
    assert bench.shard.horizon is None
    assert not bench.shard.open


def test_those_of_one_moment_are_read_page_by_page_too() -> None:
    bench = Bench()
    for seq in range(50):
        bench.open(seq, T)
    found: list[int] = []
    while bench.store.rows:
        assert len(bench.shard.asleep) <= 50
        found += bench.turn(T, most=3)
    assert found == list(range(50))


def test_an_heir_has_a_page_and_reads_on() -> None:
    bench = Bench()
    for seq in range(50):
        bench.open(seq, T + seq)
    bench.take_over()
    assert sorted(bench.shard.asleep) == [0, 1]
    for now in range(T, T + 50):
        bench.turn(now)
    assert [row for _, row in bench.fired] == list(range(50))


def test_what_is_closed_far_away_is_never_read() -> None:
    bench = Bench()
    for seq in range(50):
        bench.open(seq, T + seq)
    bench.take_over()
    for seq in range(10, 40):
        bench.close(seq)
    for now in range(T, T + 50):
        bench.turn(now)
    assert [row for _, row in bench.fired] == [*range(10), *range(40, 50)]


def test_when_nothing_is_left_in_memory_the_loop_still_knows_when_to_look() -> None:
    bench = Bench()
    for seq in range(50):
        bench.open(seq, T + seq)
    bench.take_over()
    for seq in (0, 1):
        bench.close(seq)
    assert bench.shard.next_due is None
    assert bench.shard.wakes_at == T + 1, "where those begin that the store alone has"


def test_time_outs_of_commands_stay_in_memory_whatever_sleeps() -> None:
    bench = Bench()
    for seq in range(50):
        bench.open(seq, T + seq)
    bench.turn(T - 1)
    command = timer(99, T + 10_000)
    command.kind = RowKind.COMMAND
    bench.shard.opened(command)
    assert 99 in bench.shard.open
    bench.turn(T - 1)
    assert bench.shard.in_flight == 1


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("open"), st.integers(0, 40)),
            st.tuples(st.just("open"), st.integers(0, 40)),
            st.tuples(st.just("close"), st.integers(0, 1000)),
            st.tuples(st.just("turn"), st.integers(1, 4)),
            st.tuples(st.just("pass"), st.integers(1, 20)),
            st.tuples(st.just("heir"), st.just(0)),
        ),
        max_size=120,
    )
)
def test_each_wakes_once_and_in_time_whatever_happens(happened: list[tuple[str, int]]) -> None:
    bench, now, seq = Bench(), T, 0
    opened: set[int] = set()
    closed: set[int] = set()
    for what, number in happened:
        if what == "open":
            seq += 1
            bench.open(seq, now + number)
            opened.add(seq)
        elif what == "close" and bench.store.rows:
            chosen = sorted(bench.store.rows)[number % len(bench.store.rows)]
            bench.close(chosen)
            closed.add(chosen)
        elif what == "turn":
            bench.turn(now, number)
            assert len(bench.shard.asleep) <= MOST + MOST // 2
        elif what == "pass":
            now += number
        elif what == "heir":
            bench.take_over()
    while bench.store.rows:
        now += 1
        bench.turn(now, 2)
    rows = [row for _, row in bench.fired]
    assert len(rows) == len(set(rows)), "twice"
    assert set(rows) | closed == opened, "never"


# --- the whole loop


def _asleep(world: World, number: int) -> None:
    """Let so many sagas begin to sleep: rest, for 20 seconds and half a second more from one to the next."""
    for each in range(number):
        world.start("rest", f"r{each:02}", note=str(20 + each / 2))
    while sum(row.kind is RowKind.TIMER for row in world.outbox()) < number:
        world.step()


def _in_memory(world: World) -> int:
    return sum(len(each.asleep) for node in world.nodes for each in node.loop.shards.values())


@pytest.mark.parametrize("heir", [False, True])
def test_many_sagas_sleep_and_each_goes_on_when_it_is_its_turn(heir: bool) -> None:
    with World(seed=3, shards=1) as world:
        node = world.join()
        _asleep(world, 40)
        world.turns(node, 3)
        assert 0 < _in_memory(world) <= 6
        if heir:
            world.kill(node)
            world.join()
        world.settle()
        for number, row in enumerate(sorted(world.sagas(), key=lambda row: row.saga_id)):
            assert row.state is SagaState.COMPLETED
            assert row.ended_at is not None
            slept = (row.ended_at - row.started_at).total_seconds()
            assert 20 + number / 2 <= slept < 20 + number / 2 + 5


def test_one_that_is_far_away_can_be_cancelled() -> None:
    with World(seed=4, shards=1) as world:
        node = world.join()
        _asleep(world, 20)
        world.turns(node, 3)
        world.control("cancel", "r19")
        while world.saga("r19").state is not SagaState.COMPENSATED:
            world.step()
        assert sum(row.kind is RowKind.TIMER for row in world.outbox()) == 19
        world.settle()
        assert [row.state for row in world.sagas()].count(SagaState.COMPLETED) == 19


def test_where_postgres_is_away_just_then_they_are_read_later() -> None:
    failures = 0

    def fail(point: str) -> None:
        nonlocal failures
        if point == "timers" and failures < 7:
            failures += 1
            raise StoreUnavailable("away")

    with World(seed=5, shards=1) as world:
        world.join()
        _asleep(world, 20)
        world.fault = fail
        while failures < 7 or not world.over():
            world.step()
        assert {row.state for row in world.sagas()} == {SagaState.COMPLETED}
