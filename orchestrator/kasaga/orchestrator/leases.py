"""Which shards this process should own: a pure function of who lives and who holds what.

Every process computes the same shares from the same rows of the store, so no one needs to agree
with anyone. The lease only decides who tries; what may be written is decided by the token alone.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from ..store.base import Membership


class Plan(NamedTuple):
    """What to do at this heartbeat."""

    claim: list[int]
    release: list[int]


def share(process: str, processes: list[str], shards: int) -> int:
    """Return how many of `shards` shards belong to `process` among the live `processes`."""
    base, rest = divmod(shards, len(processes))
    return base + (1 if processes.index(process) < rest else 0)


def plan(process: str, owned: Collection[int], membership: Membership) -> Plan:
    """Say which shards to claim and which to give up, to come to a fair share.

    Shards are claimed only when nobody holds them or their lease has run out, or when they are this
    process's without its knowing: the answer to its claim was lost, or it had to drop them. A process
    above its share gives up its highest shards, so that two processes never wait for one another.
    """
    processes = membership.processes
    if process not in processes:
        return Plan([], [])
    quota = share(process, processes, len(membership.shards))
    have = sorted(owned)
    if len(have) > quota:
        return Plan([], have[quota:])
    free = [
        lease.shard
        for lease in membership.shards
        if lease.shard not in owned and (lease.owner in (None, process) or lease.expired)
    ]
    # Where several claim at once, each begins at another place, so that few meet.
    start = processes.index(process) * len(free) // len(processes)
    return Plan((free[start:] + free[:start])[: quota - len(have)], [])
