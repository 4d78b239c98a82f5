"""What every inbox has to do, whatever it keeps its rows in.

`test_inbox_memory.py` runs it in milliseconds, `integration/participant/test_inbox_postgres.py` over a real
database. Handlers here are async functions; a bench for plain functions brings them across itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from itertools import product
from typing import Any

import pytest

from kasaga_participant.errors import HandlerError, Refused, RetryableError
from kasaga_participant.inbox.algorithm import Spoiled, Undecodable
from kasaga_participant.inbox.rows import Answer, Work
from participant.inbox_bench import (
    DAY,
    NOW,
    Bench,
    Runner,
    Shop,
    command,
    in_loop,
    run_with,
    undo,
    until,
    void,
)


class InboxSuite:
    """Subclass it, and give it a fixture `bench`."""

    # --- a command alone

    @in_loop
    async def test_a_duplicate_gets_the_stored_reply(self, bench: Bench) -> None:
        runner, shop = await bench.runner(), Shop(b"first", b"second")

        [first] = await runner.settle([command()], shop)
        [second] = await runner.settle([command()], shop)

        assert (first.outcome, first.payload, first.duplicate) == ("done", b"first", False)
        assert (second.outcome, second.payload, second.duplicate) == ("done", b"first", True)
        assert shop.ids == ["r.1"]

    @in_loop
    async def test_a_failure_is_stored_nowhere(self, bench: Bench) -> None:
        runner, shop = await bench.runner(), Shop(RetryableError("busy"), ValueError("bug"), b"third time")

        outcomes = [(await runner.settle([command()], shop))[0] for _ in range(3)]

        assert [answer.outcome for answer in outcomes] == ["failed", "failed", "done"]
        assert outcomes[1].payload == b"ValueError: bug"

    @in_loop
    async def test_a_refusal_is_final(self, bench: Bench) -> None:
        runner, shop = await bench.runner(), Shop(Refused("sold out"), b"never")

        [first] = await runner.settle([command()], shop)
        [second] = await runner.settle([command()], shop)

        assert (first.outcome, first.payload) == ("refused", b"Refused: sold out")
        assert (second.outcome, second.payload, second.duplicate) == ("refused", b"Refused: sold out", True)
        assert shop.ids == ["r.1"]

    @in_loop
    async def test_another_input_under_the_same_id_is_a_conflict(self, bench: Bench) -> None:
        runner, shop = await bench.runner(), Shop()
        await runner.settle([command()], shop)

        [other_input] = await runner.settle([command(payload=b"other")], shop)
        [other_type] = await runner.settle([command(type_="shop.sell")], shop)
        [same] = await runner.settle([command()], shop)

        assert [other_input.outcome, other_type.outcome, same.outcome] == ["conflict", "conflict", "done"]
        assert shop.ids == ["r.1"]

    @in_loop
    async def test_what_is_too_old_is_not_executed_for_the_first_time(self, bench: Bench) -> None:
        runner, shop = await bench.runner(), Shop()
        await runner.settle([command("r.1")], shop)
        later = NOW + 8 * DAY

        [known] = await runner.settle([command("r.1")], shop, later)
        [unknown] = await runner.settle([command("r.2")], shop, later)
        [young] = await runner.settle([command("r.2", sent=later)], shop, later)

        assert [known.outcome, unknown.outcome, young.outcome] == ["done", "expired", "done"]
        assert shop.ids == ["r.1", "r.2"]

    @in_loop
    async def test_a_command_that_is_not_there_any_more_when_it_is_read_is_claimed_again(
        self, bench: Bench
    ) -> None:
        # The row is purged between the claim, which found it, and the reading: as if it had never been there.
        runner, shop = await bench.runner(), Shop(b"first", b"second")
        await runner.settle([command()], shop)
        await bench.forget("r.1")

        [again] = await runner.settle([command()], shop)

        assert (again.outcome, again.payload) == ("done", b"second")

    # --- the fence

    @in_loop
    async def test_undo_gets_the_stored_result(self, bench: Bench) -> None:
        runner, shop = await bench.runner(), Shop(b"bought")
        await runner.settle([command()], shop)

        [first] = await runner.settle([undo(done=True)], shop)
        [second] = await runner.settle([undo(done=True)], shop)

        assert (first.outcome, first.payload) == ("undone", None)
        assert (second.outcome, second.duplicate) == ("undone", True)
        assert shop.runs == [("r.1", None), ("r.1~undo", b"bought")]

    @in_loop
    async def test_an_undo_before_its_command_fences_it_off(self, bench: Bench) -> None:
        runner, shop = await bench.runner(), Shop()

        [undone] = await runner.settle([undo()], shop)
        [late] = await runner.settle([command()], shop)

        assert undone.outcome == "nothing"
        assert (late.outcome, late.payload) == (
            "refused",
            b"Voided: KSG-420: r.1 came after its saga had given it up.",
        )
        assert shop.runs == []

    @in_loop
    async def test_a_void_before_its_command_fences_it_off(self, bench: Bench) -> None:
        runner, shop = await bench.runner(), Shop()

        [voided] = await runner.settle([void()], shop)
        [again] = await runner.settle([void()], shop)
        [late] = await runner.settle([command()], shop)

        assert [voided.outcome, again.outcome, late.outcome] == ["voided", "voided", "refused"]
        assert shop.runs == []

    @in_loop
    async def test_a_void_after_its_command_tells_that_it_is_too_late(self, bench: Bench) -> None:
        runner, shop = await bench.runner(), Shop(b"bought", Refused("sold out"))
        await runner.settle([command("r.1")], shop)
        await runner.settle([command("r.2")], shop)

        [executed] = await runner.settle([void("r.1")], shop)
        [refused] = await runner.settle([void("r.2")], shop)

        assert executed.outcome == "executed"
        assert (refused.outcome, refused.payload) == ("refused", b"Refused: sold out")

    @in_loop
    async def test_undoing_a_refused_command_does_nothing(self, bench: Bench) -> None:
        runner, shop = await bench.runner(), Shop(Refused("sold out"))
        await runner.settle([command()], shop)

        [nothing] = await runner.settle([undo()], shop)

        assert nothing.outcome == "nothing"
        assert shop.ids == ["r.1"]

    @in_loop
    async def test_a_row_that_should_be_there_and_is_not_is_lost(self, bench: Bench) -> None:
        # The orchestrator has its reply; this database went back in time, effect and row together.
        runner, shop = await bench.runner(), Shop()

        [lost] = await runner.settle([undo(done=True)], shop)
        [late] = await runner.settle([command()], shop)

        assert [lost.outcome, late.outcome] == ["lost", "refused"]
        assert shop.runs == []

    @in_loop
    async def test_beyond_the_horizon_the_handler_decides(self, bench: Bench) -> None:
        # Step 1 of a saga that lives for 40 days: "no row" doesn't mean "never happened" any more.
        runner, shop = await bench.runner(), Shop()
        later = NOW + 40 * DAY

        [undone] = await runner.settle([undo(done=True, sent=later)], shop, later)
        [void_cannot_know] = await runner.settle([void(sent=later)], shop, later)
        [zombie] = await runner.settle([command(sent=later)], shop, later)

        assert [undone.outcome, void_cannot_know.outcome, zombie.outcome] == ["undone", "expired", "refused"]
        assert shop.runs == [("r.1~undo", None)]

    @in_loop
    async def test_a_tombstone_that_was_put_up_blindly_is_no_knowledge(self, bench: Bench) -> None:
        runner, shop = await bench.runner(), Shop()
        later = NOW + 40 * DAY

        [void_cannot_know] = await runner.settle([void(sent=later)], shop, later)
        [undone] = await runner.settle([undo(sent=later)], shop, later)

        assert [void_cannot_know.outcome, undone.outcome] == ["expired", "undone"]
        assert shop.runs == [("r.1~undo", None)]

    @in_loop
    async def test_a_failing_undo_takes_its_tombstone_back(self, bench: Bench) -> None:
        runner, shop = await bench.runner(), Shop(b"bought", RetryableError("not now"), Refused("never"), b"")
        await runner.settle([command()], shop)

        failed = [(await runner.settle([undo()], shop))[0] for _ in range(3)]

        assert [answer.outcome for answer in failed] == ["failed", "failed", "undone"]
        assert failed[1].payload == b"Refused: never"  # an undo can't be refused; a later retry may succeed

    @in_loop
    async def test_an_undo_that_cannot_be_read_leaves_nothing_behind(self, bench: Bench) -> None:
        runner = await bench.runner()
        shop = Shop(b"bought", Undecodable(ValueError("poison")))
        await runner.settle([command()], shop)

        [poison] = await runner.settle([undo()], shop)

        assert (poison.outcome, poison.payload) == ("undecodable", b"ValueError: poison")
        assert await bench.row("r.1~undo") is None

    @in_loop
    async def test_an_undo_of_another_type_is_a_conflict(self, bench: Bench) -> None:
        runner, shop = await bench.runner(), Shop()
        await runner.settle([command()], shop)

        answers = [(await runner.settle([undo(type_="shop.sell")], shop))[0] for _ in range(2)]

        assert [answer.outcome for answer in answers] == ["conflict", "conflict"]
        assert shop.ids == ["r.1"]

    @in_loop
    async def test_an_undo_that_is_too_old_does_nothing(self, bench: Bench) -> None:
        runner, shop = await bench.runner(), Shop()
        later = NOW + 8 * DAY

        [expired] = await runner.settle([undo()], shop, later)
        [young] = await runner.settle([command(sent=later)], shop, later)

        assert [expired.outcome, young.outcome] == ["expired", "done"]

    # --- two at once

    @in_loop
    async def test_the_second_of_two_claims_waits_and_gets_the_firsts_reply(self, bench: Bench) -> None:
        one, two = await bench.runner(), await bench.runner()
        inside, go_on = asyncio.Event(), asyncio.Event()
        shop = Shop()

        async def slow(_: Work, __: bytes | None) -> bytes:
            inside.set()
            await go_on.wait()
            return b"first"

        first = asyncio.create_task(one.settle([command()], slow))
        await inside.wait()
        second = asyncio.create_task(two.settle([command()], shop))
        await until(lambda: _is(bench.waiting(), 1))
        go_on.set()

        assert [answer.payload for answer in await first + await second] == [b"first", b"first"]
        assert shop.runs == []

    @in_loop
    async def test_the_second_of_two_claims_runs_when_the_first_failed(self, bench: Bench) -> None:
        one, two = await bench.runner(), await bench.runner()
        inside, go_on = asyncio.Event(), asyncio.Event()

        async def slow(_: Work, __: bytes | None) -> bytes:
            inside.set()
            await go_on.wait()
            raise RetryableError("no")

        first = asyncio.create_task(one.settle([command()], slow))
        await inside.wait()
        second = asyncio.create_task(two.settle([command()], Shop(b"second")))
        await until(lambda: _is(bench.waiting(), 1))
        go_on.set()

        assert [answer.outcome for answer in await first + await second] == ["failed", "done"]

    @in_loop
    async def test_an_undo_waits_for_its_original_in_an_open_transaction(self, bench: Bench) -> None:
        one, two = await bench.runner(), await bench.runner()
        inside, go_on = asyncio.Event(), asyncio.Event()
        shop = Shop()

        async def slow(_: Work, __: bytes | None) -> bytes:
            inside.set()
            await go_on.wait()
            return b"just in time"

        original = asyncio.create_task(one.settle([command()], slow))
        await inside.wait()
        fence = asyncio.create_task(two.settle([undo()], shop))
        await until(lambda: _is(bench.waiting(), 1))
        go_on.set()
        await original

        assert (await fence)[0].outcome == "undone"
        assert shop.runs == [("r.1~undo", b"just in time")]

    @in_loop
    async def test_a_refusal_that_comes_second_loses_to_the_stored_reply(self, bench: Bench) -> None:
        # One is refused and rolls back; before it stores the refusal, the other one has done the command.
        one, two = await bench.runner(), await bench.runner()

        async def refuse_while_the_other_waits(_: Work, __: bytes | None) -> bytes:
            others.append(asyncio.create_task(two.settle([command()], Shop(b"done by the other"))))
            await until(lambda: _is(bench.waiting(), 1))
            raise Refused("sold out")

        others: list[asyncio.Task[list[Answer]]] = []
        [mine] = await one.settle([command()], refuse_while_the_other_waits)
        [theirs] = await others[0]

        # Whoever was first at the row, both tell the same.
        assert (mine.outcome, mine.payload) == (theirs.outcome, theirs.payload)

    @in_loop
    async def test_batches_that_claim_the_same_ids_do_not_wait_for_each_other_for_ever(
        self, bench: Bench
    ) -> None:
        one, two = await bench.runner(), await bench.runner()
        works = [command(f"r.{n}") for n in range(1, 30)]
        shop = Shop()

        for _ in range(5):
            await asyncio.gather(one.settle(works, shop), two.settle(works[::-1], shop))

        assert sorted(shop.ids) == sorted(work.id for work in works)

    # --- batches

    @in_loop
    async def test_a_batch_is_answered_in_its_order(self, bench: Bench) -> None:
        runner, shop = await bench.runner(), Shop(b"b", b"a")
        await runner.settle([command("r.3")], Shop(b"before"))

        answers = await runner.settle([command("r.2"), command("r.3"), command("r.1"), void("r.9")], shop)

        assert [(a.outcome, a.payload) for a in answers] == [
            ("done", b"b"),
            ("done", b"before"),
            ("done", b"a"),
            ("voided", None),
        ]

    @pytest.mark.parametrize("error", [Refused("no"), RetryableError("later"), KeyError("bug")])
    def test_a_batch_with_one_that_raises_is_all_rolled_back(self, bench: Bench, error: Exception) -> None:
        async def run() -> None:
            runner = await bench.runner()
            works = [command("r.1"), command("r.2"), command("r.3")]
            with pytest.raises(Spoiled) as spoiled:
                await runner.settle(works, Shop(b"one", error))
            assert (spoiled.value.index, spoiled.value.error) == (1, error)
            assert [await bench.row(work.id) for work in works] == [None, None, None]

        run_with(bench, run())

    @in_loop
    async def test_in_a_guarded_batch_each_that_raises_answers_for_itself(self, bench: Bench) -> None:
        runner = await bench.runner()
        works = [command(f"r.{number}") for number in range(1, 7)]
        ends = (
            b"one",
            Refused("no"),
            RetryableError("later"),
            b"four",
            Undecodable(ValueError("poison")),
            b"six",
        )

        answers = await runner.settle(works, Shop(*ends), guarded=True)
        again = await runner.settle(works, Shop(*[b"again"] * 2), guarded=True)

        assert [(a.outcome, a.payload) for a in answers] == [
            ("done", b"one"),
            ("refused", b"Refused: no"),
            ("failed", b"RetryableError: later"),
            ("done", b"four"),
            ("undecodable", b"ValueError: poison"),
            ("done", b"six"),
        ]
        assert [a.payload for a in again] == [b"one", b"Refused: no", b"again", b"four", b"again", b"six"]
        assert [a.duplicate for a in again] == [True, True, False, True, False, True]

    @in_loop
    async def test_in_a_guarded_batch_a_failing_undo_takes_its_tombstone_back(self, bench: Bench) -> None:
        runner, shop = await bench.runner(), Shop(b"one", b"two", RetryableError("not now"), b"")
        await runner.settle([command("r.1"), command("r.2")], shop)
        works = [undo("r.1"), undo("r.3"), undo("r.2")]

        answers = await runner.settle(works, shop, guarded=True)
        again = await runner.settle(works, shop, guarded=True)

        assert [answer.outcome for answer in answers] == ["failed", "nothing", "undone"]
        assert [answer.outcome for answer in again] == ["undone", "nothing", "undone"]
        assert shop.ids == ["r.1", "r.2", "r.1~undo", "r.2~undo", "r.1~undo"]

    @in_loop
    async def test_a_claim_that_is_taken_back_lets_the_next_one_in(self, bench: Bench) -> None:
        one, two = await bench.runner(), await bench.runner()
        inside, go_on = asyncio.Event(), asyncio.Event()

        async def slow(work: Work, _: bytes | None) -> bytes:
            inside.set()
            await go_on.wait()
            if work.id == "r.1":
                raise RetryableError("no")
            return b"first"

        works = [command("r.1"), command("r.2")]
        first = asyncio.create_task(one.settle(works, slow, guarded=True))
        await inside.wait()
        second = asyncio.create_task(two.settle(works, Shop(b"second"), guarded=True))
        await until(lambda: _is(bench.waiting(), 1))
        go_on.set()

        assert [answer.outcome for answer in await first] == ["failed", "done"]
        assert [answer.payload for answer in await second] == [b"second", b"first"]

    # --- all short histories

    @pytest.mark.parametrize("first", ["command", "undo", "void"])
    def test_no_short_history_breaks_the_promise(self, bench: Bench, first: str) -> None:
        """Each sequence of four records, with a handler that does, refuses or fails."""

        async def run() -> None:
            runner = await bench.runner()
            kinds = ("command", "undo", "void")
            endings: tuple[HandlerError | None, ...] = (None, Refused("no"), RetryableError("later"))
            for number, (rest, ending) in enumerate(product(product(kinds, repeat=3), endings)):
                await check_history(runner, f"{first}{number}.1", (first, *rest), ending)

        run_with(bench, run())


async def check_history(
    runner: Runner, id_: str, kinds: Sequence[str], first_ending: HandlerError | None
) -> None:
    make: dict[str, Callable[[str], Work]] = {"command": command, "undo": undo, "void": void}
    shop = Shop(*([first_ending] if first_ending else []))
    told: list[tuple[str, str]] = []
    for kind in kinds:
        [answer] = await runner.settle([make[kind](id_)], shop)
        told.append((kind, answer.outcome))

    ran = shop.ids.count(id_) - (1 if isinstance(first_ending, HandlerError) and id_ in shop.ids[:1] else 0)
    undone = told.count(("undo", "undone"))
    assert ran <= 1, told
    if ("void", "voided") in told or ("undo", "nothing") in told:
        assert ran == 0, told
    if ("void", "executed") in told or undone:
        assert ran == 1, told
    outcomes = {outcome for kind, outcome in told if kind == "command"}
    assert not {"done", "refused"} <= outcomes, told  # a command has one final answer
    for kind in ("undo", "void"):
        assert len({outcome for each, outcome in told if each == kind} - {"failed"}) <= 1, told


async def _is(question: Coroutine[Any, Any, int], value: int) -> bool:
    return await question == value
