"""An action on a saga, from a page's form to the owner's answer.

Station: `pages` reads the form and shows the answer; `kasaga.client` sends the record. What doesn't fit the
saga's state is refused by its owner, not here.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import parse_qs
from uuid import UUID, uuid4

from kasaga_wire.errors import KasagaError

from ..client import NoAnswer
from ..client.acting import Action
from ..client.headers import check_id
from ..client.status import SagaStatus
from ..errors import NotApplicable
from ..wording import sentence
from .session import NAME_SHOWN, Said

ACTIONS: tuple[Action, ...] = ("retry", "skip", "resolve", "cancel", "pause", "resume", "terminate")
DONE: dict[Action, str] = {
    "retry": "Retried",
    "skip": "Skipped",
    "resolve": "Resolved",
    "cancel": "Cancelled",
    "pause": "Paused",
    "resume": "Resumed",
    "terminate": "Terminated",
}
REASON_NEEDED = frozenset({"skip", "resolve", "terminate"})

ANSWER_SECONDS = 15.0
"""How long a page waits for the owner's answer: longer than a take-over after a crash."""

REASON_CHARACTERS = 2_000
STEP_CHARACTERS = 200

MAX_FIELDS = 10


class Owner(Protocol):
    """The way to a saga's owner: `kasaga.api.backend.Backend` is one."""

    async def act(
        self,
        action: Action,
        saga_id: str,
        *,
        reason: str,
        by: str,
        step: str = "",
        value: object = None,
        timeout: float,  # noqa: ASYNC109 - the client's word
        action_id: str,
    ) -> SagaStatus:
        """Send an action; raises as `Client.act`."""
        ...


class BadForm(Exception):
    """What was filled in can't be sent; the message is for who filled it in."""


@dataclass(slots=True)
class Form:
    """What a person filled in. `value` is JSON text, or empty."""

    saga_id: str = ""
    action: str = ""
    step: str = ""
    reason: str = ""
    by: str = ""
    value: str = ""
    id: str = field(default_factory=lambda: str(uuid4()))
    """Of the action, made with the form: however often that is sent, it is carried out once."""

    @property
    def known_action(self) -> Action:
        """The action; raises BadForm where there is none of this name."""
        for action in ACTIONS:
            if action == self.action:
                return action
        raise BadForm("There is no such action.")

    @classmethod
    def read(cls, body: bytes) -> Form:
        """Read a form's body as browsers send it; raises BadForm."""
        try:
            fields = parse_qs(
                body.decode(), keep_blank_values=True, strict_parsing=True, max_num_fields=MAX_FIELDS
            )
        except ValueError:
            raise BadForm("The form can't be read.") from None

        def text(name: str) -> str:
            # Browsers send the ends of lines in another way.
            return fields.get(name, [""])[0].replace("\r\n", "\n").strip()

        return cls(
            fields.get("saga", [""])[0],
            text("action"),
            text("step"),
            text("reason"),
            text("by"),
            text("value"),
            text("id"),
        )

    def check(self) -> Any:
        """Return the value as JSON-able values, or None; raises BadForm naming what is to be mended."""
        action = self.known_action
        try:
            UUID(self.id)
            check_id(self.saga_id)
        except ValueError:
            raise BadForm("The form is not as it was made: open it again.") from None
        except KasagaError as error:
            raise BadForm(sentence(error.message)) from None
        if action in REASON_NEEDED and not self.reason:
            raise BadForm("Say why: it is kept in the saga's history.")
        if not self.by:
            raise BadForm("Say who you are: it is kept in the saga's history.")
        limits = ((self.reason, REASON_CHARACTERS), (self.by, NAME_SHOWN), (self.step, STEP_CHARACTERS))
        for text, most in limits:
            if len(text) > most:
                raise BadForm(f"No more than {most:,} characters fit into one field.")
        if not self.value:
            return None
        try:
            return json.loads(self.value)
        except ValueError as error:
            raise BadForm(f"The result is no JSON: {error}.") from None


async def carry_out(owner: Owner, form: Form, value: Any) -> Said:
    """Send the action to the saga's owner; what became of it, in words. `value` is what `form.check` gave.

    Raises KasagaError where it couldn't be sent, and UnknownSaga.
    """
    try:
        status = await owner.act(
            form.known_action,
            form.saga_id,
            reason=form.reason,
            by=form.by,
            step=form.step,
            value=value,
            timeout=ANSWER_SECONDS,
            action_id=form.id,
        )
    except NotApplicable as error:
        why = error.message.removeprefix(f"saga {form.saga_id}: ")
        return Said("bad", f"Not done, {error.code}: {sentence(why)}")
    except NoAnswer as error:
        if not error.sent:
            raise
        text = f"No orchestrator answered within {ANSWER_SECONDS:g} s, {error.code}."
        return Said("warn", f"{text} The action will be carried out, once, when one comes to it.")
    state = f": the saga is {status.state} now" if status.state else ""
    return Said("good", f"{DONE[form.known_action]}{state}.")
