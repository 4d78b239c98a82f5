"""What every inbox has to do with commands that are answered later. Run as `inbox_suite.py` is."""

from __future__ import annotations

import asyncio

import pytest

from kasaga_participant.errors import AlreadyAnswered, BadToken, GivenUp, NotDeferred, Refused, RetryableError
from kasaga_participant.inbox.late import LateReply, Plan, Tokens, Wish, answer_late
from kasaga_participant.inbox.rows import Later, StoredRow, Work
from kasaga_wire.records import deferral_codec
from kasaga_wire.schema import Schemas
from participant.inbox_bench import Bench, Shop, command, in_loop, undo, until, void

DONE, OTHER, REFUSED, FAILED = (
    Wish("done", b"paper"),
    Wish("done", b"stone"),
    Wish("refused", b"no"),
    Wish("failed", b"not now"),
)
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def later(heartbeat: float | None = 60.0, *, attempt: int = 1, reply_to: str = "shop.replies/3") -> Later:
    return Later(b"later", heartbeat, "shop", attempt, reply_to, "saga-1", TRACE, None)


async def plan(bench: Bench, wish: Wish, id_: str = "r.1", type_: str = "shop.buy") -> Plan:
    return answer_late(type_, Tokens(await bench.key()).make(id_), wish)


async def answer(bench: Bench, wish: Wish, id_: str = "r.1", type_: str = "shop.buy") -> None:
    await bench.late(await plan(bench, wish, id_, type_))


async def outcome(bench: Bench, id_: str = "r.1") -> str | None:
    row: StoredRow | None = await bench.row(id_)
    return None if row is None else row.outcome


def said(replies: list[LateReply]) -> list[tuple[str, bytes | None]]:
    return [(reply.outcome, reply.payload) for reply in replies]


