"""Every error of the participant SDK, and what handlers raise on purpose.

Station: the bottom of the participant's room. Imports the wire's errors only.

    Exception
    ├── HandlerError                    what a handler raises on purpose; never raised itself
    │   ├── Refused                     final: the business says no
    │   └── RetryableError              not now: the orchestrator tries again
    └── KasagaError
        └── ParticipantError            KSG-400
            ├── RegistrationError       KSG-401  a contract or handler is registered in a way that can't work
            ├── NoConnection            KSG-410  tx.connection of a participant that has no inbox
            ├── TransactionOwned        KSG-411  a handler tried to commit or roll back
            ├── TransactionEnded        KSG-412  a handler ended the transaction behind the inbox's back
            ├── TransactionAborted      KSG-413  a handler swallowed the error of a statement
            ├── TransactionOver         KSG-414  a Tx is used after its handler has returned
            ├── ResultTooLarge          KSG-415  a result doesn't fit into a record
            ├── HandlerKilled           KSG-416  the database connection is lost each time a handler runs
            ├── Voided                  KSG-420  a late command whose saga has given it up
            ├── Forgotten               KSG-421  too old to know what became of it
            ├── IdClash                 KSG-422  one command id, two different commands
            ├── UnknownCommand          KSG-423  no handler for this type of command
            ├── ReplyNotAllowed         KSG-424  a command asks for its reply on a foreign topic
            ├── NotDrilled              KSG-425  a drill asks for what isn't run in one
            ├── InboxRefused            KSG-430  the database refuses the inbox's own statement
            ├── CannotDefer             KSG-450  Deferred where nothing could be answered later
            ├── BadToken                KSG-451  a token that isn't this database's, or of another command
            ├── NotDeferred             KSG-452  the command doesn't wait for an answer: not yet, or no more
            ├── GivenUp                 KSG-453  the saga has given the command up; it is undone or voided
            ├── AlreadyAnswered         KSG-454  the command was answered before, and otherwise
            └── StartError              KSG-440  the process can't start serving
"""

from __future__ import annotations

from collections.abc import Mapping

from kasaga_wire.errors import KasagaError


class HandlerError(Exception):
    """What a handler raises on purpose. `code` and `details` travel to the saga beside the message."""

    def __init__(
        self, message: str, *, code: str | None = None, details: Mapping[str, object] | None = None
    ) -> None:
        """Take a sentence for people, a word for programs, and JSON-able details."""
        super().__init__(message)
        self.message = message
        self.code = code
        self.details = dict(details) if details is not None else None


class Refused(HandlerError):
    """The business says no, and no retry would change that.

    Everything the handler wrote is rolled back; the refusal is stored, so that each later copy of the command
    gets the same answer. Raised by a compensation it is only a failure like any other: an undo can't be
    refused.
    """


class RetryableError(HandlerError):
    """It didn't work this time. Any exception but Refused means the same; this one was expected."""


class ParticipantError(KasagaError):
    """What the SDK raises or reports; never raised itself."""

    code = "KSG-400"


class RegistrationError(ParticipantError):
    """A contract or a handler is registered in a way that can't work."""

    code = "KSG-401"


class NoConnection(ParticipantError):
    """This participant runs without an inbox, hence without a transaction."""

    code = "KSG-410"
    default_remedy = "give Participant a database_url, or open a connection of your own"


class TransactionOwned(ParticipantError):
    """A handler tried to commit or roll back the transaction that holds the inbox row too."""

    code = "KSG-411"
    default_remedy = (
        "return to commit, raise to roll back; for a part of the work use `with tx.connection.transaction()`"
    )


class TransactionEnded(ParticipantError):
    """A handler ended the transaction with SQL of its own: what it did may be committed without its reply."""

    code = "KSG-412"
    default_remedy = "remove COMMIT and ROLLBACK from the handler's SQL, then check by hand what it did"


class TransactionAborted(ParticipantError):
    """A handler caught the error of a statement and went on; Postgres undoes the whole transaction then."""

    code = "KSG-413"
    default_remedy = "put the statement that may fail into `with tx.connection.transaction()`, a savepoint"


class TransactionOver(ParticipantError):
    """A Tx is used after its handler has returned."""

    code = "KSG-414"
    default_remedy = "await everything that uses tx before the handler returns"


class ResultTooLarge(ParticipantError):
    """A handler's result doesn't fit into a Kafka record."""

    code = "KSG-415"
    default_remedy = "return a reference to the data instead of the data"


class HandlerKilled(ParticipantError):
    """The database connection was lost each time this handler ran, while others could go on."""

    code = "KSG-416"
    default_remedy = "look in the database's log for what ends the connection: a crash, or a time-out"


class Voided(ParticipantError):
    """The command's saga has given it up before it came."""

    code = "KSG-420"


class Forgotten(ParticipantError):
    """Older than the inbox remembers: nobody can know here whether it was executed."""

    code = "KSG-421"
    default_remedy = "look in the service's own data, then resolve the step by hand"


class IdClash(ParticipantError):
    """One command id was used for two different commands."""

    code = "KSG-422"
    default_remedy = "the saga was decided differently a second time: see `kasaga history`"


class UnknownCommand(ParticipantError):
    """No handler for this type of command."""

    code = "KSG-423"
    default_remedy = "deploy the service with this command before the saga that uses it"


class ReplyNotAllowed(ParticipantError):
    """A command asks for its reply on a topic that belongs to no namespace this participant serves."""

    code = "KSG-424"
    default_remedy = "name the saga's namespace in Participant(namespaces=…), or find out who sends it"


class NotDrilled(ParticipantError):
    """A drill asks for what isn't run in one."""

    code = "KSG-425"
    default_remedy = (
        "KASAGA_DRILL_ALONE=1 runs compensations that are declared alone=True, outside calls included"
    )


class InboxRefused(ParticipantError):
    """The database refuses what the inbox has to write for this one command."""

    code = "KSG-430"


class CannotDefer(ParticipantError):
    """A handler returns Deferred where nothing could be answered later."""

    code = "KSG-450"
    default_remedy = "defer commands only, and only those of a participant with an inbox"


class BadToken(ParticipantError):
    """A token that wasn't made in this database, or is another command's."""

    code = "KSG-451"
    default_remedy = "answer in the database where the command was accepted, with the token as it was made"


class NotDeferred(ParticipantError):
    """The command doesn't wait for an answer: its handler's transaction isn't over yet, or it has failed."""

    code = "KSG-452"
    default_remedy = "try again in a moment; if that doesn't help, the command failed, and may be tried anew"


class GivenUp(ParticipantError):
    """The saga waits no more: the command is undone, or voided. Whatever was done for it is to be left."""

    code = "KSG-453"
    default_remedy = "stop working at it, and take back what the compensation doesn't know of"


class AlreadyAnswered(ParticipantError):
    """The command was answered before, and otherwise; that answer stands."""

    code = "KSG-454"
    default_remedy = "find out who else answers with this token"


class StartError(ParticipantError):
    """The process can't start serving."""

    code = "KSG-440"
