"""What every store has to do for events that sagas await by a key."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from kasaga.store.base import OutboxRow, RowKind, SagaWrite, Store
from kasaga.store.hearing import Kept, Waiter
from store.contract import Bench
from store.samples import T0, Owner, outbox_row, run_id, start


def wait(shard: int, seq: int, number: int, name: str, *, limited: bool = True) -> OutboxRow:
    """The row of a wait for an event."""
    due = T0 if limited else None
    row = outbox_row(shard, seq, run_id(number), kind=RowKind.TIMER, key=name.encode(), due_at=due)
    row.topic, row.headers, row.payload = "", [], None
    return row


def waiting(shard: int, number: int, seq: int, name: str, *, limited: bool = True) -> SagaWrite:
    """A saga that begins, and waits."""
    made = start(shard, number)
    made.opens = [wait(shard, seq, number, name, limited=limited)]
    return made


def kept(name: str, position: str = "t:0:1", seconds: float = 60.0, payload: bytes = b"\x00paid") -> Kept:
    return Kept(name.partition(":")[0], name, position, f"kafka:{position}", payload, seconds)


class AwaitingContract:
    def test_who_waits_is_told_of(self, store: Store, owner: Owner) -> None:
        owner.claim(1, 2)
        owner.commit(waiting(1, 1, 10, "paid:é"), waiting(2, 2, 20, "paid:é", limited=False))
        owner.commit(waiting(1, 3, 11, "paid:b"), start(2, 4, 21))
        found = store.hear([kept("paid:é"), kept("paid:é", "t:0:2"), kept("order:x"), kept("sent:é")])
        assert found == [Waiter("paid:é", "order-1"), Waiter("paid:é", "order-2")]
        assert store.hear([]) == []

    def test_who_waits_no_more_is_not(self, store: Store, owner: Owner) -> None:
        owner.claim(1)
        owner.commit(waiting(1, 1, 10, "paid:a"))
        owner.commit(SagaWrite(1, run_id(1), closes=[10]))
        assert store.hear([kept("paid:a")]) == []
        assert store.arrived(1, [10]) == []

    def test_what_came_before_is_found_in_its_order_once(self, store: Store, owner: Owner) -> None:
        first, second = kept("paid:a", "t:0:9"), kept("paid:a", "t:0:10", payload=b"2")
        assert store.hear([first]) == store.hear([second, first, kept("paid:b")]) == []
        owner.claim(1)
        owner.commit(waiting(1, 1, 10, "paid:a", limited=False), waiting(1, 2, 11, "paid:c"))
        assert store.awaited(1) == [10]
        assert store.awaited(2) == []
        found = store.arrived(1, [10, 11, 12])
        assert [(each.seq, each.run_id, each.saga_id) for each in found] == [(10, run_id(1), "order-1")] * 2
        assert [each[3:] for each in found] == [first[1:5], second[1:5]]

    def test_two_sagas_are_given_it(self, store: Store, owner: Owner) -> None:
        store.hear([kept("paid:a")])
        owner.claim(1)
        owner.commit(waiting(1, 1, 10, "paid:a"), waiting(1, 2, 11, "paid:a"))
        assert [each.saga_id for each in store.arrived(1, [10, 11])] == ["order-1", "order-2"]

    def test_it_is_forgotten_when_its_time_is_over(self, bench: Bench, store: Store, owner: Owner) -> None:
        owner.claim(1)
        owner.commit(waiting(1, 1, 10, "paid:a"))
        assert store.hear([kept("paid:a", seconds=0), kept("paid:a", "t:0:2")]) != []
        assert [each.position for each in store.arrived(1, [10])] == ["t:0:2"]
        assert store.unhear({}) == 1
        assert store.unhear({"paid": 1}) == 0

    def test_of_too_many_the_oldest_go(self, store: Store, owner: Owner) -> None:
        store.hear([kept(f"paid:{n}", f"t:0:{n}") for n in range(5)] + [kept("sent:1")])
        assert store.unhear({"paid": 2, "other": 1}) == 3
        owner.claim(1)
        owner.commit(*(waiting(1, n, 10 + n, f"paid:{n}") for n in range(5)))
        assert store.awaited(1) == [13, 14]

    def test_a_record_and_a_wait_that_race_always_meet(
        self, bench: Bench, store: Store, owner: Owner
    ) -> None:
        """Each over its own connection: whichever is second sees the other."""
        owner.claim(1)
        listener = bench.store()
        met: list[tuple[bool, bool]] = []
        with ThreadPoolExecutor(1) as thread:
            for number in range(100):
                begin = threading.Barrier(2)

                def hear(name: str = f"paid:{number}", begin: threading.Barrier = begin) -> bool:
                    begin.wait()
                    return listener.hear([kept(name)]) != []

                heard = thread.submit(hear)
                begin.wait()
                owner.commit(waiting(1, number, 100 + number, f"paid:{number}"))
                found = store.arrived(1, [100 + number]) != []
                met.append((heard.result(), found))
        assert [pair for pair in met if not any(pair)] == []
