"""One connection to Postgres, and the one way to use it: some statements, one flush, one transaction.

Station: below `postgres` and `commit`, above libpq. psycopg connects, gives names to errors and decodes
rows; the sending and waiting is done here on its `pq` layer, because a cursor costs 30–50 µs a statement and
a commit has up to six. The statements up to a Sync are one implicit transaction of the server: it commits at
the Sync, or nothing was written. After any failure on the way the connection is thrown away if it isn't
idle, and the next call connects anew: no try is repeated in here.
"""

from __future__ import annotations

import select
import threading
from dataclasses import dataclass
from time import monotonic
from typing import Any

import psycopg
from psycopg import pq
from psycopg.adapt import AdaptersMap, Loader, Transformer
from psycopg.errors import error_from_result

from kasaga.store.encode import from_microseconds
from kasaga.store.errors import NotMigrated, ServerUnfit, StoreDenied, StoreUnavailable
from kasaga.store.settings import StoreSettings
from kasaga.store.statements import Call, read_statements
from kasaga_wire.crashpoints import crash_point

OLDEST_SERVER = 140000
"""client_connection_check_interval and pipelines that we rely on came with 14."""

_LATER = frozenset({"08", "25", "40", "53", "57", "58"})
"""SQLSTATE classes that a later try can mend: connection, transaction state (read-only after a switch-over,
ended when idle), conflict, resources, operator, the server's disks."""
_LOCK_TIMEOUT = "55P03"
_MISSING = frozenset({"3F000", "42P01", "42703", "42883"})
_DENIED = frozenset({"42501"})

_SQL = read_statements("session")

Row = tuple[Any, ...]


class _UtcLoader(Loader):
    """timestamptz to UTC, whatever the session's time zone."""

    format = pq.Format.BINARY

    def load(self, data: bytes | bytearray | memoryview) -> object:
        return from_microseconds(int.from_bytes(data, "big", signed=True))


class _Decoding:
    """What `Transformer` asks of a connection, without one: results outlive theirs."""

    adapters = AdaptersMap(psycopg.adapters)
    connection = None


_Decoding.adapters.register_loader("timestamptz", _UtcLoader)


@dataclass(slots=True)
class SessionCounters:
    """What a session did since it was made."""

    connects: int = 0
    flushes: int = 0
    statements: int = 0


