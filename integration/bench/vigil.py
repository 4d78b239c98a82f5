"""Many sagas in flight while orchestrators come, go and die, and how long each was held up by that."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Iterable
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import NamedTuple, cast

from bench.bed import NAMESPACE, Bed, Setup
from bench.errors import BenchError
from bench.figures import tell
from bench.vigil_app import Watch, vigil
from kasaga.client.ids import uuid7
from kasaga.dev.process import Process, wait_until
from kasaga.dev.servers import KafkaServer, PostgresServer
from kasaga_wire.envelope import CommandEnvelope, StartEnvelope
from kasaga_wire.errors import DeliveryError
from kasaga_wire.kafka import Admin, Consumer, KafkaSettings, Producer, Record, partition_for
from kasaga_wire.topics import Topics

PATIENCE = 3600.0

MAX_BEHIND = 5_000
"""Starts that Kafka has and no orchestrator has begun; more wait for those."""

FAST, SLOW, PARKED = "fast", "slow", "parked"
"""Prefixes of the sagas' ids."""

STEPS = """
SELECT * FROM (
    SELECT s.saga_id, h.shard, h.kind, h.seq, h.at,
        lag(h.at) OVER (PARTITION BY h.shard, h.run_id ORDER BY h.seq) AS before
    FROM kasaga.history h JOIN kasaga.saga s USING (run_id, shard) WHERE s.saga_id NOT LIKE 'parked%%'
) steps WHERE at > %s AND at <= %s AND before IS NOT NULL
"""


class Step(NamedTuple):
    """One event of one saga: a timer that fired, or a reply."""

    saga_id: str
    shard: int
    at: datetime
    """When it was decided, by the database's clock."""
    waited: float
    """Seconds since the event before was decided, less the time for which the saga slept: the way through the
    relay, Kafka, the participant and back, or how late a timer was."""


