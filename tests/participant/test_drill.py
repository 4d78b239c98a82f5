"""Drill mode without servers: what is run, what isn't, and that no row stays."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from psycopg.conninfo import conninfo_to_dict

from kasaga_participant import KafkaSettings, Participant
from kasaga_participant.calls import encode_error
from kasaga_participant.drill import DRILL_SECONDS, Drill, guarded_url
from kasaga_participant.errors import StartError
from kasaga_participant.inbox.algorithm import Undecodable
from kasaga_participant.inbox.drive import drive_async
from kasaga_participant.inbox.memory import MemoryInbox, MemorySession
from kasaga_participant.inbox.rows import Answer, Kind, Rules, Work
from kasaga_participant.jobs import Intake, Job, Rejected
from kasaga_participant.progress import Progress
from kasaga_wire.envelope import DRILL, CommandEnvelope, Undoes
from kasaga_wire.errors import DecodeError
from kasaga_wire.kafka import Record
from kasaga_wire.records import errors_codec
from kasaga_wire.schema import Schemas
from kasaga_wire.topics import Topics, reply_topics
from participant.services import Notes, async_app

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
RULES = Rules(86_400, 2 * 86_400)
ORIGINAL = "01934f3e-0000.1"


def record(
    *, drills: bytes | None = ORIGINAL.encode(), type_: str = "inventory.release", **more: Any
) -> Record:
    about: dict[str, Any] = {"undoes": Undoes("inventory.reserve", "done", NOW), **more}
    path = "1~undo" if about["undoes"] else "1"
    envelope = CommandEnvelope(
        command_id=f"drill.{path}",
        attempt=1,
        source="/kasaga/shop/drill",
        type=type_,
        time=more.get("time", NOW),
        saga_id="o-1",
        saga="payment",
        **{name: value for name, value in about.items() if name != "time"},
    )
    headers: list[tuple[str, bytes | None]] = list(envelope.to_headers())
    if drills is not None:
        headers.append((DRILL, drills))
    return Record("drill.inventory.commands", 0, 0, b"o-1", b"", headers, 0)


def job(what: Record | None = None) -> Job:
    registry = async_app(Notes()).registries["inventory"]
    intake = Intake(registry, lambda topic: True, drill=True)
    return intake.job(what or record(), Progress(("drill.inventory.commands", 0)))


def run(
    works: list[Work], does: Callable[[], object], *, alone: bool = False, rules: Rules = RULES
) -> tuple[list[Answer], int, MemoryInbox]:
    """The answers, how many handlers ran, and what is left in the inbox."""
    inbox, ran = MemoryInbox(), 0

    async def invoke(work: Work, stored: bytes | None, connection: None) -> bytes | None:
        nonlocal ran
        ran += 1
        assert stored is None
        result = does()
        if isinstance(result, BaseException):
            raise result
        return None

    plan = Drill(alone=alone).plan(works, rules, NOW.timestamp, encode_error)
    answers = asyncio.run(drive_async(plan, MemorySession(inbox, None), invoke))
    return answers, ran, inbox


def said(answer: Answer) -> str:
    return errors_codec.decode(answer.payload or b"", Schemas()).message


def test_a_compensation_that_returns_would_work_and_leaves_no_row() -> None:
    work = job().work
    answers, ran, inbox = run([work, work], lambda: None)
    assert [each.outcome for each in answers] == ["undone", "undone"], "nothing is remembered of the first"
    assert ran == 2
    assert inbox.examine(["drill"], "", 10) == []


@pytest.mark.parametrize(
    ("raised", "outcome"),
    [
        (RuntimeError("no"), "failed"),
        (Undecodable(DecodeError("cut off")), "undecodable"),
        (SystemExit(3), "failed"),
    ],
)
def test_one_that_raises_says_why_and_leaves_no_row(raised: BaseException, outcome: str) -> None:
    results = iter([raised, None])
    answers, _, inbox = run([job().work, job().work], lambda: next(results))
    assert [each.outcome for each in answers] == [outcome, "undone"]
    assert said(answers[0])
    assert inbox.examine(["drill"], "", 10) == []


def test_what_is_no_undo_is_not_run() -> None:
    command = job(record(undoes=None, type_="inventory.reserve")).work
    void = job(record()).work
    void.kind = Kind.VOID
    answers, ran, _ = run([command, void], lambda: None)
    assert ([each.outcome for each in answers], ran) == (["refused", "refused"], 0)


def test_what_is_declared_alone_is_only_run_when_that_is_wanted() -> None:
    one = job()
    assert one.handler is not None
    object.__setattr__(one.handler.spec, "alone", True)
    try:
        refused, ran, _ = run([one.work], lambda: None)
        assert (refused[0].outcome, ran) == ("refused", 0)
        assert "alone=True" in said(refused[0])
        assert run([one.work], lambda: None, alone=True)[0][0].outcome == "undone"
    finally:
        object.__setattr__(one.handler.spec, "alone", False)


def test_what_has_no_transaction_is_not_run() -> None:
    answers, ran, _ = run([job().work], lambda: None, rules=Rules(1, 2, remembers=False))
    assert (answers[0].outcome, ran) == ("refused", 0)


def test_a_drill_of_long_ago_is_not_run() -> None:
    old = job(record(time=NOW - timedelta(seconds=DRILL_SECONDS + 1))).work
    answers, ran, _ = run([old], lambda: None)
    assert (answers[0].outcome, ran) == ("expired", 0)


def test_the_handler_is_told_of_the_real_command() -> None:
    assert job().drills == ORIGINAL


@pytest.mark.parametrize("drills", [None, b"", b"no id", b"\xff", b"x" * 600, b"a.1\n"])
def test_what_was_never_meant_for_a_drill_is_a_dead_letter(drills: bytes | None) -> None:
    with pytest.raises(Rejected, match="KSG-120"):
        job(record(drills=drills))


# --- how it is set up


def settings(monkeypatch: pytest.MonkeyPatch, **environment: str) -> Any:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    app = Participant(
        database_url="postgresql://db/x", kafka=KafkaSettings("localhost:9092"), namespaces=("shop",)
    )
    return app.settings()


def test_its_topics_are_a_world_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    made = settings(monkeypatch, KASAGA_DRILL="1", KASAGA_TOPIC_PREFIX="test.")
    assert (made.drill, made.drill_alone, made.topic_prefix) == (True, False, "test.drill.")
    real = Topics("shop", "test.")
    ours = Topics("shop", made.topic_prefix)
    assert ours.commands("inventory") == "test.drill.inventory.commands"
    assert not reply_topics(("shop",), made.topic_prefix) & {real.replies, real.answers}


def test_nobody_is_in_drill_mode_by_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KASAGA_DRILL", raising=False)
    assert not settings(monkeypatch).drill
    assert not settings(monkeypatch, KASAGA_DRILL="0").drill
    assert settings(monkeypatch, KASAGA_DRILL_ALONE="true", KASAGA_DRILL="true").drill_alone
    with pytest.raises(StartError, match="KASAGA_DRILL='yes'"):
        settings(monkeypatch, KASAGA_DRILL="yes")


@pytest.mark.parametrize("given", ["", "-c work_mem=1MB"])
def test_its_session_can_write_nothing_by_itself(given: str) -> None:
    url = f"postgresql://anna:s3cr3t@db/x?options={given.replace(' ', '%20').replace('=', '%3D')}"
    made = conninfo_to_dict(guarded_url(url))
    assert made["options"] == f"{given} -c default_transaction_read_only=on".strip()
    assert (made["password"], made["dbname"]) == ("s3cr3t", "x")
