"""What every store has to do with content that Postgres refuses: replace the one saga, commit the rest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from uuid import UUID

import pytest

from kasaga.store.base import REPLACEMENT_TRIES, SagaFilter, SagaState, SagaWrite, Store
from kasaga.store.errors import BadBatch, ContentRefused
from store.samples import Owner, history_row, outbox_row, run_id, saga_row, start

Spoil = Callable[[SagaWrite], None]


def _row(write: SagaWrite, **changes: object) -> None:
    assert write.saga is not None
    for name, value in changes.items():
        setattr(write.saga, name, value)


SPOILS: dict[str, Spoil] = {
    "nul in a reason": lambda write: _row(write, reason="a\x00b"),
    "nul in a kind": lambda write: write.history.append(history_row(1, kind="\x00")),
    "nul in a step": lambda write: write.opens.append(outbox_row(write.shard, 999, step="\x00")),
    "lone surrogate": lambda write: _row(write, remedy="\ud800"),
    "lone surrogate in a topic": lambda write: write.opens.append(
        outbox_row(write.shard, 999, topic="\udfff")
    ),
    "version too big": lambda write: _row(write, version=2**31),
    "attempt too big": lambda write: write.opens.append(outbox_row(write.shard, 999, attempt=2**40)),
    "history number twice": lambda write: write.history.append(history_row(0)),
    "outbox number twice": lambda write: write.opens.extend([outbox_row(write.shard, 999)] * 2),
    "id of another saga": lambda write: _row(write, saga_id="order-0"),
}


@dataclass
class Parker:
    """A `replace` that parks; `bad_tries` of its answers are refused as well."""

    bad_tries: int = 0
    asked: list[tuple[UUID, int]] = field(default_factory=list[tuple[UUID, int]])

    def __call__(self, write: SagaWrite, message: str, number: int) -> SagaWrite:
        assert message
        self.asked.append((write.run_id, number))
        index = int.from_bytes(write.run_id.bytes[-4:], "big")
        row = saga_row(write.shard, index, SagaState.STUCK, code="KSG-300", reason="refused")
        if number <= self.bad_tries:
            row.reason = "\x00"
        return SagaWrite(write.shard, write.run_id, [history_row(0, b"parked")], row, new=write.new)


class RefusalContract:
    @pytest.mark.parametrize("spoil", SPOILS.values(), ids=SPOILS.keys())
    def test_the_offender_is_replaced_and_the_rest_commits(self, owner: Owner, spoil: Spoil) -> None:
        owner.claim(3, 4)
        owner.commit(start(3, 0))
        writes = [start(3 + number % 2, number, seq=number) for number in range(1, 12)]
        spoil(writes[5])
        park = Parker()
        batch = owner.batch(*writes, loose=[outbox_row(3, 900)])
        committed = owner.store.commit(batch, park)
        assert list(committed.replaced) == [run_id(6)]
        assert committed.replaced[run_id(6)]
        assert committed.dropped == []
        assert park.asked == [(run_id(6), 1)]
        owner.done(batch)
        self.check_parked(owner.store, parked={6}, count=12)
        assert [row.seq for row in owner.store.open_rows(3)] == [2, 4, 8, 10, 900]
        assert [row.seq for row in owner.store.open_rows(4)] == [1, 3, 5, 7, 9, 11]
        owner.commit(start(3, 20))

    @staticmethod
    def check_parked(store: Store, *, parked: set[int], count: int) -> None:
        rows = {row.saga_id: row for row in store.list_sagas(SagaFilter(), limit=1000)}
        assert len(rows) == count
        stuck = {name for name, row in rows.items() if row.state is SagaState.STUCK}
        assert stuck == {f"order-{number}" for number in parked}
        histories = store.load([(row.shard, row.run_id) for row in rows.values()])
        assert len(histories) == count
        for number in parked:
            assert histories[run_id(number)] == [history_row(0, b"parked")]

    @pytest.mark.parametrize("offenders", [{1}, {64}, {1, 2}, {1, 64}, {7, 8, 9, 31, 50}, set(range(1, 65))])
    def test_many_offenders(self, owner: Owner, offenders: set[int]) -> None:
        owner.claim(3)
        writes = [start(3, number, seq=number) for number in range(1, 65)]
        for number in offenders:
            _row(writes[number - 1], reason="\x00")
        committed = owner.store.commit(owner.batch(*writes), Parker())
        assert committed.replaced.keys() == {run_id(number) for number in offenders}
        self.check_parked(owner.store, parked=offenders, count=64)

    def test_of_two_that_clash_the_later_is_replaced(self, owner: Owner) -> None:
        owner.claim(3)
        writes = [start(3, number) for number in range(1, 6)]
        _row(writes[3], saga_id="order-2")
        committed = owner.store.commit(owner.batch(*writes), Parker())
        assert list(committed.replaced) == [run_id(4)]
        self.check_parked(owner.store, parked={4}, count=5)

    def test_a_history_that_exists_is_never_written_over(self, owner: Owner) -> None:
        owner.claim(3)
        owner.commit(start(3, 1))
        park = Parker()

        def put_behind(write: SagaWrite, message: str, number: int) -> SagaWrite:
            parked = park(write, message, number)
            return replace(parked, history=[history_row(1, b"parked")])

        committed = owner.store.commit(
            owner.batch(SagaWrite(3, run_id(1), [history_row(0, b"2nd")])), put_behind
        )
        assert committed.replaced.keys() == {run_id(1)}
        bodies = [row.body for row in owner.store.load([(3, run_id(1))])[run_id(1)]]
        assert bodies == [history_row(0).body, b"parked"]

    def test_a_replacement_may_be_refused_too(self, owner: Owner) -> None:
        owner.claim(3)
        writes = [start(3, 1), start(3, 2)]
        _row(writes[0], reason="\x00")
        park = Parker(bad_tries=REPLACEMENT_TRIES - 1)
        committed = owner.store.commit(owner.batch(*writes), park)
        assert list(committed.replaced) == [run_id(1)]
        assert park.asked == [(run_id(1), number) for number in range(1, REPLACEMENT_TRIES + 1)]
        self.check_parked(owner.store, parked={1}, count=2)

    def test_when_no_replacement_passes_nothing_is_written(self, owner: Owner) -> None:
        owner.claim(3)
        writes = [start(3, 1), start(3, 2)]
        _row(writes[0], reason="\x00")
        batch = owner.batch(*writes)
        with pytest.raises(ContentRefused, match=str(run_id(1))):
            owner.store.commit(batch, Parker(bad_tries=9))
        assert owner.store.list_sagas(SagaFilter()) == []
        assert owner.store.commit(batch, Parker()).replaced.keys() == {run_id(1)}

    def test_what_was_dropped_of_a_batch_that_failed_is_nothing_to_the_next(self, owner: Owner) -> None:
        owner.claim(3)
        write = start(3, 1)
        _row(write, reason="\x00")
        batch = owner.batch(write)
        batch.loose = [outbox_row(3, 90, None), outbox_row(3, 90, None)]
        with pytest.raises(ContentRefused):
            owner.store.commit(batch, Parker(bad_tries=9))
        batch.sagas, batch.loose = [], []
        committed = owner.store.commit(batch, Parker())
        assert (committed.replaced, committed.dropped) == ({}, [])

    def test_the_same_batch_again_names_its_replaced_sagas_again(self, owner: Owner) -> None:
        owner.claim(3, 4)
        writes = [start(3, 1), start(4, 2), start(4, 3)]
        _row(writes[0], reason="\x00")
        _row(writes[1], reason="\ud800")
        loose = [outbox_row(3, 800, topic="\x00")]
        batch = owner.batch(*writes, loose=loose)
        first = owner.store.commit(batch, Parker())
        park = Parker()
        again = owner.store.commit(batch, park)
        assert park.asked == []
        assert again.replaced == first.replaced
        assert again.dropped == first.dropped == [(loose[0], first.dropped[0][1])]
        rest = replace(batch, shards=batch.shards[1:], sagas=batch.sagas[1:], loose=[])  # shard 3 was lost
        assert owner.store.commit(rest, park).replaced.keys() == {run_id(2)}
        owner.done(batch)
        assert owner.store.commit(owner.batch(start(3, 5), shards=(4,)), park).replaced == {}

    def test_what_a_batch_says_of_its_shards_is_not_content(self, owner: Owner) -> None:
        owner.claim(3)
        batch = owner.batch(start(3, 1), loose=[outbox_row(3, 9)])
        batch.shards[0].acked_seq = 2**63
        with pytest.raises(BadBatch):
            owner.store.commit(batch, Parker())
        assert owner.store.open_rows(3) == []

    def test_refused_loose_rows_are_left_out_and_named(self, owner: Owner) -> None:
        owner.claim(3)
        loose = [outbox_row(3, seq) for seq in range(10, 30)]
        loose[4].topic = "\x00"
        loose[11].step = "\ud9ff"
        batch = owner.batch(start(3, 1, seq=1), loose=loose)
        committed = owner.store.commit(batch, Parker())
        assert [row.seq for row, _ in committed.dropped] == [14, 21]
        assert committed.replaced == {}
        left = [row.seq for row in owner.store.open_rows(3)]
        assert left == [1, *(seq for seq in range(10, 30) if seq not in (14, 21))]
