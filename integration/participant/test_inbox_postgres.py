"""The inbox in a real Postgres, async and in threads, against the suite; and what only a database can do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import psycopg
import pytest

from kasaga_participant.errors import Refused, RetryableError
from kasaga_participant.inbox.algorithm import Close, Spoiled, settle
from kasaga_participant.inbox.connections import HandlerConnection
from kasaga_participant.inbox.drive import InboxAway, RowEffect, drive_async
from kasaga_participant.inbox.postgres import PostgresSession
from kasaga_participant.inbox.rows import Answer, Work
from kasaga_participant.inbox.statements import migrations
from kasaga_participant.inbox.upkeep import migrate, pending, purge_slice
from participant.inbox_bench import (
    DAY,
    NOW,
    RULES,
    Shop,
    command,
    encode_error,
    run_with,
    undo,
    until,
)
from participant.inbox_suite import InboxSuite
from participant.postgres_bench import EFFECT, LIMITS, AsyncRunner, PostgresBench, Result, ThreadBench


@pytest.fixture(name="bench", params=[PostgresBench, ThreadBench])
def _bench(request: pytest.FixtureRequest, database: str) -> PostgresBench:
    kind: Callable[[str], PostgresBench] = request.param
    return kind(database)


class TestPostgres(InboxSuite):
    pass


# --- one transaction for the handler's SQL, the row and the reply


def test_what_a_handler_wrote_before_it_raised_is_rolled_back(bench: PostgresBench) -> None:
    async def run() -> None:
        runner = await bench.runner()
        shop = Shop(RetryableError("no"), Refused("no"))

        await runner.settle([command("r.1")], shop)
        await runner.settle([command("r.1")], shop)
        await runner.settle([command("r.2")], shop)

        assert await bench.effects() == ["r.2"]

    run_with(bench, run())


def test_a_spoiled_batch_leaves_no_effects(bench: PostgresBench) -> None:
    async def run() -> None:
        runner = await bench.runner()
        works = [command("r.1"), command("r.2"), command("r.3")]
        with pytest.raises(Spoiled):
            await runner.settle(works, Shop(b"one", b"two", Refused("no")))
        assert await bench.effects() == []
        await runner.settle(works, Shop())
        assert await bench.effects() == ["r.1", "r.2", "r.3"]

    run_with(bench, run())


def test_in_a_guarded_batch_only_the_effects_of_those_that_raised_are_gone(bench: PostgresBench) -> None:
    async def run() -> None:
        runner, works = await bench.runner(), [command(f"r.{number}") for number in range(1, 6)]
        ends = (b"one", Refused("no"), b"three", RetryableError("later"), b"five")
        await runner.settle(works, Shop(*ends), guarded=True)

        assert await bench.effects() == ["r.1", "r.3", "r.5"]
        kept = [await bench.row(work.id) for work in works]
        assert [row and row.outcome for row in kept] == ["done", "refused", "done", None, "done"]

    run_with(bench, run())


@pytest.mark.parametrize("kept", [False, True], ids=["its own connection", "a cursor of an earlier handler"])
def test_handlers_that_ask_nothing_cost_no_savepoint_and_spoil_none(database: str, kept: bool) -> None:
    """Of five, two write nothing; each that raises takes back what it wrote, and no other's."""
    ends = {"r.2": Refused("no"), "r.3": Refused("no"), "r.5": Refused("no")}
    silent = {"r.2", "r.4"}

    async def run() -> None:
        connection = await bench.connect()
        session, cursor = PostgresSession(connection, LIMITS), connection.cursor()

        async def invoke(work: Work, _: bytes | None, lent: HandlerConnection) -> bytes:
            if work.id not in silent:
                await (cursor if kept else lent).execute(EFFECT, (work.id,))
            if work.id in ends:
                raise ends[work.id]
            return b"done"

        works = [command(f"r.{number}") for number in range(1, 6)]
        plan = settle(works, RULES, lambda: NOW, encode_error, guarded=True)
        answers = await drive_async(plan, session, invoke)

        assert [answer.outcome for answer in answers] == ["done", "refused", "refused", "done", "refused"]
        assert await bench.effects() == ["r.1"]

    bench = PostgresBench(database)
    run_with(bench, run())


@pytest.mark.parametrize("committed", [True, False])
def test_when_the_answer_to_a_commit_is_lost_the_next_claim_tells(database: str, committed: bool) -> None:
    class Deaf(PostgresSession):
        async def rows(self, effect: RowEffect) -> Any:
            if isinstance(effect, Close):
                if committed:
                    await super().rows(effect)
                await self.connection.close()
                raise InboxAway(psycopg.OperationalError("the answer is lost"))
            return await super().rows(effect)

    async def run() -> None:
        connection = await bench.connect()
        shop = Shop(b"once", b"again")
        with pytest.raises(InboxAway):
            await AsyncRunner(connection, Deaf(connection, LIMITS)).settle([command()], shop)

        [answer] = await (await bench.runner()).settle([command()], shop)

        assert answer.payload == (b"once" if committed else b"again")
        assert answer.duplicate is committed
        assert await bench.effects() == ["r.1"]

    bench = PostgresBench(database)
    run_with(bench, run())


