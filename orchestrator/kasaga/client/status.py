"""What a client is told of a saga: its state in words of its own, from an answer or from the store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from kasaga_wire.records import Answer

if TYPE_CHECKING:
    from ..store.base import SagaRow

FINAL = frozenset({"COMPLETED", "COMPENSATED", "TERMINATED"})
STUCK = "STUCK"


@dataclass(frozen=True, slots=True)
class SagaStatus:
    """Where a saga stands. What is only known from the database is None where the client has none."""

    saga_id: str
    run_id: str
    state: str
    """RUNNING, COMPENSATING, CANCELLING, STUCK, PAUSED, COMPLETED, COMPENSATED, TERMINATED."""
    step: str = ""
    """The path of the step that the state is about, or empty."""
    code: str = ""
    reason: str = ""
    remedy: str = ""
    name: str | None = None
    version: int | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    with_exceptions: bool | None = None

    @property
    def final(self) -> bool:
        """The saga has ended."""
        return self.state in FINAL

    @classmethod
    def of_answer(cls, answer: Answer) -> SagaStatus:
        """From what the saga's owner said."""
        return cls(
            answer.saga_id,
            answer.run_id,
            state_of(answer),
            answer.step or "",
            answer.error or "",
            answer.reason or "",
            answer.remedy or "",
        )

    @classmethod
    def of_row(cls, row: SagaRow) -> SagaStatus:
        """From the store."""
        return cls(
            row.saga_id,
            str(row.run_id),
            row.state.value,
            row.step,
            row.code,
            row.reason,
            row.remedy,
            row.name,
            row.version,
            row.started_at,
            row.ended_at,
            row.with_exceptions,
        )


_SAID: Mapping[str, str] = {"running": "RUNNING", "duplicate": "RUNNING"}


def state_of(answer: Answer) -> str:
    """The state that an answer tells; answers to actions carry the one after the action."""
    return answer.state or (answer.what if answer.what.isupper() else _SAID.get(answer.what, ""))
