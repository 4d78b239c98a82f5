"""The store in Postgres.

Station: the loop's thread holds one; its commits, leases and reads go over one connection (`session`),
people's reads over others (`readers`). What a commit does stands in `commit`, the fence in the
migrations.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from uuid import UUID, uuid4

from psycopg.errors import LockNotAvailable, QueryCanceled

from kasaga.errors import SearchTooSlow
from kasaga.store import rows
from kasaga.store.base import (
    Attention,
    Batch,
    Committed,
    DefinitionRow,
    HistoryRow,
    Membership,
    Namespace,
    OutboxRow,
    Pulse,
    Replace,
    SagaFilter,
    SagaRow,
    SagaState,
    ShardLease,
    ShardRow,
    Tokens,
)
from kasaga.store.checks import check_batch, refusal_of_text
from kasaga.store.commit import Commit, Replaced
from kasaga.store.errors import NotMigrated, StoreUnavailable
from kasaga.store.migrate import known_migrations
from kasaga.store.postgres_hearing import PostgresHearing
from kasaga.store.postgres_locks import PostgresLocks
from kasaga.store.postgres_purging import PostgresPurging
from kasaga.store.postgres_scheduling import PostgresScheduling
from kasaga.store.readers import Readers
from kasaga.store.rows import pulse as pulse_of
from kasaga.store.sealed import open_bodies, open_histories, open_result
from kasaga.store.search import list_call, tally_call
from kasaga.store.session import Row, Session, SessionCounters
from kasaga.store.settings import StoreSettings
from kasaga.store.statements import Call, read_statements
from kasaga_wire.sealing import PLAIN, Sealer

HISTORY_PAGE = 1000
"""Rows of one saga's history read at a time for people."""

_FIRST = (datetime(1970, 1, 1, tzinfo=UTC), 0)
"""Before any timer."""

_LEASE = read_statements("lease")
_READ = read_statements("read")


