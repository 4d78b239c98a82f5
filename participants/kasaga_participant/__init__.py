"""The SDK for services that take part in sagas. See participants/README.md for a guide.

app = Participant("inventory")
app.serve(Inventory, InventoryService)
app.run()
"""

from kasaga_wire.settings import KafkaSettings

from .app import Participant
from .deferred import Deferred
from .errors import (
    AlreadyAnswered,
    BadToken,
    CannotDefer,
    GivenUp,
    HandlerError,
    NotDeferred,
    ParticipantError,
    Refused,
    RetryableError,
)
from .later import Late, SyncLate
from .tx import CommandInfo, SyncTx, Tx

__all__ = [
    "AlreadyAnswered",
    "BadToken",
    "CannotDefer",
    "CommandInfo",
    "Deferred",
    "GivenUp",
    "HandlerError",
    "KafkaSettings",
    "Late",
    "NotDeferred",
    "Participant",
    "ParticipantError",
    "Refused",
    "RetryableError",
    "SyncLate",
    "SyncTx",
    "Tx",
]
