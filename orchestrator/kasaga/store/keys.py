"""Which keys the payloads that are kept are encrypted with, so that one can be retired.

Station: made by the command line, in the orchestrator's database and in participants'. Reads only, by pages:
what is written behind the page that is read counts when the question is asked again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from uuid import UUID

from .session import Session
from .settings import StoreSettings
from .statements import read_statements

PAGE = 10_000
"""Rows of one question."""

_SQL = read_statements("keys")
_NOBODY = UUID(int=0)

Found = Counter[str]
"""Rows by key."""

OWN: dict[str, Sequence[object]] = {
    "history": (-1, _NOBODY, 0),
    "results": (_NOBODY, -1),
    "outbox": (-1, 0),
    "events": (b"", ""),
}
"""The orchestrator's tables by statement, and what is before the first row of each."""
INBOX: dict[str, Sequence[object]] = {"inbox": ("",)}
"""A participant's."""


class KeysInUse:
    """The payloads of one database."""

    def __init__(self, settings: StoreSettings) -> None:
        """Connects at the first question."""
        self._session = Session(settings, application="kasaga keys", people=True)

    def read(self, table: str, beginning: Sequence[object]) -> Iterator[Found]:
        """How many rows have each key, page by page. Raises StoreError; blocks."""
        after = beginning
        while True:
            rows = self._session.query(_SQL[table].bind(*after, PAGE))
            yield Counter({key: count for key, count, *_ in rows if key})
            if not rows or rows[0][2] < PAGE:
                return
            after = rows[0][3:]

    def close(self) -> None:
        """Close the connection."""
        self._session.close()