class PostgresStore(PostgresPurging, PostgresLocks, PostgresHearing, PostgresScheduling):
    """`base.Store` in the schema `kasaga` of a Postgres database."""

    def __init__(
        self,
        settings: StoreSettings | str,
        *,
        tokens: Callable[[], UUID] = uuid4,
        application: str = "kasaga",
        readers: int = 0,
        sealer: Sealer = PLAIN,
    ) -> None:
        """Connects at the first call.

        `tokens` makes the random token of a claim; `application` is shown by pg_stat_activity; so many
        connections for `readers` are kept when people's reads are done. `sealer`: for histories and results.
        """
        self._settings = StoreSettings(settings) if isinstance(settings, str) else settings
        self._sealer = sealer
        self._application = application
        self._session = Session(self._settings, application=application)
        self._readers = Readers(self._reading, readers)
        self._purger, self._hearer = self._reading(), self._reading()
        self._scheduler, self._scheduling = self._reading(), threading.Lock()
        self._tokens = tokens
        self._replaced = Replaced()

    @property
    def counters(self) -> SessionCounters:
        """What the loop's connection did so far."""
        return self._session.counters

    @property
    def backend_pid(self) -> int:
        """The server process behind the loop's connection, which is opened if there is none."""
        return self._session.backend_pid

    def namespace(self) -> Namespace:
        """Return the namespace row; raises NotMigrated where it or a migration is missing."""
        applied = {name for (name,) in self._ask(_READ["migrations"].bind())}
        missing = [name for name in known_migrations() if name not in applied and "_pre_" in name]
        found = self._ask(_READ["namespace"].bind())
        if missing or not found:
            raise NotMigrated(f"the database lacks {', '.join(missing) or 'its namespace'}")
        return Namespace(*found[0])

    # leases
    def heartbeat(
        self, process: str, tokens: Tokens, *, ttl: float, leaving: bool = False, sagas: Sequence[str] = ()
    ) -> Membership:
        """See `base.Store.heartbeat`."""
        shards, held = _split(tokens)
        if leaving:
            # A life of no seconds; functions that older releases call as well stay as they are.
            calls = (_LEASE["renew"].bind(shards, held, ttl), _LEASE["heartbeat"].bind(process, [], [], 0.0))
            return rows.membership(self._session.rows(self._session.run(*calls)[1]))
        beat = _LEASE["heartbeat"].bind(process, shards, held, ttl)
        if not sagas:
            return rows.membership(self._session.query(beat))
        beaten, has = self._session.run(beat, _LEASE["has"].bind(process, list(sagas), ttl))
        made = rows.membership(self._session.rows(beaten))
        made.sagas = {name: frozenset(listed) for name, listed in self._session.rows(has)}
        return made

    def claim(self, shard: int, process: str, *, ttl: float) -> ShardRow | None:
        """See `base.Store.claim`. Waits up to `claim_timeout` for the row, then ends who holds it."""
        wait = str(max(1, round(self._settings.claim_timeout * 1000)))
        calls = (_LEASE["lock_timeout"].bind(wait), _LEASE["claim"].bind(shard, process, self._tokens(), ttl))
        try:
            found = self._session.rows(self._session.run(*calls)[1])
        except StoreUnavailable as unavailable:
            if not isinstance(unavailable.__cause__, LockNotAvailable):
                raise
            self._session.run(_LEASE["terminate_holder"].bind(shard))
            found = self._session.rows(self._session.run(*calls)[1])
        return rows.shard_row(shard, found[0]) if found else None

    def release(self, tokens: Sequence[tuple[int, UUID]], process: str | None = None) -> None:
        """See `base.Store.release`."""
        self._session.run(_LEASE["release"].bind(*_split(tokens), process))

    def pardon(self, shard: int, token: UUID) -> None:
        """See `base.Store.pardon`."""
        self._session.run(_LEASE["pardon"].bind(shard, token))

    # reading, for the loop
    def open_rows(self, shard: int, *, acked: int = 0, asleep: bool = True) -> list[OutboxRow]:
        """See `base.Store.open_rows`."""
        call = _READ["open_rows"].bind(shard, acked, asleep)
        return [rows.outbox_row(row) for row in self._session.query(call)]

    def timers(self, shard: int, after: tuple[datetime, int] | None, limit: int) -> list[OutboxRow]:
        """See `base.Store.timers`."""
        call = _READ["timers"].bind(shard, *(after or _FIRST), limit)
        return [rows.outbox_row(row) for row in self._session.query(call)]

    def timers_behind(self, places: Sequence[tuple[int, datetime, int]]) -> int:
        """See `base.Store.timers_behind`."""
        shards, times, seqs = [[each[number] for each in places] for number in range(3)]
        [(count,)] = self._ask(_READ["timers_behind"].bind(shards, times, seqs))
        return int(count)

    def find(self, sagas: Sequence[tuple[int, str]]) -> dict[str, SagaRow]:
        """See `base.Store.find`; purged ids within the time of remembering are found as well."""
        sagas = [(shard, saga_id) for shard, saga_id in sagas if refusal_of_text(saga_id) is None]
        if not sagas:
            return {}
        shards, ids = zip(*sagas, strict=True)
        results = self._session.run(_READ["find_ended"].bind(shards, ids), _READ["find"].bind(shards, ids))
        found = [self._saga(row) for result in results for row in self._session.rows(result)]
        return {row.saga_id: row for row in found}

    def find_runs(self, runs: Sequence[tuple[int, UUID]]) -> dict[UUID, SagaRow]:
        """See `base.Store.find_runs`."""
        if not runs:
            return {}
        found = self._session.query(_READ["find_runs"].bind(*zip(*runs, strict=True)))
        return {row.run_id: row for row in map(self._saga, found)}

    def load(self, runs: Sequence[tuple[int, UUID]]) -> dict[UUID, list[HistoryRow]]:
        """See `base.Store.load`."""
        if not runs:
            return {}
        return open_histories(self._sealer, self._session.query(_READ["load"].bind(*zip(*runs, strict=True))))

    def parked(self, shard: int, code: str) -> list[UUID]:
        """See `base.Store.parked`."""
        return [run_id for (run_id,) in self._session.query(_READ["parked"].bind(shard, code))]

    # reading, for the thread that exports spans
    def touched(self, shard: int, since: datetime, until: datetime, *, limit: int) -> list[UUID]:
        """See `base.Store.touched`; reads the pages written to since, by the index on time."""
        return [run_id for (run_id,) in self._ask(_READ["touched"].bind(shard, since, until, limit))]

    def histories(self, runs: Sequence[tuple[int, UUID]]) -> dict[UUID, list[HistoryRow]]:
        """See `base.Store.histories`."""
        if not runs:
            return {}
        return open_histories(self._sealer, self._ask(_READ["histories"].bind(*zip(*runs, strict=True))))

    # writing
    def commit(self, batch: Batch, replace: Replace) -> Committed:
        """See `base.Store.commit`."""
        check_batch(batch)
        return Commit(self._session, batch, replace, self._replaced, self._sealer).write()

    def put_schemas(self, schemas: Mapping[bytes, str]) -> None:
        """See `base.Store.put_schemas`."""
        if schemas:
            self._session.run(_READ["put_schemas"].bind(list(schemas), list(schemas.values())))

    def schemas(self) -> dict[bytes, str]:
        """See `base.Store.schemas`."""
        return dict(self._ask(_READ["schemas"].bind()))

    # what can be started
    def fleet(self) -> dict[str, frozenset[str]]:
        """See `base.Store.fleet`."""
        return {name: frozenset(listed) for name, listed in self._ask(_LEASE["fleet"].bind())}

    def announce(self, definitions: Sequence[DefinitionRow]) -> None:
        """See `base.Store.announce`. Sorted, so that two processes lock the rows in one order.

        Over a connection of its own: it is done again now and then, beside the loop.
        """
        ordered = sorted(definitions, key=_which)
        names, versions = [each.name for each in ordered], [each.version for each in ordered]
        schemas = [each.input for each in ordered], [each.result for each in ordered]
        forms = [each.form for each in ordered]
        session = self._reading()
        try:
            session.run(
                _READ["announce"].bind(names, versions, *schemas, forms),
                _READ["withdraw"].bind(names, versions),
            )
        finally:
            session.close()

    def definitions(self) -> list[DefinitionRow]:
        """See `base.Store.definitions`."""
        return [DefinitionRow(*row) for row in self._ask(_READ["definitions"].bind())]

    # reading, for people
    def list_sagas(self, where: SagaFilter, *, after: UUID | None = None, limit: int = 100) -> list[SagaRow]:
        """See `base.Store.list_sagas`."""
        if _is_unkeepable(where):
            return []
        return [
            open_result(self._sealer, rows.listed_row(row))
            for row in self._search(list_call(where, after, limit))
        ]

    def count(self, where: SagaFilter) -> dict[SagaState, int]:
        """See `base.Store.count`; reads every saga that no index leads past."""
        found: dict[SagaState, int] = {}
        for (_, state), number in self.tally(where).items():
            found[state] = found.get(state, 0) + number
        return found

    def tally(self, where: SagaFilter) -> dict[tuple[str, SagaState], int]:
        """See `base.Store.tally`."""
        if _is_unkeepable(where):
            return {}
        found = self._search(tally_call(where))
        return {(name, SagaState(state)): number for name, state, number in found}

    def _saga(self, row: Row) -> SagaRow:
        return open_result(self._sealer, rows.saga_row(row))

    def _search(self, call: Call) -> list[Row]:
        try:
            return self._ask(call)
        except StoreUnavailable as unavailable:
            if isinstance(unavailable.__cause__, QueryCanceled):
                seconds = self._settings.people_timeout
                raise SearchTooSlow(f"the database took more than {seconds:g} s, and gave up") from None
            raise

    def attention(self, shards: Sequence[int]) -> list[Attention]:
        """See `base.Store.attention`; reads the partial index of these states."""
        found = self._ask(_READ["attention"].bind(shards))
        return [Attention(name, SagaState(state), count, oldest) for name, state, count, oldest in found]

    def pulse(
        self, *, seconds: float = 300.0, slices: int = 60, newest: int = 10_000, rows: int = 50_000
    ) -> Pulse:
        """See `base.Store.pulse`."""
        session = Session(self._settings, application=self._application, people=True)
        calls = (_READ["pulse"].bind(newest, seconds, slices), _READ["pulse_open"].bind(rows))
        try:
            recent, open_rows = (session.rows(result) for result in session.run(*calls))
        finally:
            session.close()
        return pulse_of(recent[0], open_rows, rows)

    def saga(self, saga_id: str) -> SagaRow | None:
        """See `base.Store.saga`."""
        if refusal_of_text(saga_id) is not None:
            return None
        found = self._ask(_READ["saga"].bind(saga_id)) or self._ask(_READ["saga_ended"].bind(saga_id))
        return open_result(self._sealer, rows.listed_row(found[0])) if found else None

    def history(self, row: SagaRow, *, since: int = 0) -> Iterable[HistoryRow]:
        """See `base.Store.history`; read by pages while it is iterated."""
        return self._pages(row, since - 1)

    def _pages(self, row: SagaRow, last: int) -> Iterator[HistoryRow]:
        while True:
            page = self._ask(_READ["history"].bind(row.shard, row.run_id, last, HISTORY_PAGE))
            for entry in page:
                made = rows.history_row(entry)
                open_bodies(self._sealer, row.run_id, (made,))
                yield made
            if len(page) < HISTORY_PAGE:
                return
            last = page[-1][0]

    def waits(self, row: SagaRow) -> list[OutboxRow]:
        """See `base.Store.waits`; reads the shard's whole outbox."""
        return [rows.outbox_row(found) for found in self._ask(_READ["waits"].bind(row.shard, row.run_id))]

    def waiting(self, shard: int, *, after: int = 0, limit: int = 500) -> tuple[list[SagaRow], int | None]:
        """See `base.Store.waiting`."""
        page = self._ask(_READ["open_runs"].bind(shard, after, limit))
        runs = list(dict.fromkeys(run_id for _, run_id in page if run_id is not None))
        found = self._ask(_READ["runs"].bind(shard, runs)) if runs else []
        return [self._saga(row) for row in found], page[-1][0] if len(page) == limit else None

    def shards(self) -> list[ShardLease]:
        """See `base.Store.shards`."""
        return [ShardLease(*row) for row in self._ask(_READ["shards"].bind())]

    def close(self) -> None:
        """See `base.Store.close`."""
        self._session.close()
        self._readers.close()
        self._purger.close()
        self._hearer.close()
        self._scheduler.close()

    def _ask(self, call: Call) -> list[Row]:
        """Run one read over a connection of its own: safe in any thread, never in the loop's way."""
        return self._readers.query(call)

    def _reading(self) -> Session:
        return Session(self._settings, application=self._application, people=True)


def _which(definition: DefinitionRow) -> tuple[str, int]:
    return definition.name, definition.version


def _split(tokens: Sequence[tuple[int, UUID]]) -> tuple[list[int], list[UUID]]:
    """Return shards and tokens as columns, in the order in which rows are locked."""
    ordered = sorted(tokens)
    return [shard for shard, _ in ordered], [token for _, token in ordered]


def _is_unkeepable(where: SagaFilter) -> bool:
    """Return whether a filter names something that no row can hold, such as a NUL."""
    return refusal_of_text(where.name, where.saga_id, where.saga_id_prefix, where.code) is not None
