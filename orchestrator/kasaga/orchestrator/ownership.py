"""Takes shards and gives them up: leases in Postgres, positions in Kafka, records to be sent again."""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Protocol
from uuid import UUID

from kasaga_wire.crashpoints import crash_point
from kasaga_wire.errors import KafkaFailure

from ..fleet import Fleet
from ..settings import Settings
from ..store.base import Membership, Offsets, OutboxRow, RowKind, Store, Suspect
from .clock import Clock, to_micros
from .leases import few, plan
from .relay import Relay
from .shards import PARDON_AFTER, Shard
from .sleepers import Sleepers
from .source import Source

log = logging.getLogger("kasaga.orchestrator")

MOVING_SECONDS = 0.025
"""Between two looks at the shards while some are to change hands."""

MOVING_SHARE = 5
"""… and at least so many times as long as a look takes: a slow database isn't asked all the time."""

TAKE_SECONDS = 0.03
"""For which shards are taken before the loop turns: those that it has stand still meanwhile."""

NOTICED_AFTER = 1.3
"""Heartbeats after which the others have noticed that a process leaves."""

LEAVE_SECONDS = 5.0
"""Within which a process that leaves hands its shards over one by one; then the rest goes at once."""


class Owner(Protocol):
    """What the loop offers: it keeps the shards and what is live of them."""

    @property
    def shards(self) -> dict[int, Shard]: ...  # noqa: D102

    @property
    def fingerprint(self) -> str: ...  # noqa: D102

    @property
    def fleet(self) -> Fleet: ...  # noqa: D102

    def took(self, shard: Shard, rows: Sequence[OutboxRow], parked: Sequence[UUID]) -> None: ...  # noqa: D102

    def gave_up(self, number: int) -> None: ...  # noqa: D102

    def settle(self, shards: Sequence[Shard]) -> None: ...  # noqa: D102

    def hands_over(self) -> None: ...  # noqa: D102

    def inherited(self, shard: int, since: int, owner: str) -> None: ...  # noqa: D102


