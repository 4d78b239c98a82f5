"""Answers that come later: what becomes of one, by the rows of its command. Written once, without I/O.

Station: a generator like the algorithm's, driven against Postgres in the transaction of whoever answers
(async or sync), or against memory. Called by `later.py`, which is what authors see. The row in the inbox is
locked first: an undo of the command, and a second answer, wait for it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import psycopg
from psycopg import AsyncConnection, Connection
from psycopg.rows import tuple_row

from kasaga_wire.crashpoints import crash_point
from kasaga_wire.records import Deferral, deferral_codec
from kasaga_wire.sealing import PLAIN, Sealer, place

from ..errors import AlreadyAnswered, BadToken, GivenUp, NotDeferred
from .memory import MemoryInbox
from .rows import BLIND_TOMBSTONE, DEFERRED, FAILED, TOMBSTONE, Later
from .statements import statements

MAX_TOKEN_CHARACTERS = 400
MAC_BYTES = 24
"""Of the HMAC-SHA256: 192 bits that nobody guesses."""
TELLS = 3
"""How many heartbeats of one heartbeat time the orchestrator is told at most: each is a row of history."""
PROGRESS_SECONDS = 30.0
"""What stands for the heartbeat time where none was promised."""


class Tokens:
    """Makes and checks tokens: a command's id and its HMAC. The same command has the same token always."""

    def __init__(self, key: bytes) -> None:
        """`key`: the inbox's secret."""
        self._key = key

    def make(self, command_id: str) -> str:
        """The token of a command."""
        mac = hmac.digest(self._key, command_id.encode(), hashlib.sha256)[:MAC_BYTES]
        return f"{command_id}.{base64.urlsafe_b64encode(mac).decode()}"

    def read(self, token: str) -> str:
        """The command's id. Raises BadToken."""
        command_id = token.rpartition(".")[0]
        good = len(token) <= MAX_TOKEN_CHARACTERS and "\0" not in token
        if not good or not hmac.compare_digest(
            self.make(command_id).encode(), token.encode("utf-8", "replace")
        ):
            raise BadToken("this is no token of this service's database")
        return command_id


class Wish(NamedTuple):
    """What is to become of a command. `outcome`: done, refused, failed; deferred for a heartbeat."""

    outcome: str
    payload: bytes | None = None
    progress: str | None = None


class Told(NamedTuple):
    """The row of the inbox, locked."""

    type: str
    outcome: str
    payload: bytes | None


class Waiting(NamedTuple):
    """How a command is to be answered. `since`: seconds since the orchestrator was told last."""

    later: Later
    number: int
    since: float


@dataclass(frozen=True, slots=True)
class LateReply:
    """A reply that is to be sent. `seq`: its row, once it has one."""

    id: str
    participant: str
    attempt: int
    reply_to: str
    saga_id: str
    traceparent: str | None
    tracestate: str | None
    outcome: str
    number: int
    payload: bytes | None
    seq: int = 0


@dataclass(frozen=True, slots=True)
class Key:
    """Gives the inbox's secret."""


@dataclass(frozen=True, slots=True)
class Lock:
    """Gives the command's row, or None."""

    id: str


@dataclass(frozen=True, slots=True)
class Find:
    """Gives how the command is to be answered, or None."""

    id: str


@dataclass(frozen=True, slots=True)
class Finish:
    """Store the answer; a failure is stored nowhere. `reply`: None where nobody waits for it."""

    id: str
    wish: Wish
    reply: LateReply | None


@dataclass(frozen=True, slots=True)
class Beat:
    """Count a heartbeat. `reply`: None where the orchestrator needn't be told."""

    id: str
    number: int
    progress: str | None
    reply: LateReply | None


Effect = Key | Lock | Find | Finish | Beat
Plan = Generator[Effect, Any, None]


def answer_late(type_: str, token: str, wish: Wish, *, sealer: Sealer = PLAIN) -> Plan:
    """Answer one command of a type, or say that it is still being worked at.

    Raises BadToken, NotDeferred, GivenUp and AlreadyAnswered, and CannotOpen where it was answered before
    and encrypted with a key that isn't here. The same answer twice is one.
    """
    key: bytes = yield Key()
    id_ = Tokens(key).read(token)
    told: Told | None = yield Lock(id_)
    where = place("reply", id_)
    if told is not None and told.payload is not None:
        told = told._replace(payload=sealer.open(where, told.payload))
    if _was_answered(type_, id_, told, wish):
        return
    waiting: Waiting | None = yield Find(id_)
    if waiting is None:
        raise NotDeferred(f"{id_} doesn't wait for an answer")
    if wish.outcome != DEFERRED:
        if wish.payload is not None:
            wish = wish._replace(payload=sealer.seal(where, wish.payload))
        yield Finish(id_, wish, _reply(id_, waiting.later, wish.outcome, 0, wish.payload))
        return
    number, beat = waiting.number + 1, waiting.later.heartbeat
    first = waiting.number == 0 and wish.progress is not None
    reply = None
    if first or waiting.since >= (beat or PROGRESS_SECONDS) / TELLS:
        body = Deferral(attempt=waiting.later.attempt, number=number, heartbeat=beat, progress=wish.progress)
        reply = _reply(id_, waiting.later, DEFERRED, number, sealer.seal(where, deferral_codec.encode(body)))
    yield Beat(id_, number, wish.progress, reply)


