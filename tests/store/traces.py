"""What the heir of a dead owner needs for its traces: the mark, who died, and what was decided."""

from __future__ import annotations

from datetime import timedelta

from kasaga.store.base import SagaWrite, Store
from store.contract import Bench
from store.samples import T0, TTL, Owner, history_row, refuse_all, run_id, saga_row


def write(shard: int, number: int, *seconds: float) -> SagaWrite:
    """A saga with decisions so many seconds after T0."""
    rows = [history_row(seq, at=T0 + timedelta(seconds=after)) for seq, after in enumerate(seconds)]
    return SagaWrite(shard, run_id(number), rows, saga_row(shard, number), new=True)


class TracesContract:
    def test_a_claim_tells_who_had_the_shard_and_did_not_hand_it_over(
        self, bench: Bench, store: Store
    ) -> None:
        told: list[str | None] = []
        for process in ("p1", "p1", "p2"):
            row = store.claim(3, process, ttl=TTL)
            assert row is not None
            told.append(row.last_owner)
            bench.expire()
        assert told == [None, "p1", "p1"]
        assert row is not None
        store.release([(3, row.token)])
        handed_over = store.claim(3, "p3", ttl=TTL)
        assert handed_over is not None
        assert handed_over.last_owner is None

    def test_the_mark_of_the_last_commit_is_told_to_the_next_owner(self, bench: Bench, store: Store) -> None:
        owner = Owner(store).claim(3, 4)
        assert owner.rows[3].traced is None
        batch = owner.batch(shards=(3, 4))
        mark = batch.shards[0].traced = T0 - timedelta(microseconds=7)
        store.commit(batch, refuse_all)
        bench.expire()
        heir = Owner(bench.store(), "p2").claim(3, 4)
        assert (heir.rows[3].traced, heir.rows[4].traced) == (mark, None)
        heir.commit(shards=(3,))
        heir.claim(3)
        assert heir.rows[3].traced is None, "one that exports nothing leaves no mark"

    def test_what_was_decided_in_a_time_is_found(self, store: Store) -> None:
        owner = Owner(store).claim(3, 4)
        owner.commit(write(3, 1, 0, 5), write(3, 2, 0, 10), write(4, 3, 5), write(3, 4, 20))

        def touched(since: float, until: float, limit: int = 10) -> list[int]:
            first, last = T0 + timedelta(seconds=since), T0 + timedelta(seconds=until)
            found = store.touched(3, first, last, limit=limit)
            return sorted(number for number in range(1, 5) if run_id(number) in found)

        assert touched(0, 100) == [1, 2, 4]
        assert touched(5, 10) == [1, 2]
        assert touched(5.000001, 9.999999) == []
        assert touched(4, 6) == [1]
        assert len(touched(0, 100, limit=2)) == 2
        assert store.touched(4, T0, T0 + timedelta(days=1), limit=10) == [run_id(3)]

    def test_histories_are_whole_and_in_order(self, store: Store) -> None:
        owner = Owner(store).claim(3)
        owner.commit(write(3, 1, 0, 5, 6), write(3, 2, 0))
        asked = [(3, run_id(1)), (3, run_id(2)), (3, run_id(9)), (4, run_id(1))]
        assert store.histories(asked[:3]) == store.load(asked[:3])
        assert {run: [row.seq for row in rows] for run, rows in store.histories(asked[:3]).items()} == {
            run_id(1): [0, 1, 2],
            run_id(2): [0],
        }
        assert store.histories([]) == {}
