"""The SDK for services that take part in sagas. See participants/README.md for a guide.

app = Participant("inventory")
app.serve(Inventory, InventoryService)
app.run()
"""

from kasaga_wire.settings import KafkaSettings

from .app import Participant
from .errors import HandlerError, ParticipantError, Refused, RetryableError
from .tx import CommandInfo, SyncTx, Tx

__all__ = [
    "CommandInfo",
    "HandlerError",
    "KafkaSettings",
    "Participant",
    "ParticipantError",
    "Refused",
    "RetryableError",
    "SyncTx",
    "Tx",
]
