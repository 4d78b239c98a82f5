"""Whatever is done to both stores, in whatever order: they answer and hold the same."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kasaga.store.base import (
    Batch,
    LostShards,
    Offsets,
    OutboxRow,
    RowKind,
    SagaFilter,
    SagaState,
    SagaWrite,
    ShardWrite,
    Store,
    Suspect,
)
from kasaga.store.errors import BadBatch, ContentRefused
from kasaga.store.memory import MemoryStore
from store.postgres_bench import PostgresBench, shared_database
from store.samples import T0, TTL, history_row, outbox_row, run_id, saga_row

__all__ = ["shared_database"]

SHARDS = st.integers(0, 2)
NUMBERS = st.integers(1, 6)
SEQS = st.integers(1, 12)
PROCESSES = st.sampled_from(["p1", "p2"])
TEXTS = st.one_of(
    st.text(max_size=8), st.sampled_from(["", "\x00", "\ud800", "NULL", "{,}", '"\\', "é\U0001f986"])
)
BYTES = st.binary(max_size=40)
TIMES = st.datetimes(timezones=st.just(UTC))


class World:
    """One store under its driver: tokens by number, so that both worlds have the same ones."""

    def __init__(self, make: Callable[[Callable[[], UUID]], Store], expire: Callable[[], None]) -> None:
        self._tokens = (UUID(int=number) for number in range(1, 10_000))
        self.store = make(lambda: next(self._tokens))
        self.expire = expire
        self.tokens: dict[tuple[int, str], UUID] = {}
        self.seqs: dict[int, int] = {}
        self.last: Batch | None = None

    def do(self, action: tuple[Any, ...]) -> object:
        name, *arguments = action
        return getattr(self, f"do_{name}")(*arguments)

    def do_claim(self, shard: int, process: str) -> object:
        row = self.store.claim(shard, process, ttl=TTL)
        if row is None:
            return None
        self.tokens[shard, process] = row.token
        self.seqs[shard] = row.commit_seq
        clock = row.now if row.offsets is not None else None
        return (
            row.token,
            row.epoch,
            row.offsets,
            row.commit_seq,
            row.next_seq,
            row.deaths,
            row.suspect,
            clock,
        )

    def do_expire(self) -> object:
        return self.expire()

    def do_release(self, shard: int, process: str) -> None:
        self.store.release([(shard, self._token(shard, process))], process)

    def do_pardon(self, shard: int, process: str) -> None:
        self.store.pardon(shard, self._token(shard, process))

    def do_heartbeat(self, process: str) -> object:
        held = [(shard, token) for (shard, name), token in self.tokens.items() if name == process]
        seen = self.store.heartbeat(process, held, ttl=TTL)
        return seen.processes, seen.shards, seen.commits

    def do_commit(self, process: str, sagas: list[SagaWrite], loose: list[OutboxRow], ahead: int) -> object:
        shards = sorted({write.shard for write in sagas} | {row.shard for row in loose}) or [0]
        fences = [self._shard(shard, process, ahead) for shard in shards]
        self.last = Batch(fences, sagas, loose, [(shards[0], 3)])
        return self.do_again()

    def do_again(self) -> object:
        """The last batch, whatever became of it."""
        if self.last is None:
            return None
        try:
            committed = self.store.commit(self.last, self._park)
        except LostShards as lost:
            return ("lost", lost.shards, lost.astray)
        except (BadBatch, ContentRefused) as error:
            return type(error)
        for fence in self.last.shards:
            self.seqs[fence.shard] = fence.commit_seq
        return (committed.replaced.keys(), [row for row, _ in committed.dropped])

    def do_purge(self, limit: int) -> object:
        found = self.store.finished(timedelta(days=1), limit=limit)
        forgotten = self.store.forget(timedelta(days=20_000), limit=limit)
        return self.store.delete(found.rows), forgotten, found.after

    def _shard(self, shard: int, process: str, ahead: int) -> ShardWrite:
        seq = self.seqs.setdefault(shard, 0) + ahead
        now = T0 + timedelta(seconds=seq)
        suspect = Suspect(run_id(seq % 2), f"line {seq}") if seq % 3 else None
        acquitted = run_id(0) if seq % 5 == 0 else None
        token, offsets = self._token(shard, process), Offsets(seq, 2, 3)
        return ShardWrite(shard, token, seq, offsets, 0, 100, now, suspect, acquitted)

    def _token(self, shard: int, process: str) -> UUID:
        return self.tokens.get((shard, process), UUID(int=0))

    @staticmethod
    def _park(write: SagaWrite, message: str, number: int) -> SagaWrite:
        assert message
        row = saga_row(
            write.shard, 99, SagaState.STUCK, run_id=write.run_id, saga_id=f"parked-{write.run_id}"
        )
        return SagaWrite(write.shard, write.run_id, [history_row(50 + number)], row, new=write.new)

    def contents(self) -> Iterator[object]:
        """All that can be read."""
        store = self.store
        rows = store.list_sagas(SagaFilter(), limit=1000)
        yield rows
        yield store.count(SagaFilter())
        yield store.load([(row.shard, row.run_id) for row in rows])
        for row in rows[:1]:
            yield list(store.history(row)), store.waits(row), store.saga(row.saga_id)
        yield store.find([(shard, f"order-{number}") for shard in range(3) for number in range(8)])
        for shard in range(3):
            yield store.open_rows(shard)
            yield store.parked(shard, "old")
        yield store.shards()
        yield store.list_sagas(SagaFilter(name="x", states=[SagaState.STUCK, SagaState.RUNNING]), limit=2)


@st.composite
def outbox_rows(draw: st.DrawFn, shard: int, number: int | None) -> OutboxRow:
    return outbox_row(
        shard,
        draw(SEQS),
        None if number is None else run_id(number),
        kind=draw(st.sampled_from(RowKind)),
        step=draw(TEXTS),
        topic=draw(TEXTS),
        partition=draw(st.none() | st.integers(0, 2**33)),
        key=draw(st.none() | BYTES),
        headers=draw(
            st.lists(st.tuples(st.text(st.characters(codec="utf-8"), max_size=5), BYTES), max_size=3)
        ),
        payload=draw(st.none() | BYTES),
        attempt=draw(st.integers(1, 3)),
        send_at=draw(st.none() | TIMES),
        due_at=draw(st.none() | TIMES),
    )


@st.composite
def saga_writes(draw: st.DrawFn, number: int) -> SagaWrite:
    shard = number % 3
    write = SagaWrite(shard, run_id(number), new=draw(st.booleans()))
    seqs = draw(st.lists(st.integers(0, 5), max_size=2))
    write.history = [history_row(seq, draw(BYTES), kind=draw(TEXTS), at=draw(TIMES)) for seq in seqs]
    write.opens = draw(st.lists(outbox_rows(shard, number), max_size=2))
    write.closes = draw(st.lists(SEQS, max_size=2))
    if draw(st.booleans()):
        state = draw(st.sampled_from(SagaState))
        write.saga = saga_row(
            shard,
            number,
            state,
            saga_id=f"order-{draw(NUMBERS) % 3 * 3 + shard}",
            name=draw(st.sampled_from(["payment", "x", "\x00"])),
            version=draw(st.sampled_from([1, 2, 2**31])),
            ended_at=draw(st.none() | st.just(T0)),
            reason=draw(TEXTS),
            parked_code=draw(st.sampled_from(["", "old", "new"])),
            with_exceptions=draw(st.booleans()),
            result=draw(st.none() | BYTES),
        )
    return write


@st.composite
def commits(draw: st.DrawFn) -> tuple[Any, ...]:
    numbers = draw(st.lists(NUMBERS, unique=True, max_size=4))
    sagas = [draw(saga_writes(number)) for number in numbers]
    loose = draw(st.lists(SHARDS.flatmap(lambda shard: outbox_rows(shard, None)), max_size=2))
    return ("commit", draw(PROCESSES), sagas, loose, draw(st.sampled_from([1, 1, 1, 1, 1, 2])))


ACTIONS = st.one_of(
    commits(),
    commits(),
    commits(),
    st.tuples(st.just("claim"), SHARDS, PROCESSES),
    st.tuples(st.just("again")),
    st.tuples(st.just("expire")),
    st.tuples(st.just("release"), SHARDS, PROCESSES),
    st.tuples(st.just("pardon"), SHARDS, PROCESSES),
    st.tuples(st.just("heartbeat"), PROCESSES),
    st.tuples(st.just("purge"), st.integers(1, 4)),
)
OPENING = [("claim", shard, "p1") for shard in range(3)]


@pytest.fixture(scope="module")
def bench(shared_database: str) -> Generator[PostgresBench]:
    with PostgresBench(shared_database) as bench:
        yield bench


@settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(actions=st.lists(ACTIONS, min_size=3, max_size=14))
def test_both_stores_do_the_same(bench: PostgresBench, actions: list[tuple[Any, ...]]) -> None:
    bench.wipe()
    ahead = [timedelta(0)]

    def expire() -> None:
        ahead[0] += timedelta(hours=1)

    memory = World(
        lambda tokens: MemoryStore(clock=lambda: datetime.now(UTC) + ahead[0], tokens=tokens), expire
    )
    postgres = World(lambda tokens: bench.postgres(tokens=tokens), bench.expire)
    try:
        for action in [*OPENING, *actions]:
            assert memory.do(action) == postgres.do(action)
        assert list(memory.contents()) == list(postgres.contents())
    finally:
        postgres.store.close()
