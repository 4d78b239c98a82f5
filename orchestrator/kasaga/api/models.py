"""What the API takes and gives, as it stands in the OpenAPI document."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field

from kasaga_wire.attributes import MAX_ATTRIBUTES
from kasaga_wire.headers import MAX_SAGA_ID_CHARACTERS

from ..store.base import SagaState
from .halt_models import LeftOut, PausedOut, RunOut
from .search_models import ATTRIBUTES, TELLING, JsonAttributes, Query

MAX_PAGE, USUAL_PAGE = 500, 50
"""Sagas, or entries of a history, in one answer."""

MAX_REASON = 2000
"""Characters of a reason or of who acts."""

LONGEST_WAIT = 3600.0
"""Seconds that a process may be set to let requests wait."""

USUAL_ACTION_WAIT = 10.0
"""Seconds for an owner's answer: longer than a take-over after a crash."""

_RFC3339 = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ]")

SAGA_NAME = r"^[A-Za-z0-9_-]{1,63}$"

# --- answers


def _example(**values: Any) -> ConfigDict:
    """An example of a whole answer or body, for the document."""
    return ConfigDict(json_schema_extra={"examples": [values]})


class ProblemField(BaseModel):
    """One field that is refused."""

    field: str = Field(examples=["body.input.lines[0].quantity"])
    reason: str


class Problem(BaseModel):
    """Why a request was not answered as wished (RFC 9457)."""

    model_config = _example(
        type="urn:kasaga:error:KSG-504",
        title="Not Found",
        status=404,
        code="KSG-504",
        detail="there is no saga order-42",
        remedy="`kasaga list --id-prefix` finds it; a start just sent may not have been read yet",
    )

    type: str = Field(description="`urn:kasaga:error:` and the code.", examples=["urn:kasaga:error:KSG-504"])
    title: str = Field(examples=["Not Found"])
    status: int = Field(examples=[404])
    code: str = Field(description="Kasaga's code: each has a section in errors.md.", examples=["KSG-504"])
    detail: str = Field(examples=["there is no saga order-42"])
    remedy: str | None = Field(default=None, description="What to do about it.")
    fields: list[ProblemField] | None = Field(default=None, description="The fields that are refused.")


class SagaSummary(BaseModel):
    """Where a saga stands, in short. Times are RFC 3339 in UTC."""

    model_config = _example(
        saga_id="order-42",
        run_id="01a20645-9be8-76a2-aee0-219210973bb6",
        name="payment",
        version=1,
        state="STUCK",
        shard=3,
        started_at="2026-11-23T02:39:14.120000Z",
        updated_at="2026-11-23T02:47:20.004000Z",
        ended_at=None,
        code="KSG-220",
        reason="inventory.release (undo of step 1) has failed 10 times, the last time with: no disk",
        remedy="Mend the participant: the next retry goes through by itself",
        step="1",
        with_exceptions=False,
        attributes=ATTRIBUTES,
    )

    saga_id: str = Field(examples=["order-42"])
    run_id: str = Field(examples=["01a20645-9be8-76a2-aee0-219210973bb6"])
    name: str = Field(examples=["payment"])
    version: int = Field(examples=[1])
    state: SagaState
    shard: int
    started_at: AwareDatetime
    updated_at: AwareDatetime
    ended_at: AwareDatetime | None
    code: str | None = Field(description="The code of the reason.", examples=["KSG-220"])
    reason: str | None
    remedy: str | None
    step: str | None = Field(description="The path of the step that the state is about.", examples=["1"])
    with_exceptions: bool = Field(description="COMPENSATED, but somebody skipped or resolved a step.")
    attributes: JsonAttributes = Field(description="What it can be searched by.", examples=[ATTRIBUTES])


class SagaPage(BaseModel):
    """Some sagas, newest first."""

    sagas: list[SagaSummary]
    next_cursor: str | None = Field(description="Ask with it for the next page; null on the last one.")


