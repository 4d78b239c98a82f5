"""Which sagas of a database are chosen, and that no question asks for much."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from kasaga.gate.choose import LOOK_AT, PAGE, Choice, choose, finished, live
from kasaga.store.base import OutboxRow, RowKind, SagaFilter, SagaRow, SagaState, ShardLease

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


class Plain:
    """A store of sagas, that counts what it is asked for; none of its sagas has a history."""

    def __init__(self, rows: list[SagaRow], open_rows: list[OutboxRow] | None = None) -> None:
        self._rows = sorted(rows, key=lambda row: row.run_id, reverse=True)
        self._open = sorted(open_rows or [], key=lambda row: row.seq)
        self.limits: list[int] = []

    def list_sagas(self, where: SagaFilter, *, after: UUID | None = None, limit: int = 100) -> list[SagaRow]:
        self.limits.append(limit)
        return [
            row
            for row in self._rows
            if (not where.states or row.state in where.states) and (after is None or row.run_id < after)
        ][:limit]

    def shards(self) -> list[ShardLease]:
        return [ShardLease(shard, None, False) for shard in (0, 1)]

    def waiting(self, shard: int, *, after: int = 0, limit: int = 500) -> tuple[list[SagaRow], int | None]:
        self.limits.append(limit)
        page = [row for row in self._open if row.shard == shard and row.seq > after][:limit]
        runs = {row.run_id for row in page}
        rows = [row for row in self._rows if row.run_id in runs]
        return rows, page[-1].seq if len(page) == limit else None

    def history(self, row: SagaRow) -> list[Any]:
        return []


def saga(age: timedelta, number: int, state: SagaState, name: str = "payment", version: int = 1) -> SagaRow:
    run = UUID(int=(int((NOW - age).timestamp() * 1000) << 80) + number)
    at = NOW - age
    return SagaRow(number % 2, run, f"s-{number}", name, version, state, b"", at, at, at)


def row_of(saga: SagaRow, seq: int) -> OutboxRow:
    run, shard = saga.run_id, saga.shard
    return OutboxRow(shard, seq, RowKind.COMMAND, run, "1", "t", None, None, [], None, 1, None, None)


def store(**more: Any) -> Any:
    return Plain(**more)


def test_what_needs_attention_comes_first_then_what_has_waited_longest() -> None:
    running = [saga(timedelta(hours=1), number, SagaState.RUNNING) for number in range(5)]
    stuck = saga(timedelta(days=9), 7, SagaState.STUCK)
    done = saga(timedelta(days=1), 8, SagaState.COMPLETED)
    rows = [row_of(each, 100 - number) for number, each in enumerate((*running, stuck, done, running[0]))]
    shop = store(rows=[*running, stuck, done], open_rows=rows)
    found = [row.saga_id for row in live(shop, 100)]
    assert found[0] == "s-7"
    assert sorted(found) == ["s-0", "s-1", "s-2", "s-3", "s-4", "s-7"]
    assert [row.saga_id for row in live(shop, 3)] == found[:3]
    assert list(live(shop, 0)) == []


def test_running_ones_are_read_by_pages() -> None:
    running = [saga(timedelta(hours=1), number, SagaState.RUNNING) for number in range(5 * PAGE)]
    shop = store(rows=running, open_rows=[row_of(each, number + 1) for number, each in enumerate(running)])
    assert len(list(live(shop, 10_000))) == 5 * PAGE
    assert set(shop.limits) == {PAGE}


def sample(shop: Any, each: int, *definitions: tuple[str, int]) -> Counter[str]:
    choice = Choice(0, each, frozenset(definitions) if definitions else None)
    found = list(finished(shop, choice, NOW))
    assert len({row.run_id for row in found}) == len(found)
    assert all(row.state in (SagaState.COMPLETED, SagaState.COMPENSATED) for row in found)
    return Counter(f"{row.name}/{row.version}" for row in found)


def test_a_sample_of_each_definition_from_different_ages() -> None:
    ages = [timedelta(minutes=7 * number) for number in range(3_000)]
    rows = [saga(age, number, SagaState.COMPLETED, version=1 + number % 2) for number, age in enumerate(ages)]
    rows += [saga(timedelta(days=3), 9_000, SagaState.COMPENSATED, "refund")]
    rows += [saga(timedelta(seconds=5), 9_001, SagaState.RUNNING)]
    shop = store(rows=rows)
    assert sample(shop, 40, ("payment", 1), ("refund", 1)) == {"payment/1": 40, "refund/1": 1}
    assert sample(shop, 10) == {"payment/1": 10, "payment/2": 10, "refund/1": 1}
    taken = list(finished(shop, Choice(0, 18, frozenset({("payment", 1)})), NOW))
    days = {(NOW - row.started_at).days for row in taken}
    assert len(days) >= 5
    assert set(shop.limits) == {PAGE}


def test_few_are_all_taken() -> None:
    rows = [saga(timedelta(seconds=number), number, SagaState.COMPLETED) for number in range(30)]
    assert sample(store(rows=rows), 1_000) == {"payment/1": 30}
    assert sample(store(rows=rows), 25) == {"payment/1": 25}
    assert sample(store(rows=rows), 0) == {}
    assert sample(store(rows=[]), 100) == {}


def test_a_rare_definition_is_not_searched_for_ever() -> None:
    rows = [
        saga(timedelta(seconds=number), number, SagaState.COMPLETED) for number in range(LOOK_AT + 5 * PAGE)
    ]
    rows.append(saga(timedelta(seconds=8_000), 99_999, SagaState.COMPLETED, "rare"))
    shop = store(rows=rows)
    assert sample(shop, 100, ("rare", 1)) == {}
    assert len(shop.limits) * PAGE <= LOOK_AT + 20 * PAGE


def test_one_that_ends_meanwhile_is_taken_once() -> None:
    row = saga(timedelta(hours=1), 1, SagaState.RUNNING)
    shop = store(rows=[row], open_rows=[row_of(row, 1)])
    histories = choose(shop, Choice(10, 10), NOW)
    assert next(histories).saga_id == "s-1"
    row.state = SagaState.COMPLETED
    assert list(histories) == []


@pytest.mark.parametrize("running", [0, 1])
def test_live_ones_come_first(running: int) -> None:
    row, done = saga(timedelta(0), 1, SagaState.STUCK), saga(timedelta(0), 2, SagaState.COMPLETED)
    found = [each.saga_id for each in choose(store(rows=[row, done]), Choice(running, 5), NOW)]
    assert found == ["s-1", "s-2"][1 - running :]
