"""Long lives, as authors write them: `ctx.should_continue`, and `await ctx.continue_as_new(input)`."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, NoReturn, cast

from kasaga_wire.codec import Codec
from kasaga_wire.errors import KasagaError

from .engine.requests import ContinueCall, Host
from .errors import PayloadTooLarge, SagaCodeError


class Renewing:
    """The part of the context that lets a saga live on in run after run."""

    __slots__ = ()

    def _live(self) -> Host:
        raise NotImplementedError

    def _input_codec(self) -> Codec[Any] | None:
        """The codec of the saga's argument."""
        raise NotImplementedError

    @property
    def run_number(self) -> int:
        """Which of the saga's runs this is: 1, and one more after each `continue_as_new`."""
        return self._live().number

    @property
    def history_length(self) -> int:
        """How many records the history of this run has, with that of the event at hand.

        The same in each replay.
        """
        return self._live().length

    @property
    def should_continue(self) -> bool:
        """Whether the history of this run has become so long that the saga had better go on as a new one.

        True from KASAGA_HISTORY_WARN_AT of either limit on; recorded, and the same in each replay.
        """
        return self._live().long

    def continue_as_new(self, new_input: object) -> Coroutine[object, None, NoReturn]:
        """End this run here, and go on as a new one, from the first line, with another input. Never returns.

        The new run has the saga's id, an empty history, and the newest version of the code that all
        processes have. Signals that nobody has taken, search attributes and whoever waits for the saga's end
        go over to it. What this run has done is final: nothing undoes it any more.

        Args:
            new_input: what the saga takes as its argument.

        Raises:
            OpenEnds: something of the run is open: a branch, a step that isn't awaited, a scope; or it has
                waited for nothing yet.
            SagaCodeError: the input isn't of the saga's type.
            PayloadTooLarge: it is over the size that one value may have.
        """
        host, codec = self._live(), self._input_codec()
        if codec is None:
            raise SagaCodeError("ctx.continue_as_new outside of a saga", remedy="Await it in a saga's code.")
        try:
            payload = codec.encode(new_input)
        except KasagaError as error:
            raise SagaCodeError(f"ctx.continue_as_new: {error.message}", remedy=error.remedy) from error
        if len(payload) > host.max_payload:
            said = f"the input of the new run has {len(payload)} bytes, over {host.max_payload}"
            raise PayloadTooLarge(said)
        return cast("Coroutine[object, None, NoReturn]", ContinueCall(host, payload))
