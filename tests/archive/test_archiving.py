"""Finished sagas are in the archive before they are deleted, whoever dies, and are told as they were."""

from __future__ import annotations

import gzip
import io
import json
import re
import runpy
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO, cast
from unittest.mock import patch
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventually import eventually
from kasaga.archive import Archive, Archived, Archiver, ArchiveUnreadable, Period
from kasaga.archive.sheet import Sheet, day_of, joined, read
from kasaga.engine.codec import decode
from kasaga.gate import read_file
from kasaga.orchestrator import retention as module
from kasaga.orchestrator.metrics import Metrics
from kasaga.orchestrator.retention import Retention
from kasaga.store.base import HistoryRow, SagaFilter, SagaRow, SagaState
from kasaga.store.errors import StoreUnavailable
from kasaga.timeline import timeline
from kasaga_wire.codec import Schemas
from kasaga_wire.errors import CannotOpen, ObjectsUnavailable
from kasaga_wire.objects import Objects
from kasaga_wire.sealing import PLAIN, Sealer, place
from orchestrator import trips
from orchestrator.test_children import calm, until
from orchestrator.world import World
from store.samples import saga_row

DAY = timedelta(days=1)
GUIDE = Path(__file__).parents[2] / "orchestrator" / "retention.md"
PAGE = Path(__file__).parents[2] / "orchestrator" / "errors.md"


class Shelf(Objects):
    """Objects in memory that can be away."""

    def __init__(self) -> None:
        super().__init__(f"memory://{uuid4().hex}")
        self.away = False
        self.written: list[str] = []

    def write(self, name: str, data: bytes) -> None:
        if self.away:
            raise ObjectsUnavailable("memory:// can't be written: it is away")
        self.written.append(name)
        super().write(name, data)


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


@contextmanager
def archiving(
    world: World, objects: Objects, *, metrics: Metrics | None = None, interval: float = 3600.0
) -> Generator[Retention]:
    counted = metrics or Metrics()
    made = Retention(
        world.store,
        lambda: True,
        metrics=counted,
        keep=DAY,
        remember=7 * DAY,
        archive=Archiver(objects, world.store, "trips", counted),
        interval=interval,
        clock=world.now,
    )
    try:
        with patch.object(module, "WHOLE_SECONDS", 0.0):
            yield made
    finally:
        made.close()


def kept(world: World) -> list[str]:
    return sorted(row.saga_id for row in world.store.list_sagas(SagaFilter()))


def archive(objects: Objects) -> Archive:
    def warn(text: str) -> None:
        raise AssertionError(text)

    return Archive(objects, "trips", warn)


def finished(world: World, *ids: str) -> dict[str, SagaRow]:
    world.join(trips.make_app("trips"))
    for saga_id in ids:
        world.start("stay", saga_id)
    for saga_id in ids:
        until(world, saga_id, SagaState.COMPLETED)
    return {saga_id: world.saga(saga_id) for saga_id in ids}


def test_what_was_deleted_is_in_the_archive_as_it_was(shelf: Shelf) -> None:
    with calm() as world, archiving(world, shelf) as made:
        rows = finished(world, "s-1", "s-2", "s-3")
        histories = {key: list(world.store.history(row)) for key, row in rows.items()}
        assert made.round() == 0
        assert shelf.written == []
        world.pass_time(2 * 86_400)
        assert made.round() == 3
        assert kept(world) == []
        assert len(shelf.written) == 1
        for saga_id, row in rows.items():
            (found,) = archive(shelf).find(saga_id, Period())
            assert found.row == row
            assert found.rows == tuple((each.seq, each.body) for each in histories[saga_id])
            records = [decode(each.seq, each.body) for each in histories[saga_id]]
            assert timeline(found.records(PLAIN)) == timeline(records)
            assert archive(shelf).find(saga_id, Period(), row.run_id) == [found]
            assert archive(shelf).find(saga_id, Period(row.started_at, row.started_at)) == [found]
            assert archive(shelf).find(saga_id, Period(row.started_at + 3 * DAY)) == []
            assert archive(shelf).find(saga_id, Period(), UUID(int=7)) == []
        assert sorted(each.row.saga_id for each in archive(shelf).sagas(Period())) == ["s-1", "s-2", "s-3"]
        state = world.store.archive_state()
        assert state is not None
        assert (state.sagas, state.objects, state.failing_since, state.place) == (3, 1, None, shelf.url)