class SagaCounts(BaseModel):
    """How many sagas there are, by state."""

    counts: dict[str, int] = Field(examples=[{"RUNNING": 12, "STUCK": 1}])
    total: int
    sagas: dict[str, dict[str, int]] = Field(
        description="The same by saga's name, without zeros.", examples=[{"payment": {"RUNNING": 12}}]
    )


class StepOut(BaseModel):
    """One step of a saga. What says nothing is left out."""

    path: str
    name: str
    kind: str = Field(description="command, local, sleep or signal.")
    state: str = Field(
        description="waiting, retrying, sleeping, running; while it is paused held, answered; "
        "done, refused, unknown; of sleeps, time-outs and "
        "signals also cut off, in time, missed."
    )
    attempts: int
    error: str | None = None
    next_at: AwareDatetime | None = Field(default=None, description="When the next attempt is due.")
    undo: str | None = Field(default=None, description="The compensation, or `void`.")
    undo_state: str | None = None
    undo_attempts: int | None = None
    undo_error: str | None = None
    child: str | None = Field(default=None, description="The id of the saga that the step is.")


class WaitOut(BaseModel):
    """One thing that a saga waits for. What says nothing is left out."""

    text: str = Field(description="The rest of a sentence that begins with `It waits`.")
    kind: str
    step: str | None = None
    name: str | None = None
    attempt: int | None = None
    topic: str | None = None
    sent_at: AwareDatetime | None = None
    until: AwareDatetime | None = None


class RemedyOut(BaseModel):
    """Something that a person may do, and what it does."""

    command: str = Field(description="As a command of `kasaga`.")
    effect: str


class SagaDetail(SagaSummary):
    """Where a saga stands, why, what it waits for, and what can be done."""

    model_config = ConfigDict(json_schema_extra={})

    owner: str | None = Field(description="The process that has the saga's shard.")
    progress: str
    input: Any
    result: Any
    steps: list[StepOut]
    waits_for: list[WaitOut]
    remedies: list[RemedyOut]
    paused: PausedOut | None = Field(description="While it is PAUSED.")
    leaves: list[LeftOut] = Field(description="What it left behind, if it was TERMINATED.")
    parent: str | None = Field(description="The id of the saga whose step this one is.")
    run: RunOut | None = Field(description="Its last run.")


class AttemptOut(BaseModel):
    """One sending of a command or an undo."""

    attempt: int
    at: AwareDatetime
    ended_at: AwareDatetime | None = None
    outcome: str | None = None
    error: str | None = None


class EntryOut(BaseModel):
    """One line of a history. What says nothing is left out."""

    at: AwareDatetime
    kind: str = Field(
        description="start, state, action, code; command, undo, void, sleep, local, signal; received, update."
    )
    name: str
    step: str | None = None
    ended_at: AwareDatetime | None = None
    outcome: str | None = None
    code: str | None = None
    reason: str | None = None
    by: str | None = None
    input: Any = None
    result: Any = None
    attempts: list[AttemptOut] | None = None


class SagaHistory(SagaSummary):
    """What happened to a saga, oldest first."""

    model_config = ConfigDict(json_schema_extra={})

    history: list[EntryOut]
    next_cursor: str | None = Field(description="Ask with it for what came later; null at the end.")


class SagaResult(BaseModel):
    """How a saga has ended, or how far it is."""

    model_config = _example(
        saga_id="order-42",
        run_id="01a20645-9be8-76a2-aee0-219210973bb6",
        name="payment",
        version=1,
        state="COMPLETED",
        result={"order_id": "order-42", "charge_id": 7},
        code=None,
        reason=None,
        remedy=None,
        step=None,
        with_exceptions=False,
    )

    saga_id: str = Field(examples=["order-42"])
    run_id: str
    name: str = Field(examples=["payment"])
    version: int
    state: str = Field(
        description="A saga's state, or ACCEPTED: Kafka has the start.", examples=["COMPLETED"]
    )
    result: Any = Field(description="What the saga returned; null unless it is COMPLETED.")
    code: str | None
    reason: str | None
    remedy: str | None
    step: str | None
    with_exceptions: bool


