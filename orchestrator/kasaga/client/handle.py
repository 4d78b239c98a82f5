"""One saga in a client's hands: waiting for its end.

The end is told by the saga's owner, as an answer to the start record or to a `watch`. Answers can be
late, come twice, or not come (an owner that died before it wrote the question down): so the question
is put again, with the same id, until there is an answer or the caller's patience ends.
"""

# ruff: noqa: A002, ASYNC109 - `id`, `input` and `timeout` are the words that callers expect

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from kasaga_wire.codec import Codec
from kasaga_wire.records import Answer

from .errors import (
    RejectedStart,
    ResultForgotten,
    ResultTimeout,
    SagaCompensated,
    SagaStuck,
    SagaWasTerminated,
    UnknownSaga,
)
from .ids import uuid7
from .status import FINAL, STUCK, SagaStatus, state_of

if TYPE_CHECKING:
    from .acting import Question
    from .client import Client
    from .headers import Starting

R = TypeVar("R")

STARTED_WAIT = 10.0
"""Seconds until a start that asked for its end is asked about: by then it has ended, or takes long."""

FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0
"""Seconds for an answer before the question is put again: doubled each time, up to the longest."""

LIVE_WAIT = 30.0
"""The same, once the owner has said that it knows whom to tell."""

NOT_YET_WAIT, LONGEST_NOT_YET = 0.05, 2.0
"""The same, where the owner hasn't read the start yet: control records are read first."""