class Vigils(Bed):
    """Sagas of `vigil_app`; two orchestrators, one participant that answers and one that is away."""

    app = "bench.vigil_app:app"
    audited = ("DESK", "ARCHIVE")

    def __init__(
        self, setup: Setup, directory: Path, postgres: PostgresServer, kafka: KafkaServer, stack: ExitStack
    ) -> None:
        self._over = directory / "over"
        self.named: dict[str, Process] = {}
        """Orchestrators by the names of their leases, but those that were ended."""
        super().__init__(setup, directory, postgres, kafka, stack)
        self._producer = Producer(KafkaSettings(kafka.bootstrap))
        self._failed: list[DeliveryError] = []
        self._sagas: dict[str, Watch] = {}

    def start_participants(self) -> Process:
        """Start the desk."""
        return self._serve("desk")

    def _serve(self, name: str) -> Process:
        argv = ["-m", "bench.vigil_service", self.kafka.bootstrap, name, str(self._over)]
        self.participants.append(self._start(name, argv, {"DATABASE_URL": self.services}))
        return self.participants[-1]

    def start_orchestrator(self, **environment: str) -> Process:
        """Start one more, under a name of its own."""
        name = f"owner-{len(self.orchestrators) + 1:03}"
        self.named[name] = super().start_orchestrator(**{**environment, "KASAGA_PROCESS": name})
        return self.named[name]

    def owned(self, name: str) -> set[int]:
        """The shards of an orchestrator."""
        return {
            cast("int", shard)
            for (shard,) in self.query("SELECT shard FROM kasaga.shard WHERE owner = %s", name)
        }

    def now(self) -> datetime:
        """The database's clock."""
        return cast("datetime", self.query("SELECT clock_timestamp()")[0][0])

    # --- sagas

    def begin(self, *, parked: int, slow: int, rate: float, fast: int, fast_period: float) -> None:
        """Bring so many sagas in flight; wait until all are.

        Args:
            parked: that wait for the archive, which is away.
            slow: that ask the desk one after the other, so that there are `rate` questions a second.
            rate: of the slow ones together.
            fast: that ask the desk every `fast_period` seconds.
            fast_period: seconds.
        """
        dice, period, begun = Random(1), slow / rate, time.monotonic()
        kinds = [PARKED] * parked + [SLOW] * slow
        dice.shuffle(kinds)
        for number, kind in enumerate(kinds):
            first = 20 + dice.random() * period if kind == SLOW else 0.0
            self._begin(kind, Watch(first=first, period=period if kind == SLOW else 0.0))
            if number % 1000 == 0:
                self._wait_until_begun(MAX_BEHIND)
        for _ in range(fast):
            self._begin(FAST, Watch(first=dice.random(), period=fast_period))
        self._wait_until_begun(0)
        seconds = time.monotonic() - begun
        tell(f"{len(self._sagas)} sagas in flight after {seconds:.0f} s")

    def _begin(self, kind: str, watch: Watch) -> None:
        saga_id = f"{kind}-{len(self._sagas)}"
        self._sagas[saga_id] = watch
        key, source = saga_id.encode(), "/kasaga/clients/bench"
        start = StartEnvelope(
            run_id=str(uuid7()), source=source, time=datetime.now(UTC), saga_id=saga_id, saga="vigil"
        )
        self._producer.produce(
            Topics(NAMESPACE).sagas,
            partition_for(key, self.setup.shards),
            key,
            vigil.input.encode(watch),
            start.to_headers(),
            lambda error: self._failed.append(error) if error is not None else None,
        )

    def _wait_until_begun(self, but: int) -> None:
        if self._producer.flush(60) or self._failed:
            raise BenchError(f"starts are not acknowledged: {self._failed[:1]}")

        def begun() -> bool:
            return len(self._sagas) - cast("int", self.query("SELECT count(*) FROM kasaga.saga")[0][0]) <= but

        if not wait_until(begun, PATIENCE):
            raise BenchError(f"sagas don't begin: {self.logs()}")

    def end(self) -> None:
        """Let all sagas end, the archive's too."""
        self._over.touch()
        self._serve("archive")
        left = "SELECT count(*) FROM kasaga.saga WHERE state <> 'COMPLETED'"
        if not wait_until(lambda: self.query(left)[0][0] == 0, PATIENCE):
            raise BenchError(f"{self.query(left)[0][0]} sagas have not ended: {self.logs()}")

    # --- what the histories and the topics say

    def steps(self, since: datetime, until: datetime) -> list[Step]:
        """What was decided in a time."""
        found: list[Step] = []
        for row in self.query(STEPS, since, until):
            saga_id, shard, kind, seq, at, before = cast("tuple[str, int, str, int, datetime, datetime]", row)
            slept = 0.0
            if kind.lower() == "fired":
                watch = self._sagas[saga_id]
                slept = watch.first if seq <= 2 else watch.period
            found.append(Step(saga_id, shard, at, (at - before).total_seconds() - slept))
        return found

    def have_moved(self, shards: Collection[int], since: datetime) -> bool:
        """Whether each fast saga of these shards has been decided since."""
        moved = {step.saga_id for step in self.steps(since, self.now())}
        fast = (saga_id for saga_id in self._sagas if saga_id.startswith(FAST))
        count = self.setup.shards
        return all(each in moved for each in fast if partition_for(each.encode(), count) in shards)

    def longest_wait(self, since: datetime, until: datetime) -> float:
        """Seconds for which some saga had no progress that was due, also if none has come yet."""
        steps = self.steps(since, until)
        last = {step.saga_id: step.at for step in sorted(steps, key=lambda step: step.at)}
        fast = {saga_id: watch for saga_id, watch in self._sagas.items() if saga_id.startswith(FAST)}
        if silent := fast.keys() - last.keys():
            raise BenchError(f"{len(silent)} sagas have not moved at all: {self.logs()}")
        missing = ((until - last[saga_id]).total_seconds() - watch.period for saga_id, watch in fast.items())
        return max(*(step.waited for step in steps), *missing)

    def sent_again(self) -> int:
        """Records of commands that are in Kafka more than once: attempts of steps, by their ids."""
        return sum(count - 1 for count in Counter(self._command_ids(("desk", "archive"))).values())

    def _command_ids(self, participants: Iterable[str]) -> list[str]:
        settings, topics = KafkaSettings(self.kafka.bootstrap), Topics(NAMESPACE)
        names = [topics.commands(name) for name in participants]
        counts = Admin(settings).partitions(names)
        consumer = Consumer(settings, group="bench-counts")
        places = {(name, partition) for name, count in counts.items() for partition in range(count)}
        ends = {place: consumer.watermarks(*place)[1] for place in places}
        left = {place for place, end in ends.items() if end}
        consumer.assign(dict.fromkeys(left, 0))
        found: list[str] = []
        while left:
            for record in consumer.consume(10_000, 1.0):
                if isinstance(record, Record):
                    found.append(CommandEnvelope.parse(record.headers).id)
                    if record.offset + 1 >= ends[record.topic, record.partition]:
                        left.discard((record.topic, record.partition))
        consumer.close()
        return found

    def claims(self, shards: Collection[int], owner: str) -> dict[int, datetime]:
        """Wait until somebody else than `owner` has each of these shards; returns when that was seen."""
        seen: dict[int, datetime] = {}
        rows = "SELECT shard, clock_timestamp() FROM kasaga.shard WHERE owner <> %s AND shard = ANY (%s)"

        def all_claimed() -> bool:
            for shard, now in self.query(rows, owner, list(shards)):
                seen.setdefault(cast("int", shard), cast("datetime", now))
            return len(seen) == len(shards)

        if not wait_until(all_claimed, 60):
            raise BenchError(f"shards are left without an owner: {self.logs()}")
        return seen
