"""Answers whose payloads are fetched: by stores that hang, are slow, and belong to who owns the shard."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any
from uuid import UUID

from kasaga.orchestrator.claims import Desk
from kasaga.orchestrator.holding import HOLD_MICROS
from kasaga.orchestrator.shards import Shard
from kasaga.store.base import Offsets, SagaState
from kasaga_wire.kafka import Record
from kasaga_wire.topics import Topics
from orchestrator.desk import Reply
from orchestrator.shelf import Shelf
from orchestrator.test_claim_check import errors
from orchestrator.test_crash_windows import until_over
from orchestrator.world import World

RUN = "01934f3e-7a5c-7cc0-8c3f-0123456789ab"
TOPICS = Topics("trips")


class Later(Executor):
    """Does what it is given when it is told to."""

    def __init__(self) -> None:
        self.given: list[Callable[[], Any]] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.given.append(lambda: fn(*args, **kwargs))
        return Future()

    def work(self, number: int = 0) -> None:
        self.given.pop(number)()


class Scene:
    def __init__(self) -> None:
        self.shelf, self.threads = Shelf(), Later()
        self.counted: list[tuple[str, bool]] = []
        self.desk = Desk(
            self.shelf.claims(), TOPICS, lambda what, well: self.counted.append((what, well)), self.threads
        )
        self.shards = {0: _shard()}

    def reply(self, offset: int, payload: bytes = b"a chair " * 10) -> Record:
        claim = self.shelf.claims().put(RUN, payload)
        headers: list[tuple[str, bytes | None]] = [("ce_kasagacommand", f"{RUN}.{offset}".encode())]
        return Record(TOPICS.replies, 0, offset, b"s", claim, headers, 0)

    def sift(self, now: int, *records: Record) -> list[tuple[int, bytes | None]]:
        return [(each.offset, each.value) for each in self.desk.sift(records, self.shards, now)]


def _shard() -> Shard:
    return Shard(0, UUID(int=1), Offsets(), 1, 1, 1, 0, suspects=False, convicted=None)


def test_an_answer_waits_for_its_payload_and_holds_back_where_a_new_owner_begins() -> None:
    scene = Scene()
    plain = Record(TOPICS.replies, 0, 8, b"s", b"small", [], 0)
    assert scene.sift(1, scene.reply(7), plain) == [(8, b"small")]
    assert scene.shards[0].hold_back(Offsets(0, 9, 0)).replies == 7
    scene.threads.work()
    assert scene.sift(2) == [(7, b"a chair " * 10)]
    assert scene.shards[0].hold_back(Offsets(0, 9, 0)).replies == 9
    assert not scene.desk.busy
    assert scene.counted == [("read", True)]


def test_a_store_that_hangs_is_given_up_and_says_why_once() -> None:
    scene = Scene()
    record = scene.reply(7)
    scene.sift(1, record)
    assert scene.sift(HOLD_MICROS) == []
    assert scene.sift(HOLD_MICROS + 2) == [(7, record.value)]
    why = scene.desk.why(record)
    assert why is not None
    assert "doesn't answer" in str(why)
    assert scene.desk.why(record) is None
    scene.threads.work()  # it comes too late, and is nobody's
    assert scene.sift(HOLD_MICROS + 3) == []


def test_nobody_is_given_up_while_the_store_gives_anything() -> None:
    scene = Scene()
    scene.sift(1, scene.reply(7), scene.reply(8, b"a table " * 10))
    scene.threads.work()
    assert [offset for offset, _ in scene.sift(HOLD_MICROS)] == [7]
    assert scene.sift(HOLD_MICROS + 2) == []
    scene.threads.work()
    assert [offset for offset, _ in scene.sift(2 * HOLD_MICROS - 1)] == [8]


def test_a_store_that_refuses_is_asked_again_and_then_given_up() -> None:
    scene = Scene()
    scene.shelf.away = False
    record = scene.reply(7)
    scene.shelf.away = True
    scene.sift(1, record)
    asked = 0
    for now in range(2, HOLD_MICROS, 100_000):
        while scene.threads.given:
            scene.threads.work()
            asked += 1
        assert scene.sift(now) == []
    assert 10 < asked < 30
    assert scene.sift(HOLD_MICROS + 2) == [(7, record.value)]
    assert "KSG-115" in str(scene.desk.why(record))


def test_what_is_fetched_for_a_shard_that_is_lost_is_forgotten() -> None:
    scene = Scene()
    scene.sift(1, scene.reply(7))
    scene.shards = {0: _shard()}  # taken anew: it is read again
    scene.threads.work()
    assert scene.sift(2) == []
    assert not scene.desk.busy
    assert scene.sift(3, scene.reply(7)) == []
    scene.threads.work()
    assert [offset for offset, _ in scene.sift(4)] == [7]


def test_an_orchestrator_without_the_store_says_what_it_lacks() -> None:
    with World(7) as world:
        claims, take = Shelf().claims(), world.desk.take

        def claiming(record: Record) -> list[Reply]:
            return [
                each._replace(value=claims.put(RUN, each.value)) if claims.covers(each.value) else each
                for each in take(record)
            ]

        world.desk.take = claiming  # type: ignore[method-assign]
        world.odds.slow = 0.0
        world.join()
        world.start("hasty", "one")
        until_over(world)
        assert "KASAGA_PAYLOAD_STORE_URL" in errors(world, "one")[0]
        assert world.saga("one").state is SagaState.COMPENSATED
        world.audit()
