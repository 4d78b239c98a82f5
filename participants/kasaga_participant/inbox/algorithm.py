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
from .judge import Run, Say, judge
from .rows import (
    BLIND_TOMBSTONE,
    CLAIMED,
    DEFERRED,
    DONE,
    FAILED,
    REFUSED,
    TOMBSTONE,
    UNDECODABLE,
    UNDONE,
    Answer,
    Kind,
    Later,
    NewRow,
    Rules,
    StoredRow,
    Work,
)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Open:
    """Begin a transaction and claim these rows, in the order of their ids. Gives the claimed ids.

    `guarded`: set a savepoint behind the claim.
    """

    rows: tuple[NewRow, ...]
    guarded: bool


@dataclass(frozen=True, slots=True)
class Read:
    """Gives the rows that exist, by id. A statement of its own, so it sees what the claim has waited for."""

    ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Hold:
    """Lock old rows until the end of the transaction, in the order of their ids, and read them again.

    For an undo of a command that waits for its answer: the answer may come at this moment.
    """

    ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Guard:
    """Set another savepoint."""


@dataclass(frozen=True, slots=True)
class Retreat:
    """Roll back to the last savepoint, which stays."""


@dataclass(frozen=True, slots=True)
class Invoke:
    """Run the handler in the open transaction. Gives the encoded result, or Later.

    `HandlerRaised` is thrown in.
    """

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
    """Write the outcomes, take claims back, note which old rows were used again, and commit.

    `deferred`: commands that are answered later, by id. `given_up`: those that won't be any more.
    """

    outcomes: tuple[Outcome, ...]
    released: tuple[str, ...]
    used: tuple[str, ...]
    deferred: tuple[tuple[str, Later], ...] = ()
    given_up: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Abort:
    """Roll back."""


Effect = Open | Read | Hold | Guard | Invoke | Retreat | Close | Abort
Plan = Generator[Effect, Any, T]


class HandlerRaised(Exception):
    """Thrown into the plan when a handler has raised.

    `error`: what it raised. `over`: it has ended the transaction, or left it where nothing can go on.
    """

    def __init__(self, error: BaseException, *, over: bool = False) -> None:
        super().__init__(repr(error))
        self.error = error
        self.over = over


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
    *,
    guarded: bool = False,
) -> Plan[list[Answer]]:
    """Settle a batch in one transaction: all of it, or (more than one record) `Spoiled`.

    No two records of a batch may touch the same row. `clock`: seconds since 1970. `encode_error`: an error as
    the payload of a reply. `guarded`: each handler has a savepoint before it, so that one that raises spoils
    nothing; that costs a round trip for each, and is only worth it where one is expected to raise.
    """
    guarded = guarded or len(works) == 1  # the first savepoint travels with the claim
    while True:
        now = clock()
        claims = _claims(works, rules, now)
        claimed: frozenset[str] = yield Open(claims, guarded)
        crash_point("participant.after_claim")
        fence = any(work.original is not None for work in works)
        if fence:
            crash_point("participant.fence.after_claim")
        wanted = {id_ for work in works for id_ in work.ids()} - claimed
        known: Mapping[str, StoredRow] = (yield Read(tuple(sorted(wanted)))) if wanted else {}
        if fence and known:
            known = yield from _held(known, works)
        if any(row.id not in claimed and row.id not in known for row in claims):
            yield Abort()  # purged between the claim and the reading: it is absent now
            continue
        batch = _Batch(guarded, claimed, encode_error)
        for index, work in enumerate(works):
            verdict = judge(work, known.get(work.id), _original(known, work), rules, now)
            if isinstance(verdict, Say):
                batch.say(work, verdict)
                continue
            try:
                yield from batch.run(work, verdict)
            except HandlerRaised as raised:
                yield Abort()
                if len(works) > 1:
                    raise Spoiled(index, raised.error) from raised
                return [Answer(FAILED, encode_error(raised.error), raised.error, ran=True)]
        crash_point("participant.before_commit")
        if fence:
            crash_point("participant.fence.before_commit")
        used = _used(known.values())
        if batch.released and not batch.outcomes and not used:
            yield Abort()  # nothing is left that could be committed
            return batch.answers
        yield batch.close(used)
        crash_point("participant.after_commit")
        return batch.answers