class Handle(Generic[R]):
    """A saga by its id. Made by `Client.start` and `Client.handle`; valid while the client is open."""

    def __init__(self, client: Client, id: str, codec: Codec[R] | None, *, name: str = "") -> None:
        self.id = id
        self.name = name
        self.run_id: str | None = None
        """Known after `start`, and from then on the id of the run whose result this is."""
        self._client = client
        self._codec = codec
        self._start: Starting | None = None
        self._question: Question | None = None
        self._watch = str(uuid7())
        """One for all questions of this handle: a saga tells its end to a limited number of watches."""
        self._start_id: str | None = None
        self._doubted = False
        """An answer was about another run under our id: whose saga it is must be asked."""

    def __repr__(self) -> str:
        return f"<Handle of saga {self.id}, run {self.run_id or 'not known yet'}>"

    async def result(self, timeout: float | None = None) -> R:
        """Wait for the end and return what the saga returned.

        Raises:
            SagaCompensated: it ended undone; says why.
            SagaWasTerminated: somebody ended it as it was; says what that left.
            SagaStuck: it needs a person; says why and what to do. It isn't over.
            RejectedStart: the id belongs to a saga with another name or input.
            ResultTimeout: it hasn't ended within `timeout` seconds. It goes on.
            UnknownSaga: there is no saga with this id.
            ResultForgotten: it was completed, and purged since.
        """
        try:
            async with asyncio.timeout(timeout):
                answer = await self._end()
                return await self._decoded(answer)
        except TimeoutError:
            raise ResultTimeout(f"saga {self.id} hasn't ended within {timeout:g} s; it goes on") from None

    async def describe(self, timeout: float | None = None) -> SagaStatus:
        """Say where the saga stands; see `Client.describe`."""
        return await self._client.describe(self.id, timeout=timeout)

    async def cancel(self, *, reason: str = "", by: str = "", timeout: float | None = None) -> SagaStatus:
        """Undo what the saga has done, and end it; see `Client.cancel`."""
        return await self._client.cancel(self.id, reason=reason, by=by, timeout=timeout)

    async def pause(self, *, reason: str = "", by: str = "", timeout: float | None = None) -> SagaStatus:
        """Let nothing of the saga go out until it is resumed; see `Client.pause`."""
        return await self._client.pause(self.id, reason=reason, by=by, timeout=timeout)

    async def resume(self, *, reason: str = "", by: str = "", timeout: float | None = None) -> SagaStatus:
        """Let the saga go on; see `Client.resume`."""
        return await self._client.resume(self.id, reason=reason, by=by, timeout=timeout)

    async def terminate(self, *, reason: str, by: str = "", timeout: float | None = None) -> SagaStatus:
        """End the saga as it is, the last resort; see `Client.terminate`."""
        return await self._client.terminate(self.id, reason=reason, by=by, timeout=timeout)

    async def signal(
        self, name: str, value: object = None, *, key: str = "", timeout: float | None = None
    ) -> str:
        """Send the saga a signal; see `Client.signal`."""
        return await self._client.signal(self.id, name, value, key=key, timeout=timeout)

    async def query(self, name: str, *, timeout: float | None = None) -> Any:
        """Ask the saga something; see `Client.query`."""
        return await self._client.query(self.id, name, timeout=timeout)

    # --- for the client

    def started(self, run_id: str, start: Starting, question: Question | None) -> None:
        """Note what `Client.start` has sent; with a question, the start record asked for its end."""
        self.run_id = self._start_id = run_id
        self._start, self._question = start, question

    # --- waiting

    async def _end(self) -> Answer:
        """Ask until the owner tells the end."""
        client = self._client
        asked_already = self._question is not None
        question = self._question = self._question or client.question(self.run_id)
        client.listen_for(self._watch, question)
        wait = STARTED_WAIT if asked_already else 0.0
        backoff, not_yet = FIRST_WAIT, NOT_YET_WAIT
        while True:
            answer = await client.hear(question, wait)
            if answer is None:
                await self._ask()
                wait, backoff = backoff, min(backoff * 2, LONGEST_WAIT)
                continue
            if not self._ours(answer):
                wait, backoff = 0.0, FIRST_WAIT
            elif answer.what == "unknown":
                if self._start is None:
                    raise UnknownSaga(f"there is no saga {self.id}")
                wait, not_yet = not_yet, min(not_yet * 2, LONGEST_NOT_YET)
            elif state_of(answer) == STUCK:
                raise self._stuck(answer)
            elif answer.what in FINAL:
                return answer
            else:
                wait = LIVE_WAIT

    async def _ask(self) -> None:
        if self._doubted and self._start is not None and self._start_id is not None:
            # The start itself, sent again, tells whether the other run is the same saga or somebody else's.
            await self._client.send_start(self, self._start_id, self._start, reply=True)
        else:
            await self._client.ask_control("watch", self.id, action_id=self._watch)

    def _ours(self, answer: Answer) -> bool:
        """Say whether an answer is about our run. One to our start also settles whose the id is."""
        if answer.what == "rejected":
            why = answer.reason or "with another name or input"
            raise RejectedStart(f"saga {self.id} exists already: {why}", remedy=answer.remedy or "")
        if answer.what == "unknown" or self._start_id is None:
            return True
        if answer.about == self._start_id or answer.run_id == self.run_id:
            self.run_id, self._doubted = answer.run_id or self.run_id, False
            return True
        self._doubted = True
        return False

    def _stuck(self, answer: Answer) -> SagaStuck:
        return SagaStuck(
            f"saga {self.id} is stuck: {answer.reason or 'no reason is given'}",
            saga_id=self.id,
            reason=answer.reason or "",
            step=answer.step or "",
            why=answer.error or "",
            remedy=answer.remedy or "See `kasaga describe`",
        )

    async def _decoded(self, answer: Answer) -> R:
        if answer.what == "COMPENSATED":
            raise SagaCompensated(
                f"saga {self.id} was undone: {answer.reason or 'no reason is given'}",
                saga_id=self.id,
                reason=answer.reason or "",
                step=answer.step or "",
                why=answer.error or "",
            )
        if answer.what == "TERMINATED":
            raise SagaWasTerminated(
                f"saga {self.id} was ended as it was: {answer.reason or 'no reason is given'}",
                saga_id=self.id,
                reason=answer.reason or "",
                step="",
                why=answer.error or "",
                remedy=answer.remedy or "",
            )
        if answer.result is None:
            raise ResultForgotten(f"saga {self.id} was completed so long ago that its result is forgotten")
        data = answer.result
        if self._codec is None:
            return cast(R, await self._client.to_json(data))
        return cast(R, await self._client.decode(cast("Codec[Any]", self._codec), data))
