"""What is decided about long lives: that a saga goes on as a new run, that its history is long.

Part of model.py's unions.
"""

from __future__ import annotations

from typing import Any, NamedTuple


class Continue(NamedTuple):
    """The run ends here, and the next one of the same saga begins: with no steps, and what is the saga's own.

    All that was recorded before is of no more use to the saga: a fold may begin here. What a record of this
    kind decides behind it is the new run's.
    """

    input: bytes
    version: int
    number: int
    """Of the run that begins; the first one of a saga, which nothing of this kind begins, is 1."""
    saga_id: str
    name: str
    started_at: int
    """When the saga's first run began."""
    traceparent: str
    tracestate: str
    start_hash: bytes
    """SHA-256 of the first run's input: the same start may come again."""
    steps: int
    """The last number of a step: those of the new run go on from it, so that none is meant by two."""
    emitted: int
    """Events that the saga has published."""
    parent: tuple[Any, ...] = ()
    attributes: bytes = b""
    """Search attributes, as JSON text."""
    with_exceptions: bool = False
    watchers: tuple[tuple[str, str, str, str], ...] = ()
    actions: tuple[str, ...] = ()
    """Ids of the last actions, each of which counts once."""
    waiting: tuple[tuple[Any, ...], ...] = ()
    """Signals that nobody has taken: the fields of each event, name by name, in order."""
    seen: tuple[str, ...] = ()
    """Ids of the last signals."""
    dropped: int = 0
    updates: tuple[tuple[Any, ...], ...] = ()
    """The last updates: id, step, name, when it was answered, the answer, why it was refused."""
    updated: int = 0
    """Updates that ever came."""
    locks: tuple[str, ...] = ()
    """The keys that the saga holds."""


class Swell(NamedTuple):
    """The run's history has become so long that the saga had better go on as a new run. Once in each run."""

    events: int
    """Records."""
    size: int
    """Their bytes."""
    limit: str
    """What the saga is STUCK at, in words."""
