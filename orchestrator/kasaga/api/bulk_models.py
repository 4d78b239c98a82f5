"""What the API takes for a move; and takes and gives where a filter chooses the sagas that are acted on."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from .halt_models import LeftOut
from .models import MAX_PAGE, MAX_REASON, USUAL_PAGE, ActionQuery, CancelRequest, Filter, Step, Who

BulkAction = Literal["cancel", "pause", "resume", "terminate", "retry", "skip", "resolve", "move", "reset"]


class MoveRequest(CancelRequest):
    """Go on in another version."""

    to: int = Field(ge=1, le=2**31 - 1, description="The version.", examples=[2])


class ResetRequest(CancelRequest):
    """Undo what came after a step, and run the code anew from there."""

    after: str = Field(min_length=1, max_length=200, description="The step's number.", examples=["2"])


class BulkQuery(ActionQuery):
    """Which page of the sagas, and how long to wait for each owner's answer."""

    limit: int = Field(default=USUAL_PAGE, ge=1, le=MAX_PAGE, description="Sagas in one request.")
    cursor: str = Field(default="", max_length=100, description="`next_cursor` of the answer before.")


class BulkRequest(BaseModel):
    """Which sagas, and what of them. A filter without a state means those that the action is for."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"filter": {"name": "payment"}, "reason": "a move", "dry_run": True}]
        },
    )

    filter: Filter = Field(
        description="At least one field of it has to be there.", json_schema_extra={"minProperties": 1}
    )
    dry_run: bool = Field(default=False, description="Change nothing: say what would happen to each saga.")
    reason: Annotated[
        str,
        Field(
            max_length=MAX_REASON,
            description="Why, for the history; skip, resolve and terminate are refused without one.",
        ),
    ] = ""
    by: Who = ""
    step: Step = ""
    value: Any = Field(default=None, description="Of resolve: the step's result; of move: the version.")

    @field_validator("filter")
    @classmethod
    def _chosen(cls, given: Filter) -> Filter:
        if not given.model_fields_set:
            raise ValueError("nothing is done to all sagas: choose some")
        return given


class BulkLine(BaseModel):
    """What became, or would become, of one saga. What says nothing is left out."""

    saga_id: str = Field(examples=["order-42"])
    run_id: str
    state: str = Field(description="After it; before it in a dry run, and where it was refused.")
    outcome: str = Field(
        description="applied; sent: Kafka has it, nobody has answered yet; not_sent; not_applicable; "
        "unknown; dry_run."
    )
    code: str | None = Field(default=None, description="Why not.", examples=["KSG-230"])
    reason: str | None = None
    remedy: str | None = None
    left: str | None = Field(
        default=None, description="Of terminate: who and why, and what it leaves behind."
    )
    fits: bool | None = Field(default=None, description="Of a dry run: whether its owner would do it.")
    would: str | None = Field(default=None, description="Of a dry run: what would happen.")
    refused: str | None = Field(default=None, description="Of a dry run: why its owner would refuse.")
    leaves: list[LeftOut] | None = Field(default=None, description="Of a dry run of terminate.")


class BulkResult(BaseModel):
    """One page of a bulk."""

    action: str = Field(examples=["pause"])
    action_id: str = Field(
        description="Send it as Idempotency-Key with the next page, and to repeat this one."
    )
    dry_run: bool
    fits: int = Field(description="Sagas of this page that it was, or would be, done to.")
    results: list[BulkLine]
    next_cursor: str | None = Field(description="Ask with it for the next sagas; null when there are none.")
