"""Histories that were written once are read and replayed by today's code, the bad ones refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from engine.golden_sagas import APP, BAD, GOOD
from engine.harness import BEGIN, Play
from engine.make_golden import told
from engine.shop import ANSWERS, PARTICIPANTS, Inventory, Order, Receipt
from kasaga import App, SagaContext, saga
from kasaga.engine import lifecycle
from kasaga.engine.codec import decode, encode
from kasaga.engine.decide import Run
from kasaga.engine.model import Fired, Move, Record, Resume, Return, Started
from kasaga.engine.state import fold
from kasaga.errors import HistoryUnreadable, Nondeterminism

FOLDER = Path(__file__).parent / "golden"


def golden(name: str) -> dict[str, Any]:
    file = f"{name.replace(' ', '_')}.json"
    path = FOLDER / ("bad" if name in BAD else "good") / file
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def rows(name: str) -> list[bytes]:
    return [bytes.fromhex(row) for row in golden(name)["rows"]]


def play_from(name: str, app: App = APP) -> Play:
    """A play that goes on from a golden history."""
    found = golden(name)
    play = Play(app, found["saga"], ANSWERS, version=found["version"], run_id=found["run_id"])
    for seq, row in enumerate(rows(name), 1):
        play.bodies.append(row)
        state = fold(found["run_id"], play.records)
        play._keep_rows(state, decode(seq, row))  # pyright: ignore[reportPrivateUsage]
    play.run = Run(found["run_id"], play.records)
    play.now = play.state.at
    return play


def test_every_golden_history_has_its_play() -> None:
    assert sorted(path.stem for path in (FOLDER / "good").glob("*.json")) == sorted(GOOD)
    bad = sorted(path.stem.replace("_", " ") for path in (FOLDER / "bad").glob("*.json"))
    assert bad == sorted(BAD)


@pytest.mark.parametrize("name", sorted(GOOD))
def test_a_golden_history_tells_what_it_told(name: str) -> None:
    play = play_from(name)
    assert json.loads(json.dumps(told(play))) == golden(name)["tells"]


@pytest.mark.parametrize("name", sorted(GOOD))
def test_a_golden_history_is_written_as_it_was(name: str) -> None:
    for seq, row in enumerate(rows(name), 1):
        assert encode(decode(seq, row)) == row


@pytest.mark.parametrize("name", sorted(GOOD))
def test_a_golden_history_replays(name: str) -> None:
    """Also one that has ended: so are histories tried on new code before it is deployed."""
    play = play_from(name)
    driver = play.run.live(play.defs)
    waits = driver.waiting
    assert (waits is None) == (play.state.returned is not None or play.state.raised)
    play.evict()


def test_a_golden_history_goes_on() -> None:
    play = play_from("waiting")
    play.done(4)
    assert play.state.state == "COMPLETED"
    play = play_from("undone")
    play.ran(2, form="undo")
    assert play.state.state == "COMPENSATED"
    play = play_from("parked")
    play.ask("retry")
    play.done(3)
    assert play.state.state == "COMPLETED"


def test_a_golden_history_on_code_that_does_something_else() -> None:
    @saga("payment")
    async def payment(ctx: SagaContext, order: Order) -> Receipt:
        await ctx.use(Inventory).reserve(order)
        await ctx.sleep(1)
        raise AssertionError

    for name in ("completed", "conflict"):
        play = play_from(name, App("shop", sagas=[payment], participants=PARTICIPANTS))
        with pytest.raises(
            Nondeterminism, match=r"now asks for sleep at test_golden.py:\d+ in payment, where its"
        ):
            play.run.live(play.defs)


# --- bad ones ---


def take_over(name: str) -> None:
    """What an orchestrator does with a saga that comes to it."""
    found = golden(name)
    run = Run(found["run_id"], [decode(seq, row) for seq, row in enumerate(rows(name), 1)])
    run.live(Play(APP, found["saga"], ANSWERS).defs)


@pytest.mark.parametrize("name", sorted(BAD))
def test_a_bad_history_is_refused_by_name(name: str) -> None:
    with pytest.raises((HistoryUnreadable, Nondeterminism)) as caught:
        take_over(name)
    assert golden(name)["refused"] in caught.value.message
    assert caught.value.remedy


def test_a_row_that_is_cut_off() -> None:
    row = rows("completed")[1]
    for end in range(len(row)):
        with pytest.raises(HistoryUnreadable, match=r"KSG-211: row 2 can't be read"):
            decode(2, row[:end])


def test_a_row_with_something_behind_it() -> None:
    with pytest.raises(HistoryUnreadable, match="row 2 can't be read"):
        decode(2, rows("completed")[1] + b"\x00")


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("95020001 91 08 90", "row 1 has format 2; this release reads 1"),
        ("9501000191cc6390", "row 1 can't be read: KeyError: 99"),  # an event of a newer release
        (
            "9501000192 0801 91 92 cc63 01",
            "row 1 can't be read: KeyError: 99",
        ),  # a decision of a newer release
        ("9501000193 08 01 02 90", "row 1 can't be read: TypeError"),  # an event with more fields
        ("9501000191 02 90", "row 1 can't be read: TypeError"),  # an event with too few
        ("94010001 91 08", "row 1 can't be read: ValueError"),
        ("c0", "row 1 can't be read: TypeError"),
        ("a3616263", "row 1 has format a"),
        ("", "row 1 can't be read"),
    ],
)
def test_a_row_that_this_release_can_not_read(body: str, says: str) -> None:
    with pytest.raises(HistoryUnreadable) as caught:
        decode(1, bytes.fromhex(body))
    assert caught.value.message.startswith(says)


def test_a_history_with_a_hole() -> None:
    records = [decode(seq, row) for seq, row in enumerate(rows("completed"), 1)]
    with pytest.raises(HistoryUnreadable, match="row 3 stands where row 2 should be"):
        fold("run", [records[0], records[2]])
    with pytest.raises(HistoryUnreadable, match="row 2 stands where row 1 should be"):
        fold("run", records[1:])
    with pytest.raises(HistoryUnreadable, match="row 1 is a Replied; a history begins with its only Started"):
        fold("run", [records[1]._replace(seq=1)])
    with pytest.raises(HistoryUnreadable, match="row 2 is a Started"):
        fold("run", [records[0], records[0]._replace(seq=2)])


START = Started("s", "payment", 1, b"", "", "", "", "")


@pytest.mark.parametrize(
    ("decisions", "says"),
    [
        ((Move(lifecycle.COMPENSATED),), "IllegalMove: a saga can't move from nothing to COMPENSATED"),
        (
            (Move(lifecycle.RUNNING), Move(lifecycle.COMPLETED), Move(lifecycle.RUNNING)),
            "from COMPLETED to RUNNING",
        ),
        ((Resume("5"),), "KeyError: '5'"),
        ((Move("DANCING"),), "IllegalMove"),
    ],
)
def test_a_history_that_can_not_be(decisions: tuple[Any, ...], says: str) -> None:
    with pytest.raises(HistoryUnreadable) as caught:
        fold("run", [Record(1, BEGIN, 1, START, decisions)])
    assert caught.value.message.startswith("row 1 can't be: ")
    assert says in caught.value.message


def test_a_step_is_scheduled_once() -> None:
    first, second = (decode(seq, row) for seq, row in enumerate(rows("completed")[:2], 1))
    twice = second._replace(decisions=(*second.decisions, *first.decisions[2:]))
    with pytest.raises(HistoryUnreadable, match="row 2 can't be: ValueError: a second step 1"):
        fold("run", [first, twice])


def test_default_values_take_no_room() -> None:
    record = Record(1, BEGIN, 1, Fired("1", "command"), (Move(lifecycle.RUNNING), Return(b"")))
    assert len(encode(record)) < 50
    assert decode(1, encode(record)) == record
