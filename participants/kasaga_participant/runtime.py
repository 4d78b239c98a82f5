"""The middle of a participant: records come in, batches go to the workers, answers go out.

Station: readers deliver to it from their threads, it lives in the event loop; the app starts and stops it. It
knows no Kafka client: tests feed it records and look at what the sender was given.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from kasaga_wire.claims import is_claim
from kasaga_wire.errors import CodecError
from kasaga_wire.kafka import Record

from .answers import Answers
from .calls import Calls
from .dispatch import Batch, Dispatcher
from .drill import Drill
from .examiner import Examiner
from .handlers import WEIGHT, Registry
from .inbox.algorithm import settle
from .inbox.rows import EXPIRED, FAILED, UNDECODABLE, Answer, Rules
from .jobs import Intake, Job, Question, Rejected
from .metrics import Metrics
from .outage import Outage
from .porter import Porter, room_of
from .progress import Progress, Room
from .reader import Delivered, Reader
from .sender import Outgoing, Sender
from .store import Store
from .tracing import Tracing
from .worker import Worker

NOT_FINAL = frozenset({FAILED, EXPIRED, UNDECODABLE})
"""Answers that hold for one attempt: another one in hand runs for itself."""
GATHER_CAP_SECONDS = 0.02
"""While a batch runs, the next one gathers, until it is full or its first command has waited for a batch's
usual time divided by the concurrency; never longer than this."""
POLL_SECONDS = 0.003
"""How often acknowledgements are collected while any are due."""
POLL_CAP_SECONDS = 0.1
"""The same while none come: Kafka is away."""
BATCHES_A_TURN = 16
"""Batches that one task runs before the loop gets its turn, whether it waited for something or not."""


SPANS_SECONDS = 0.25
"""How long a commit of offsets waits for the export of spans: milliseconds, unless the collector is slow. One
that is away isn't waited for."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What a runtime is put together from."""

    sender: Sender
    room: Room
    metrics: Metrics
    calls: Calls
    tracing: Tracing
    rules: Rules
    reply_allowed: Callable[[str], bool]
    dead_letters: Callable[[str], str]
    refresh_schemas: Callable[[], Awaitable[None]]
    batch: int
    concurrency: int
    clock: Callable[[], float] = time.time
    drill: Drill | None = None
    porter: Porter | None = None


class _Service:
    """One contract: its intake, its queue, its worker."""

    def __init__(self, runtime: Runtime, registry: Registry, store: Store, parts: Parts) -> None:
        self.registry = registry
        self.store = store
        sealer = parts.calls.sealer
        self.intake = Intake(registry, parts.reply_allowed, drill=parts.drill is not None, sealer=sealer)
        # Without a transaction to share, sharing one would only make the first wait for the last.
        self.dispatcher = Dispatcher(parts.batch if store.remembers else 1)
        self.worker = Worker(
            store,
            replace(parts.rules, remembers=store.remembers),
            parts.calls,
            runtime.outage,
            runtime.answered,
            parts.refresh_schemas,
            parts.clock,
            settle if parts.drill is None else parts.drill.plan,
        )