def test_a_connection_that_dies_under_a_handler_is_not_the_handlers_failure(bench: PostgresBench) -> None:
    async def die(work: Work, _: bytes | None) -> bytes:
        await bench.ask(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid() AND state LIKE 'idle in%%'"
        )
        await until(lambda: gone(bench))
        raise psycopg.OperationalError("what a handler's next statement would raise")

    async def gone(bench: PostgresBench) -> bool:
        return not await bench.ask(
            "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in%%'"
        )

    async def run() -> None:
        runner = await bench.runner()
        with pytest.raises(InboxAway):
            await runner.settle([command()], die)

    run_with(bench, run())


# --- handlers that meddle with the transaction


async def _settle_with(
    bench: PostgresBench, meddle: Callable[[HandlerConnection], Any], works: Sequence[Work]
) -> list[Answer]:
    connection = await bench.connect()

    async def invoke(work: Work, stored: bytes | None, connection: HandlerConnection) -> Result:
        await connection.execute(EFFECT, (work.id,))
        await meddle(connection)
        return b"done"

    session = PostgresSession(connection, LIMITS)
    try:
        return await drive_async(settle(works, RULES, lambda: NOW, encode_error), session, invoke)
    finally:
        await connection.close()


def test_a_handler_can_neither_commit_nor_roll_back(database: str) -> None:
    async def run() -> None:
        [committed] = await _settle_with(bench, lambda c: c.commit(), [command()])
        [rolled_back] = await _settle_with(bench, lambda c: c.rollback(), [command()])

        assert [committed.outcome, rolled_back.outcome] == ["failed", "failed"]
        assert b"TransactionOwned" in (committed.payload or b"")
        assert await bench.effects() == []

    bench = PostgresBench(database)
    run_with(bench, run())


@pytest.mark.parametrize("statement", ["COMMIT", "ROLLBACK"])
def test_ending_the_transaction_by_sql_never_commits_a_claim(database: str, statement: str) -> None:
    async def run() -> None:
        [answer] = await _settle_with(bench, lambda c: c.execute(statement.encode()), [command()])

        assert (answer.outcome, (answer.payload or b"").split(b":")[0]) == ("failed", b"TransactionEnded")
        assert await bench.effects() == []
        assert await bench.row("r.1") is None

    bench = PostgresBench(database)
    run_with(bench, run())


@pytest.mark.parametrize("statement", ["COMMIT", "ROLLBACK"])
def test_ending_the_transaction_of_a_guarded_batch_spoils_it(database: str, statement: str) -> None:
    """A savepoint is of no use where the transaction is gone."""

    async def run() -> None:
        runner, shop = await bench.runner(), Shop(b"one", Refused("no"))

        async def end(work: Work, stored: bytes | None) -> Result:
            if work.id == "r.3":
                await runner.connection.execute(statement.encode())
            return await shop(work, stored)

        works = [command("r.1"), command("r.2"), command("r.3")]
        with pytest.raises(Spoiled) as spoiled:
            await runner.settle(works, end, guarded=True)

        assert spoiled.value.index == 2
        assert await bench.effects() == []
        assert [await bench.row(work.id) for work in works] == [None, None, None]

    bench = PostgresBench(database)
    run_with(bench, run())


def test_a_statement_that_fails_in_a_guarded_batch_fails_its_own_command(database: str) -> None:
    async def run() -> None:
        runner = await bench.runner()

        async def divide(work: Work, _: bytes | None) -> bytes:
            await runner.connection.execute("SELECT 1 / %s", (0 if work.id == "r.2" else 1,))
            return b"done"

        answers = await runner.settle([command(f"r.{n}") for n in (1, 2, 3)], divide, guarded=True)

        assert [answer.outcome for answer in answers] == ["done", "failed", "done"]
        assert await bench.effects() == ["r.1", "r.3"]

    bench = PostgresBench(database)
    run_with(bench, run())


def test_a_swallowed_database_error_is_the_handlers_failure(database: str) -> None:
    async def swallow(connection: HandlerConnection) -> None:
        with pytest.raises(psycopg.errors.UndefinedTable):
            await connection.execute("SELECT * FROM no_such_table")

    async def run() -> None:
        [answer] = await _settle_with(bench, swallow, [command()])

        assert (answer.outcome, (answer.payload or b"").split(b":")[0]) == ("failed", b"TransactionAborted")

    bench = PostgresBench(database)
    run_with(bench, run())


def test_a_savepoint_of_the_handlers_own_is_fine(database: str) -> None:
    async def try_and_go_on(connection: HandlerConnection) -> None:
        async def inside() -> None:
            async with connection.transaction():
                await connection.execute(EFFECT, ("inside",))
                await connection.execute("SELECT * FROM no_such_table")

        with pytest.raises(psycopg.errors.UndefinedTable):
            await inside()

    async def run() -> None:
        [answer] = await _settle_with(bench, try_and_go_on, [command()])

        assert answer.outcome == "done"
        assert await bench.effects() == ["r.1"]

    bench = PostgresBench(database)
    run_with(bench, run())


