"""What the store says of shards: how far they have come, who owns them, and who died of what.

Station: part of `base`, which everybody imports it from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

Tokens = Sequence[tuple[int, UUID]]
"""Shards, and by which token somebody owns them."""


@dataclass(slots=True)
class Offsets:
    """The next offset to read of the shard's partition of each input topic."""

    sagas: int = 0
    replies: int = 0
    control: int = 0


class Suspect(NamedTuple):
    """A saga that is stepped, or was when an owner of its shard died."""

    run_id: UUID
    place: str = ""
    """The line of its code that it goes on from, or empty. No NUL, and of moderate length."""
    deaths: int = 0
    """Owners that died with this saga marked, since the shard was last released or pardoned."""


@dataclass(slots=True)
class ShardRow:
    """A shard as its new owner finds it, after its token was set and committed."""

    shard: int
    token: UUID
    epoch: int
    offsets: Offsets | None
    """None where nothing was ever committed: begin at the start of the topics."""
    commit_seq: int
    acked_seq: int
    next_seq: int
    now: datetime
    deaths: int
    """Owners in a row that lost this shard without releasing it, since the last quiet period."""
    suspect: Suspect | None = None
    """The saga that was marked at most of those deaths, if any was."""
    traced: datetime | None = None
    """As the last commit said; see `ShardWrite.traced`."""
    last_owner: str | None = None
    """Who had it until now. None: nobody, or it was handed over."""


@dataclass(slots=True)
class ShardLease:
    """Who holds a shard, as the database's clock sees it."""

    shard: int
    owner: str | None
    expired: bool


@dataclass(slots=True)
class Membership:
    """The answer to a heartbeat."""

    now: datetime
    processes: list[str]
    """Processes alive, sorted, this one included unless it leaves."""
    shards: list[ShardLease]
    commits: dict[int, int] = field(default_factory=dict[int, int])
    """By shard, of those that the process named: the number of the last commit."""
    sagas: dict[str, frozenset[str]] = field(default_factory=dict[str, frozenset[str]])
    """By process alive, this one left out: the sagas that it has, each as `name/version`. Processes of older
    releases don't say."""
