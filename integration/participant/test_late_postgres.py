"""Commands that are answered later, in a real Postgres."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import pytest

from kasaga_participant.courier import Whose
from kasaga_participant.inbox.late import (
    Tokens,
    Wish,
    answer_late,
    drive_late,
)
from kasaga_participant.store import PostgresStore
from participant.inbox_bench import (
    Shop,
    command,
    run_with,
)
from participant.late_suite import LateSuite, later
from participant.postgres_bench import LIMITS, PostgresBench, ThreadBench


@pytest.fixture(name="bench", params=[PostgresBench, ThreadBench])
def _bench(request: pytest.FixtureRequest, database: str) -> PostgresBench:
    kind: Callable[[str], PostgresBench] = request.param
    return kind(database)


class TestLateInPostgres(LateSuite):
    pass


def test_what_one_process_has_taken_no_other_takes_for_a_while(bench: PostgresBench) -> None:
    async def run() -> None:
        runner = await bench.runner()
        await runner.settle([command("r.1")], Shop(later()))
        token = Tokens(await bench.key()).make("r.1")
        await bench.late(answer_late("shop.buy", token, Wish("done", b"paper")))
        whose = Whose(["shop"], ["shop.replies"])
        stores = [PostgresStore(bench.url, LIMITS, name="test", threads=1, prepare=True) for _ in range(2)]
        try:
            assert await stores[0].take_late(Whose(["shop"], ["other.replies"]), 60.0, 10) == []
            assert await stores[0].take_late(Whose(["mill"], ["shop.replies"]), 60.0, 10) == []
            assert len(await stores[0].take_late(whose, 60.0, 10)) == 1
            assert await stores[1].take_late(whose, 60.0, 10) == []
            await bench.ask("UPDATE kasaga_inbox.late SET send_after = now()")
            assert len(await stores[1].take_late(whose, 60.0, 10)) == 1, "the first has died with it"
        finally:
            for store in stores:
                await store.close()

    run_with(bench, run())


def test_an_answer_holds_with_its_transaction_or_not_at_all(bench: PostgresBench) -> None:
    async def run() -> None:
        runner = await bench.runner()
        await runner.settle([command("r.1")], Shop(later()))
        token = Tokens(await bench.key()).make("r.1")
        async with await psycopg.AsyncConnection.connect(bench.url) as connection:
            await drive_late(answer_late("shop.buy", token, Wish("done", b"paper")), connection)
            await connection.rollback()
        assert await bench.replies() == []
        row = await bench.row("r.1")
        assert row is not None
        assert row.outcome == "deferred"

    run_with(bench, run())
