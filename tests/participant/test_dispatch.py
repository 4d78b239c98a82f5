"""Who runs next, and with whom; how far a partition is; how much is in hand."""

from __future__ import annotations

import threading
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kasaga_participant.dispatch import Batch, Dispatcher
from kasaga_participant.handlers import Registry
from kasaga_participant.jobs import Intake, Job, Lane
from kasaga_participant.progress import Progress, Room
from kasaga_participant.settings import BATCH_SECONDS
from kasaga_wire.contracts import contract_of
from kasaga_wire.envelope import CommandEnvelope, Undoes
from kasaga_wire.kafka import Record
from participant.services import Inventory, Notes, service_of

NOW = datetime(2026, 11, 23, tzinfo=UTC)


class Bench:
    def __init__(self, batch: int = 64) -> None:
        self.registry = Registry(contract_of(Inventory))
        self.registry.add_service(service_of(Notes()))
        for handler in self.registry.handlers.values():
            handler.behaviour.seconds = 0.0
        self.intake = Intake(self.registry, lambda topic: True)
        self.dispatcher = Dispatcher(batch)
        self.progress = Progress(("inventory.commands", 0))
        self.offset = 0

    def job(
        self,
        id_: str,
        *,
        key: str = "",
        type_: str = "inventory.reserve",
        value: bytes = b"",
        attempt: int = 1,
    ) -> Job:
        envelope = CommandEnvelope(
            command_id=id_, attempt=attempt, source="/x", type=type_, time=NOW, saga_id="s", saga="x"
        )
        if "~" in id_:
            envelope.undoes = Undoes("inventory.reserve", "unknown", NOW)
        record = Record(
            "inventory.commands", 0, self.offset, (key or id_).encode(), value, list(envelope.to_headers()), 0
        )
        self.offset += 1
        return self.intake.job(record, self.progress)

    def submit(self, id_: str, *, key: str = "", type_: str = "inventory.reserve", value: bytes = b"") -> Job:
        job = self.job(id_, key=key, type_=type_, value=value)
        self.dispatcher.submit(job)
        return job

    def take(self) -> Batch:
        batch = self.dispatcher.take()
        assert batch is not None
        return batch

    def taken(self) -> list[str]:
        return ids(self.take())

    def finish(self, batch: Batch) -> None:
        for job in batch.jobs:
            self.dispatcher.forget(job)
        self.dispatcher.give_back(batch)


def ids(batch: Batch) -> list[str]:
    return [job.work.id for job in batch.jobs]


def test_what_waits_goes_together_up_to_the_limit() -> None:
    bench = Bench(batch=3)
    for number in range(5):
        bench.submit(f"r{number}.1")

    assert bench.taken() == ["r0.1", "r1.1", "r2.1"]
    assert bench.taken() == ["r3.1", "r4.1"]
    assert bench.dispatcher.take() is None


def test_a_key_runs_in_order_and_never_beside_itself() -> None:
    bench = Bench()
    bench.submit("r.1", key="k")
    first = bench.take()
    bench.submit("r.2", key="k")
    bench.submit("q.1", key="other")

    second = bench.take()
    assert ids(second) == ["q.1"]
    assert bench.dispatcher.take() is None
    bench.finish(first)
    assert bench.taken() == ["r.2"]


def test_an_undo_is_not_in_the_batch_of_its_command() -> None:
    bench = Bench()
    bench.submit("r.1", key="k")
    bench.submit("r.1~undo", key="k", type_="inventory.release")

    batch = bench.take()
    assert ids(batch) == ["r.1"]
    bench.finish(batch)
    assert bench.taken() == ["r.1~undo"]


def test_two_commands_of_one_saga_may_share_a_batch() -> None:
    bench = Bench()
    bench.submit("r.1", key="k")
    bench.submit("r.2", key="k")

    assert bench.taken() == ["r.1", "r.2"]


def test_alone_means_alone() -> None:
    bench = Bench()
    bench.submit("a.1", type_="inventory.count")
    bench.submit("b.1", type_="inventory.count")
    bench.submit("c.1")

    batches = [bench.take() for _ in range(3)]
    assert [ids(batch) for batch in batches] == [["a.1"], ["b.1"], ["c.1"]]
    assert [batch.lane for batch in batches] == [Lane.ASYNC_ALONE, Lane.ASYNC_ALONE, Lane.ASYNC]


def test_slow_handlers_share_no_batch() -> None:
    bench = Bench()
    bench.registry.handlers["inventory.reserve"].behaviour.seconds = BATCH_SECONDS * 0.6
    bench.submit("a.1")
    bench.submit("b.1")

    assert bench.taken() == ["a.1"]
    assert bench.taken() == ["b.1"]


