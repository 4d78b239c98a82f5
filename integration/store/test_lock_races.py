"""Many owners contend for a few keys over real connections: one holds a key, and none waits for ever."""

from __future__ import annotations

import random
import threading
from collections.abc import Generator
from functools import partial

import pytest

from eventually import eventually
from kasaga.store.base import SagaState, SagaWrite
from kasaga.store.locks import Answer, Reply, Wanted
from store.postgres_bench import PostgresBench, shared_database
from store.samples import Owner, history_row, run_id, saga_row, start

__all__ = ["shared_database"]

OWNERS, SAGAS = 4, 12
KEYS = "abcd"


@pytest.fixture
def bench(shared_database: str) -> Generator[PostgresBench]:
    with PostgresBench(shared_database) as bench:
        yield bench


class Contender(threading.Thread):
    """A shard's owner; its sagas ask for two keys one after the other, in any order, or for both at once."""

    def __init__(self, bench: PostgresBench, shard: int, holders: dict[str, int]) -> None:
        super().__init__()
        self.random, self.shard, self.holders = random.Random(shard), shard, holders
        self.owner = Owner(bench.postgres(), f"p{shard}").claim(shard)
        self.ended = 0
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            for number in range(SAGAS):
                self.saga(100 * (self.shard + 1) + number)
        except BaseException as error:
            self.error = error
            raise

    def saga(self, number: int) -> None:
        keys = self.random.sample(KEYS, 2)
        self.owner.commit(start(self.shard, number))
        wishes = [tuple(sorted(keys))] if self.random.random() < 0.3 else [(key,) for key in keys]
        for step, wish in enumerate(wishes):
            wanted = Wanted(self.shard, run_id(number), str(step), wish)
            reply = eventually(partial(self.ask, wanted), interval=0.002)
            assert reply is not None
            if reply.answer is not Answer.GRANTED:
                break  # it would close a cycle
            for key in wish:
                assert self.holders.setdefault(key, number) == number, f"{key} is held twice"
        for key in keys:
            if self.holders.get(key) == number:
                del self.holders[key]
        row = saga_row(self.shard, number, SagaState.COMPLETED)
        self.owner.commit(SagaWrite(self.shard, run_id(number), [history_row(2)], row, frees=keys))
        self.ended += 1

    def ask(self, wanted: Wanted) -> Reply | None:
        tokens = [(self.shard, self.owner.rows[self.shard].token)]
        return self.owner.store.contend(tokens, [wanted]).get(wanted)


def test_one_holds_a_key_at_a_time_and_every_deadlock_is_found(bench: PostgresBench) -> None:
    holders: dict[str, int] = {}
    contenders = [Contender(bench, shard, holders) for shard in range(OWNERS)]
    for each in contenders:
        each.start()
    for each in contenders:
        each.join()
    assert [each.error for each in contenders] == [None] * OWNERS
    assert [each.ended for each in contenders] == [SAGAS] * OWNERS
    assert bench.store().locks() == []