class LateSuite:
    """Subclass it, and give it a fixture `bench`."""

    @in_loop
    async def test_a_deferred_command_runs_once_and_is_answered_later(self, bench: Bench) -> None:
        runner, shop = await bench.runner(), Shop(later(attempt=2))

        [first] = await runner.settle([command()], shop)
        [second] = await runner.settle([command()], shop)
        assert (first.outcome, first.payload, first.ran) == ("deferred", b"later", True)
        assert (second.outcome, second.payload, second.duplicate) == ("deferred", b"later", True)

        await answer(bench, DONE)
        [reply] = await bench.replies()
        assert reply == LateReply(
            "r.1", "shop", 2, "shop.replies/3", "saga-1", TRACE, None, "done", 0, b"paper", reply.seq
        )
        [third] = await runner.settle([command()], shop)
        assert (third.outcome, third.payload, third.duplicate) == ("done", b"paper", True)
        assert (shop.ids, await bench.replies()) == (["r.1"], [])

    @in_loop
    async def test_one_answer(self, bench: Bench) -> None:
        runner = await bench.runner()
        await runner.settle([command("r.1"), command("r.2")], Shop(later(), later()))

        await answer(bench, DONE)
        await answer(bench, DONE)
        for other in (OTHER, REFUSED, FAILED, Wish("deferred")):
            with pytest.raises(AlreadyAnswered):
                await answer(bench, other)
        await answer(bench, REFUSED, "r.2")
        await answer(bench, REFUSED, "r.2")
        with pytest.raises(AlreadyAnswered):
            await answer(bench, DONE, "r.2")
        assert said(await bench.replies()) == [("done", b"paper"), ("refused", b"no")]
        [refused] = await runner.settle([command("r.2")], Shop())
        assert (refused.outcome, refused.payload) == ("refused", b"no")

    @in_loop
    async def test_what_has_failed_runs_again(self, bench: Bench) -> None:
        runner, shop = await bench.runner(), Shop(later(), later(attempt=2))
        await runner.settle([command()], shop)

        await answer(bench, FAILED)
        for late in (FAILED, DONE, Wish("deferred")):
            with pytest.raises(NotDeferred):
                await answer(bench, late)
        [again] = await runner.settle([command()], shop)
        await answer(bench, DONE)

        assert (again.outcome, again.duplicate, shop.ids) == ("deferred", False, ["r.1", "r.1"])
        assert [(each.outcome, each.attempt) for each in await bench.replies()] == [
            ("failed", 1),
            ("done", 2),
        ]

    @in_loop
    async def test_a_token_is_good_for_its_command_alone(self, bench: Bench) -> None:
        runner = await bench.runner()
        await runner.settle([command("r.1"), command("r.2")], Shop(later(), b"bought"))
        good = Tokens(await bench.key()).make("r.1")

        for bad in (
            "",
            "r.1",
            f"r.2.{good.rpartition('.')[2]}",
            good[:-1],
            good + "A",
            "x" * 500,
            "r.1\0.",
            "ä.ö",
        ):
            with pytest.raises(BadToken):
                await bench.late(answer_late("shop.buy", bad, DONE))
        with pytest.raises(BadToken, match=r"shop\.buy, and no shop\.sell"):
            await answer(bench, DONE, type_="shop.sell")
        with pytest.raises(NotDeferred):
            await answer(bench, DONE, "r.3")
        with pytest.raises(AlreadyAnswered):
            await answer(bench, DONE, "r.2")
        assert await outcome(bench) == "deferred"

    @in_loop
    async def test_an_answer_before_the_commit_is_told_to_come_again(self, bench: Bench) -> None:
        runner, runs, goes_on = await bench.runner(), asyncio.Event(), asyncio.Event()

        async def slow(work: Work, stored: bytes | None) -> Later:
            runs.set()
            await goes_on.wait()
            return later()

        running = asyncio.create_task(runner.settle([command()], slow))
        await runs.wait()
        early = asyncio.create_task(answer(bench, DONE))
        goes_on.set()
        [settled] = await running
        try:
            await early
        except NotDeferred:
            await answer(bench, DONE)
        assert (settled.outcome, await outcome(bench)) == ("deferred", "done")

    @in_loop
    async def test_a_deferral_that_is_rolled_back_never_was(self, bench: Bench) -> None:
        runner = await bench.runner()
        shop = Shop(later(), RetryableError("no"))
        answers = await runner.settle([command("r.1"), command("r.2")], shop, guarded=True)
        assert [each.outcome for each in answers] == ["deferred", "failed"]
        with pytest.raises(NotDeferred):
            await answer(bench, DONE, "r.2")
        await answer(bench, DONE, "r.1")

    # --- heartbeats

    @in_loop
    async def test_the_orchestrator_is_told_of_some_heartbeats(self, bench: Bench) -> None:
        runner = await bench.runner()
        await runner.settle(
            [command("r.1"), command("r.2")], Shop(later(3_600.0), later(-1.0))
        )  # the second is always due

        for number in range(3):
            await answer(bench, Wish("deferred", None, f"{number}"))
            await answer(bench, Wish("deferred", None, f"{number}"), "r.2")
        replies = await bench.replies()

        told = [
            (each.id, each.number, deferral_codec.decode(each.payload or b"", Schemas())) for each in replies
        ]
        assert [(id_, number) for id_, number, _ in told if id_ == "r.1"] == [("r.1", 1)]
        assert [(number, body.progress) for id_, number, body in told if id_ == "r.2"] == [
            (1, "0"),
            (2, "1"),
            (3, "2"),
        ]
        assert {each.outcome for each in replies} == {"deferred"}

    @in_loop
    async def test_where_nobody_waits_nothing_is_sent(self, bench: Bench) -> None:
        runner = await bench.runner()
        await runner.settle([command()], Shop(later(reply_to="")))
        await answer(bench, Wish("deferred", None, "1"))
        await answer(bench, DONE)
        assert (await bench.replies(), await outcome(bench)) == ([], "done")

    # --- given up

    @in_loop
    async def test_an_undo_runs_without_a_result_and_ends_it(self, bench: Bench) -> None:
        runner, shop = await bench.runner(), Shop(later(), b"")
        await runner.settle([command()], shop)

        [undone] = await runner.settle([undo()], shop)
        [again] = await runner.settle([undo()], shop)

        assert (undone.outcome, again.outcome, again.duplicate) == ("undone", "undone", True)
        assert shop.runs == [("r.1", None), ("r.1~undo", None)]
        for late in (DONE, REFUSED, FAILED, Wish("deferred")):
            with pytest.raises(GivenUp):
                await answer(bench, late)
        [command_again] = await runner.settle([command()], shop)
        assert (command_again.outcome, await outcome(bench)) == ("refused", "void")
        assert await bench.replies() == []

    @in_loop
    async def test_an_undo_that_fails_leaves_it_as_it_was(self, bench: Bench) -> None:
        runner, shop = await bench.runner(), Shop(later(), ValueError("bug"), b"")
        await runner.settle([command()], shop)

        [failed] = await runner.settle([undo()], shop)
        assert (failed.outcome, await outcome(bench)) == ("failed", "deferred")
        await answer(bench, DONE)
        [undone] = await runner.settle([undo()], shop)

        assert (undone.outcome, shop.runs[-1]) == ("undone", ("r.1~undo", b"paper"))

    @in_loop
    async def test_a_void_ends_it(self, bench: Bench) -> None:
        runner = await bench.runner()
        await runner.settle([command()], Shop(later()))
        [voided] = await runner.settle([void()], Shop())
        assert (voided.outcome, await outcome(bench)) == ("voided", "void")
        with pytest.raises(GivenUp):
            await answer(bench, DONE)

    @in_loop
    async def test_what_was_known_as_done_and_is_open_again_is_lost(self, bench: Bench) -> None:
        runner = await bench.runner()
        await runner.settle([command("r.1"), command("r.2")], Shop(later(), later()))
        [undone] = await runner.settle([undo("r.1", done=True)], Shop())
        [voided] = await runner.settle([void("r.2", done=True)], Shop())
        assert (undone.outcome, voided.outcome) == ("lost", "lost")
        assert (await outcome(bench, "r.1"), await outcome(bench, "r.2")) == ("void", "void")

    @in_loop
    async def test_an_answer_waits_for_an_undo_that_runs(self, bench: Bench) -> None:
        runner, runs, goes_on = await bench.runner(), asyncio.Event(), asyncio.Event()
        await runner.settle([command()], Shop(later()))

        async def slow(work: Work, stored: bytes | None) -> bytes | None:
            runs.set()
            await goes_on.wait()
            return None

        undoing = asyncio.create_task(runner.settle([undo()], slow))
        await runs.wait()
        late = asyncio.create_task(answer(bench, DONE))

        async def waits() -> bool:
            return await bench.waiting() > 0

        await until(waits)
        goes_on.set()
        [undone] = await undoing
        with pytest.raises(GivenUp):
            await late
        assert undone.outcome == "undone"

    @in_loop
    async def test_an_undo_in_a_batch_with_others(self, bench: Bench) -> None:
        runner = await bench.runner()
        await runner.settle([command("r.1"), command("r.2")], Shop(later(), b"bought"))
        works = [undo("r.1"), undo("r.2", done=True), command("r.3"), undo("r.4")]
        answers = await runner.settle(works, Shop(b"", b"", Refused("no")), guarded=True)
        assert [each.outcome for each in answers] == ["undone", "undone", "refused", "nothing"]
        assert [await outcome(bench, f"r.{n}") for n in range(1, 5)] == ["void", "done", "refused", "void"]

    # --- memory

    @in_loop
    async def test_what_waits_is_never_purged(self, bench: Bench) -> None:
        runner = await bench.runner()
        await runner.settle([command("r.1"), command("r.2")], Shop(later(), b"bought"))
        with pytest.raises(AssertionError):
            await bench.forget("r.1")
        assert await outcome(bench) == "deferred"
        await answer(bench, DONE)
        assert said(await bench.replies()) == [("done", b"paper")]
