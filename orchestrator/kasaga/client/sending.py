"""Sending something into a running saga: signals and updates; and asking it: queries.

Station: what `Client` does with a saga's code, as `acting.py` has what it does with the saga as a whole. Each
is a record to the saga's owner, sent with the same id until it is answered, so that it counts once.
"""

# ruff: noqa: A002, ASYNC109 - `id` and `timeout` are the words that callers expect

from __future__ import annotations

import asyncio
from abc import abstractmethod
from typing import Any, TypeVar, overload

import pydantic
from pydantic_core import from_json, to_json

from kasaga_wire.codec import Schema
from kasaga_wire.messages import MAX_KEY_CHARACTERS, Kind
from kasaga_wire.records import Answer, Control

from ..errors import (
    MailboxFull,
    NotApplicable,
    PayloadTooLarge,
    QueryFailed,
    SagaOver,
    SignalRefused,
    UpdateRefused,
)
from ..messages import NAME, message_codec
from .acting import ANSWER_SECONDS, LONGEST_ASK, Acting, Question
from .errors import BadRequest, NoAnswer, UnknownSaga
from .handle import FIRST_WAIT, LONGEST_NOT_YET, NOT_YET_WAIT
from .headers import check_id
from .ids import uuid7

T = TypeVar("T")

MAX_VALUE_BYTES = 900_000
"""Of what is sent: the orchestrator's default for one value."""

UNREAD_SECONDS = 3.0
"""For so long a saga that its owner doesn't know may be one whose start lies unread: it is asked again."""

_ERRORS: dict[str, type[NotApplicable]] = {
    kind.code: kind for kind in (SagaOver, SignalRefused, MailboxFull, UpdateRefused, QueryFailed)
}


