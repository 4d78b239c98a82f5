"""What every store has to do with locks: queues by key, who is first, who would wait for itself."""

from __future__ import annotations

from kasaga.store.base import SagaState, SagaWrite, Store
from kasaga.store.locks import Answer, Behind, Reply, Wanted
from store.contract import Bench
from store.samples import Owner, history_row, run_id, saga_row, start

GRANTED = Reply(Answer.GRANTED)


def wants(number: int, *keys: str, shard: int = 3, wait: bool = True) -> Wanted:
    return Wanted(shard, run_id(number), "1", keys, wait)


def end(number: int, *keys: str, shard: int = 3) -> SagaWrite:
    """A saga's end, with what it lets go of."""
    row = saga_row(shard, number, SagaState.COMPLETED)
    return SagaWrite(shard, run_id(number), [history_row(2)], row, frees=list(keys))


class Contender:
    """A shard's owner with sagas, and what it is told."""

    def __init__(self, store: Store, sagas: int = 4, shard: int = 3) -> None:
        self.store, self.shard = store, shard
        self.owner = Owner(store).claim(shard)
        self.owner.commit(*(start(shard, number) for number in range(1, sagas + 1)))

    def ask(self, *wanted: Wanted) -> list[Reply | None]:
        tokens = [(self.shard, self.owner.rows[self.shard].token)]
        replies = self.store.contend(tokens, wanted)
        return [replies.get(each) for each in wanted]

    def queue(self, key: str) -> list[str]:
        return [row.saga_id for row in self.store.queues([key])]


class LockContract:
    def test_a_key_is_held_by_who_came_first_until_that_one_has_ended(self, store: Store) -> None:
        desk = Contender(store)
        assert desk.ask(wants(1, "x"), wants(2, "x"), wants(3, "x")) == [GRANTED, None, None]
        assert store.moved([wants(2, "x"), wants(3, "x")]) == []
        assert desk.queue("x") == ["order-1", "order-2", "order-3"]
        desk.owner.commit(end(1, "x"))
        assert store.moved([wants(2, "x"), wants(3, "x")]) == [wants(2, "x")]
        assert desk.ask(wants(3, "x"), wants(2, "x")) == [None, GRANTED]
        assert desk.queue("x") == ["order-2", "order-3"]

    def test_asking_again_changes_nothing(self, store: Store) -> None:
        desk = Contender(store)
        for _ in range(2):
            assert desk.ask(wants(1, "x", "y"), wants(2, "y")) == [GRANTED, None]
            assert [(row.key, row.place, row.saga_id) for row in store.queues(["x", "y", "z"])] == [
                ("x", 0, "order-1"),
                ("y", 0, "order-1"),
                ("y", 1, "order-2"),
            ]

    def test_all_keys_of_a_wish_are_waited_for(self, store: Store) -> None:
        desk = Contender(store)
        desk.ask(wants(1, "x"), wants(2, "y"))
        assert desk.ask(wants(3, "x", "y")) == [None]
        desk.owner.commit(end(1, "x"))
        assert store.moved([wants(3, "x", "y")]) == []
        desk.owner.commit(end(2, "y"))
        assert store.moved([wants(3, "x", "y")]) == [wants(3, "x", "y")]
        assert desk.ask(wants(3, "x", "y")) == [GRANTED]

    def test_who_does_not_wait_is_refused_and_leaves_nothing(self, store: Store) -> None:
        desk = Contender(store)
        desk.ask(wants(1, "y"), wants(2, "y"))
        refused = Reply(Answer.REFUSED, (Behind("order-1", "y"),))
        assert desk.ask(wants(3, "x", "y", wait=False)) == [refused]
        assert (desk.queue("x"), desk.queue("y")) == ([], ["order-1", "order-2"])
        assert desk.ask(wants(3, "x", wait=False)) == [GRANTED]

    def test_who_is_refused_keeps_what_it_had(self, store: Store) -> None:
        desk = Contender(store)
        desk.ask(wants(1, "x"), wants(2, "y"))
        (reply,) = desk.ask(wants(1, "x", "y", wait=False))
        assert reply == Reply(Answer.REFUSED, (Behind("order-2", "y"),))
        assert desk.queue("x") == ["order-1"]

    def test_the_last_of_a_cycle_is_told_of_it_and_leaves_the_queue(self, store: Store) -> None:
        desk = Contender(store)
        desk.ask(wants(1, "a"), wants(2, "b"), wants(3, "c"))
        assert desk.ask(wants(1, "b"), wants(2, "c")) == [None, None]
        cycle = (Behind("order-3", "a"), Behind("order-1", "b"), Behind("order-2", "c"))
        assert desk.ask(wants(3, "a")) == [Reply(Answer.DEADLOCK, cycle)]
        assert (desk.queue("a"), desk.queue("c")) == (["order-1"], ["order-3", "order-2"])

    def test_a_cycle_by_way_of_one_who_only_waits_is_one(self, store: Store) -> None:
        desk = Contender(store)
        desk.ask(wants(1, "h"), wants(2, "j"), wants(3, "h", "j"))
        cycle = (Behind("order-2", "h"), Behind("order-3", "j"))
        assert desk.ask(wants(2, "h")) == [Reply(Answer.DEADLOCK, cycle)]

    def test_those_who_ask_for_all_at_once_are_never_in_a_cycle(self, store: Store) -> None:
        desk = Contender(store)
        assert desk.ask(wants(1, "a", "b"), wants(2, "a", "b"), wants(3, "b", "c")) == [GRANTED, None, None]
        desk.owner.commit(end(1, "a", "b"))
        assert desk.ask(wants(2, "a", "b"), wants(3, "b", "c")) == [GRANTED, None]

    def test_who_was_taken_out_of_a_queue_is_told_to_ask_again(self, store: Store) -> None:
        desk = Contender(store)
        desk.ask(wants(1, "x"), wants(2, "x"))
        desk.owner.commit(SagaWrite(3, run_id(2), [history_row(2)], frees=["x"]))
        assert store.moved([wants(2, "x")]) == [wants(2, "x")]

    def test_only_a_shards_owner_puts_sagas_into_queues(self, bench: Bench, store: Store) -> None:
        desk = Contender(store)
        bench.expire()
        Owner(bench.store(), "p2").claim(3)
        assert desk.ask(wants(1, "x")) == [None]
        assert desk.queue("x") == []

    def test_locks_are_listed_by_key(self, store: Store) -> None:
        desk = Contender(store)
        desk.ask(wants(1, "order:1", "order:2", "x"), wants(2, "order:2"))
        found = [(row.key, row.saga_id, waiting) for row, waiting in store.locks("order:")]
        assert found == [("order:1", "order-1", 0), ("order:2", "order-1", 1)]
        assert [row.key for row, _ in store.locks(after="order:1", limit=1)] == ["order:2"]
        assert [row.key for row in store.queues(run_id=run_id(2))] == ["order:2", "order:2"]

    def test_keys_are_any_text(self, store: Store) -> None:
        desk = Contender(store)
        keys = ("", "%", "Ä ß", "a'b", "🔒" * 200)
        assert desk.ask(wants(1, *keys)) == [GRANTED]
        assert [row.key for row in store.queues(run_id=run_id(1))] == sorted(keys)
