"""Events that a saga awaits by a key: signals whose names are made of the event's name and the key. Pure.

Names of authors' signals have no colon, so none of them is taken for one of these. Everything else about them
is what it is for signals: mailbox, order, replay. Only their waits always take an outbox row, by which the
listener finds who awaits what (orchestrator/arrivals.py).
"""

from __future__ import annotations

from ..errors import SagaCodeError

SEPARATOR = ":"
"""Between an event's name and the key; the name has none."""

MAX_KEY = 256
"""Characters of a key."""


class EventNotAwaitable(SagaCodeError):
    """`ctx.event` of an event that the saga doesn't declare, or with a key or a time that can't be."""

    code = "KSG-296"
    default_remedy = "Declare it, with its type and a key: @saga(…, awaits=[settled])."


def signal_name(event: str, key: str) -> str:
    """The name of the signal by which the event with this key comes."""
    return f"{event}{SEPARATOR}{key}"


def is_awaited(name: str) -> bool:
    """Whether a signal of this name is an event that is awaited by a key."""
    return SEPARATOR in name


def parts(name: str) -> tuple[str, str]:
    """The event and the key of such a signal's name."""
    event, _, key = name.partition(SEPARATOR)
    return event, key


def said(name: str) -> str:
    """What a person calls a signal of this name."""
    if not is_awaited(name):
        return f"signal {name}"
    event, key = parts(name)
    return f"event {event} with key {key!r}"


def key_fault(key: object) -> str:
    """Say what is wrong with a key, or return an empty text."""
    if not isinstance(key, str):
        return f"its key is {key.__class__.__name__}, not str"
    if not key or len(key) > MAX_KEY or not key.isprintable():
        return f"{key[:80]!r} can't be a key: 1 to {MAX_KEY} printable characters"
    return ""
