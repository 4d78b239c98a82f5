"""What the process knows of each shard that it owns, and when the shard's timers fire.

A timer due at T is handed out only after the shard has read its replies up to the high watermark
that was asked for at or after T: after an outage, answers that are already there win.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple
from uuid import UUID

from ..engine.keylocks import LOCK
from ..store.base import Offsets, OutboxRow, RowKind, ShardRow, Suspect
from ..store.locks import Wanted
from .clock import to_micros


class End(NamedTuple):
    """The high watermark of a shard's replies."""

    asked_at: int
    """It held at this time or later: microseconds of the engine's time."""
    offset: int
    control: int = 0
    """Of its control records, where a saga waits for a signal until a time; else 0: no matter."""


class Due(NamedTuple):
    """A timer that has come: of the open row `row`."""

    at: int
    row: int
    run_id: UUID
    step: str
    """As the outbox names it: `3`, `3~undo`, `3~void`, or empty for the saga's deadline."""
    kind: RowKind


@dataclass(slots=True)
class Shard:
    """One owned shard. Only the loop's thread touches it."""

    number: int
    token: UUID
    offsets: Offsets
    commit_seq: int
    next_row: int
    """The next outbox sequence number to take."""
    sent_row: int
    """The first that the relay hasn't got: those of the batch in the making aren't acknowledged."""
    now: int
    suspects: bool
    """Suspect mode: two owners died on this shard, so sagas are stepped one a transaction."""
    convicted: Suspect | None
    """The saga that was being stepped at several deaths: it is to be parked, unrun."""
    deaths: int = 0
    quiet: int = 0
    """Events decided since the shard was taken over."""
    acked_row: int = 0
    """The acknowledged position as last committed."""
    untraced: bool = False
    """The last batch left a mark behind which something isn't exported: another is due when it is."""
    open: dict[int, UUID] = field(default_factory=dict[int, UUID])
    """Open rows that can fire, by sequence number; a sleeping row until it has fired, or is far away."""
    asleep: set[int] = field(default_factory=set[int])
    """Those of them that only wait for a time: sleeps, sagas' deadlines. Nobody is to answer them."""
    timers: list[Due] = field(default_factory=list[Due])
    """A heap by time; an entry whose row isn't open any more is dropped when it comes up."""
    horizon: tuple[int, int] | None = None
    """Time and row of the last sleeping row that is in memory: the store alone has those behind it, see
    sleepers.py. None: it has no more."""
    read_at: int = 0
    """Replies have been read up to the watermark of this time."""
    goal: End | None = None
    """How far the replies have to be read before timers fire; None when nothing is due."""
    position: int = 0
    """The next offset of the replies that hasn't been read, decided or not."""
    end: int = -1
    """The offset at which the end of the replies was last seen."""
    control: int = 0
    """The next offset of the control records that hasn't been read, or their end: signals come that way."""
    backlog: int = 0
    """Control records before this offset may be older than this ownership: no end of them was seen yet."""
    waits: set[int] = field(default_factory=set[int])
    """Of the open rows the time-outs of waits for signals."""
    kept: dict[str, list[OutboxRow]] = field(default_factory=dict[str, list[OutboxRow]])
    """By saga id: signals for sagas that haven't begun, see early.py."""
    kept_look: int = 0
    """When they are looked at next; 0: they haven't been."""
    lacking: set[int] = field(default_factory=set[int])
    """Open rows of sagas that wait for a process that has their version."""
    wishes: dict[int, Wanted] = field(default_factory=dict[int, Wanted])
    """By open row: locks that sagas wait for, see locking.py."""
    wished: bool = False
    """One of them is new."""
    unlooked: set[int] = field(default_factory=set[int])
    """Open rows of waits for events that may have come before: see arrivals.py."""
    looks: bool = True
    """Just taken: all its waits for events are looked at."""
    held: dict[str, set[int]] = field(default_factory=dict[str, set[int]])
    """By topic, as `Offsets` names them: what was read and is kept back, see holding.py."""

    @classmethod
    def taken(cls, row: ShardRow) -> Shard:
        """Begin with what the store says of a shard just claimed."""
        return cls(
            number=row.shard,
            token=row.token,
            offsets=row.offsets or Offsets(),
            commit_seq=row.commit_seq,
            next_row=row.next_seq,
            sent_row=row.next_seq,
            now=to_micros(row.now),
            suspects=row.deaths >= SUSPECT_AFTER,
            convicted=row.suspect if row.suspect and row.suspect.deaths >= CONVICT_AFTER else None,
            deaths=row.deaths,
            acked_row=row.acked_seq,
            position=row.offsets.replies if row.offsets else 0,
            control=row.offsets.control if row.offsets else 0,
        )

    def opened(self, row: OutboxRow) -> None:
        """Note an open row that acts by itself at a time, or a signal that was kept."""
        if row.kind is RowKind.TIMER and row.key is not None and row.run_id is not None:
            self.unlooked.add(row.seq)
        if row.step == AWAIT:
            self.lacking.add(row.seq)
        elif (wanted := wish(row)) is not None:
            self.wishes[row.seq], self.wished = wanted, True
        elif row.due_at is not None and row.run_id is None:
            self.keep(row)
        elif row.due_at is not None and row.run_id is not None:
            due = Due(to_micros(row.due_at), row.seq, row.run_id, row.step, row.kind)
            if row.kind is RowKind.TIMER:
                if self.horizon is not None and (due.at, due.row) > self.horizon:
                    return
                self.asleep.add(row.seq)
                if row.step.endswith(WAIT):
                    self.waits.add(row.seq)
            self.open[row.seq] = row.run_id
            heapq.heappush(self.timers, due)

    def shed(self, keep: int) -> None:
        """Forget the sleeping rows but the `keep` that come first."""
        near = sorted(due for due in self.timers if due.row in self.asleep)
        for due in near[keep:]:
            self.closed(due.row)
        self.timers = [due for due in self.timers if due.row in self.open]
        heapq.heapify(self.timers)
        self.horizon = near[keep - 1].at, near[keep - 1].row

    def keep(self, row: OutboxRow) -> None:
        """Note a signal for a saga that hasn't begun."""
        self.kept.setdefault((row.key or b"").decode(), []).append(row)

    def forget(self, row: OutboxRow) -> None:
        """A kept signal has been given to its saga, or given up."""
        saga_id = (row.key or b"").decode()
        self.kept[saga_id] = [each for each in self.kept.get(saga_id, ()) if each.seq != row.seq]
        if not self.kept[saga_id]:
            del self.kept[saga_id]

    def rewound(self, position: int) -> None:
        """The replies' log was truncated: what was read of it says nothing about its end."""
        self.position, self.end, self.goal, self.read_at = position, -1, None, 0

    def hold_back(self, offsets: Offsets) -> Offsets:
        """Return how far a new owner needn't read again: nothing that is kept back is passed."""
        if not any(self.held.values()):
            return offsets
        lowest = {topic: min(held) for topic, held in self.held.items() if held}
        return Offsets(
            min(offsets.sagas, lowest.get("sagas", offsets.sagas)),
            min(offsets.replies, lowest.get("replies", offsets.replies)),
            min(offsets.control, lowest.get("control", offsets.control)),
        )

    def closed(self, seq: int) -> None:
        """Forget an open row."""
        self.open.pop(seq, None)
        self.asleep.discard(seq)
        self.waits.discard(seq)
        self.lacking.discard(seq)
        self.wishes.pop(seq, None)
        self.unlooked.discard(seq)

    @property
    def in_flight(self) -> int:
        """How many open rows wait for an answer."""
        return len(self.open) - len(self.asleep)

    @property
    def next_due(self) -> int | None:
        """The time of the earliest timer in microseconds, or None."""
        while self.timers and self.timers[0].row not in self.open:
            heapq.heappop(self.timers)
        return self.timers[0].at if self.timers else None

    @property
    def wakes_at(self) -> int | None:
        """The same, or when what the store alone has may begin to be due, if none before it is left."""
        due = self.next_due
        if self.horizon is None or self.asleep:
            return due
        return self.horizon[0] if due is None else min(due, self.horizon[0])

    def ready(self, now: int, end_of: Callable[[int, int], End | None]) -> bool:
        """Say whether timers that are due may fire now; asks where the replies end where it must.

        `end_of` takes the shard and the time at or after which it must have been asked; until it returns an
        answer nothing fires.
        """
        due = self.next_due
        if due is None or due > now:
            return False
        if self.goal is None and self.read_at < due:
            self.goal = end_of(self.number, due)
        if self.goal is not None and self._reached(self.goal):
            self.read_at, self.goal = max(self.read_at, self.goal.asked_at), None
        return self.read_at >= due

    def _reached(self, goal: End) -> bool:
        """Whether what had come by then has been read and isn't kept back."""
        held = self.held.get("replies")
        replies = max(self.position, self.end)
        if (min(replies, *held) if held else replies) < goal.offset:
            return False
        if not goal.control:
            return True
        held = self.held.get("control")
        return (min(self.control, *held) if held else self.control) >= goal.control

    def pop_due(self, now: int, limit: int) -> Iterator[Due]:
        """Hand out timers that may fire, at most `limit`."""
        until = min(now, self.read_at)
        while limit and (due := self.next_due) is not None and due <= until:
            limit -= 1
            timer = heapq.heappop(self.timers)
            if timer.kind is RowKind.TIMER:
                self.closed(timer.row)
            yield timer


AWAIT = "~version"
"""Step of the row of a saga that waits for a process that has its version; a header of it says which."""

WAIT = "~signal"
"""At the end of a row's step: it is the time-out of a wait for a signal."""

_LOCK = f"~{LOCK}"


def lock_headers(keys: tuple[str, ...], *, wait: bool) -> list[tuple[str, bytes]]:
    """What the row of a step says that waits for locks."""
    return [("keys", json.dumps(keys, ensure_ascii=False).encode()), ("wait", b"1" if wait else b"0")]


def wish(row: OutboxRow) -> Wanted | None:
    """Return the locks that a row waits for, None of any other row."""
    if row.run_id is None or not row.step.endswith(_LOCK):
        return None
    said = dict(row.headers)
    keys = tuple(json.loads(said["keys"]))
    return Wanted(row.shard, row.run_id, row.step.removesuffix(_LOCK), keys, said["wait"] == b"1")


SUSPECT_AFTER = 2
"""Deaths of owners in a row after which a shard is in suspect mode."""

CONVICT_AFTER = 2
"""Deaths with the same saga marked, after which it is held to be the cause. One may be anybody's SIGKILL."""

PARDON_AFTER = 1000
"""Events decided without a death after which the deaths of a shard are forgotten."""
