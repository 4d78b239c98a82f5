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
from .schedules import Calendar, Cron, Every, Schedule

__all__ = [
    "App",
    "BranchEnded",
    "Calendar",
    "Cron",
    "Deadlock",
    "Event",
    "Every",
    "Heard",
    "LockRefused",
    "RetryPolicy",
    "Saga",
    "SagaContext",
    "SagaFailed",
    "Schedule",
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