class ActionResult(BaseModel):
    """What became of an action."""

    model_config = _example(
        saga_id="order-42",
        action="retry",
        action_id="5f0c1a52-6d0e-4c1c-a7e0-0b4d3c1f7a11",
        outcome="applied",
        state="COMPENSATING",
        run_id="01a20645-9be8-76a2-aee0-219210973bb6",
    )

    saga_id: str = Field(examples=["order-42"])
    action: str = Field(examples=["retry"])
    outcome: str = Field(
        description="applied; or sent: Kafka has it and it will be carried out once, nobody has answered yet."
    )
    state: str | None = Field(description="The saga's state after it.", examples=["COMPENSATING"])
    run_id: str | None
    reason: str | None = Field(
        default=None, description="Of terminate: who and why, and what the saga leaves behind."
    )
    action_id: str = Field(description="Send it as Idempotency-Key to send this very action again.")


class SignalResult(BaseModel):
    """What became of a signal, or of an update that nobody has answered yet."""

    model_config = _example(saga_id="order-42", name="approved", key="approval-7", outcome="accepted")

    saga_id: str = Field(examples=["order-42"])
    name: str = Field(examples=["approved"])
    key: str = Field(description="Send it as Idempotency-Key to send this very one again.")
    outcome: str = Field(description="accepted; or sent: Kafka has it, nobody has answered yet.")


class Answered(BaseModel):
    """What a saga's code answers."""

    model_config = _example(saga_id="order-42", name="status", result={"waits_for": "approval"})

    saga_id: str = Field(examples=["order-42"])
    name: str = Field(examples=["status"])
    result: Any = Field(description="What the query or the update's handler returned.")


class DefinitionOut(BaseModel):
    """A saga that can be started."""

    name: str = Field(examples=["payment"])
    version: int
    newest: bool
    input: Any = Field(description="The input as a JSON Schema; null where the author's model has none.")
    input_schema: Any = Field(description="The input's Avro schema: what a start is encoded with.")


class DefinitionList(BaseModel):
    """What the orchestrators of the namespace can start."""

    namespace: str = Field(examples=["orders"])
    definitions: list[DefinitionOut]


# --- requests


class _Asked(BaseModel):
    """A field that isn't known is refused: it may be a typing error."""

    model_config = ConfigDict(extra="forbid")


class StartRequest(_Asked):
    """Which saga to start, with what."""

    model_config = _example(
        saga_id="order-42",
        name="payment",
        input={"id": "order-42", "lines": [{"sku": "a", "quantity": 1}]},
    )

    saga_id: str = Field(
        min_length=1,
        max_length=MAX_SAGA_ID_CHARACTERS,
        description="Yours, such as an order's number. The same id, name and input is the same saga.",
        examples=["order-42"],
    )
    name: str = Field(pattern=SAGA_NAME, examples=["payment"])
    version: int | None = Field(default=None, ge=1, le=2**31 - 1, description="The newest by default.")
    input: Any = Field(
        description="The saga's one argument. Times, decimals and bytes are text: RFC 3339, digits, base64.",
        examples=[{"id": "order-42", "lines": [{"sku": "a", "quantity": 1}]}],
    )
    attributes: JsonAttributes = Field(
        default={}, max_length=MAX_ATTRIBUTES, description=TELLING, examples=[ATTRIBUTES]
    )


Who = Annotated[
    str, Field(default="", max_length=200, description="Who acts, for the history.", examples=["anna"])
]
Step = Annotated[
    str,
    Field(default="", max_length=200, description="Only if the saga is stuck at this step.", examples=["1"]),
]
Reason = Annotated[
    str,
    Field(
        min_length=1, max_length=MAX_REASON, description="Why, for the history.", examples=["disk is back"]
    ),
]


class CancelRequest(_Asked):
    """Undo what a saga has done, and end it."""

    reason: Annotated[str, Field(max_length=MAX_REASON, description="Why, for the history.")] = ""
    by: Who = ""


