"""Which shards this process should own: a pure function of who lives and who holds what.

Every process computes the same shares from the same rows of the store, so no one needs to agree
with anyone. The lease only decides who tries; what may be written is decided by the token alone.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from ..store.base import Membership

STEPS = 16
"""In so many steps at most a process gives up all that it has."""


class Plan(NamedTuple):
    """What to do at this heartbeat."""

    claim: list[int]
    release: list[int]
    moving: bool = False
    """Shards are to change hands, or soon will: the next look shouldn't wait for a whole heartbeat."""


def share(process: str, processes: list[str], shards: int) -> int:
    """Return how many of `shards` shards belong to `process` among the live `processes`."""
    base, rest = divmod(shards, len(processes))
    return base + (1 if processes.index(process) < rest else 0)


def plan(process: str, owned: Collection[int], membership: Membership) -> Plan:
    """Say which shards to claim and which to give up, to come to a fair share.

    Shards are claimed only when nobody holds them or their lease has run out, or when they are this
    process's without its knowing: the answer to its claim was lost, or it had to drop them. A process
    above its share gives up its highest shards, so that two processes never wait for one another; a few at
    a time, and the next ones when these are taken: what nobody owns stands still.
    """
    processes = membership.processes
    if process not in processes:
        return Plan([], [])
    quota = share(process, processes, len(membership.shards))
    have = sorted(owned)
    if len(have) > quota:
        return Plan([], few(have[quota:], membership), moving=True)
    free = [
        lease.shard
        for lease in membership.shards
        if lease.shard not in owned and (lease.owner in (None, process) or lease.expired)
    ]
    # Where several claim at once, each begins at another place, so that few meet.
    start = processes.index(process) * len(free) // len(processes)
    claim = (free[start:] + free[:start])[: quota - len(have)]
    return Plan(claim, [], moving=len(have) + len(claim) < quota)


def few(shards: list[int], membership: Membership) -> list[int]:
    """Return which of these shards to give up now: none while others wait for an owner."""
    if any(lease.owner is None or lease.expired for lease in membership.shards):
        return []
    return shards[: max(1, len(membership.shards) // STEPS)]