class Ownership:
    """Of one process; called by the loop between two turns."""

    def __init__(
        self,
        owner: Owner,
        settings: Settings,
        store: Store,
        source: Source,
        relay: Relay,
        clock: Clock,
        sleepers: Sleepers,
    ) -> None:
        self._owner, self._settings, self._store = owner, settings, store
        self._source, self._relay, self._clock = source, relay, clock
        self._sleepers = sleepers
        self._beaten = -settings.heartbeat_seconds
        self._renewed = clock.seconds()
        self._kafka_lost = False
        self._moving = False
        self._took = 0.0
        """Seconds that the last heartbeat took."""
        self._leaves: float | None = None
        """Since when this process leaves."""
        self._alone = False
        """Nobody else lived when this process was to leave."""

    def keep(self) -> None:
        """Renew the leases, and come closer to a fair share.

        At most once per heartbeat interval, or more often while shards change hands.
        """
        started = self._clock.seconds()
        if started - self._beaten < self.interval:
            return
        self._beaten, self._moving = started, False
        if self._without_kafka():
            return
        membership = self._beat(started)
        if self._leaves is not None:
            self._leave(membership, started - self._leaves)
            return
        todo = plan(self._settings.process, self._owner.shards, membership)
        self._moving = todo.moving
        if todo.release:
            self.give(todo.release)
        for number in todo.claim:
            if not self._take(number):
                self._moving = False
            elif self._clock.seconds() - started > TAKE_SECONDS:
                # Those that this process has go on in between: the rest after the next turn.
                self._beaten -= self._settings.heartbeat_seconds
                break
        for shard in self._owner.shards.values():
            if shard.deaths and shard.quiet >= PARDON_AFTER:
                self._store.pardon(shard.number, shard.token)
                shard.deaths, shard.suspects = 0, False

    def ask_again(self) -> None:
        """Have the next `keep` ask the database, whenever the last one did."""
        self._beaten = -self._settings.heartbeat_seconds

    @property
    def interval(self) -> float:
        """Seconds from one look at the shards to the next."""
        often = max(MOVING_SECONDS, MOVING_SHARE * self._took) if self._moving else math.inf
        return min(self._settings.heartbeat_seconds, often)

    def _beat(self, started: float) -> Membership:
        """Renew the leases, and drop what isn't ours any more."""
        shards, settings = self._owner.shards, self._settings
        tokens = [(shard.number, shard.token) for shard in shards.values()]
        leaving = self._leaves is not None
        membership = self._store.heartbeat(
            settings.process,
            tokens,
            ttl=settings.lease_seconds,
            leaving=leaving,
            sagas=() if leaving else self._owner.fleet.own,
        )
        if not leaving:
            self._owner.fleet.learn(membership.sagas)
        self._clock.sync(membership.now)
        self._renewed, self._took = started, self._clock.seconds() - started
        mine = {lease.shard for lease in membership.shards if lease.owner == settings.process}
        self.lost(frozenset(number for number in shards if number not in mine))
        self._astray(membership.commits)
        return membership

    # --- leaving

    def leave(self) -> None:
        """Begin to leave: others count this process out at their next heartbeat, and take what it gives up.

        Until a shard is given up it goes on as before; `gone` says when there is nothing more to wait for.
        """
        if self._leaves is None:
            self._leaves = self._clock.seconds()
            self.ask_again()

    @property
    def gone(self) -> bool:
        """Whether a process that leaves has handed over what it had, or has nobody to wait for."""
        if self._leaves is None:
            return False
        late = self._clock.seconds() - self._leaves > LEAVE_SECONDS
        return late or self._alone or not self._owner.shards

    def _leave(self, membership: Membership, since: float) -> None:
        """Give up a few shards, once the others must have noticed."""
        self._alone = not membership.processes
        self._moving = True
        if not self._alone and since > self._settings.heartbeat_seconds * NOTICED_AFTER:
            numbers = few(sorted(self._owner.shards), membership)
            if numbers:
                self.give(numbers)

    def _astray(self, commits: Mapping[int, int]) -> None:
        """Give up shards whose last commit isn't what the database has: it has gone back in time.

        A commit would tell as well; but a shard that waits for nothing commits nothing, and what it has lost
        would wait with it. Between two turns no commit of this process is under way.
        """
        shards = self._owner.shards
        astray = [n for n, each in shards.items() if commits.get(n, each.commit_seq) != each.commit_seq]
        if astray:
            log.error("the database has lost commits: going on with what it has", extra={"shards": astray})
            self.lost(astray)

    def mend_truncated(self) -> None:
        """Kafka has lost records of a shard: ask again for every open answer; the inboxes have them."""
        truncated = self._source.truncated
        while truncated:
            number, topic, offset = truncated[0]
            shard = self._owner.shards.get(number)
            if shard is not None:
                if topic == "replies":
                    self._relay.send(self._store.open_rows(number, asleep=False), self._clock.now())
                    shard.rewound(offset)
                setattr(shard.offsets, topic, offset)
            del truncated[0]

    def expired(self) -> bool:
        """Say whether the leases must have run out by now."""
        return self._clock.seconds() - self._renewed > self._settings.lease_seconds

    def _without_kafka(self) -> bool:
        """Say whether Kafka is out of reach; such a process must not keep others from its shards."""
        away = self._source.silent_seconds()
        if away > self._settings.brokers_lost_seconds:
            if not self._kafka_lost:
                log.error("no broker answers: giving the shards up", extra={"seconds": round(away, 1)})
                self._kafka_lost = True
                self.give(list(self._owner.shards))
            return True
        if self._kafka_lost:
            log.info("kafka is back")
            self._kafka_lost = False
        return False

    def _take(self, number: int) -> bool:
        """Claim a shard and begin with it. Whatever fails on the way, it is claimed once more later.

        Returns whether it is owned now.
        """
        row = self._store.claim(number, self._settings.process, ttl=self._settings.lease_seconds)
        if row is None:
            return False
        crash_point("orchestrator.after_claim")
        shard = Shard.taken(row)
        rows = self._store.open_rows(number, acked=row.acked_seq, asleep=False)
        rows += self._sleepers.first(shard)
        parked = self._store.parked(number, self._owner.fingerprint)
        try:
            known = row.offsets is not None
            shard.offsets = self._source.assign(number, row.offsets or Offsets(), known=known)
        except KafkaFailure as error:
            log.warning("a shard can't be read yet", extra={"shard": number, "error": str(error)})
            return False
        shard.position = shard.offsets.replies
        self._relay.own(number)
        delivered = [
            each.seq for each in rows if each.kind is RowKind.RECORD and not _to_send(each, row.acked_seq)
        ]
        self._relay.put_back_acked((number, seq) for seq in delivered)
        self._relay.send([each for each in rows if _to_send(each, row.acked_seq)], self._clock.now())
        crash_point("orchestrator.after_resend")
        self._owner.took(shard, rows, parked)
        if row.traced is not None and row.last_owner not in (None, self._settings.process):
            self._owner.inherited(number, to_micros(row.traced), row.last_owner)
        log.info(
            "shard taken",
            extra={
                "shard": number,
                "epoch": row.epoch,
                "open": len(rows),
                "deaths": row.deaths,
                "suspects": shard.suspects,
                **_about_suspect(row.suspect),
            },
        )
        return True

    def give(self, numbers: Collection[int]) -> None:
        """Hand shards over: nothing of theirs is undecided between two turns."""
        self._owner.settle([self._owner.shards[number] for number in numbers])
        shards = [self._owner.shards[number] for number in numbers if number in self._owner.shards]
        self._owner.hands_over()
        self._forget([shard.number for shard in shards])
        crash_point("orchestrator.before_release")
        self._store.release([(shard.number, shard.token) for shard in shards])
        log.info("shards released", extra={"shards": sorted(shard.number for shard in shards)})

    def give_all(self) -> None:
        """Hand everything over and leave."""
        shards = list(self._owner.shards.values())
        self._owner.hands_over()
        self._forget([shard.number for shard in shards])
        crash_point("orchestrator.before_release")
        self._store.release([(shard.number, shard.token) for shard in shards], self._settings.process)
        crash_point("orchestrator.after_release")

    def lost(self, numbers: Collection[int]) -> None:
        """Forget shards that somebody else has taken."""
        if numbers:
            log.warning("shards lost to another owner", extra={"shards": sorted(numbers)})
            self._forget([number for number in numbers if number in self._owner.shards])

    def _forget(self, numbers: Collection[int]) -> None:
        for number in numbers:
            self._source.unassign(number)
            self._relay.disown(number)
            self._owner.gave_up(number)


def _about_suspect(suspect: Suspect | None) -> dict[str, object]:
    if suspect is None:
        return {}
    return {"suspect_run_id": str(suspect.run_id), "suspect_deaths": suspect.deaths, "place": suspect.place}


def _to_send(row: OutboxRow, acked: int) -> bool:
    """A new owner sends what isn't known to be in Kafka: beyond the position, or delayed."""
    return row.kind in (RowKind.COMMAND, RowKind.RECORD) and (row.seq > acked or row.send_at is not None)
