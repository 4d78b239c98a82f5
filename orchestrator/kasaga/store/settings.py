"""How to reach the database, and how long to wait for it.

Station: made by the command line or by a test, read by `session` and `migrate`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from kasaga.store.errors import BadConninfo


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """A connection string and the bounds of waiting; times in seconds."""

    conninfo: str = field(repr=False)
    """A libpq URL or keyword string; it may name several hosts. Never shown: it may hold a password."""
    pooled: bool = False
    """The server is PgBouncer or the like in transaction mode: no settings outlive a transaction."""
    prepare: bool = True
    """Use prepared statements. Off for poolers that don't carry them (PgBouncer before 1.21)."""
    connect_timeout: float = 5.0
    statement_timeout: float = 10.0
    """The server ends a statement of the loop's that takes longer."""
    lock_timeout: float = 2.0
    """The server ends a statement that waits longer for a row's lock."""
    claim_timeout: float = 1.0
    """How long a claim waits for a shard's lock before it ends the frozen transaction that holds it."""
    idle_timeout: float = 5.0
    """The server ends a session that stops in the middle of a transaction."""
    answer_timeout: float = 15.0
    """The client gives a connection up that answers nothing for so long: a peer that is deaf, not gone."""
    read_only: bool = False
    """Every transaction is one that can write nothing; a hot standby will do."""
    people_timeout: float = 30.0
    """The statement timeout of what people ask for: lists, counts, purging."""

    def connection_string(self, application: str = "kasaga") -> str:
        """Return the conninfo with defaults for what it doesn't say itself; raises BadConninfo."""
        try:
            given: dict[str, Any] = dict(conninfo_to_dict(self.conninfo))
        except psycopg.Error:
            raise BadConninfo("the connection string can't be read") from None
        milliseconds = str(int(self.answer_timeout * 1000))
        defaults: dict[str, Any] = {
            "application_name": application,
            "connect_timeout": max(2, round(self.connect_timeout)),
            "keepalives_idle": 5,
            "keepalives_interval": 2,
            "keepalives_count": 3,
            "tcp_user_timeout": milliseconds,
            "target_session_attrs": "any" if self.read_only else "read-write",
        }
        return make_conninfo("", **{**defaults, **given, "client_encoding": "utf8"})
