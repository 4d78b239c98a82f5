"""The bodies of Kasaga's own records, and their codecs.

Station: written by the orchestrator, participants and clients; one mechanism with the authors' payloads, so
every tool that shows a command shows these too. A new field must have a default, else older readers can't
read newer records.
"""

from __future__ import annotations

from typing import Any

import pydantic

from .codec import Codec, codec_for
from .nodes import clean_text
from .schema import Schema

MAX_MESSAGE_CHARACTERS = 4_000
MAX_DETAILS_CHARACTERS = 16_000
MAX_PROGRESS_CHARACTERS = 2_000
MAX_AUDIT_RUNS = 500
MAX_AUDIT_ROWS = 1_000
"""Rows of one answer: 700 kB where ids are as long as they may be, 150 kB where they are usual."""


class Error(pydantic.BaseModel):
    """Why a command was not done. `details` is JSON text; `retryable`: the same command may succeed later."""

    type: str
    message: str
    code: str | None = None
    details: str | None = None
    retryable: bool = False


class Deferral(pydantic.BaseModel):
    """A command is accepted, and its answer comes later; or, later, that this still holds.

    `attempt`: the one whose handler said so. `number`: 0, then counted with each heartbeat. `heartbeat`:
    seconds within which the next one comes; None: none is promised. `progress`: JSON text, for people.
    """

    attempt: int
    number: int = 0
    heartbeat: float | None = None
    progress: str | None = None


class Control(pydantic.BaseModel):
    """What an operator or a client asks of a saga. `value` is JSON text, for `resolve` and signals."""

    action: str
    by: str
    reason: str = ""
    run_id: str | None = None
    step: str | None = None
    value: str | None = None


class Answer(pydantic.BaseModel):
    """What the owner says to a start or a control record.

    `what`: the end (COMPLETED, COMPENSATED) or STUCK; `running`, the answer at once to a watch on a live
    saga; `unknown`, there is no such saga; `duplicate` and `rejected`, to a start; `applied` and
    `not_applicable`, to an action. `about` is the `ce_id` of the record that is answered: whoever asked
    finds its question by it. Several answers may come to one question, and the same one twice. `error` is
    the KSG code of the reason, if it has one. `result` is a payload of its own, with its own schema id.
    """

    saga_id: str
    run_id: str
    what: str
    about: str = ""
    state: str | None = None
    step: str | None = None
    result: bytes | None = None
    error: str | None = None
    reason: str | None = None
    remedy: str | None = None


class Event(pydantic.BaseModel):
    """A saga's change of state, for everybody who is interested."""

    saga_id: str
    run_id: str
    saga: str
    version: int
    state: str
    at: pydantic.AwareDatetime
    previous: str | None = None
    reason: str | None = None
    remedy: str | None = None
    step: str | None = None


class Audit(pydantic.BaseModel):
    """A question to a participant: what its inbox keeps of these runs, the rows behind id `after`."""

    runs: list[str]
    after: str = ""


class AuditedRow(pydantic.BaseModel):
    """One row of an inbox.

    `input` is the SHA-256 of a command's payload, `result` that of a stored result; None where there is none.
    """

    id: str
    type: str
    outcome: str
    input: bytes | None = None
    result: bytes | None = None


class Audited(pydantic.BaseModel):
    """The answer to `Audit`. `remembers`: there is an inbox at all; both durations are in seconds.

    `more`: there are further rows behind the last one.
    """

    remembers: bool
    max_age: float
    retention: float
    rows: list[AuditedRow]
    more: bool = False


errors_codec: Codec[Error] = codec_for(Error, name="kasaga", where="kasaga.Error")
deferral_codec: Codec[Deferral] = codec_for(Deferral, name="kasaga", where="kasaga.Deferral")
control_codec: Codec[Control] = codec_for(Control, name="kasaga", where="kasaga.Control")
answer_codec: Codec[Answer] = codec_for(Answer, name="kasaga", where="kasaga.Answer")
event_codec: Codec[Event] = codec_for(Event, name="kasaga", where="kasaga.Event")
audit_codec: Codec[Audit] = codec_for(Audit, name="kasaga", where="kasaga.Audit")
audited_codec: Codec[Audited] = codec_for(Audited, name="kasaga", where="kasaga.Audited")
null_codec: Codec[None] = codec_for(None, name="kasaga", where="kasaga.nothing")

NULL_PAYLOAD: bytes = null_codec.encode(None)
"""The payload of a void, and of the replies undone, nothing and voided: an Avro null behind its schema id."""


def clean_error(
    type_: str, message: str, *, code: str | None = None, details: str | None = None, retryable: bool = False
) -> Error:
    """An Error whose texts can be stored anywhere: no NUL, no lone surrogates, cut to their limits."""

    def cut(text: str | None) -> str | None:
        return None if text is None else clean_text(text, 200)

    body = (
        None
        if details is None or len(details) > MAX_DETAILS_CHARACTERS
        else clean_text(details, len(details))
    )
    return Error(
        type=clean_text(type_, 200),
        message=clean_text(message, MAX_MESSAGE_CHARACTERS),
        code=cut(code),
        details=body,
        retryable=retryable,
    )


def own_schemas() -> list[Schema]:
    """The schemas of everything above, for publication."""
    codecs: list[Codec[Any]] = [
        errors_codec,
        control_codec,
        answer_codec,
        event_codec,
        null_codec,
        audit_codec,
        audited_codec,
        deferral_codec,
    ]
    return [codec.schema for codec in codecs]