def test_behaviour_is_learnt() -> None:
    behaviour = Bench().registry.handlers["inventory.reserve"].behaviour
    for _ in range(100):
        behaviour.ran(0.2, failed=True)
    assert behaviour.seconds == pytest.approx(0.2, rel=0.05)
    assert behaviour.risk == pytest.approx(1.0, rel=0.05)
    for _ in range(200):
        behaviour.ran(0.001, failed=False)
    assert behaviour.risk < 0.01


def test_duplicates_in_hand_wait_for_the_first() -> None:
    bench = Bench()
    first = bench.submit("r.1")
    twin = bench.job("r.1", attempt=2)
    other = bench.job("r.1", value=b"other input")

    assert bench.dispatcher.submit(twin) is False
    assert bench.dispatcher.submit(other) is True  # the inbox says conflict
    batch = bench.take()
    assert batch.jobs == [first]
    assert bench.dispatcher.forget(first) == [twin]


def test_lost_partitions_are_dropped_and_nothing_else() -> None:
    bench = Bench()
    running = bench.submit("r.1", key="k")
    batch = bench.take()
    queued = [bench.submit("r.2", key="k"), bench.submit("q.1", key="l")]
    elsewhere = Progress(("inventory.commands", 1))
    kept = bench.job("p.1")
    kept.progress = elsewhere
    bench.dispatcher.submit(kept)

    dropped = bench.dispatcher.drop([bench.progress])

    assert dropped == queued
    assert bench.take().jobs == [kept]
    assert batch.jobs == [running]
    bench.finish(batch)
    assert bench.dispatcher.take() is None


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=60), st.integers(1, 5))
def test_whatever_comes_each_runs_once_in_its_keys_order(records: list[tuple[int, bool]], batch: int) -> None:
    bench = Bench(batch)
    running: list[Batch] = []
    ran: list[tuple[int, int]] = []

    def end(batch: Batch) -> None:
        keys = [job.record.key for job in batch.jobs]
        for other in running:
            assert not set(keys) & {job.record.key for job in other.jobs}
        for job in batch.jobs:
            key = int((job.record.key or b"")[1:])
            ran.append((key, job.record.offset))
        bench.finish(batch)

    for number, (key, take) in enumerate(records):
        bench.submit(f"r{number}.1", key=f"k{key}")
        if take and (taken := bench.dispatcher.take()) is not None:
            running.append(taken)
        if len(running) > 2:
            end(running.pop(0))
    while running or bench.dispatcher.oldest() is not None:
        if not running:
            running.append(bench.take())
        end(running.pop(0))

    assert len(ran) == len(records)
    for key in range(4):
        offsets = [offset for each, offset in ran if each == key]
        assert offsets == sorted(offsets)


# --- offsets


def test_the_offset_is_the_lowest_unfinished_one() -> None:
    progress = Progress(("t", 0))
    for offset in (3, 4, 9, 10):  # gaps: transaction markers of others
        progress.begin(offset)

    seen: list[int | None] = [progress.position]
    for offset in (4, 3, 10, 9):
        progress.finish(offset)
        seen.append(progress.position)

    assert seen == [None, None, 9, 9, 11]
    assert len(progress) == 0


@given(st.permutations(range(0, 40, 2)))
def test_the_offset_never_passes_an_unfinished_record(order: list[int]) -> None:
    progress = Progress(("t", 0))
    for offset in sorted(order):
        progress.begin(offset)
    left = set(order)
    for offset in order:
        progress.finish(offset)
        left.remove(offset)
        assert progress.position is None or not left or progress.position <= min(left)
    assert progress.position == 39


# --- room


def test_room_is_counted_in_records_and_bytes() -> None:
    room = Room(records=8, size=100)

    room.take(7, 50)
    assert room.wait(0) == 1
    room.take(1, 10)
    assert room.wait(0) == 0
    room.give(2, 10)
    assert room.wait(0) == 0  # not yet worth it
    room.give(1, 10)
    assert room.wait(0) == 3
    room.take(0, 70)
    assert room.wait(0) == 0
    room.give(0, 90)
    room.shut(True)
    assert room.wait(0) == 0
    room.shut(False)
    assert room.wait(0) == 3


def test_who_waits_for_room_is_woken() -> None:
    room = Room(records=1, size=100)
    room.take(1, 1)
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(room.wait(20)))
    thread.start()

    room.give(1, 1)
    thread.join(20)

    assert found == [1]
