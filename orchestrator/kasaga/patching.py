"""Changes of a saga's code that running sagas must not notice: `ctx.patched(id)`."""

from __future__ import annotations

from .engine.requests import Host, Scheduler
from .errors import SagaCodeError

MAX_PATCH = 200
"""Characters of a patch's id: it is in the history of each saga that passes it."""


class Patching:
    """The part of the context that says which of two branches of the code a saga is on."""

    __slots__ = ()

    def _live(self) -> Host:
        raise NotImplementedError

    def patched(self, patch: str) -> bool:
        """Say whether to take the new branch of a change; recorded, and the same in each replay.

        True for a saga that gets here for the first time with this code; it stays True for it. False for one
        that had passed this place when the call wasn't there yet, and so at each other place in that saga
        with the same id.

        Args:
            patch: names the change, for ever: up to 200 printable characters.

        Raises:
            SagaCodeError: the id can't be one, or there are over 1,000 in one saga.
        """
        return self._scheduler(patch).patched(patch)

    def deprecate_patch(self, patch: str) -> None:
        """Stand where `patched` was, when the old branch is taken out.

        `kasaga patches` tells when no running saga is on the old branch any more. One that is after all
        becomes STUCK here instead of going on in code that isn't its own. Then take the call out.

        Raises:
            Nondeterminism: the saga is on the old branch. Leave it alone: it makes the saga STUCK.
            SagaCodeError: as `patched`.
        """
        self._scheduler(patch).deprecate(patch)

    def _scheduler(self, patch: str) -> Scheduler:
        host = self._live()
        if not 0 < len(patch) <= MAX_PATCH or not patch.isprintable():
            raise SagaCodeError(
                f"the id of a patch: {patch[:MAX_PATCH]!r}",
                remedy=f"Use 1 to {MAX_PATCH} printable characters.",
            )
        scheduler = host.scheduler
        if scheduler is None:
            raise SagaCodeError(
                "ctx.patched outside of a running saga", remedy="Ask it in the saga's own code."
            )
        return scheduler
