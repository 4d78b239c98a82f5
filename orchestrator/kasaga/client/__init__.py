"""Clients start sagas, wait for their ends, and act on them.

    async with Client("orders") as client:
        handle = await client.start(payment, order, id=order.id)
        receipt = await handle.result(timeout=30)

`BlockingClient` is the same for programs without an event loop.
"""

from __future__ import annotations

from .blocking import BlockingClient, BlockingHandle
from .client import Client
from .errors import (
    BadRequest,
    ClientClosed,
    ClientError,
    NoAnswer,
    NoTopics,
    RejectedStart,
    ResultForgotten,
    ResultTimeout,
    SagaCompensated,
    SagaEndedBadly,
    SagaStuck,
    SagaWasTerminated,
    StartUnconfirmed,
    UnknownSaga,
)
from .handle import Handle
from .status import SagaStatus

__all__ = [
    "BadRequest",
    "BlockingClient",
    "BlockingHandle",
    "Client",
    "ClientClosed",
    "ClientError",
    "Handle",
    "NoAnswer",
    "NoTopics",
    "RejectedStart",
    "ResultForgotten",
    "ResultTimeout",
    "SagaCompensated",
    "SagaEndedBadly",
    "SagaStatus",
    "SagaStuck",
    "SagaWasTerminated",
    "StartUnconfirmed",
    "UnknownSaga",
]