class PauseRequest(CancelRequest):
    """Let nothing of a saga go out until it is resumed."""


class ResumeRequest(CancelRequest):
    """Let a PAUSED saga go on where it was."""


class RetryRequest(CancelRequest):
    """Let a STUCK saga try again, now."""

    step: Step = ""


class SkipRequest(_Asked):
    """Leave the step that a saga is stuck at undoing as it is, and go on."""

    reason: Reason
    by: Who = ""
    step: Step = ""


class TerminateRequest(_Asked):
    """End a saga as it is: the last resort."""

    reason: Reason
    by: Who = ""


class ResolveRequest(SkipRequest):
    """Say what became of the step that a saga is stuck at."""

    value: Any = Field(
        default=None,
        description="The step's result, where the saga's code waits for one; else you undid it by hand.",
    )


class UpdateRequest(_Asked):
    """A value for a saga's code."""

    value: Any = Field(
        default=None, description="As the saga's type has it, in JSON.", examples=[{"by": "anna"}]
    )


class SignalRequest(UpdateRequest):
    """A value for a saga's code, or none."""

    keep: bool = Field(default=False, description="Keep it for a saga that hasn't been started yet.")


def _written(value: object) -> object:
    """A number isn't a time, though pydantic would count it from 1970."""
    if not isinstance(value, str) or not _RFC3339.match(value):
        raise ValueError("write it as 2026-01-31T10:00:00Z, with its offset")
    return value


Moment = Annotated[AwareDatetime, BeforeValidator(_written)]


class WaitQuery(_Asked):
    """How long to wait for a saga's end."""

    wait: float = Field(
        default=0,
        ge=0,
        le=LONGEST_WAIT,
        description="Wait so many seconds for the end; KASAGA_API_MAX_WAIT_SECONDS is the limit.",
        examples=[10],
    )


class ActionQuery(_Asked):
    """How long to wait for an owner's answer."""

    wait: float = Field(
        default=USUAL_ACTION_WAIT,
        ge=1,
        le=LONGEST_WAIT,
        description="Wait so many seconds for the owner's answer; KASAGA_API_MAX_WAIT_SECONDS is the limit.",
        examples=[10],
    )


def _in_capitals(given: object) -> object:
    return given.upper() if isinstance(given, str) else given


AnyCase = Annotated[SagaState, BeforeValidator(_in_capitals)]
"""A state as people type it, as on the command line."""


class Filter(_Asked):
    """Which sagas. What is left out chooses all."""

    state: list[AnyCase] = Field(
        default=[], max_length=20, description="One of these, in capitals or not; may be repeated."
    )
    name: str = Field(default="", max_length=63, description="Of this saga.")
    saga_id: str = Field(default="", max_length=MAX_SAGA_ID_CHARACTERS, description="With this very id.")
    id_prefix: str = Field(default="", max_length=MAX_SAGA_ID_CHARACTERS, description="Whose id begins so.")
    code: str = Field(default="", max_length=20, description="With this code as the reason.")
    started_after: Moment | None = None
    started_before: Moment | None = None
    updated_after: Moment | None = Field(default=None, description="Whose state has changed since.")
    updated_before: Moment | None = None
    where: Query = ""


class ListQuery(Filter):
    """Which sagas, and which page of them."""

    limit: int = Field(default=USUAL_PAGE, ge=1, le=MAX_PAGE)
    cursor: str = Field(default="", max_length=100, description="`next_cursor` of the page before.")


class HistoryQuery(_Asked):
    """Which part of a history."""

    payloads: bool = Field(default=True, description="Show inputs and results: they are other people's data.")
    all_runs: bool = Field(default=False, description="Of a saga that went on as new runs: all of them.")
    limit: int = Field(default=MAX_PAGE, ge=1, le=MAX_PAGE)
    cursor: str = Field(default="", max_length=100, description="`next_cursor` of the page before.")
