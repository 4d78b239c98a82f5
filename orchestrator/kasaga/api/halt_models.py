"""What the API says of sagas that are paused, or were terminated."""

from __future__ import annotations

from pydantic import AwareDatetime, BaseModel, Field


class PausedOut(BaseModel):
    """Since when, by whom and why a saga is paused."""

    since: AwareDatetime
    by: str
    reason: str | None
    state: str = Field(description="What it is again when it is resumed.", examples=["RUNNING"])
    cancelled_by: str | None = Field(description="Who has cancelled it meanwhile: it is undone then.")


class LeftOut(BaseModel):
    """One step that a terminated saga leaves, or would leave, behind."""

    step: str = Field(examples=["2"])
    name: str = Field(examples=["payments.charge"])
    what: str = Field(
        description="done: it stands. unknown: it may have happened, or happen yet. undoing: its undo is out."
    )
    compensation: str | None = Field(description="What would undo it.")
