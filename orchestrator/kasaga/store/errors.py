"""Errors of the store, each with a stable code and a remedy.

Station: beside `base`; raised by both stores and by `migrate`, caught by the loop and the command line.

    KasagaError
    └── StoreError                 never raised itself
        ├── StoreUnavailable       KSG-301  the database can't be reached or asks to try again
        ├── NotMigrated            KSG-302  the database has no, or older, tables of ours
        ├── NamespaceMismatch      KSG-303  the database belongs to another namespace
        ├── ShardCountMismatch     KSG-304  the database was made for another number of shards
        ├── MigrationChanged       KSG-305  a migration was edited after it had been applied
        ├── LostShards             KSG-306  shards have another owner by now
        ├── BadConninfo            KSG-307  the connection string can't be read
        ├── ContentRefused         KSG-308  even the smallest form of a saga's rows is refused
        ├── BadBatch               KSG-309  the loop built a batch that contradicts itself
        ├── ServerUnfit            KSG-310  the server is too old, or the database isn't UTF-8
        ├── MigrationOrder         KSG-311  the last release's post migrations were never applied
        └── StoreDenied            KSG-312  the role lacks a right
"""

from __future__ import annotations

from kasaga_wire.errors import KasagaError


class StoreError(KasagaError):
    """What the stores raise; never raised itself."""

    code = "KSG-319"


class StoreUnavailable(StoreError):
    """The database can't be reached, or asks to try again; nothing is known of the last commit."""

    code = "KSG-301"
    default_remedy = "What serves tries again by itself. If it lasts, look at the address and the network"


class NotMigrated(StoreError):
    """The database has no tables of ours, or older ones than this code needs."""

    code = "KSG-302"
    default_remedy = "Run `kasaga migrate --namespace …` with the App's"


class NamespaceMismatch(StoreError):
    """The database belongs to another namespace."""

    code = "KSG-303"
    default_remedy = "Set KASAGA_DATABASE_URL or KASAGA_NAMESPACE to the right one"


class ShardCountMismatch(StoreError):
    """The database was made for another number of shards."""

    code = "KSG-304"


class MigrationChanged(StoreError):
    """A migration's file isn't what it was when it was applied."""

    code = "KSG-305"
    default_remedy = "Restore the file and put the change into a new migration"


class LostShards(StoreError):
    """The batch was refused whole: `shards` have another owner by now.

    `astray` are those among them whose token still holds while the stored commit number is neither this
    batch's nor the one before it: the database went back in time. To be dropped and claimed anew as well.
    """

    code = "KSG-306"
    default_remedy = "Nothing: their new owner goes on with them"

    def __init__(self, shards: frozenset[int], astray: frozenset[int] = frozenset()) -> None:
        """Name both in the message."""
        text = f"shards {sorted(shards)} have another owner"
        if astray:
            text = f"shards {sorted(shards)} are lost; {sorted(astray)}: the database went back in time"
        super().__init__(text)
        self.shards = shards
        self.astray = astray


class BadConninfo(StoreError):
    """The connection string can't be read. It is not repeated: it may hold a password."""

    code = "KSG-307"
    default_remedy = "Write it as postgresql://user@host:5432/database or as host=… dbname=… user=…"


class ContentRefused(StoreError):
    """The database refused all tries at replacing a saga's rows."""

    code = "KSG-308"
    default_remedy = "Report it with the database's message: a replacement is made to be always accepted"


class BadBatch(StoreError):
    """A batch contradicts itself: a fault of the caller, nothing was sent."""

    code = "KSG-309"
    default_remedy = "Report it: this is a bug in Kasaga"


class ServerUnfit(StoreError):
    """The server is too old, or the database doesn't keep UTF-8."""

    code = "KSG-310"


class MigrationOrder(StoreError):
    """Post migrations of an earlier release were never applied."""

    code = "KSG-311"
    default_remedy = "When no process of the earlier release runs any more, apply all: `kasaga migrate`"


class StoreDenied(StoreError):
    """The database's role lacks a right."""

    code = "KSG-312"


def check_namespace(found: str, wanted: str) -> None:
    """Raise NamespaceMismatch where the database's namespace isn't the one that is wanted."""
    if found != wanted:
        raise NamespaceMismatch(f"the database belongs to namespace {found!r}, not to {wanted!r}")
