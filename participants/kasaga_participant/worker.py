"""Settles batches: through the inbox, smaller when one of them raises, again when the database was away.

Station: the runtime gives it a batch and the answers come back one by one through `answered`. All decisions
about one record are the inbox's; here is only which records share a transaction, and patience.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from kasaga_wire.errors import CannotOpen, UnknownSchema

from .calls import Calls, encode_error
from .errors import HandlerKilled, InboxRefused, UnknownCommand
from .inbox.algorithm import Plan, Spoiled, settle
from .inbox.drive import InboxAway, InboxError
from .inbox.rows import FAILED, UNDECODABLE, Answer, Kind, Rules
from .jobs import Job
from .log import about, logger
from .outage import GivenUp, Outage
from .settings import BATCH_RISK, MAX_HANDLER_KILLS
from .store import Store

Answered = Callable[[Job, Answer], None]
Settle = Callable[..., Plan[list[Answer]]]
"""`algorithm.settle`, or what stands in its place in a drill."""


class Worker:
    """Settles one batch at a time for each call of `run`; several may run at once."""

    def __init__(
        self,
        store: Store,
        rules: Rules,
        calls: Calls,
        outage: Outage,
        answered: Answered,
        refresh_schemas: Callable[[], Awaitable[None]],
        clock: Callable[[], float] = time.time,
        plan: Settle = settle,
    ) -> None:
        """`answered` is called once for each job, unless it was given up. `clock`: seconds since 1970."""
        self._store = store
        self._rules = rules
        self._calls = calls
        self._outage = outage
        self._answered = answered
        self._refresh_schemas = refresh_schemas
        self._clock = clock
        self._plan = plan

    async def run(self, jobs: Sequence[Job], *, sync: bool) -> list[Job]:
        """Settle the jobs; gives those that were given up: the process stops, or has lost them."""
        left = await self._prepared(jobs)
        risky = sum(job.behaviour.risk for job in left) > BATCH_RISK
        groups: deque[_Group] = deque([_Group(left, risky)] if left else [])
        while groups:
            group = groups.popleft()
            try:
                answers = await self._settled(group, sync=sync)
            except _Split as split:
                groups.extendleft(reversed(split.groups))
            except GivenUp:
                return [job for each in (group, *groups) for job in each.jobs]
            else:
                for job, answer in zip(group.jobs, answers, strict=True):
                    self._answered(job, answer)
        return []

    async def _prepared(self, jobs: Sequence[Job]) -> list[Job]:
        """Decode the payloads. Commands that can't be decoded are answered here, without the inbox.

        An undo is left to the inbox: it may have nothing to do for it but to put up the fence.
        """
        for job in jobs:
            self._calls.prepare(job)
        if any(isinstance(job.fault, UnknownSchema) for job in jobs):
            await self._refresh_schemas()
            for job in jobs:
                self._calls.prepare(job)
        left: list[Job] = []
        for job in jobs:
            if job.fault is None or (job.work.kind is Kind.UNDO and not _unknown(job)):
                left.append(job)
                continue
            outcome = FAILED if isinstance(job.fault, (UnknownSchema, CannotOpen)) else UNDECODABLE
            self._answered(job, Answer(outcome, encode_error(job.fault), job.fault))
        return left

    async def _settled(self, group: _Group, *, sync: bool) -> list[Answer]:
        """Settle a group in one transaction. Raises _Split and GivenUp."""
        works, guarded = [job.work for job in group.jobs], group.guarded
        tries = 0
        while True:
            try:
                answers = await self._store.settle(
                    lambda: self._plan(works, self._rules, self._clock, encode_error, guarded=guarded),
                    self._calls,
                    sync=sync,
                )
            except Spoiled as spoiled:
                raise _Split(_after(spoiled, group)) from spoiled
            except InboxAway as away:
                if away.during is not None and (answer := _killed(group.jobs, away)) is not None:
                    return [answer]
                error = away.error
            except InboxError as refused:
                if refused.content:
                    return [_content_refused(group.jobs, refused)]
                error = refused.error
            else:
                self._outage.over()
                return answers
            if not any(job.progress.active for job in group.jobs):
                raise GivenUp  # somebody else reads them now
            await self._outage.ride_out(error, tries)
            tries += 1


def _killed(group: list[Job], away: InboxAway) -> Answer | None:
    """The connection was lost under a handler: not its fault, unless it happens to it each time."""
    if len(group) > 1:
        raise _Split(_each(group))
    [job] = group
    job.kills += 1
    if job.kills < MAX_HANDLER_KILLS:
        return None
    error = HandlerKilled(f"{job.envelope.type} lost its connection {job.kills} times: {away.error}")
    logger.error("%s", error, extra=about(job))
    return Answer(FAILED, encode_error(error), error, ran=True)


def _content_refused(group: list[Job], refused: InboxError) -> Answer:
    """The database refuses what is to be written: for one record alone that is its answer."""
    if len(group) > 1:
        raise _Split(_each(group))
    error = InboxRefused(f"the database refuses to store {group[0].work.id}: {refused.error}")
    logger.error("%s", error, extra=about(group[0]))
    return Answer(FAILED, encode_error(error), error)


class _Group(NamedTuple):
    """Jobs that share a transaction; `guarded`: each of them behind a savepoint."""

    jobs: list[Job]
    guarded: bool


class _Split(Exception):
    """These groups are to be settled instead, in this order."""

    def __init__(self, groups: list[_Group]) -> None:
        super().__init__()
        self.groups = groups


def _each(jobs: list[Job]) -> list[_Group]:
    """Each alone."""
    return [_Group([job], guarded=True) for job in jobs]


def _after(spoiled: Spoiled, group: _Group) -> list[_Group]:
    """What to do when one has raised: the same again, guarded.

    Where savepoints were of no use, since it has ended the transaction itself: those before it, it alone, and
    those after it.
    """
    if not group.guarded:
        return [_Group(group.jobs, guarded=True)]
    jobs, index = group.jobs, spoiled.index
    parts = (jobs[:index], [jobs[index]], jobs[index + 1 :])
    return [_Group(part, guarded=True) for part in parts if part]


def _unknown(job: Job) -> bool:
    return isinstance(job.fault, UnknownCommand)
