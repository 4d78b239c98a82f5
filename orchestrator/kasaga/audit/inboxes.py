"""What an inbox says of some runs, whichever way it is asked.

Station: `walk.py` asks, `compare.py` judges; `by_kafka.py` and `by_database.py` are the two ways.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from kasaga_wire.errors import KasagaError


@dataclass(frozen=True, slots=True)
class InboxRow:
    """One row: `input` and `result` are SHA-256, None where there is nothing to take them of."""

    id: str
    type: str
    outcome: str
    input: bytes | None = None
    result: bytes | None = None


@dataclass(frozen=True, slots=True)
class Memory:
    """What the absence of a row proves at a participant. Durations in seconds, times seconds since 1970."""

    remembers: bool = True
    """False: there is no inbox."""
    horizon: float = 7 * 86_400.0
    """What was sent longer ago may have been purged: its retention without its max_age."""
    as_of: float | None = None
    """What was read is a copy of the database, and this old at most; None: it is the database itself."""

    def proves(self, sent: float, now: float) -> bool:
        """Whether a row that was written at that time would have to be there."""
        return self.remembers and now - sent <= self.horizon and (self.as_of is None or sent < self.as_of)


@dataclass(slots=True)
class Seen:
    """All rows of the runs that were asked for."""

    memory: Memory
    _runs: dict[str, dict[str, InboxRow]] = field(default_factory=dict[str, dict[str, InboxRow]])

    def add(self, row: InboxRow) -> None:
        """Take a row in."""
        run_id, _, path = row.id.partition(".")
        self._runs.setdefault(run_id, {})[path] = row

    def of(self, run_id: str) -> Mapping[str, InboxRow]:
        """The rows of one run, by what follows its id, such as `1~undo`."""
        return self._runs.get(run_id, {})


class Inbox(Protocol):
    """One participant's inbox, to be read."""

    def read(self, runs: Sequence[str]) -> Seen:
        """All rows of these runs. Raises Unanswered; blocks."""
        ...

    def close(self) -> None:
        """Let go of connections."""
        ...


class Unanswered(KasagaError):
    """A participant's inbox couldn't be read: nothing is known of the steps that it did."""

    code = "KSG-650"
    default_remedy = "See that the participant runs, or name its database: --inbox NAME=URL"


class TooOld(Unanswered):
    """A participant runs a release that knows no audits."""

    code = "KSG-651"
    default_remedy = "Deploy the participant with this release, or name its database: --inbox NAME=URL"
