"""What becomes of one record, given its rows: a pure function, and the whole of the fence.

Station: called by the algorithm for each record of a batch, after the claim. Calls nothing, waits for
nothing.

`own` is the row that was there under the record's own id, None if there was none (then it is claimed now, or
the record is too old to be). `original` is the same for the command that an undo or a void is about.

    a command's own row      answer                 an undo's or a void's     undo             void
                                                    original
    none, young              run the handler        done                      run, stored      executed
    none, older than max_age expired                refused                   nothing          refused
    done, refused, deferred  the stored reply       none, or a tombstone      nothing          voided
    another type or input    conflict                 deferred                run, none        voided
                                                      … but known as done     lost             lost
    a tombstone              refused (Voided)       none, and forgotten       run, carried     expired
                                                    another type              conflict         conflict
"""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import Forgotten, IdClash, TransactionEnded, Voided
from .rows import (
    BLIND_TOMBSTONE,
    CLAIMED,
    CONFLICT,
    DEFERRED,
    DONE,
    EXECUTED,
    EXPIRED,
    FAILED,
    LOST,
    NOTHING,
    REFUSED,
    TOMBSTONE,
    VOIDED,
    Kind,
    Original,
    Rules,
    StoredRow,
    Work,
)


@dataclass(frozen=True, slots=True)
class Run:
    """The handler has to run. `stored`: the result of what it undoes; None: what the undo itself carries.

    `gives_up`: what it undoes waits for its answer, and must not get one any more.
    """

    stored: bytes | None = None
    gives_up: bool = False


@dataclass(frozen=True, slots=True)
class Say:
    """The answer is known without the handler.

    Attributes:
        outcome: the reply's.
        payload: the reply's, where it was stored; None: empty, or made from `error`.
        error: what to tell instead of a payload.
        keep: whether the answer is stored under the record's own id, which is claimed.
        duplicate: whether the answer was stored before.
        gives_up: what it is about waits for its answer, and must not get one any more.
    """

    outcome: str
    payload: bytes | None = None
    error: Exception | None = None
    keep: bool = False
    duplicate: bool = False
    gives_up: bool = False


Verdict = Run | Say


def judge(work: Work, own: StoredRow | None, original: StoredRow | None, rules: Rules, now: float) -> Verdict:
    """Decide about one record. `now`: seconds since 1970."""
    if own is not None:
        return _again(work, own)
    if rules.too_old(work.sent, now):
        return Say(EXPIRED, error=Forgotten(f"{work.id} is older than max_age and was never executed here"))
    if work.original is None:
        return Run()
    if original is not None and original.type != work.original.type:
        return _clash(work.original.id, original.type, work.original.type, keep=True)
    if original is not None and original.outcome == DEFERRED:
        return _give_up(work.kind, work.original)
    knowledge = _knowledge(work.original, original, rules, now)
    return _void(work.original, knowledge, original) if work.kind is Kind.VOID else _undo(knowledge, original)


def _give_up(kind: Kind, sent: Original) -> Verdict:
    """What it is about waits for its answer. Its handler has run, so there may be something to undo."""
    if sent.done:
        return Say(LOST, keep=True, gives_up=True)
    return Say(VOIDED, keep=True, gives_up=True) if kind is Kind.VOID else Run(gives_up=True)


def _again(work: Work, own: StoredRow) -> Say:
    """A record whose own row exists: a duplicate, or a late command behind its own undo."""
    if own.type != work.type:
        return _clash(work.id, own.type, work.type)
    if own.outcome in (TOMBSTONE, BLIND_TOMBSTONE):
        return Say(REFUSED, error=Voided(f"{work.id} came after its saga had given it up"), duplicate=True)
    if work.input_hash is not None and own.input_hash is not None and work.input_hash != own.input_hash:
        return Say(CONFLICT, error=IdClash(f"{work.id} was sent before with another input"))
    if (
        own.outcome == CLAIMED
    ):  # a trigger forbids it; if somebody has dropped that, say so instead of guessing
        return Say(FAILED, error=TransactionEnded(f"{work.id} was begun before, and never answered"))
    return Say(own.outcome, payload=own.payload, duplicate=True)


def _clash(command_id: str, there: str, here: str, *, keep: bool = False) -> Say:
    return Say(CONFLICT, error=IdClash(f"{command_id} was a {there} before and is a {here} now"), keep=keep)


def _knowledge(sent: Original, row: StoredRow | None, rules: Rules, now: float) -> str:
    """What is known of the original: done, refused, nothing, lost, or nobody can know (expired)."""
    if row is None:
        absent = not rules.forgotten(sent, now)
    elif row.outcome in (DONE, REFUSED):
        return row.outcome
    else:
        absent = row.outcome == TOMBSTONE
    if not absent:
        return EXPIRED
    return LOST if sent.done else NOTHING


def _undo(knowledge: str, row: StoredRow | None) -> Verdict:
    if knowledge == DONE and row is not None:
        return Run(stored=row.payload)
    if knowledge == EXPIRED:
        return Run()
    return Say(LOST if knowledge == LOST else NOTHING, keep=True)


def _void(sent: Original, knowledge: str, row: StoredRow | None) -> Say:
    if knowledge == DONE:
        return Say(EXECUTED, keep=True)
    if knowledge == REFUSED and row is not None:
        return Say(REFUSED, payload=row.payload, keep=True)
    if knowledge == EXPIRED:
        return Say(
            EXPIRED,
            error=Forgotten(f"{sent.id} may have been executed: no row proves or excludes it"),
            keep=True,
        )
    return Say(LOST if knowledge == LOST else VOIDED, keep=True)
