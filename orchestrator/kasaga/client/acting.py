"""Acting on sagas: a control record to the saga's owner, who carries it out once and answers.

Station: what `Client` does with one saga beside starting it; `Client` sends and hears.
"""

# ruff: noqa: A002, ASYNC109 - `id` and `timeout` are the words that callers expect

from __future__ import annotations

import asyncio
import json
from abc import ABC, abstractmethod
from typing import Literal

from kasaga_wire.kafka import Record
from kasaga_wire.records import Answer, Control

from ..errors import NotApplicable
from .errors import NoAnswer, UnknownSaga
from .handle import FIRST_WAIT
from .ids import uuid7
from .status import SagaStatus

Action = Literal["retry", "skip", "resolve", "cancel", "pause", "resume", "terminate", "move", "reset"]

ANSWER_SECONDS = 30.0
"""How long a saga's owner may take to answer an action: longer than a take-over after a crash."""

LONGEST_ASK = 8.0
"""Seconds between two times that an unanswered action is sent, at most."""


class Question:
    """What waits for answers: those to any of the ids that it was registered under."""

    __slots__ = ("__weakref__", "heard")

    def __init__(self) -> None:
        self.heard: asyncio.Queue[Record] = asyncio.Queue()


class Acting(ABC):
    """The actions of a client."""

    name: str
    """Who acts, for the history, where an action doesn't say."""

    async def cancel(
        self, id: str, *, reason: str = "", by: str = "", timeout: float | None = None
    ) -> SagaStatus:
        """Undo what a saga has done, and end it. Returns when that is decided, not when it is done."""
        return await self.act("cancel", id, reason=reason, by=by, timeout=timeout)

    async def pause(
        self, id: str, *, reason: str = "", by: str = "", timeout: float | None = None
    ) -> SagaStatus:
        """Let no step, retry or undo of a saga go out until it is resumed; answers still get in."""
        return await self.act("pause", id, reason=reason, by=by, timeout=timeout)

    async def resume(
        self, id: str, *, reason: str = "", by: str = "", timeout: float | None = None
    ) -> SagaStatus:
        """Let a PAUSED saga go on where it was."""
        return await self.act("resume", id, reason=reason, by=by, timeout=timeout)

    async def terminate(
        self, id: str, *, reason: str, by: str = "", timeout: float | None = None
    ) -> SagaStatus:
        """End a saga as it is, the last resort: nothing is undone. The status' reason says what it leaves."""
        return await self.act("terminate", id, reason=reason, by=by, timeout=timeout)

    async def retry(
        self, id: str, *, reason: str = "", step: str = "", by: str = "", timeout: float | None = None
    ) -> SagaStatus:
        """Let a STUCK saga try again, now."""
        return await self.act("retry", id, reason=reason, step=step, by=by, timeout=timeout)

    async def skip(
        self, id: str, *, reason: str, step: str = "", by: str = "", timeout: float | None = None
    ) -> SagaStatus:
        """Leave the step that a saga is STUCK at undoing as it is, and go on."""
        return await self.act("skip", id, reason=reason, step=step, by=by, timeout=timeout)

    async def resolve(
        self,
        id: str,
        *,
        reason: str,
        value: object = None,
        step: str = "",
        by: str = "",
        timeout: float | None = None,
    ) -> SagaStatus:
        """Say what became of the step that a saga is STUCK at.

        `value` is the step's result, as JSON-able values, where the saga's code waits for one;
        where an undo is stuck there is none: you undid it by hand.
        """
        return await self.act("resolve", id, reason=reason, value=value, step=step, by=by, timeout=timeout)

    async def move(
        self, id: str, *, to: int, reason: str = "", by: str = "", timeout: float | None = None
    ) -> SagaStatus:
        """Let a saga go on in another version of its code, if a replay of its history in that code agrees."""
        return await self.act("move", id, reason=reason, value=to, by=by, timeout=timeout)

    async def reset(
        self, id: str, *, after: str, reason: str = "", by: str = "", timeout: float | None = None
    ) -> SagaStatus:
        """Undo what a saga did after a step, and run its code anew from there; returns when that is decided.

        `after` is the step's number, as `describe` shows it. Raises NotApplicable where it can't be done.
        """
        return await self.act("reset", id, reason=reason, step=after, by=by, timeout=timeout)

    async def act(
        self,
        action: Action,
        id: str,
        *,
        reason: str = "",
        step: str = "",
        value: object = None,
        by: str = "",
        timeout: float | None = None,
        action_id: str = "",
    ) -> SagaStatus:
        """Do what an action's name says; each has a method of its own, which says more.

        Args:
            action: what to do.
            id: of the saga.
            reason: why, for the history; `skip`, `resolve` and `terminate` want one.
            step: only if the saga is stuck at this one; of `reset` the one to go back to.
            value: of `resolve`, and of `move` the version.
            by: who acts, for the history; the client's name by default.
            timeout: seconds for the owner's answer; 30 by default.
            action_id: an action is carried out once per id, so that the same one can be sent again when its
                answer was lost; a new one by default.

        Raises:
            NotApplicable: it doesn't fit the saga's state; says why.
            UnknownSaga: there is none with this id.
            NoAnswer: no orchestrator answered in time; `sent` says whether Kafka has it.
        """
        body = Control(
            action=action,
            by=by or self.name,
            reason=reason,
            step=step or None,
            value=json.dumps(value, ensure_ascii=False) if action in ("resolve", "move") else None,
        )
        answer = await self._answered(action, id, timeout, body, action_id=action_id)
        if answer.what == "not_applicable":
            text = f"saga {id}: {answer.reason or f'{action} does not fit its state'}"
            raise NotApplicable(text, remedy=answer.remedy or "")
        return SagaStatus.of_answer(answer)

    async def _answered(
        self, action: str, saga_id: str, timeout: float | None, body: Control, *, action_id: str = ""
    ) -> Answer:
        """Send a control record until it is answered; always with the same id, so that it is done once."""
        action_id = action_id or str(uuid7())
        question = self.question(action_id)
        patience = ANSWER_SECONDS if timeout is None else timeout
        wait, sent = FIRST_WAIT, False
        try:
            async with asyncio.timeout(patience):
                while True:
                    await self.ask_control(action, saga_id, action_id=action_id, body=body)
                    sent = True
                    answer = await self.hear(question, wait)
                    if answer is not None:
                        break
                    wait = min(wait * 2, LONGEST_ASK)
        except TimeoutError:
            who = "nobody answered" if sent else "Kafka didn't confirm"
            text = f"{who} `{action}` for saga {saga_id} within {patience:g} s"
            raise NoAnswer(text, sent=sent, action_id=action_id) from None
        if answer.what == "unknown":
            raise UnknownSaga(f"there is no saga {saga_id}")
        return answer

    # --- what the client brings

    @abstractmethod
    def question(self, about: str | None) -> Question:
        """Begin to listen for answers to an id."""

    @abstractmethod
    async def hear(self, question: Question, wait: float) -> Answer | None:
        """Return the next answer, or None when none has come within `wait` seconds."""

    @abstractmethod
    async def ask_control(
        self, action: str, saga_id: str, *, action_id: str, body: Control | None = None
    ) -> None:
        """Send a control record that asks for an answer, and wait until Kafka has it."""
