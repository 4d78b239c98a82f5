"""The inbox in memory, and the judge, against the suite."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from kasaga_participant.inbox.algorithm import Invoke, settle
from kasaga_participant.inbox.drive import RowEffect, drive_async
from kasaga_participant.inbox.late import LateReply, Plan, drive_late_memory
from kasaga_participant.inbox.memory import MemoryInbox, MemorySession
from kasaga_participant.inbox.rows import Answer, Later, Rules, StoredRow, Work
from participant.inbox_bench import DAY, NOW, RULES, Handler, Shop, command, encode_error
from participant.inbox_suite import InboxSuite
from participant.late_suite import LateSuite


class MemoryRunner:
    def __init__(self, inbox: MemoryInbox) -> None:
        self.session = MemorySession(inbox, None)

    async def settle(
        self, works: Sequence[Work], handler: Handler, now: float = NOW, *, guarded: bool = False
    ) -> list[Answer]:
        async def invoke(work: Work, stored: bytes | None, _: None) -> bytes | Later | None:
            return await handler(work, stored)

        return await drive_async(
            settle(works, RULES, lambda: now, encode_error, guarded=guarded), self.session, invoke
        )


class MemoryBench:
    def __init__(self) -> None:
        self.now = NOW
        self.inbox = MemoryInbox(retention=RULES.retention, clock=lambda: self.now)

    async def runner(self) -> MemoryRunner:
        return MemoryRunner(self.inbox)

    async def row(self, id_: str) -> StoredRow | None:
        return self.inbox.row(id_)

    async def waiting(self) -> int:
        return self.inbox.waiting

    async def forget(self, id_: str) -> None:
        self.now += RULES.retention + 1
        before = self.inbox.row(id_)
        self.inbox.purge()
        self.now = NOW
        assert before is None or self.inbox.row(id_) is None

    async def key(self) -> bytes:
        return self.inbox.key

    async def late(self, plan: Plan) -> None:
        await drive_late_memory(plan, self.inbox)

    async def replies(self) -> list[LateReply]:
        late, self.inbox.late = self.inbox.late, []
        return late

    async def close(self) -> None:
        pass


@pytest.fixture(name="bench")
def _bench() -> MemoryBench:
    return MemoryBench()


class TestMemory(InboxSuite):
    pass


class TestLateInMemory(LateSuite):
    pass


def test_using_a_row_moves_its_purging() -> None:
    async def run() -> None:
        bench = MemoryBench()
        runner, shop = await bench.runner(), Shop()
        await runner.settle([command("r.1"), command("r.2")], shop)

        bench.now = NOW + 10 * DAY
        await runner.settle([command("r.1")], shop)
        bench.now = NOW + 15 * DAY

        assert bench.inbox.purge() == 1
        assert bench.inbox.row("r.1") is not None

    asyncio.run(run())


def test_a_row_purged_between_claim_and_reading_counts_as_absent() -> None:
    class Forgetful(MemorySession[None]):
        async def rows(self, effect: RowEffect) -> object:
            if type(effect).__name__ == "Read":
                await bench.forget("r.1")
            return await super().rows(effect)

        async def handler(self, effect: Invoke, invoke: object) -> bytes | None:
            return b"again"

    async def no_handler(work: Work, stored: bytes | None, connection: None) -> bytes | None:
        raise AssertionError("the session answers for it")

    async def run() -> None:
        await (await bench.runner()).settle([command()], Shop())
        session = Forgetful(bench.inbox, None)
        plan = settle([command()], RULES, lambda: NOW, encode_error)

        [answer] = await drive_async(plan, session, no_handler)

        assert (answer.outcome, answer.payload) == ("done", b"again")

    bench = MemoryBench()
    asyncio.run(run())


def test_a_memory_shorter_than_the_fence_needs_is_refused() -> None:
    with pytest.raises(ValueError, match="twice max_age"):
        Rules(max_age=7 * DAY, retention=13 * DAY)