class Sending(Acting):
    """What a client sends into sagas, and asks them."""

    async def signal(
        self,
        id: str,
        name: str,
        value: object = None,
        *,
        key: str = "",
        keep: bool = False,
        timeout: float | None = None,
    ) -> str:
        """Send a signal. Returns its key when the saga's owner has written it down: then it isn't lost.

        Args:
            id: of the saga.
            name: of the signal, as the saga awaits it.
            value: a pydantic model, or whatever else the saga's type can be; None for a signal without one.
            key: idempotency key: the same one twice is one signal of that saga, for as long as the saga
                lives; a new one by default.
            keep: let the signal wait for a saga that hasn't been started yet.
            timeout: seconds for the owner's answer; 30 by default.

        Raises:
            UnknownSaga: there is no saga with this id, and it isn't to be kept.
            SagaOver: the saga takes nothing any more. With a key that it has taken this isn't raised.
            SignalRefused: the saga declares no such signal, or its value is wrong.
            MailboxFull: too much waits for the saga.
            NoAnswer: no orchestrator answered in time; send it again with the same key.
            EncodeError, PayloadTooLarge, BadRequest: it can't be sent as it is.
        """
        kind: Any = None if value is None else type(value)
        codec = message_codec(kind, "signal", name)
        key = key or str(uuid7())
        await self._send_message(
            "signal", id, name, codec.encode(value), codec.schema, key=key, keep=keep, timeout=timeout
        )
        return key

    async def signal_json(
        self,
        id: str,
        name: str,
        text: str,
        *,
        key: str = "",
        keep: bool = False,
        timeout: float | None = None,
    ) -> str:
        """Send a signal whose value is JSON text, for a program without the type; else as `signal`."""
        key = key or str(uuid7())
        payload = _json(text)
        await self._send_message("signal", id, name, payload, None, key=key, keep=keep, timeout=timeout)
        return key

    @overload
    async def update(
        self,
        id: str,
        name: str,
        value: object,
        expected: type[T],
        *,
        key: str = "",
        timeout: float | None = None,
    ) -> T: ...

    @overload
    async def update(
        self, id: str, name: str, value: object, *, key: str = "", timeout: float | None = None
    ) -> Any: ...

    async def update(
        self,
        id: str,
        name: str,
        value: object,
        expected: Any = Any,
        *,
        key: str = "",
        timeout: float | None = None,
    ) -> Any:
        """Send a value in, and return what the saga's handler answers, as `expected`.

        Args:
            id: of the saga.
            name: of the update, as the saga declares it.
            value: as for `signal`.
            expected: the type of the answer; JSON-able values by default.
            key: idempotency key: the same one twice is handled once and answered alike; a new one by default.
            timeout: seconds for the answer; 30 by default.

        Raises:
            UpdateRefused: the saga's validator or handler says no, or there is no such update.
            UnknownSaga, SagaOver, MailboxFull, NoAnswer: as for `signal`.
        """
        codec = message_codec(type(value), "update", name)
        answer = await self._send_message(
            "update", id, name, codec.encode(value), codec.schema, key=key or str(uuid7()), timeout=timeout
        )
        return _read(answer, expected)

    async def update_json(
        self, id: str, name: str, text: str, *, key: str = "", timeout: float | None = None
    ) -> Any:
        """Send an update whose value is JSON text; else as `update`."""
        payload = _json(text)
        answer = await self._send_message(
            "update", id, name, payload, None, key=key or str(uuid7()), timeout=timeout
        )
        return _read(answer, Any)

    @overload
    async def query(self, id: str, name: str, expected: type[T], *, timeout: float | None = None) -> T: ...

    @overload
    async def query(self, id: str, name: str, *, timeout: float | None = None) -> Any: ...

    async def query(self, id: str, name: str, expected: Any = Any, *, timeout: float | None = None) -> Any:
        """Ask a saga something, also after its end; returns the answer as `expected`. Nothing is recorded.

        Raises:
            QueryFailed: the saga has no such query, or its code can't answer.
            UnknownSaga: there is none with this id.
            NoAnswer: no orchestrator answered in time.
        """
        _check_name("query", name)
        body = Control(action="query", by=self.name, step=name)
        answer = await self._answered("query", id, timeout, body)
        if answer.what != "answered":
            raise _error(id, answer)
        return _read(answer, expected)

    async def _send_message(
        self,
        kind: Kind,
        saga_id: str,
        name: str,
        payload: bytes,
        schema: Schema | None,
        *,
        key: str,
        keep: bool = False,
        timeout: float | None,
    ) -> Answer:
        """Send it until its owner has answered."""
        check_id(saga_id)
        _check_name(kind, name)
        if len(key) > MAX_KEY_CHARACTERS or not key.isprintable():
            raise BadRequest(
                f"the key {key[:80]!r} can't be used: 1 to {MAX_KEY_CHARACTERS} printable characters"
            )
        if len(payload) > MAX_VALUE_BYTES:
            raise PayloadTooLarge(f"{kind} {name} has {len(payload)} bytes, over {MAX_VALUE_BYTES}")
        question = self.question(key)
        patience = ANSWER_SECONDS if timeout is None else timeout
        sent = False
        clock = asyncio.get_running_loop().time
        began, wait, not_yet = clock(), FIRST_WAIT, NOT_YET_WAIT
        try:
            async with asyncio.timeout(patience):
                while True:
                    self.listen_for(key, question)  # another saga may be sent the same key meanwhile
                    await self.send_message(kind, saga_id, name, payload, schema, key=key, keep=keep)
                    sent = True
                    answer = await self._heard_of(saga_id, question, wait)
                    if answer is None or (answer.what == "accepted" and kind == "update"):
                        wait = min(wait * 2, LONGEST_ASK)
                    elif answer.what != "unknown":
                        break
                    elif clock() - began > UNREAD_SECONDS:
                        raise UnknownSaga(f"there is no saga {saga_id}")
                    else:
                        await asyncio.sleep(not_yet)
                        not_yet = min(not_yet * 2, LONGEST_NOT_YET)
        except TimeoutError:
            who = "nobody answered" if sent else "Kafka didn't confirm"
            text = f"{who} {kind} {name} for saga {saga_id} within {patience:g} s"
            raise NoAnswer(text, sent=sent, action_id=key) from None
        if answer.what == "not_applicable":
            raise _error(saga_id, answer)
        return answer

    async def _heard_of(self, saga_id: str, question: Question, wait: float) -> Answer | None:
        """The next answer about this saga."""
        while True:
            answer = await self.hear(question, wait)
            if answer is None or answer.saga_id == saga_id:
                return answer

    @abstractmethod
    def listen_for(self, about: str, question: Question) -> None:
        """Listen for answers to one more id."""

    @abstractmethod
    async def send_message(
        self,
        kind: Kind,
        saga_id: str,
        name: str,
        payload: bytes,
        schema: Schema | None,
        *,
        key: str,
        keep: bool = False,
    ) -> None:
        """Send a signal or an update that asks for an answer, and wait until Kafka has it.

        `schema`: of the payload, None for JSON.
        """


def _json(text: str) -> bytes:
    try:
        return to_json(from_json(text))
    except ValueError as error:
        raise BadRequest(
            f"the value is no JSON: {error}", remedy="""Write JSON, such as '{"id": 3}'"""
        ) from None


def _check_name(kind: str, name: str) -> None:
    if not NAME.fullmatch(name):
        remedy = "Use up to 63 letters (a-z, A-Z), digits, '_' and '-'"
        raise BadRequest(f"{name[:80]!r} can't be the name of a {kind}", remedy=remedy)


def _error(saga_id: str, answer: Answer) -> NotApplicable:
    kind = _ERRORS.get(answer.error or "", NotApplicable)
    return kind(f"saga {saga_id}: {answer.reason or 'it takes nothing'}", remedy=answer.remedy or "")


def _read(answer: Answer, expected: Any) -> Any:
    """The JSON text of an answer as a type."""
    text = answer.result or b"null"
    if expected is Any:
        return from_json(text)
    return pydantic.TypeAdapter[Any](expected).validate_json(text)
