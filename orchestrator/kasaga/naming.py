"""Search attributes, as authors set them: `await ctx.set_attributes(customer=order.customer)`."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import cast

from kasaga_wire.attributes import AttributeValue, to_text
from kasaga_wire.errors import BadAttribute

from .engine.requests import AttributesCall, Host
from .errors import WrongAttributes


class Naming:
    """The part of the context that says what a saga can be found by."""

    __slots__ = ()

    def _live(self) -> Host:
        raise NotImplementedError

    def set_attributes(self, **attributes: AttributeValue | None) -> Coroutine[object, None, None]:
        """Set search attributes of this saga; None takes one away. Others stay as they are.

        No step: the code goes on at once. They are written down with the saga's own progress, and stay when
        it is undone, and after its end for as long as it is kept.

        Raises:
            WrongAttributes: a name or a value can't be kept, or there would be more than 32.
        """
        host = self._live()
        try:
            changes = to_text(attributes)
        except BadAttribute as error:
            raise WrongAttributes(f"ctx.set_attributes: {error.message}", remedy=error.remedy) from None
        return cast("Coroutine[object, None, None]", AttributesCall(host, changes or b"{}"))
