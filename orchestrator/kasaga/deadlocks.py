"""What a saga that asks for locks may be told: a part of the tree in errors.py."""

from __future__ import annotations

from .errors import StepRefused


class LockRefused(StepRefused):
    """Another saga holds the key, and `wait=False` says not to wait for it. Nothing is to be undone."""

    code = "KSG-262"
    default_remedy = (
        "Nothing to mend: the saga is compensated, unless it catches this. `kasaga describe` of the holder "
        "says what that waits for."
    )


class Deadlock(LockRefused):
    """To wait for the key would be to wait for ever: sagas would wait for each other. Names the cycle."""

    code = "KSG-263"
    default_remedy = (
        "Nothing to mend: this saga is compensated, so that the others go on. To have none of them, ask for "
        "all keys at once, in @saga(locks=...) or one ctx.lock, or let every saga ask in the same order."
    )
