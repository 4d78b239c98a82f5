"""The inbox's SQL, and which statements each effect of the algorithm takes.

Station: used by the two Postgres sessions (async and sync), so that they only differ in how they wait.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from .algorithm import Abort, Close, Guard, Hold, Open, Read, Retreat
from .drive import RowEffect
from .rows import Later, StoredRow

_NAME = re.compile(r"^-- name: (\w+)\n", re.MULTILINE)
_COMMENT = re.compile(r"^--.*\n", re.MULTILINE)

PACKAGE = "kasaga_participant.inbox"

Row = tuple[Any, ...]
Rows = Sequence[Row]


@cache
def statements() -> Mapping[str, bytes]:
    """The statements of `sql/inbox.sql`, by name. Bytes, since psycopg takes text from literals only."""
    text = files(PACKAGE).joinpath("sql/inbox.sql").read_text(encoding="utf-8")
    parts = _NAME.split(text)[1:]
    pairs = zip(parts[::2], parts[1::2], strict=True)
    return {name: _COMMENT.sub("", body).strip().encode() for name, body in pairs}


@cache
def migrations() -> Mapping[str, bytes]:
    """The migrations in their order: name and SQL."""
    found = sorted(files(PACKAGE).joinpath("migrations").iterdir(), key=lambda file: file.name)
    return {file.name.removesuffix(".sql"): file.read_bytes() for file in found if file.name.endswith(".sql")}


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement and its parameters.

    `prepare`: None lets the driver prepare what comes often; False has it planned anew each time.
    """

    sql: bytes
    parameters: Sequence[object] | None = None
    prepare: bool | None = None


@dataclass(frozen=True, slots=True)
class Script:
    """What one effect takes.

    Its statements are sent together. `result` makes its value of the rows of statement number `of`; None
    where it has none.
    """

    statements: tuple[Statement, ...]
    result: Callable[[Rows], object] | None = None
    of: int = 0


@dataclass(frozen=True, slots=True)
class Limits:
    """What the scripts need to know of the settings. Both in seconds."""

    retention: float
    idle_in_transaction: float


def script(effect: RowEffect, limits: Limits) -> Script:
    """The statements of one effect."""
    match effect:
        case Open():
            return _open(effect, limits)
        case Read():
            # A row that is used again moves its date of purging, but not each time: an eighth is soon enough.
            return Script((_statement("read", limits.retention / 8, list(effect.ids)),), _stored)
        case Hold():
            return Script((_statement("hold", limits.retention / 8, list(effect.ids)),), _stored)
        case Close():
            return _close(effect)
        case Abort():
            return Script((_statement("rollback"),))
        case Guard():
            return Script((_statement("guard"),))
        case Retreat():
            return Script((_statement("retreat"),))


# They look rows up. A plan kept from when the table was small reads all of it once it is large, until its
# statistics are taken again; planning anew takes a tenth of a millisecond a batch.
_PLANNED_ANEW = frozenset({"read", "hold", "answer", "release", "touch"})


def _statement(name: str, *parameters: object) -> Statement:
    return Statement(statements()[name], parameters or None, False if name in _PLANNED_ANEW else None)


def _open(effect: Open, limits: Limits) -> Script:
    begin = _statement("begin")
    idle = _statement("limit_idle", f"{limits.idle_in_transaction * 1000:.0f}ms")
    rows = effect.rows
    claim = _statement(
        "claim",
        [row.id for row in rows],
        [row.type for row in rows],
        [row.input_hash for row in rows],
        [row.outcome for row in rows],
    )
    sent = (begin, idle, claim)
    return Script((*sent, _statement("guard")) if effect.guarded else sent, _ids, of=2)


def _close(effect: Close) -> Script:
    sent: list[Statement] = []
    if rows := effect.outcomes:
        columns = ([row.id for row in rows], [row.outcome for row in rows], [row.payload for row in rows])
        sent += (_statement("answered"), _statement("answer", *columns))
    if effect.deferred:
        sent.append(_defer(effect.deferred))
    if effect.given_up:
        sent.append(_statement("give_up", list(effect.given_up)))
    if effect.released:
        sent += (_statement("answered"), _statement("release", list(effect.released)))
    if effect.used:
        sent.append(_statement("touch", list(effect.used)))
    sent.append(_statement("commit"))
    return Script(tuple(sent))


def _defer(deferred: Sequence[tuple[str, Later]]) -> Statement:
    laters = [later for _, later in deferred]
    return _statement(
        "defer",
        [id_ for id_, _ in deferred],
        [later.participant for later in laters],
        [later.attempt for later in laters],
        [later.reply_to for later in laters],
        [later.saga_id for later in laters],
        [later.traceparent for later in laters],
        [later.tracestate for later in laters],
        [later.heartbeat for later in laters],
    )


def _ids(rows: Rows) -> frozenset[str]:
    return frozenset(row[0] for row in rows)


def _stored(rows: Rows) -> dict[str, StoredRow]:
    return {row[0]: StoredRow(*row) for row in rows}
