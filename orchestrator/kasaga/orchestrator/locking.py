"""Asks the store for the locks that sagas of this process's shards wait for, and tells them.

A saga that waits for keys has an open row, so whoever owns its shard knows. The row is there from a commit
on; then the store is asked, which puts the saga into the keys' queues. The answer is an event like any other,
and may be lost with its process: the next owner asks again, and hears the same. While sagas wait the store is
asked each 50 ms whether somebody is first now, and at once when a saga of this process has ended that held a
lock; while none waits it is asked nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from kasaga_wire.crashpoints import crash_point

from ..deadlocks import Deadlock, LockRefused
from ..engine.keylocks import Barred, Granted
from ..store.base import Store
from ..store.locks import Answer, Behind, Reply, Wanted
from .clock import Clock
from .intake import REPLY, Item
from .shards import Shard

PAUSE = 50_000
"""Microseconds between two questions; more where one takes a tenth of that, since many sagas wait."""

SHARE = 10
"""The part of its time that the loop may spend on asking, as a divisor."""

AGAIN = 10_000_000
"""Microseconds after which an answer counts as lost, if its saga waits still: one that is held, mostly."""

AT_ONCE = 1_000
"""Wishes in one question."""


class Locks:
    """Of one loop, in its thread and between two commits: then what waits is written down."""

    def __init__(self, store: Store, shards: Mapping[int, Shard], clock: Clock) -> None:
        self._store, self._shards, self._clock = store, shards, clock
        self._next = 0
        self._joined = set[Wanted]()
        self._told: dict[Wanted, int] = {}
        """Until when nobody asks again for those that were answered."""

    @property
    def next_due(self) -> int | None:
        """When the store is asked next, in microseconds; None: nobody waits."""
        if any(shard.wished for shard in self._shards.values()):
            return 0
        return self._next if any(shard.wishes for shard in self._shards.values()) else None

    def freed(self) -> None:
        """A saga has let go of a lock: another one may be first now."""
        self._next = 0

    def ask(self) -> list[Item]:
        """Return what the sagas are told that have waited. Raises StoreUnavailable."""
        now, due = self._clock.now(), self.next_due
        if due is None or due > now:
            return []
        began = self._clock.seconds()
        wishes = [wanted for shard in self._shards.values() for wanted in shard.wishes.values()]
        fresh = [wanted for wanted in wishes if wanted not in self._joined]
        quiet = [wanted for wanted in wishes if wanted in self._joined and self._told.get(wanted, 0) <= now]
        replies: dict[Wanted, Reply] = {}
        for some in _parts(fresh):
            replies.update(self._contend(some))
        for some in _parts(quiet):
            replies.update(self._contend(self._store.moved(some)))
        crash_point("orchestrator.after_locks")
        self._joined = set(wishes)
        self._told = {wanted: at for wanted, at in self._told.items() if wanted in self._joined}
        self._told.update(dict.fromkeys(replies, now + AGAIN))
        for shard in self._shards.values():
            shard.wished = False
        self._next = now + max(PAUSE, round((self._clock.seconds() - began) * SHARE * 1e6))
        return [_item(wanted, reply) for wanted, reply in replies.items()]

    def _contend(self, wanted: Sequence[Wanted]) -> Mapping[Wanted, Reply]:
        if not wanted:
            return {}
        numbers = {each.shard for each in wanted}
        return self._store.contend([(n, self._shards[n].token) for n in sorted(numbers)], wanted)


def _parts(wishes: Sequence[Wanted]) -> Iterator[Sequence[Wanted]]:
    return (wishes[first : first + AT_ONCE] for first in range(0, len(wishes), AT_ONCE))


def _item(wanted: Wanted, reply: Reply) -> Item:
    event: Granted | Barred
    if reply.answer is Answer.GRANTED:
        event = Granted(wanted.step)
    elif reply.answer is Answer.REFUSED:
        said = ", ".join(f"{each.key} is held by saga {each.saga_id}" for each in reply.chain)
        event = Barred(wanted.step, LockRefused.code, said)
    else:
        event = Barred(wanted.step, Deadlock.code, told(reply.chain))
    return Item(REPLY, wanted.shard, str(wanted.run_id), "", event, None)


def told(cycle: Sequence[Behind]) -> str:
    """Say in words which sagas would wait for each other."""
    after = [*cycle[1:], cycle[0]]
    said = [
        f"{each.saga_id} would wait for {each.key} behind {other.saga_id}"
        if number == 0
        else f"{each.saga_id} waits for {each.key} behind {other.saga_id}"
        for number, (each, other) in enumerate(zip(cycle, after, strict=True))
    ]
    return "; ".join(said)