def test_rowcount_is_known_to_handlers(database: str) -> None:
    async def count(connection: HandlerConnection) -> None:
        cursor = await connection.execute("UPDATE effect SET command = 'x' WHERE command = 'nobody'")
        assert cursor.rowcount == 0

    async def run() -> None:
        [answer] = await _settle_with(bench, count, [command()])
        assert answer.outcome == "done"

    bench = PostgresBench(database)
    run_with(bench, run())


def test_a_handler_that_cancels_itself_only_fails(database: str) -> None:
    async def cancelled(_: HandlerConnection) -> None:
        raise asyncio.CancelledError

    async def run() -> None:
        [answer] = await _settle_with(bench, cancelled, [command()])
        assert answer.outcome == "failed"

    bench = PostgresBench(database)
    run_with(bench, run())


# --- the tables


def test_migrating_twice_and_at_once_is_fine(database: str) -> None:
    async def run() -> None:
        async def one() -> list[str]:
            async with await psycopg.AsyncConnection.connect(database, autocommit=True) as connection:
                return await migrate(connection)

        applied = await asyncio.gather(one(), one(), one())
        assert sorted(map(len, applied)) == [0, 0, len(migrations())]
        async with await psycopg.AsyncConnection.connect(database, autocommit=True) as connection:
            assert await pending(connection) == []

    asyncio.run(run())


def test_only_rows_not_used_for_the_retention_are_purged(database: str) -> None:
    async def run() -> None:
        runner, shop = await bench.runner(), Shop()
        await runner.settle([command("r.1"), command("r.2"), command("r.3")], shop)
        await bench.ask("UPDATE kasaga_inbox.inbox SET used_at = now() - interval '13 days' WHERE id = 'r.1'")
        await bench.ask(
            "UPDATE kasaga_inbox.inbox SET used_at = now() - interval '15 days' WHERE id <> 'r.1'"
        )
        await runner.settle([command("r.2")], shop)  # used again

        async with await psycopg.AsyncConnection.connect(bench.url, autocommit=True) as connection:
            assert await purge_slice(connection, 14 * DAY) == 1
            assert await purge_slice(connection, 14 * DAY) == 0

        assert [await bench.row(id_) is None for id_ in ("r.1", "r.2", "r.3")] == [False, False, True]

    bench = PostgresBench(database)
    run_with(bench, run())


def test_a_claim_without_an_answer_cannot_be_committed(database: str) -> None:
    bench = PostgresBench(database)
    with psycopg.connect(bench.url) as connection:
        connection.execute(
            "INSERT INTO kasaga_inbox.inbox (id, type, outcome) VALUES ('r.1', 'shop.buy', 'claimed')"
        )
        with pytest.raises(psycopg.DatabaseError, match=r"r\.1 would be committed without its reply"):
            connection.commit()


def test_an_undo_in_a_batch_is_fenced_like_alone(bench: PostgresBench) -> None:
    async def run() -> None:
        runner, shop = await bench.runner(), Shop()
        await runner.settle([command("r.1"), command("r.2")], shop)

        answers = await runner.settle([undo("r.1"), undo("r.3"), command("r.4"), undo("r.2")], shop)

        assert [answer.outcome for answer in answers] == ["undone", "nothing", "done", "undone"]
        assert await bench.effects() == ["r.1", "r.2", "r.1~undo", "r.4", "r.2~undo"]

    run_with(bench, run())


def test_no_statement_reads_the_whole_table(database: str) -> None:
    """Not even one whose plan the session has kept since the table was known to be empty."""

    async def scans(runner: AsyncRunner) -> int:
        await runner.connection.execute("SELECT pg_stat_force_next_flush()")
        [[number]] = await bench.ask("SELECT seq_scan FROM pg_stat_user_tables WHERE relname = 'inbox'")
        return int(number)

    async def run() -> None:
        runner, shop = await bench.runner(), Shop()
        await bench.ask("ANALYZE kasaga_inbox.inbox")
        for number in range(20):  # psycopg prepares at the fifth time, Postgres keeps a plan at the tenth
            await runner.settle([command(f"r.{number}"), command(f"s.{number}")], shop)
            await runner.settle([command(f"r.{number}")], shop)  # a duplicate
        await bench.ask(
            "INSERT INTO kasaga_inbox.inbox (id, type, outcome)"
            " SELECT 'x.' || n, 'shop.buy', 'done' FROM generate_series(1, 20000) AS n"
        )
        before = await scans(runner)

        for number in range(20):
            await runner.settle([command(f"t.{number}"), undo(f"r.{number}")], shop)
            await runner.settle([command(f"t.{number}")], shop)

        assert await scans(runner) == before

    bench = PostgresBench(database)
    run_with(bench, run())