def _was_answered(type_: str, id_: str, told: Told | None, wish: Wish) -> bool:
    """Whether this very answer was given before. Raises what forbids any."""
    if told is None:
        raise NotDeferred(f"{id_} doesn't wait for an answer")
    if told.type != type_:
        raise BadToken(f"this is the token of a {told.type}, and no {type_}")
    if told.outcome == DEFERRED:
        return False
    if told.outcome in (TOMBSTONE, BLIND_TOMBSTONE):
        raise GivenUp(f"the saga has given {id_} up")
    if (told.outcome, told.payload) != (wish.outcome, wish.payload):
        raise AlreadyAnswered(f"{id_} was answered before: {told.outcome}")
    return True


def _reply(id_: str, later: Later, outcome: str, number: int, payload: bytes | None) -> LateReply | None:
    if not later.reply_to:
        return None
    return LateReply(
        id_,
        later.participant,
        later.attempt,
        later.reply_to,
        later.saga_id,
        later.traceparent,
        later.tracestate,
        outcome,
        number,
        payload,
    )


# --- in Postgres


class _Sql(NamedTuple):
    """A statement, and whether its row is wanted."""

    name: str
    parameters: tuple[object, ...]
    wanted: bool = False


def _script(effect: Effect) -> list[_Sql]:
    match effect:
        case Key():
            return [_Sql("late_secret", (), wanted=True)]
        case Lock():
            return [_Sql("late_row", (effect.id,), wanted=True)]
        case Find():
            return [_Sql("late_deferral", (effect.id,), wanted=True)]
        case Finish(id=id_, wish=wish, reply=reply):
            failed = wish.outcome == FAILED
            row = _Sql("late_answer", (wish.outcome, wish.payload, id_))
            sent = [_Sql("late_release", (id_,)) if failed else row, _Sql("give_up", ([id_],))]
        case Beat():
            told = effect.reply is not None
            reply = effect.reply
            sent = [_Sql("late_beat", (effect.number, effect.progress, told, effect.id))]
    if reply is not None:
        sent.append(_Sql("late_reply", _columns(reply)))
    return sent


def _columns(reply: LateReply) -> tuple[object, ...]:
    return (
        reply.id,
        reply.participant,
        reply.attempt,
        reply.reply_to,
        reply.saga_id,
        reply.traceparent,
        reply.tracestate,
        reply.outcome,
        reply.number,
        reply.payload,
    )


def _found(effect: Effect, row: tuple[Any, ...] | None) -> object:
    """A row as the plan wants it."""
    match effect:
        case Key():
            if row is None:
                raise psycopg.DataError("kasaga_inbox.secret is empty")
            return bytes(row[0])
        case Lock():
            return None if row is None else Told(*row)
        case Find():
            if row is None:
                return None
            participant, attempt, reply_to, saga_id, parent, state, heartbeat, number, since = row
            later = Later(b"", heartbeat, participant, attempt, reply_to, saga_id, parent, state)
            return Waiting(later, number, since)
        case _:
            return None


async def drive_late(plan: Plan, connection: AsyncConnection[Any]) -> None:
    """Answer in the connection's transaction. Raises what the plan raises, and psycopg.Error."""
    async with connection.cursor(row_factory=tuple_row) as cursor:
        try:
            effect = next(plan)
            while True:
                row: tuple[Any, ...] | None = None
                for each in _script(effect):
                    await cursor.execute(statements()[each.name], each.parameters, prepare=False)
                    row = await cursor.fetchone() if each.wanted else None
                effect = plan.send(_found(effect, row))
        except StopIteration:
            crash_point("participant.late.before_commit")


def drive_late_sync(plan: Plan, connection: Connection[Any]) -> None:
    """The same, for a connection that isn't async."""
    with connection.cursor(row_factory=tuple_row) as cursor:
        try:
            effect = next(plan)
            while True:
                row: tuple[Any, ...] | None = None
                for each in _script(effect):
                    cursor.execute(statements()[each.name], each.parameters, prepare=False)
                    row = cursor.fetchone() if each.wanted else None
                effect = plan.send(_found(effect, row))
        except StopIteration:
            crash_point("participant.late.before_commit")


# --- in memory


async def drive_late_memory(plan: Plan, inbox: MemoryInbox) -> None:
    """Answer a command of a MemoryInbox; between the lock and the end nothing is waited for."""
    try:
        effect = next(plan)
        while True:
            if isinstance(effect, Lock):
                row = await inbox.locked(effect.id)
                found: object = None if row is None else Told(row.type, row.outcome, row.payload)
            else:
                found = _in_memory(effect, inbox)
            effect = plan.send(found)
    except StopIteration:
        return


def _in_memory(effect: Effect, inbox: MemoryInbox) -> object:
    match effect:
        case Key():
            return inbox.key
        case Find():
            later = inbox.deferrals.get(effect.id)
            if later is None:
                return None
            number, sent = inbox.beats.get(effect.id, (0, 0.0))
            return Waiting(later, number, inbox.now() - sent)
        case Finish(id=id_, wish=wish, reply=reply):
            inbox.forget_deferral(id_)
            if wish.outcome == FAILED:
                inbox.remove(id_)
            else:
                inbox.put(id_, wish.outcome, wish.payload)
        case Beat():
            reply = effect.reply
            _, sent = inbox.beats.get(effect.id, (0, 0.0))
            inbox.beats[effect.id] = (effect.number, inbox.now() if reply is not None else sent)
        case Lock():
            raise AssertionError("it may have to wait")
    if reply is not None:
        inbox.late.append(replace(reply, seq=len(inbox.late) + 1))
    return None