class Session:
    """A connection that is opened when needed; `run` may be called by several threads, one at a time."""

    def __init__(self, settings: StoreSettings, *, application: str = "kasaga", people: bool = False) -> None:
        """`people`: for lists and counts, planned by their values and allowed to scan."""
        self.counters = SessionCounters()
        self._settings = settings
        self._conninfo = settings.connection_string(application)
        self._people = people
        self._prepare = settings.prepare and not people
        self._prefix = [self._basic_settings(local=True)] if settings.pooled else []
        if settings.read_only:
            self._prefix.append(_SQL["read_only"].bind())
        self._lock = threading.RLock()
        self._connection: psycopg.Connection[Any] | None = None
        self._prepared: set[bytes] = set()

    def run(self, *calls: Call) -> list[pq.abc.PGresult]:
        """Run statements in one transaction and return their results.

        Raises StoreUnavailable for what a later try can mend, NotMigrated and StoreDenied; any other refusal
        as psycopg's error, with the statement's name as a note.
        """
        with self._lock:
            connection = self._connected()
            try:
                return self._flush(connection, [*self._prefix, *calls])[len(self._prefix) :]
            except psycopg.Error as error:
                self._keep_if_idle()
                raise _translated(error) from error
            except BaseException:
                self._drop()
                raise

    @staticmethod
    def rows(result: pq.abc.PGresult) -> list[Row]:
        """Decode a result's rows."""
        transformer = Transformer(_Decoding())
        transformer.set_pgresult(result)
        return transformer.load_rows(0, result.ntuples, tuple)

    def query(self, call: Call) -> list[Row]:
        """Run one statement and decode its rows."""
        return self.rows(self.run(call)[0])

    @property
    def backend_pid(self) -> int:
        """The server's process; connects if need be."""
        with self._lock:
            return self._connected().info.backend_pid

    @property
    def connected(self) -> bool:
        """There is a connection, as far as is known."""
        return self._connection is not None

    def close(self) -> None:
        """Close the connection; the next `run` would open another."""
        with self._lock:
            self._drop()

    def _connected(self) -> psycopg.Connection[Any]:
        if self._connection is None:
            try:
                connection = psycopg.connect(self._conninfo, autocommit=True)
            except psycopg.Error as error:
                raise StoreUnavailable(f"no connection to the database: {_text(error)}") from error
            self._connection = connection
            self._prepared.clear()
            try:
                self._set_up(connection)
            except psycopg.Error as error:
                self._drop()
                raise _translated(error) from error
            except BaseException:
                self._drop()
                raise
            self.counters.connects += 1
        return self._connection

    def _set_up(self, connection: psycopg.Connection[Any]) -> None:
        version = connection.info.server_version
        if version < OLDEST_SERVER:
            raise ServerUnfit(
                f"the server is PostgreSQL {version // 10000}", remedy="Use PostgreSQL 14 or newer"
            )
        connection.pgconn.enter_pipeline_mode()
        if not self._settings.pooled:
            self._flush(connection, self._session_settings(version))

    def _session_settings(self, version: int) -> list[Call]:
        calls = [self._basic_settings(local=False), _SQL["watch_client"].bind()]
        if version >= 170000:
            longest = self._statement_timeout + self._settings.idle_timeout
            calls.append(_SQL["transaction_timeout"].bind(_milliseconds(longest)))
        return calls

    def _basic_settings(self, *, local: bool) -> Call:
        """Bound what a statement may wait for, and for the loop's statements fix the plans.

        Those are look-ups by key: their plan may not depend on what the statistics of a table say that was
        empty a minute ago.
        """
        settings = self._settings
        times = (self._statement_timeout, settings.lock_timeout, settings.idle_timeout)
        plans = ("auto", "on") if self._people else ("force_generic_plan", "off")
        return _SQL["settings"].bind(*(_milliseconds(seconds) for seconds in times), *plans, local)

    @property
    def _statement_timeout(self) -> float:
        return self._settings.people_timeout if self._people else self._settings.statement_timeout

    def _flush(self, connection: psycopg.Connection[Any], calls: list[Call]) -> list[pq.abc.PGresult]:
        """Send everything and a Sync, wait for all answers."""
        pgconn = connection.pgconn
        preparing: list[bytes | None] = []
        for call in calls:
            statement, formats = call.statement, call.statement.formats
            if not self._prepare:
                pgconn.send_query_params(statement.sql, call.params, statement.oids, formats, 1)
            else:
                if statement.name not in self._prepared and statement.name not in preparing:
                    pgconn.send_prepare(statement.name, statement.sql, statement.oids)
                    preparing.append(statement.name)
                pgconn.send_query_prepared(statement.name, call.params, formats, 1)
            preparing.append(None)
        pgconn.pipeline_sync()
        self.counters.flushes += 1
        self.counters.statements += len(calls)
        answers = self._collect(pgconn, calls[min(len(self._prefix), len(calls) - 1)].statement.sent)
        failure: psycopg.Error | None = None
        results: list[pq.abc.PGresult] = []
        for index, answer in enumerate(answers):
            prepared = preparing[index] if index < len(preparing) else None
            if answer.status == pq.ExecStatus.FATAL_ERROR:
                failure = failure or error_from_result(answer)
            elif prepared is None:
                results.append(answer)
            elif answer.status == pq.ExecStatus.COMMAND_OK:
                self._prepared.add(prepared)
        if failure is not None:
            raise failure
        return results

    def _collect(self, pgconn: pq.abc.PGconn, sent: str) -> list[pq.abc.PGresult]:
        deadline = monotonic() + self._settings.answer_timeout
        if self._people:
            deadline += self._settings.people_timeout
        poll = select.poll()
        unsent = pgconn.flush()
        crash_point(sent)
        answers: list[pq.abc.PGresult] = []
        poll.register(pgconn.socket, select.POLLIN | select.POLLOUT if unsent else select.POLLIN)
        while True:
            while not pgconn.is_busy():
                answer = pgconn.get_result()
                if answer is None:
                    if pgconn.status != pq.ConnStatus.OK:
                        raise _error_among(answers) or psycopg.OperationalError("the connection was lost")
                elif answer.status == pq.ExecStatus.PIPELINE_SYNC:
                    return answers
                else:
                    answers.append(answer)
            left = deadline - monotonic()
            if left <= 0 or not poll.poll(left * 1000):
                self._drop()
                raise psycopg.OperationalError(f"no answer within {self._settings.answer_timeout:g} s")
            if unsent:
                unsent = pgconn.flush()
                if not unsent:
                    poll.modify(pgconn.socket, select.POLLIN)
            pgconn.consume_input()

    def _keep_if_idle(self) -> None:
        connection = self._connection
        if connection is not None:
            pgconn = connection.pgconn
            if pgconn.status != pq.ConnStatus.OK or pgconn.transaction_status != pq.TransactionStatus.IDLE:
                self._drop()

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.pgconn.finish()  # never waits
            connection.close()


def _error_among(answers: list[pq.abc.PGresult]) -> psycopg.Error | None:
    """Return the error that the server sent before it closed the connection, if it sent one."""
    for answer in answers:
        if answer.status == pq.ExecStatus.FATAL_ERROR:
            return error_from_result(answer)
    return None


def _translated(error: psycopg.Error) -> Exception:
    """Return what a caller of the store should see instead."""
    state = error.sqlstate
    if state is None:
        lost = isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
        return StoreUnavailable(f"the database didn't answer: {_text(error)}") if lost else error
    if state[:2] in _LATER or state == _LOCK_TIMEOUT:
        return StoreUnavailable(f"the database asks to try again: {state} {_text(error)}")
    if state in _MISSING:
        return NotMigrated(f"the database lacks what this code needs: {_text(error)}")
    if state in _DENIED:
        return StoreDenied(
            _text(error), remedy="GRANT the role all rights on the schema kasaga and its tables"
        )
    return error


def _text(error: psycopg.Error) -> str:
    """One line; libpq's messages hold hosts and users, never passwords."""
    return " ".join(str(error).split())


def _milliseconds(seconds: float) -> str:
    return str(max(1, round(seconds * 1000)))