class _Batch:
    """A batch in the making."""

    def __init__(
        self, guarded: bool, claimed: frozenset[str], encode_error: Callable[[BaseException], bytes]
    ) -> None:
        self._guarded = self._fresh = guarded
        self._claimed = claimed
        self._encode_error = encode_error
        self.answers: list[Answer] = []
        self.outcomes: list[Outcome] = []
        self.released: list[str] = []
        """Claims of what is stored nowhere: a failure that was stored could never succeed again."""
        self._deferred: list[tuple[str, Later]] = []
        self._given_up_ids: list[str] = []

    def say(self, work: Work, say: Say) -> None:
        """Take an answer that is known without a handler."""
        self.add(work, _said(say, self._encode_error), keep=say.keep)
        if say.gives_up:
            self._give_up(work)

    def run(self, work: Work, verdict: Run) -> Plan[None]:
        """Run a handler. Raises HandlerRaised where the whole batch has to be rolled back for it."""
        if self._guarded and not self._fresh:
            yield Guard()
        self._fresh = False
        try:
            result: bytes | Later | None = yield Invoke(work, verdict.stored)
        except HandlerRaised as raised:
            if raised.over or not self._guarded:
                raise
            yield Retreat()
            self._fresh = True
            crash_point("participant.after_rollback")
            answer = _raised(work, raised.error, self._encode_error)
            self.add(work, answer, keep=answer.outcome == REFUSED)
            if answer.outcome != REFUSED:
                self.released += [id_ for id_ in work.ids() if id_ in self._claimed]
            return
        crash_point("participant.after_handler")
        if isinstance(result, Later):
            self._deferred.append((work.id, result))
            done = Answer(DEFERRED, result.payload, ran=True)
        else:
            done = Answer(DONE, result, ran=True) if work.original is None else Answer(UNDONE, ran=True)
        self.add(work, done, keep=True)
        if verdict.gives_up:
            self._give_up(work)

    def _give_up(self, work: Work) -> None:
        """What it is about waits for its answer, and gets a tombstone: whoever answers is told."""
        assert work.original is not None, "only an undo or a void gives something up"
        self.outcomes.append(Outcome(work.original.id, TOMBSTONE, None))
        self._given_up_ids.append(work.original.id)

    def close(self, used: tuple[str, ...]) -> Close:
        """All that is to be written."""
        return Close(
            tuple(self.outcomes), tuple(self.released), used, tuple(self._deferred), tuple(self._given_up_ids)
        )

    def add(self, work: Work, answer: Answer, *, keep: bool) -> None:
        """Take one record's answer; `keep`: store it."""
        self.answers.append(answer)
        if keep:
            self.outcomes.append(Outcome(work.id, answer.outcome, answer.payload))


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


def _held(known: Mapping[str, StoredRow], works: Iterable[Work]) -> Plan[Mapping[str, StoredRow]]:
    """The rows once more, those locked that are to be undone or voided and wait for their answer."""
    originals = (_original(known, work) for work in works)
    waiting = tuple(sorted({row.id for row in originals if row is not None and row.outcome == DEFERRED}))
    if not waiting:
        return known
    held: Mapping[str, StoredRow] = yield Hold(waiting)
    return {**{id_: row for id_, row in known.items() if id_ not in waiting}, **held}


def _used(rows: Iterable[StoredRow]) -> tuple[str, ...]:
    return tuple(sorted(row.id for row in rows if row.stale))


def _said(say: Say, encode_error: Callable[[BaseException], bytes]) -> Answer:
    payload = encode_error(say.error) if say.error is not None else say.payload
    return Answer(say.outcome, payload, say.error, duplicate=say.duplicate)


def _raised(work: Work, error: BaseException, encode_error: Callable[[BaseException], bytes]) -> Answer:
    """The answer for a record whose handler raised, and whose work was taken back."""
    if isinstance(error, Undecodable):
        return Answer(UNDECODABLE, encode_error(error.error), error.error)
    refused = isinstance(error, Refused) and work.kind is Kind.COMMAND
    return Answer(REFUSED if refused else FAILED, encode_error(error), error, ran=True)
