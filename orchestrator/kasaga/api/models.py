"""What the API takes and gives, as it stands in the OpenAPI document."""

from __future__ import annotations

from typing import Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from ..store.base import SagaState


class Problem(BaseModel):
    """Why a request was not answered as wished (RFC 9457)."""

    type: str = Field(description="`urn:kasaga:error:` and the code.")
    title: str
    status: int
    code: str = Field(description="The KSG code: each has a section in errors.md.", examples=["KSG-504"])
    detail: str
    remedy: str = Field(default="", description="What to do about it.")
    fields: list[ProblemField] = Field(default=[], description="The fields that are refused.")


class ProblemField(BaseModel):
    """One field that is refused."""

    field: str = Field(examples=["body.input.lines[0].quantity"])
    reason: str


class SagaSummary(BaseModel):
    """Where a saga stands, in short. Times are RFC 3339 in UTC."""

    saga_id: str
    run_id: str
    name: str
    version: int
    state: SagaState
    shard: int
    started_at: AwareDatetime
    updated_at: AwareDatetime
    ended_at: AwareDatetime | None
    code: str | None = Field(description="The KSG code of the reason.")
    reason: str | None
    remedy: str | None
    step: str | None = Field(description="The path of the step that the state is about.")
    with_exceptions: bool = Field(description="COMPENSATED, but somebody skipped or resolved a step.")


class StepOut(BaseModel):
    """One step of a saga."""

    model_config = ConfigDict(extra="allow")

    path: str
    name: str
    kind: str
    state: str = Field(description="waiting, retrying, sleeping, running; done, refused, unknown.")
    attempts: int
    error: str | None = None
    next_at: AwareDatetime | None = None
    undo: str | None = None
    undo_state: str | None = None
    undo_attempts: int | None = None
    undo_error: str | None = None


class WaitOut(BaseModel):
    """One thing that a saga waits for."""

    text: str = Field(description="The rest of a sentence that begins with `It waits`.")
    kind: str
    step: str | None = None
    name: str | None = None
    attempt: int | None = None
    topic: str | None = None
    sent_at: AwareDatetime | None = None
    until: AwareDatetime | None = None


class RemedyOut(BaseModel):
    """A command that a person may run, and what it does."""

    command: str
    effect: str


class SagaDetail(SagaSummary):
    """Where a saga stands, why, what it waits for, and what can be done."""

    owner: str | None = Field(description="The process that has the saga's shard.")
    progress: str
    input: Any
    result: Any
    steps: list[StepOut]
    waits_for: list[WaitOut]
    remedies: list[RemedyOut]
