"""Domain events, as authors publish them: `await ctx.emit(topic, event)`."""

from __future__ import annotations

import re
from collections.abc import Coroutine
from typing import cast

from pydantic_core import PydanticSerializationError, to_json

from kasaga_wire.topics import TOPIC

from .engine import lifecycle
from .engine.model import Emit
from .engine.requests import EmitCall, Host
from .errors import PayloadTooLarge, SagaCodeError
from .policy import MAX_KEY

ALL_EVENTS = lifecycle.STATES | lifecycle.PROBLEMS
"""For `App(events=…)`: each change of a saga's state is published, and that its history is long."""

PROBLEMS = lifecycle.PROBLEMS
"""The default: what became STUCK or was paused, came out of it again, was undone or terminated; and a history
that has become long."""

_TYPE = re.compile(r"[!-~]{1,255}")


class Emitting:
    """The part of the context that publishes."""

    __slots__ = ()

    def _live(self) -> Host:
        raise NotImplementedError

    def emit(
        self, topic: str, event: object, *, event_type: str | None = None, key: str | None = None
    ) -> Coroutine[object, None, None]:
        """Publish a domain event: it is written down with the saga's own progress, and then sent.

        No step: the code goes on at once. It is sent exactly when the saga has got here, at least once, with
        the same `ce_id` each time. What was published stays published when the saga is undone.

        Args:
            topic: its whole name; anybody's. A topic that isn't there yet gets the event when it is.
            event: a pydantic model, a dataclass, a dict, or anything else that can be JSON.
            event_type: the CloudEvents type; by default the name of the event's class.
            key: orders events and chooses the partition; the saga's id by default.

        Raises:
            SagaCodeError: topic, type or key can't be used, or the event can't be JSON.
            PayloadTooLarge: the event is over the size that one value may have.
        """
        host = self._live()
        kind = event.__class__.__name__ if event_type is None else event_type
        if not TOPIC.fullmatch(topic):
            raise SagaCodeError(f"ctx.emit to {topic!r}", remedy="Use up to 249 of a-z A-Z 0-9 . _ and -.")
        if not _TYPE.fullmatch(kind):
            raise SagaCodeError(f"ctx.emit of type {kind!r}", remedy="Use up to 255 printable ASCII signs.")
        sent_as = key.encode() if key is not None else b""
        if key is not None and not 0 < len(sent_as) <= MAX_KEY:
            said = f"ctx.emit with a key of {len(sent_as)} bytes"
            raise SagaCodeError(said, remedy=f"Use 1 to {MAX_KEY} bytes.")
        try:
            payload = to_json(event, by_alias=True)
        except PydanticSerializationError as error:
            said = f"ctx.emit of {kind}: {error}"
            raise SagaCodeError(said, remedy="Emit what can be JSON, such as a pydantic model.") from None
        if len(payload) > host.max_payload:
            raise PayloadTooLarge(f"the event {kind} has {len(payload)} bytes, over {host.max_payload}")
        return cast("Coroutine[object, None, None]", EmitCall(host, Emit(topic, kind, payload, sent_as)))