def test_anybody_can_read_a_line_and_kasaga_replays_the_file(shelf: Shelf) -> None:
    with calm() as world, archiving(world, shelf) as made:
        finished(world, "s-1")
        world.pass_time(2 * 86_400)
        made.round()
    data = shelf.read(shelf.written[0])
    assert data is not None
    head, *schemas, line = [json.loads(each) for each in gzip.decompress(data).splitlines()]
    assert head["kasaga"] == "histories"
    assert schemas
    assert all(each.keys() == {"schema"} for each in schemas)
    assert line["saga"]["saga_id"] == "s-1"
    assert line["keys"] == []
    assert [each["kind"] for each in line["history"]] == ["start", "command", "command", "state"]
    assert line["history"][0]["input"]["id"] == "s-1"
    with gzip.open(io.BytesIO(data)) as file:
        (history,) = read_file(cast("BinaryIO", file), "archive", Schemas())
    assert (history.saga_id, len(history.rows)) == ("s-1", len(line["rows"]))


def test_the_guides_code_reads_it(tmp_path: Path) -> None:
    found: dict[str, str] = dict(
        re.findall(r"```python\n# (\S+\.py)\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    )
    (tmp_path / "audit.py").write_text(found["audit.py"])
    audit = runpy.run_path(str(tmp_path / "audit.py"))
    with calm() as world, archiving(world, Objects(f"file://{tmp_path}/archive")) as made:
        rows = finished(world, "s-1", "s-2")
        world.pass_time(2 * 86_400)
        assert made.round() == 2
    told = audit["inputs"](tmp_path / "archive")
    assert {run: value["id"] for run, value in told.items()} == {str(r.run_id): i for i, r in rows.items()}


@pytest.mark.parametrize("point", ["delete", "note_archived"])
def test_who_dies_before_the_deletion_writes_the_same_object_again(shelf: Shelf, point: str) -> None:
    with calm() as world, archiving(world, shelf) as made:
        finished(world, "s-1", "s-2")
        world.pass_time(2 * 86_400)

        def away(where: str) -> None:
            if where == point:
                raise StoreUnavailable("the database is away")

        world.fault = away
        for _ in range(2):
            with pytest.raises(StoreUnavailable):
                made.round()
        assert kept(world) == ["s-1", "s-2"]
        world.fault = lambda where: None
        assert made.round() == 2
        assert len(shelf.written) == 3
        assert len(set(shelf.written)) == 1


def test_what_is_in_two_objects_is_told_once(shelf: Shelf) -> None:
    """Another saga has become old enough between the death and the next try."""
    with calm() as world, archiving(world, shelf) as made:
        finished(world, "s-1")
        world.pass_time(2 * 86_400)
        with (
            patch.object(world.store, "delete", side_effect=StoreUnavailable("away")),
            pytest.raises(StoreUnavailable),
        ):
            made.round()
        for saga_id in ("s-2",):
            world.start("stay", saga_id)
            until(world, saga_id, SagaState.COMPLETED)
        world.pass_time(2 * 86_400)
        assert made.round() == 2
        assert len(set(shelf.written)) >= 2
        assert sorted(each.row.saga_id for each in archive(shelf).sagas(Period())) == ["s-1", "s-2"]
        assert len(archive(shelf).find("s-1", Period())) == 1


def test_an_archive_that_is_away_holds_deletion_back_and_says_so(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []

    def warn(line: str, *, extra: dict[str, str]) -> None:
        lines.append(f"{line}: {extra['error']}")

    monkeypatch.setattr(module.log, "warning", warn)
    metrics = Metrics()

    def value(name: str) -> float:
        return metrics.registry.get_sample_value(name) or 0.0

    with calm() as world:
        finished(world, "s-1")
        world.pass_time(2 * 86_400)
        shelf.away = True
        with archiving(world, shelf, metrics=metrics, interval=0.005):
            eventually(lambda: value("kasaga_archive_failures_total") >= 2)
            assert value("kasaga_archive_held_back_seconds") > 0
            eventually(lambda: lines)
            assert "it is away" in lines[0]
            state = world.store.archive_state()
            assert state is not None
            assert state.failing_since is not None
            assert "it is away" in state.error
            assert kept(world) == ["s-1"]
            assert value("kasaga_sagas_deleted_total") == 0
            shelf.away = False
            eventually(lambda: value("kasaga_sagas_deleted_total") == 1)
        assert value("kasaga_archive_held_back_seconds") == 0
        assert value("kasaga_sagas_archived_total") == 1
        assert value("kasaga_archive_bytes_total") > 100
        state = world.store.archive_state()
        assert state is not None
        assert state.failing_since is None


def test_an_archive_that_hangs_doesnt_keep_the_process_from_ending(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CLOSE_SECONDS", 0.01)
    begun, go = threading.Event(), threading.Event()
    write = shelf.write

    def hang(name: str, data: bytes) -> None:
        begun.set()
        go.wait()
        write(name, data)

    monkeypatch.setattr(shelf, "write", hang)
    with calm() as world:
        finished(world, "s-1")
        world.pass_time(2 * 86_400)
        with archiving(world, shelf, interval=0.005) as made:
            assert begun.wait(30)
        thread = made._thread  # pyright: ignore[reportPrivateUsage]
        assert thread.is_alive()
        go.set()
        thread.join()
        assert shelf.written


def test_a_saga_that_was_taken_back_meanwhile_is_told_by_its_later_end(shelf: Shelf) -> None:
    with calm() as world, archiving(world, shelf) as made:
        row = finished(world, "s-1")["s-1"]
        world.pass_time(2 * 86_400)
        with patch.object(world.store, "delete", return_value=0):
            made.round()
        assert row.ended_at is not None
        table = world.store._tables.sagas[row.run_id]  # pyright: ignore[reportPrivateUsage]
        table.state, table.ended_at = SagaState.COMPENSATED, row.ended_at + timedelta(hours=1)
        world.pass_time(2 * 86_400)
        made.round()
        (found,) = archive(shelf).find("s-1", Period())
        assert found.row.state is SagaState.COMPENSATED


def entries(*numbers: int) -> list[HistoryRow]:
    return [HistoryRow(number, datetime.now(UTC), "x", "", b"body %d" % number) for number in numbers]


def parsed(sheet: Sheet) -> list[Archived]:
    name, data = sheet.finish()
    return list(read(data, name, Schemas()))


def test_earlier_runs_go_in_front_of_what_is_left() -> None:
    row = saga_row(3, 1, SagaState.COMPLETED, base=4)
    last = Sheet(Schemas())
    last.add(row, entries(3, 4, 5))
    first = Sheet(Schemas(), earlier=True)
    first.add(saga_row(3, 1, base=3), entries(1, 2))
    assert parsed(first)[0].earlier
    for order in ([first, last], [last, first], [first, last, first]):
        (found,) = joined(each for sheet in order for each in parsed(sheet))
        assert [seq for seq, _ in found.rows] == [1, 2, 3, 4, 5]
        assert (found.row.state, found.earlier) == (SagaState.COMPLETED, False)


def test_an_object_has_sagas_of_one_day_and_so_many() -> None:
    rows = [saga_row(3, number, SagaState.COMPLETED) for number in range(1, 4)]
    rows[2].started_at += DAY
    sheet = Sheet(Schemas())
    assert sheet.takes(rows[0])
    sheet.add(rows[0], entries(1))
    assert sheet.takes(rows[1])
    assert not sheet.takes(rows[2])
    assert sheet.finish()[0].startswith(f"{day_of(rows[0].started_at)}/{rows[0].run_id}.{rows[0].run_id}.")
    for limit in ("MAX_SAGAS", "MAX_BYTES"):
        with patch(f"kasaga.archive.sheet.{limit}", 1):
            assert not sheet.takes(rows[1])


def test_what_is_encrypted_stays_so_and_names_its_keys() -> None:
    sealer = Sealer({"k1": bytes(32)})
    row = saga_row(3, 1, SagaState.COMPLETED)
    row.result = sealer.seal(place("result", row.run_id), b"receipt")
    body = sealer.seal(place("history", row.run_id, 1), b"secret card")
    sheet = Sheet(Schemas())
    sheet.add(row, [HistoryRow(1, datetime.now(UTC), "Started", "", body)])
    name, data = sheet.finish()
    assert b"secret card" not in gzip.decompress(data)
    (found,) = read(data, name, Schemas())
    assert found.keys == ("k1",)
    assert found.result(sealer) == b"receipt"
    with pytest.raises(CannotOpen, match="key k1"):
        found.result(PLAIN)
    with pytest.raises(CannotOpen, match="key k1"):
        found.records(PLAIN)


def test_a_large_history_isnt_told_as_json() -> None:
    with patch("kasaga.archive.sheet.STORY_BYTES", 3):
        sheet = Sheet(Schemas())
        sheet.add(saga_row(3, 1, SagaState.COMPLETED), entries(1))
    _, data = sheet.finish()
    assert "history" not in json.loads(gzip.decompress(data).splitlines()[-1])


def whole() -> bytes:
    sheet = Sheet(Schemas())
    sheet.add(saga_row(3, 1, SagaState.COMPLETED), entries(1, 2))
    return sheet.finish()[1]


def packed(*lines: object) -> bytes:
    return gzip.compress(b"\n".join(json.dumps(line).encode() for line in lines))


GOOD_HEAD = {"kasaga": "histories", "format": 1}


@pytest.mark.parametrize(
    "make",
    [
        lambda: b"",
        lambda: b"garbage",
        lambda: whole()[:-20],
        lambda: packed({}),
        lambda: packed([1]),
        lambda: packed({"kasaga": "histories", "format": 9}),
        lambda: packed(GOOD_HEAD, {"saga_id": "x"}),
        lambda: packed(GOOD_HEAD, {"schema": 7}),
        lambda: packed(GOOD_HEAD, 7),
    ],
)
def test_a_damaged_object_is_told_by_name(make: Callable[[], bytes]) -> None:
    with pytest.raises(ArchiveUnreadable, match=r"KSG-313: an-object"):
        list(read(make(), "an-object", Schemas()))


@given(st.data())
def test_any_damage_is_told_or_harmless(data: st.DataObject) -> None:
    text = bytearray(gzip.decompress(whole()))
    text[data.draw(st.integers(0, len(text) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        found: list[Any] = list(read(gzip.compress(bytes(text)), "an-object", Schemas()))
    except ArchiveUnreadable as error:
        found, said = [], error.message
        assert said.startswith("an-object")
    assert all(isinstance(each, Archived) for each in found)


def test_damaged_objects_are_passed_over_with_a_warning(shelf: Shelf) -> None:
    warnings: list[str] = []
    sheet = Sheet(Schemas())
    sheet.add(saga_row(3, 1, SagaState.COMPLETED), entries(1))
    name, data = sheet.finish()
    shelf.write(f"trips/{name}", data)
    shelf.write(f"trips/{name.replace('.jsonl', 'x.jsonl')}", data[:-30])
    shelf.write(f"trips/{name.partition('/')[0]}/README", b"somebody's own")
    looked = Archive(shelf, "trips", warnings.append)
    assert [each.row.saga_id for each in looked.sagas(Period())] == ["order-1"]
    assert len(warnings) == 1
    assert "KSG-313" in warnings[0]


def test_the_error_has_its_section() -> None:
    assert "\n## KSG-313 ArchiveUnreadable\n" in PAGE.read_text(encoding="utf-8")
