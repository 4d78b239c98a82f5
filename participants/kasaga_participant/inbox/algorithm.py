"""The inbox: claim, run, store, in one transaction. Written once, without I/O.

Station: a generator that yields what is to be done next (an `Effect`) and is sent what came of it. Driven by
`drive.py`, against Postgres (async, or sync in a thread) or against memory; so there is one algorithm,
however the handlers are written. Called by the worker, through a session.

READ COMMITTED, and the claim comes first: `INSERT … ON CONFLICT DO NOTHING` waits for whoever is at the same
command and then tells whether he has finished it. A SELECT first would let two processes run one command.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from kasaga_wire.crashpoints import crash_point

from ..errors import Refused
from .judge import Say, judge
from .rows import (
    BLIND_TOMBSTONE,
    CLAIMED,
    DONE,
    FAILED,
    REFUSED,
    TOMBSTONE,
    UNDECODABLE,
    UNDONE,
    Answer,
    Kind,
    NewRow,
    Rules,
    StoredRow,
    Work,
)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Open:
    """Begin a transaction and claim these rows, in the order of their ids. Gives the claimed ids."""

    rows: tuple[NewRow, ...]


@dataclass(frozen=True, slots=True)
class Read:
    """Gives the rows that exist, by id. A statement of its own, so it sees what the claim has waited for."""

    ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Invoke:
    """Run the handler in the open transaction. Gives the encoded result; `HandlerRaised` is thrown in."""

    work: Work
    stored: bytes | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What to write into a claimed row."""

    id: str
    outcome: str
    payload: bytes | None


@dataclass(frozen=True, slots=True)
class Close:
    """Write the outcomes, note which old rows were used again, and commit."""

    outcomes: tuple[Outcome, ...]
    used: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Abort:
    """Roll back."""


@dataclass(frozen=True, slots=True)
class Keep:
    """Insert a finished row in its own transaction, unless there is one. Gives whether it did."""

    row: NewRow
    payload: bytes | None


Effect = Open | Read | Invoke | Close | Abort | Keep
Plan = Generator[Effect, Any, T]


class HandlerRaised(Exception):
    """Thrown into the plan when a handler has raised. `error`: what it raised."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(repr(error))
        self.error = error


class Undecodable(Exception):
    """Thrown by the caller's `invoke` when the bytes for a handler can't be read. `error`: why."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(repr(error))
        self.error = error


class Spoiled(Exception):
    """A batch was rolled back. `index`: whose handler raised; those before it have run without an error."""

    def __init__(self, index: int, error: BaseException) -> None:
        super().__init__(f"record {index} of the batch: {error!r}")
        self.index = index
        self.error = error


def settle(
    works: Sequence[Work],
    rules: Rules,
    clock: Callable[[], float],
    encode_error: Callable[[BaseException], bytes],
) -> Plan[list[Answer]]:
    """Settle a batch in one transaction, without savepoints: all of it, or (more than one record) `Spoiled`.

    No two records of a batch may touch the same row. `clock`: seconds since 1970. `encode_error`: an error as
    the payload of a reply.
    """
    while True:
        now = clock()
        claims = _claims(works, rules, now)
        claimed: frozenset[str] = yield Open(claims)
        crash_point("participant.after_claim")
        fence = any(work.original is not None for work in works)
        if fence:
            crash_point("participant.fence.after_claim")
        wanted = {id_ for work in works for id_ in work.ids()} - claimed
        known: Mapping[str, StoredRow] = (yield Read(tuple(sorted(wanted)))) if wanted else {}
        if any(row.id not in claimed and row.id not in known for row in claims):
            yield Abort()  # purged between the claim and the reading: it is absent now
            continue
        answers: list[Answer] = []
        outcomes: list[Outcome] = []
        for index, work in enumerate(works):
            verdict = judge(work, known.get(work.id), _original(known, work), rules, now)
            if isinstance(verdict, Say):
                answer = _said(verdict, encode_error)
                keep = verdict.keep
            else:
                try:
                    result: bytes | None = yield Invoke(work, verdict.stored)
                except HandlerRaised as raised:
                    yield Abort()
                    if len(works) > 1:
                        raise Spoiled(index, raised.error) from raised
                    return [(yield from _failed(work, raised.error, encode_error, rules, clock))]
                crash_point("participant.after_handler")
                answer = Answer(DONE, result, ran=True) if work.original is None else Answer(UNDONE, ran=True)
                keep = True
            answers.append(answer)
            if keep:
                outcomes.append(Outcome(work.id, answer.outcome, answer.payload))
        crash_point("participant.before_commit")
        if fence:
            crash_point("participant.fence.before_commit")
        yield Close(tuple(outcomes), _used(known.values()))
        crash_point("participant.after_commit")
        return answers


def _claims(works: Iterable[Work], rules: Rules, now: float) -> tuple[NewRow, ...]:
    """The rows to claim, sorted by id: two batches that claim in one order can't wait for each other.

    A record that is too old claims nothing, and an undo claims the row of its original as well: that is the
    fence.
    """
    rows: list[NewRow] = []
    for work in works:
        if rules.too_old(work.sent, now):
            continue
        rows.append(NewRow(work.id, work.type, work.input_hash, CLAIMED))
        if work.original is not None:
            tombstone = BLIND_TOMBSTONE if rules.forgotten(work.original, now) else TOMBSTONE
            rows.append(NewRow(work.original.id, work.original.type, None, tombstone))
    rows.sort(key=lambda row: row.id)
    return tuple(rows)


def _original(known: Mapping[str, StoredRow], work: Work) -> StoredRow | None:
    return known.get(work.original.id) if work.original is not None else None


def _used(rows: Iterable[StoredRow]) -> tuple[str, ...]:
    return tuple(sorted(row.id for row in rows if row.stale))


def _said(say: Say, encode_error: Callable[[BaseException], bytes]) -> Answer:
    payload = encode_error(say.error) if say.error is not None else say.payload
    return Answer(say.outcome, payload, say.error, duplicate=say.duplicate)


def _failed(
    work: Work,
    error: BaseException,
    encode_error: Callable[[BaseException], bytes],
    rules: Rules,
    clock: Callable[[], float],
) -> Plan[Answer]:
    """One record alone whose handler raised, after the rollback.

    Only a refusal is stored. A failure that was stored could never succeed again.
    """
    if isinstance(error, Undecodable):
        return Answer(UNDECODABLE, encode_error(error.error), error.error)
    if not isinstance(error, Refused) or work.kind is not Kind.COMMAND:
        return Answer(FAILED, encode_error(error), error, ran=True)
    payload = encode_error(error)
    crash_point("participant.refusal.after_rollback")
    while True:
        row = NewRow(work.id, work.type, work.input_hash, REFUSED)
        if (yield Keep(row, payload)):
            crash_point("participant.refusal.after_store")
            return Answer(REFUSED, payload, error, ran=True)
        # Somebody else has finished the command, or voided it, between our rollback and now: that stands.
        known: Mapping[str, StoredRow] = yield Read((work.id,))
        if work.id in known:
            verdict = judge(work, known[work.id], None, rules, clock())
            assert isinstance(verdict, Say)
            return _said(verdict, encode_error)
