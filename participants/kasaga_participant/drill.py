"""A participant in drill mode: it runs compensations to see whether they would work, and takes all back.

Station: `Process` puts these parts in the place of the usual ones where `drill` is set. The topics are others
(`drill.` stands before each name), the transaction is rolled back whatever comes of it, and the inbox's own
guard against handlers that commit is up meanwhile. `kasaga drill` asks.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import cast

from psycopg import AsyncConnection, Connection
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import TupleRow

from .calls import Calls
from .errors import Forgotten, NotDrilled, StartError
from .inbox.algorithm import Abort, HandlerRaised, Invoke, Open, Plan, Undecodable
from .inbox.rows import (
    CLAIMED,
    EXPIRED,
    FAILED,
    REFUSED,
    UNDECODABLE,
    UNDONE,
    Answer,
    ExaminedRow,
    Kind,
    Later,
    NewRow,
    Rules,
    Work,
)
from .inbox.statements import statements
from .jobs import Job
from .store import Plans, PostgresStore

log = logging.getLogger("kasaga.participant")

DRILL_SECONDS = 300.0
"""What was sent longer ago isn't run: whoever asked has gone."""

EncodeError = Callable[[BaseException], bytes]


class Drill:
    """What may be run. `alone`: compensations that are declared `alone=True`, too."""

    def __init__(self, *, alone: bool) -> None:
        self._alone = alone

    def plan(
        self,
        works: Sequence[Work],
        rules: Rules,
        clock: Callable[[], float],
        encode_error: EncodeError,
        *,
        guarded: bool = False,
    ) -> Plan[list[Answer]]:
        """In the place of `algorithm.settle`: a transaction for each, and never a commit."""
        answers: list[Answer] = []
        for work in works:
            why = self._not_run(work, rules)
            if why is not None:
                answers.append(Answer(REFUSED, encode_error(why), why))
            elif clock() - work.sent > DRILL_SECONDS:
                late = Forgotten(f"{work.id} is a drill of long ago")
                answers.append(Answer(EXPIRED, encode_error(late), late))
            else:
                answers.append((yield from _rehearse(work, encode_error)))
        return answers

    def _not_run(self, work: Work, rules: Rules) -> NotDrilled | None:
        if work.kind is not Kind.UNDO:
            return NotDrilled(f"{work.type} is no compensation")
        if not rules.remembers:
            return NotDrilled(f"{work.type} runs without a transaction: nothing could be taken back")
        handler = cast(Job, work.call).handler
        if handler is not None and handler.alone and not self._alone:
            return NotDrilled(f"{work.type} is declared alone=True: it may call the outside")
        return None


def _rehearse(work: Work, encode_error: EncodeError) -> Plan[Answer]:
    # The claim is there for its trigger alone: no COMMIT in a handler's SQL gets past it.
    yield Open((NewRow(work.id, work.type, None, CLAIMED),), False)
    try:
        yield Invoke(work, None)
    except HandlerRaised as raised:
        yield Abort()
        error = raised.error
        if isinstance(error, Undecodable):
            return Answer(UNDECODABLE, encode_error(error.error), error.error)
        return Answer(FAILED, encode_error(error), error, ran=True)
    yield Abort()
    return Answer(UNDONE, ran=True)


class DrillCalls(Calls):
    """Runs handlers that wait for nobody long, and looks at what only a commit would look at."""

    async def call(
        self, work: Work, stored: bytes | None, connection: AsyncConnection[TupleRow] | None
    ) -> bytes | Later | None:
        """As `Calls.call`. Raises what a deferred constraint finds, too."""
        if connection is None:
            return await super().call(work, stored, connection)
        await connection.execute(statements()["drill_limits"])
        result = await super().call(work, stored, connection)
        for name in ("answered", "drill_check"):
            await connection.execute(statements()[name])
        return result

    def call_sync(
        self, work: Work, stored: bytes | None, connection: Connection[TupleRow] | None
    ) -> bytes | Later | None:
        """The same in a thread."""
        if connection is None:
            return super().call_sync(work, stored, connection)
        connection.execute(statements()["drill_limits"])
        result = super().call_sync(work, stored, connection)
        for name in ("answered", "drill_check"):
            connection.execute(statements()[name])
        return result


def guarded_url(url: str) -> str:
    """The database, where nothing can be written but in transactions that the drill itself has begun."""
    given = conninfo_to_dict(url).get("options") or ""
    return make_conninfo(url, options=f"{given} -c default_transaction_read_only=on".strip())


class DrillStore:
    """A database in which nothing is made, changed or forgotten."""

    remembers = True

    def __init__(self, store: PostgresStore) -> None:
        self._store = store

    async def settle(self, plans: Plans, calls: Calls, *, sync: bool) -> list[Answer]:
        """See `Store.settle`."""
        return await self._store.settle(plans, calls, sync=sync)

    async def prepare(self) -> list[str]:
        """Look whether the tables are there. Raises StartError and psycopg.Error."""
        missing = await self._store.lacks()
        if missing:
            raise StartError(
                f"the database lacks the inbox's {', '.join(missing)}",
                remedy="name the service's own database, or a copy of it; a drill makes no tables",
            )
        return []

    async def purge(self, retention: float) -> int:
        """Forget nothing."""
        return 0

    async def examine(self, runs: Sequence[str], after: str, limit: int) -> list[ExaminedRow]:
        """See `Store.examine`."""
        return await self._store.examine(runs, after, limit)

    async def close(self) -> None:
        """Close all connections."""
        await self._store.close()
