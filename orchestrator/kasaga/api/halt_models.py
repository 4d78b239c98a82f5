"""What the API says of sagas that are paused, or were terminated, and of the runs of those that live long."""

from __future__ import annotations

from pydantic import AwareDatetime, BaseModel, Field


class PausedOut(BaseModel):
    """Since when, by whom and why a saga is paused."""

    since: AwareDatetime
    by: str
    reason: str | None
    state: str = Field(description="What it is again when it is resumed.", examples=["RUNNING"])
    cancelled_by: str | None = Field(description="Who has cancelled it meanwhile: it is undone then.")


class RunOut(BaseModel):
    """The run that a saga is in, of those that it has gone on as."""

    number: int = Field(description="1 for the first.")
    began_at: AwareDatetime
    records: int = Field(description="Rows of its history.")
    long: str | None = Field(default=None, description="That the history has become long, in words.")


class LeftOut(BaseModel):
    """One step that a terminated saga leaves, or would leave, behind."""

    step: str = Field(examples=["2"])
    name: str = Field(examples=["payments.charge"])
    what: str = Field(
        description="done: it stands. unknown: it may have happened, or happen yet. undoing: its undo is out."
    )
    compensation: str | None = Field(description="What would undo it.")
