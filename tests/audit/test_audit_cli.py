"""The command: what it says, in text and in JSON, its exit status, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from audit.shelf import NOON, Asked, Played, Shelf, play
from kasaga.audit import walk
from kasaga.cli import run
from kasaga.cli.audit import WINDOW, Ways, variable
from kasaga.cli.session import Session
from kasaga.store.audit import Book, MemoryBook
from kasaga.store.base import Store
from kasaga.store.errors import StoreUnavailable
from kasaga.testing import Fault

Kasaga = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def done() -> Played:
    return play()


@pytest.fixture(scope="module")
def parked() -> Played:
    return play(Fault("refused", "2"), Fault("undo_fails", "1"))


@dataclass
class Desk:
    """A command line over a shelf."""

    shelf: Shelf
    book: Book
    folder: Path
    capture: pytest.CaptureFixture[str]

    def __call__(self, *arguments: str, **environment: str) -> tuple[int, str, str]:
        def store(url: str) -> Store:
            return self.shelf.store

        session = Session(
            database_url="postgresql://anna:s3cr3t@db/x",
            environment=environment,
            folder=self.folder,
            open_reader=store,
            open_ends=lambda url: self.shelf,
            open_book=lambda url, name: self.book,
            now=lambda: NOON + timedelta(minutes=5),
        )
        status = run(["audit", *arguments], session)
        said = self.capture.readouterr()
        return status, said.out, said.err

    def json(self, *arguments: str) -> tuple[int, Any]:
        status, out, err = self("-o", "json", *arguments)
        return status, json.loads(out or err)


@pytest.fixture
def desk(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, done: Played
) -> Desk:
    made = Desk(Shelf(), MemoryBook(), tmp_path, capsys)
    now = max(each.at for each in done.history).timestamp()

    def find(self: Ways, participant: str) -> Asked:
        return Asked(made.shelf, participant)

    monkeypatch.setattr(Ways, "find", find)
    monkeypatch.setattr(walk.Auditor.__init__, "__kwdefaults__", {"clock": lambda: now})
    return made


QUICK = ("--confirm", "0", "--rate", "100000")


def test_all_is_well(desk: Desk, done: Played) -> None:
    for _ in range(3):
        desk.shelf.put(done, NOON)
    desk.shelf.put(done, NOON - timedelta(days=3))
    status, out, _ = desk(*QUICK)
    assert (status, out) == (0, "audit: 3 sagas (3 COMPLETED), 9 steps compared: 0 violations\n")
    assert desk(*QUICK, "--since", "2031-04-01")[1].startswith("audit: 4 sagas")
    assert desk(*QUICK, "--name", "another")[1].startswith("audit: 0 sagas (none)")


def test_what_is_wrong_is_told_with_its_remedy(desk: Desk, done: Played) -> None:
    row = desk.shelf.put(done, NOON)
    del desk.shelf.inboxes["bank"][f"{row.run_id}.2"]
    status, out, _ = desk(*QUICK)
    told, remedy, total = out.splitlines()
    assert (status, remedy.startswith("    Look for the effect")) == (1, True)
    assert told == (
        "KSG-640  trip/1 s-1 (COMPLETED), step 2 (bank.charge): history says: done; bank says: nothing"
    )
    assert total.endswith("1 violation")
    status, report = desk.json(*QUICK)
    assert (status, report["violations"], report["ok"]) == (1, 1, False)
    assert report["findings"][0]["run_id"] == str(row.run_id)


def test_who_is_stuck_is_told_and_is_no_violation(desk: Desk, parked: Played) -> None:
    desk.shelf.put(parked, NOON)
    status, out, _ = desk(*QUICK)
    assert (status, "KSG-220  trip/1 s-1 is STUCK: " in out) == (0, True)
    status, report = desk.json(*QUICK)
    assert report["stuck"][0]["remedy"]


def test_a_silent_participant_and_no_brokers(
    desk: Desk, done: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.shelf.put(done, NOON)
    desk.shelf.away.add("bank")
    status, out, _ = desk(*QUICK)
    assert (status, "not compared: 1 saga at bank: KSG-650: bank is away" in out) == (4, True)
    monkeypatch.undo()
    status, report = desk.json(*QUICK)
    assert (status, report["unanswered"][0]["reason"]) == (
        4,
        "airline can't be asked: no Kafka brokers are named",
    )


def test_going_on(desk: Desk, done: Played) -> None:
    row = desk.shelf.put(done, NOON)
    hidden = desk.shelf.inboxes["bank"].pop(f"{row.run_id}.2")
    assert desk(*QUICK, "--resume")[0] == 1
    assert desk(*QUICK, "--resume", "night")[0] == 1
    desk.shelf.inboxes["bank"][hidden.id] = hidden
    assert desk(*QUICK, "--resume")[0] == 0
    assert desk.json(*QUICK, "--resume")[1]["sagas"] == {}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("s-1", "--resume"), "name no ids"),
        (("--resume", "x", "--until", "1h"), "no --until"),
        (("--mended", "s-1"), "--resume"),
        (("--since", "yesterday"), "yesterday"),
        (("--since", "1h", "--until", "2h"), "KSG-524"),
        (("--rate", "0"), "0"),
        (("--inbox", "postgresql://anna:hunter22@db/x"), "KSG-524"),
        (("--inbox", "hunter22"), "KSG-524"),
        (("--inbox", "BIG=postgresql://anna:hunter22@db/x"), "KSG-130"),
    ],
)
def test_what_is_refused(desk: Desk, arguments: tuple[str, ...], said: str) -> None:
    status, out, err = desk(*QUICK, *arguments)
    assert (status, out) == (2, "")
    assert said in err
    assert "hunter22" not in err


def test_a_database_that_is_away_is_no_violation(desk: Desk) -> None:
    class Away(Shelf):
        def bounds(self) -> Any:
            raise StoreUnavailable("no connection")

        def ended(self, within: object, *, limit: int) -> Any:
            raise StoreUnavailable("no connection")

    desk.shelf = Away()
    for arguments in ((), ("--resume",)):
        status, out, err = desk(*QUICK, *arguments)
        assert (status, out, "KSG-301" in err) == (2, "", True)


def test_a_database_is_named_by_a_variable_or_a_file(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("postgresql://b:pw@db/b\n")
    session = Session(
        environment={"KASAGA_INBOX_A_URL": "postgresql://a", "KASAGA_INBOX_B_2_URL_FILE": str(secret)}
    )
    assert session.secret(variable("a")) == "postgresql://a"
    assert session.secret(variable("b-2")) == "postgresql://b:pw@db/b"
    assert session.secret(variable("c")) == ""


def test_the_time_that_is_looked_at_by_default() -> None:
    assert timedelta(days=1) == WINDOW
    assert isinstance(NOON, datetime)