class Runtime:
    """Everything between the readers and the sender, in one event loop."""

    def __init__(self, contracts: Mapping[str, tuple[Registry, Store]], parts: Parts) -> None:
        """`contracts`: by topic. To be made inside of the event loop."""
        self._loop = asyncio.get_running_loop()
        self._parts = parts
        self.outage = Outage(parts.room, parts.metrics)
        self._answers = Answers(
            parts.sender, parts.room, parts.metrics, parts.tracing, parts.dead_letters, parts.calls.sealer
        )
        self._porter = self._answers.porter = parts.porter
        if parts.porter is not None:
            parts.porter.post = lambda outgoing: self.post([outgoing])
        self._examiner = Examiner(
            self._answers, parts.calls.schemas, parts.refresh_schemas, parts.rules, self._examined
        )
        self._services = {
            topic: _Service(self, registry, store, parts) for topic, (registry, store) in contracts.items()
        }
        self._running: set[asyncio.Task[None]] = set()
        self._in_hand = 0
        self._quiescing: list[tuple[Sequence[Progress], threading.Event]] = []
        self._gathering = False
        self._batch_seconds = 0.0
        self._handing_over = False
        self._polling = False
        self._poll_after = POLL_SECONDS
        self.error: asyncio.Future[BaseException] = self._loop.create_future()
        """Done when something failed that nobody can heal."""

    # --- what readers call, from their threads

    def deliver(self, reader: Reader, records: Delivered) -> None:
        """Records came."""
        self._loop.call_soon_threadsafe(self.accept, reader.topic, records)

    def quiesce(self, partitions: Sequence[Progress], finished: threading.Event) -> None:
        """Set the event once everything delivered from these partitions is finished."""
        self._loop.call_soon_threadsafe(self._quiesce, partitions, finished)

    def drop(self, partitions: Sequence[Progress]) -> None:
        """These partitions are gone: forget what isn't running yet."""
        self._loop.call_soon_threadsafe(self._drop, partitions)

    def commits(self) -> None:
        """Offsets are about to be committed: let the spans of what they stand for go first."""
        self._parts.tracing.flush(SPANS_SECONDS)

    def stalled(self, reader: Reader) -> None:
        """A partition was assigned and not read. Metrics are safe to use from any thread."""
        self._parts.metrics.stalls.labels(self._services[reader.topic].registry.contract.name).inc()

    def failed(self, error: BaseException) -> None:
        """A reader can't go on."""
        self._loop.call_soon_threadsafe(self._failed, error)

    # --- in the loop

    def accept(self, topic: str, records: Delivered) -> None:
        """Take records in, in their order."""
        service = self._services[topic]
        for record, progress in records:
            progress.begin(record.offset)
            claim = self._porter is not None and is_claim(record.value)
            if claim:
                self._parts.room.take(0, room_of(record.value))
            if not progress.active:
                self._answers.release(record)
                continue
            if self._porter is not None and claim:
                self._in_hand += 1
                self._porter.run(self._loop.create_task(self._fetch(self._porter, service, record, progress)))
                continue
            self._submit(service, record, progress)
        self._pump()

    def _submit(
        self,
        service: _Service,
        record: Record,
        progress: Progress,
        fetched: bytes | CodecError | None = None,
    ) -> None:
        try:
            job = service.intake.job(record, progress, fetched)
        except Rejected as rejected:
            self._answers.dead_letter(service.registry, record, progress, rejected.error)
            self._poll_soon()
        except Question as question:
            self._in_hand += 1
            self._examiner.ask(service.registry, service.store, record, progress, question.envelope)
        else:
            self._in_hand += 1
            service.dispatcher.submit(job)

    async def _fetch(self, porter: Porter, service: _Service, record: Record, progress: Progress) -> None:
        """Take a record in when its payload is here. Others overtake it, as if Kafka had it later."""
        command = dict(record.headers).get("ce_kasagacommand") or b""
        fetched = await porter.fetch(command.decode("utf-8", "replace"), record.value or b"")
        self._in_hand -= 1
        if progress.active:
            self._submit(service, record, progress, fetched)
            self._pump()
        else:
            self._answers.release(record)

    def answered(self, job: Job, answer: Answer) -> None:
        """A job is settled: answer it, and those who asked the same."""
        self._in_hand -= 1
        self._answers.answer(job, answer)
        self._poll_soon()
        dispatcher = self._services[job.record.topic].dispatcher
        for twin in dispatcher.forget(job):
            if answer.outcome in NOT_FINAL:
                dispatcher.submit(twin)
            else:
                self._in_hand -= 1
                self._answers.answer(twin, replace(answer, duplicate=True, ran=False))

    def _examined(self) -> None:
        self._in_hand -= 1
        self._poll_soon()

    def _pump(self) -> None:
        """Start as many batches as may run."""
        while len(self._running) < self._parts.concurrency:
            taken = self._take(others=len(self._running))
            if taken is None:
                return
            task = self._loop.create_task(self._run(*taken))
            self._running.add(task)
            task.add_done_callback(self._ran)

    def _take(self, others: int) -> tuple[_Service, Batch] | None:
        """The batch that is to run next, where one may; `others` run already."""
        if self.outage.away:
            return None
        ready = [
            (oldest.received, topic)
            for topic, service in self._services.items()
            if (oldest := service.dispatcher.oldest()) is not None
        ]
        if not ready:
            return None
        since, topic = min(ready)
        service = self._services[topic]
        if self._should_gather(service, since, others):
            return None
        batch = service.dispatcher.take()
        return None if batch is None else (service, batch)

    def _should_gather(self, service: _Service, since: float, others: int) -> bool:
        """Whether to wait for a larger batch: something runs already, and it isn't full or old enough."""
        if not others or service.dispatcher.runnable() >= self._parts.batch:
            return False
        patience = min(self._batch_seconds / self._parts.concurrency, GATHER_CAP_SECONDS)
        left = since + patience - time.monotonic()
        if left <= 0:
            return False
        if not self._gathering:
            self._gathering = True
            self._loop.call_later(left, self._gathered)
        return True

    def _gathered(self) -> None:
        self._gathering = False
        self._pump()

    async def _run(self, service: _Service, batch: Batch) -> None:
        """Run a batch, and then others as long as there are any: a task for each would cost more than it."""
        for number in itertools.count(1):
            self._parts.metrics.batch.observe(len(batch.jobs))
            started = time.monotonic()
            given_up = await service.worker.run(batch.jobs, sync=batch.lane.is_sync)
            self._batch_seconds += (time.monotonic() - started - self._batch_seconds) * WEIGHT
            self._forget(service, given_up)
            service.dispatcher.give_back(batch)
            if self._quiescing:
                self._check_quiet()
            if number % BATCHES_A_TURN == 0:
                await asyncio.sleep(0)  # handlers that wait for nothing leave the loop to nobody
            taken = self._take(others=len(self._running) - 1)
            if taken is None:
                return
            service, batch = taken

    def _ran(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failed(error)
        self._check_quiet()
        self._pump()

    def _forget(self, service: _Service, jobs: Iterable[Job]) -> None:
        """Drop jobs; records that waited for the same answer get their turn, unless they are lost too."""
        for job in jobs:
            self._in_hand -= 1
            self._answers.release(job.record)
            for twin in service.dispatcher.forget(job):
                if twin.progress.active:
                    service.dispatcher.submit(twin)
                else:
                    self._forget(service, [twin])

    def _drop(self, partitions: Sequence[Progress]) -> None:
        for service in self._services.values():
            self._forget(service, service.dispatcher.drop(partitions))
        self._pump()

    def _quiesce(self, partitions: Sequence[Progress], finished: threading.Event) -> None:
        self._quiescing.append((partitions, finished))
        self._check_quiet()

    def _check_quiet(self) -> None:
        """Tell those who wait for their partitions, also when waiting would be in vain."""
        waiting = self._quiescing
        self._quiescing = []
        for partitions, finished in waiting:
            if self.outage.away or not any(map(len, partitions)):
                finished.set()
            else:
                self._quiescing.append((partitions, finished))

    def _failed(self, error: BaseException) -> None:
        if not self.error.done():
            self.error.set_result(error)

    # --- acknowledgements

    def post(self, records: Sequence[Outgoing]) -> None:
        """Send records that answer nothing in hand."""
        for outgoing in records:
            self._parts.sender.send(outgoing)
        self._poll_soon()

    def _poll_soon(self) -> None:
        """Replies were sent: hand them over, all of this turn of the loop together, and poll for them."""
        if not self._handing_over:
            self._handing_over = True
            self._loop.call_soon(self._hand_over)
        self._poll_after = POLL_SECONDS
        if not self._polling and len(self._parts.sender):
            self._polling = True
            self._loop.call_later(POLL_SECONDS, self._poll)

    def _hand_over(self) -> None:
        self._handing_over = False
        self._parts.sender.hand_over()

    def _poll(self) -> None:
        """Collect acknowledgements as long as some are due, and less often while none come."""
        came = self._parts.sender.poll()
        self._poll_after = POLL_SECONDS if came else min(self._poll_after * 1.5, POLL_CAP_SECONDS)
        self._polling = len(self._parts.sender) > 0
        if self._polling:
            self._loop.call_later(self._poll_after, self._poll)
        if self._quiescing:
            self._check_quiet()

    @property
    def in_hand(self) -> int:
        """Commands read and not yet answered."""
        return self._in_hand

    @property
    def forsaken(self) -> bool:
        """Whether the database is away and no batch is left that tries to reach it."""
        return self.outage.away and not self._running

    def go_on(self) -> None:
        """The database is back."""
        self.outage.over()
        self._pump()

    # --- the end

    @property
    def idle(self) -> bool:
        """Whether everything that was delivered is answered, and acknowledged."""
        return not self._in_hand and not self._running and not len(self._parts.sender) and not self._carries

    @property
    def _carries(self) -> bool:
        return self._porter is not None and self._porter.busy

    async def finish(self, seconds: float) -> bool:
        """Wait until all that is in hand is answered and acknowledged; gives whether it is.

        While the database is away nothing of it can be answered, so it isn't waited for.
        """
        deadline = time.monotonic() + seconds
        while not self.idle and not self.outage.away and time.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(
                0.005
            )  # many things end it; at the end of a process a look now and then will do
        self.outage.stop()
        await self._examiner.stop()
        for task in list(self._running):
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        return self.idle
