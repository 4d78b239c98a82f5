"""Kasaga: a saga orchestrator on Kafka and Postgres."""

from .context import SagaContext
from .errors import SagaFailed, StepError, StepFailed, StepRefused, StepTimeout
from .policy import RetryPolicy
from .saga import App, Saga, saga

__all__ = [
    "App",
    "RetryPolicy",
    "Saga",
    "SagaContext",
    "SagaFailed",
    "StepError",
    "StepFailed",
    "StepRefused",
    "StepTimeout",
    "saga",
]
