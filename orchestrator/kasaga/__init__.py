"""Kasaga: a saga orchestrator on Kafka and Postgres."""

from .context import SagaContext
from .deadlocks import Deadlock, LockRefused
from .errors import (
    BranchEnded,
    SagaFailed,
    SignalTimeout,
    StepError,
    StepFailed,
    StepRefused,
    StepTimeout,
    TimedOut,
    UpdateRefused,
)
from .listening import Event, Heard
from .parallel import Spawned
from .policy import RetryPolicy
from .saga import App, Saga, saga

__all__ = [
    "App",
    "BranchEnded",
    "Deadlock",
    "Event",
    "Heard",
    "LockRefused",
    "RetryPolicy",
    "Saga",
    "SagaContext",
    "SagaFailed",
    "SignalTimeout",
    "Spawned",
    "StepError",
    "StepFailed",
    "StepRefused",
    "StepTimeout",
    "TimedOut",
    "UpdateRefused",
    "saga",
]
