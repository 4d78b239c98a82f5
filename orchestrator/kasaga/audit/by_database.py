"""An inbox read in the participant's own database, or in a copy of it: read-only, with a short time limit."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import psycopg

from kasaga_wire.errors import CodecError
from kasaga_wire.redaction import hide_in, redact
from kasaga_wire.sealing import PLAIN, Sealer, place

from ..store.errors import StoreError
from ..store.session import Session
from ..store.settings import StoreSettings
from ..store.statements import read_statements
from .inboxes import InboxRow, Memory, Seen, Unanswered

ROWS = 1_000
"""Rows of one question."""

READ_SECONDS = 5.0
"""The server ends a question that takes longer."""

_SQL = read_statements("inbox")


class DatabaseInbox:
    """The table `kasaga_inbox.inbox` of one database."""

    def __init__(self, participant: str, url: str, horizon: float, sealer: Sealer = PLAIN) -> None:
        """Connects at the first question. `horizon`: seconds, see `Memory`; the table doesn't know it."""
        self._sealer = sealer
        hide_in(url)
        self._participant = participant
        self._horizon = horizon
        settings = StoreSettings(url, read_only=True, people_timeout=READ_SECONDS)
        self._session = Session(settings, application="kasaga audit", people=True)

    def read(self, runs: Sequence[str]) -> Seen:
        """See `Inbox.read`."""
        try:
            return self._read(sorted(runs))
        except (StoreError, psycopg.Error) as error:
            said = redact(str(error)).strip()
            raise Unanswered(f"the inbox of {self._participant} can't be read: {said}") from None

    def _read(self, runs: Sequence[str]) -> Seen:
        seen: Seen | None = None
        after = ""
        while True:
            # How old a copy is has to be known before its rows are read.
            copy, found = self._session.run(_SQL["copy"].bind(), _SQL["inbox"].bind(runs, after, ROWS))
            if seen is None:
                is_copy, as_of = self._session.rows(copy)[0]
                seen = Seen(Memory(horizon=self._horizon, as_of=(as_of or 0.0) if is_copy else None))
            rows = self._session.rows(found)
            for row in rows:
                seen.add(_row(self._sealer, *row))
            if len(rows) < ROWS:
                return seen
            after = rows[-1][0]

    def close(self) -> None:
        """See `Inbox.close`."""
        self._session.close()


def _row(
    sealer: Sealer,
    id_: str,
    type_: str,
    outcome: str,
    input_: bytes | None,
    result: bytes | None,
    sealed: bytes | None,
) -> InboxRow:
    """A row with the sum of the result that was sealed. Raises Unanswered where it can't be opened."""
    if sealed is not None:
        try:
            result = hashlib.sha256(sealer.open(place("reply", id_), sealed)).digest()
        except CodecError as error:
            raise Unanswered(
                f"the result of {id_} can't be read: {error.message}", remedy=error.remedy
            ) from None
    return InboxRow(id_, type_, outcome, input_, result)
