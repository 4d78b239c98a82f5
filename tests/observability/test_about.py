"""Lines about sagas name the saga, its run and its trace, from wherever they are written."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from engine.shop import payment
from kasaga.engine.model import COMMAND
from kasaga.engine.state import State
from kasaga.orchestrator import about, stuck_lines
from kasaga.orchestrator.traceids import hashed_trace_id
from kasaga.settings import Settings
from kasaga_wire.logs import JsonLines, bind, unbind
from observability.traced import TRACE, TRACEPARENT, Traced


def test_a_saga_is_named_with_its_starters_trace_or_its_own() -> None:
    state = Traced(payment).begin(TRACEPARENT).state
    named = {"saga": "payment", "saga_id": "s-1", "run_id": "run"}
    assert about.saga(state) == {**named, "trace_id": TRACE}
    own = Traced(payment).begin().state
    assert about.saga(own) == {**named, "trace_id": hashed_trace_id("run")}
    assert about.saga(State("r")) == {"run_id": "r"}


def test_a_record_is_named_by_its_headers_whatever_is_in_them() -> None:
    command = [
        ("ce_subject", b"s-1"),
        ("ce_kasagacommand", b"run.3~undo"),
        ("traceparent", TRACEPARENT.encode()),
        ("other", None),
    ]
    assert about.headers(command) == {
        "saga_id": "s-1",
        "command_id": "run.3~undo",
        "run_id": "run",
        "trace_id": TRACE,
    }
    assert about.headers([("ce_type", b"kasaga.start"), ("ce_id", b"run"), ("ce_subject", b"\xff")]) == {
        "saga_id": "\ufffd",
        "run_id": "run",
    }
    assert about.headers([]) == {}


def stuck() -> Traced:
    play = Traced(payment).begin()
    play.answer(1, "conflict", form=COMMAND, error="another command has this id")
    return play


def test_a_saga_that_needs_somebody_has_a_line_with_the_reason_and_the_remedy(
    caplog: pytest.LogCaptureFixture,
) -> None:
    play = stuck()
    lines = stuck_lines.StuckLines()
    for happened in play.happened:
        lines.tell(happened, 100.0)
    (record,) = caplog.records
    said: dict[str, Any] = vars(record)
    assert (record.levelno, said["saga_id"], said["run_id"], said["step"]) == (
        logging.WARNING,
        "s-1",
        "run",
        "1",
    )
    assert said["trace_id"] == hashed_trace_id("run")
    assert "another command has this id" in said["reason"]
    assert said["remedy"]


def test_very_many_stuck_sagas_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    happened = stuck().happened[-1]
    lines = stuck_lines.StuckLines()
    for _ in range(stuck_lines.STUCK_LINES + 50):
        lines.tell(happened, 100.0)
    assert len(caplog.records) == stuck_lines.STUCK_LINES
    caplog.clear()
    lines.tell(happened, 100.0 + 2 * stuck_lines.STUCK_SECONDS)
    assert [vars(record).get("sagas") for record in caplog.records] == [50, None]


def test_what_a_bound_description_fails_with_is_named_and_the_line_written() -> None:
    def broken() -> dict[str, object]:
        raise LookupError

    token = bind(broken)
    try:
        made = logging.makeLogRecord({"msg": "x", "levelname": "INFO", "levelno": 20})
        assert '"log_error": "LookupError"' in JsonLines().format(made)
    finally:
        unbind(token)


def test_no_setting_of_ours_is_taken_for_one_of_librdkafkas() -> None:
    ours = set(Settings.model_fields) - {"kafka"}
    assert not [name for name in ours if name.startswith("kafka_")]
