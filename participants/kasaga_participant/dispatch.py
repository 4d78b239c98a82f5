"""Which jobs run next, and together: parallel across keys, serial within a key, in large batches.

Station: the runtime submits jobs and takes batches; pure bookkeeping, in the event loop, without waiting.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from .jobs import Job, Lane
from .progress import Progress
from .settings import BATCH_SECONDS

Key = tuple[str, bytes]


@dataclass(slots=True, eq=False)
class Batch:
    """Jobs that share a transaction, and the keys that nobody else may touch meanwhile."""

    jobs: list[Job]
    keys: list[Key]
    lane: Lane


class Dispatcher:
    """The jobs in hand that aren't answered yet."""

    def __init__(self, batch: int) -> None:
        """`batch`: how many commands may share a transaction."""
        self._limit = batch
        self._waiting: dict[Key, deque[Job]] = {}
        self._busy: set[Key] = set()
        self._ready: dict[Lane, deque[Key]] = {lane: deque() for lane in Lane}
        self._in_hand: dict[str, Job] = {}
        self.queued = 0
        """Jobs that wait for their turn."""

    def submit(self, job: Job) -> bool:
        """Queue a job. False: the same command is in hand already, and its answer will do for both."""
        first = self._in_hand.setdefault(job.work.id, job)
        if first is not job and _same(first, job):
            first.twins.append(job)
            return False
        key = job.key
        waiting = self._waiting.get(key)
        if waiting is None:
            waiting = self._waiting[key] = deque()
        waiting.append(job)
        self.queued += 1
        if len(waiting) == 1 and key not in self._busy:
            self._ready[job.lane].append(key)
        return True

    def oldest(self) -> Job | None:
        """The job that has waited longest of those that could run now."""
        heads = [self._waiting[ready[0]][0] for ready in self._ready.values() if ready]
        return min(heads, key=lambda job: job.received, default=None)

    def runnable(self) -> int:
        """How many keys have something to run: a lower bound of what a batch could hold."""
        return sum(len(ready) for ready in self._ready.values())

    def take(self) -> Batch | None:
        """The next batch; its keys are busy until it is given back. None: there is nothing to run."""
        oldest = self.oldest()
        if oldest is None:
            return None
        batch = Batch([], [], oldest.lane)
        budget = _Budget(1 if oldest.lane.is_alone else self._limit)
        ready = self._ready[oldest.lane]
        while ready:
            key = ready[0]
            taken = self._take_of(key, batch, budget)
            if not taken:
                break
            ready.popleft()
            self._busy.add(key)
            batch.keys.append(key)
        return batch

    def _take_of(self, key: Key, batch: Batch, budget: _Budget) -> int:
        """Move the jobs of one key that fit into the batch; gives their number."""
        waiting = self._waiting[key]
        taken = 0
        while waiting and waiting[0].lane is batch.lane and budget.fits(waiting[0]):
            job = waiting.popleft()
            budget.add(job)
            batch.jobs.append(job)
            taken += 1
        self.queued -= taken
        if not waiting:
            del self._waiting[key]
        return taken

    def give_back(self, batch: Batch) -> None:
        """A batch is answered: whatever came for its keys meanwhile may run."""
        for key in batch.keys:
            self._busy.discard(key)
            if waiting := self._waiting.get(key):
                self._ready[waiting[0].lane].append(key)

    def forget(self, job: Job) -> list[Job]:
        """A job is answered or dropped; gives the records that waited for the same answer."""
        if self._in_hand.get(job.work.id) is job:
            del self._in_hand[job.work.id]
        twins, job.twins = job.twins, []
        return twins

    def drop(self, gone: Iterable[Progress]) -> list[Job]:
        """Take the queued jobs of lost partitions out, and their twins; gives them. Running ones go on."""
        lost = set(gone)
        dropped: list[Job] = []
        for key, waiting in list(self._waiting.items()):
            kept = deque(job for job in waiting if job.progress not in lost)
            if len(kept) == len(waiting):
                continue
            dropped += [job for job in waiting if job.progress in lost]
            self._replace(key, waiting, kept)
        self.queued -= len(dropped)
        return dropped

    def _replace(self, key: Key, waiting: deque[Job], kept: deque[Job]) -> None:
        if key not in self._busy:
            self._ready[waiting[0].lane].remove(key)
            if kept:
                self._ready[kept[0].lane].append(key)
        if kept:
            self._waiting[key] = kept
        else:
            del self._waiting[key]


class _Budget:
    """What still fits into a batch: jobs, expected seconds; no row twice."""

    def __init__(self, jobs: int) -> None:
        self._jobs = jobs
        self._seconds = BATCH_SECONDS
        self._rows: set[str] = set()

    def fits(self, job: Job) -> bool:
        """Whether the job can be added. The first one always can."""
        if not self._rows:
            return True
        return (
            self._jobs > 0
            and job.behaviour.seconds <= self._seconds
            and self._rows.isdisjoint(job.work.ids())
        )

    def add(self, job: Job) -> None:
        """Count the job in."""
        self._jobs -= 1
        self._seconds -= job.behaviour.seconds
        self._rows.update(job.work.ids())


def _same(one: Job, other: Job) -> bool:
    """Whether two records ask for the same; else the inbox will answer the second with `conflict`."""
    return one.work.type == other.work.type and one.work.input_hash == other.work.input_hash
