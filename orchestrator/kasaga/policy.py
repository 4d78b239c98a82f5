"""Retry policies and the defaults of steps. Field names are Temporal's."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from .engine.model import Policy

Seconds = float | timedelta
"""A length of time: seconds, or a timedelta."""


def micros(length: Seconds) -> int:
    """Return a length of time in microseconds."""
    return round((length.total_seconds() if isinstance(length, timedelta) else length) * 1_000_000)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When and how often an attempt that failed or wasn't answered is tried again.

    Attributes:
        initial_interval: wait before the second attempt.
        backoff_coefficient: each further wait is this many times as long.
        maximum_interval: no wait is longer.
        maximum_attempts: 0 for no limit. Of an undo: the number after which the saga is STUCK,
            while the attempts go on.
        non_retryable_error_types: names of exceptions at the participant that end the retries.
    """

    initial_interval: Seconds = 1.0
    backoff_coefficient: float = 2.0
    maximum_interval: Seconds = 60.0
    maximum_attempts: int = 10
    non_retryable_error_types: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.backoff_coefficient < 1:
            raise ValueError(f"RetryPolicy.backoff_coefficient is {self.backoff_coefficient}, must be at least 1")
        if self.maximum_attempts < 0:
            raise ValueError(f"RetryPolicy.maximum_attempts is {self.maximum_attempts}, must be 0 (no limit) or more")
        for name in ("initial_interval", "maximum_interval"):
            if micros(getattr(self, name)) <= 0:
                raise ValueError(f"RetryPolicy.{name} is {getattr(self, name)}, must be more than 0 seconds")


DEFAULT_RETRY = RetryPolicy()
DEFAULT_UNDO_RETRY = RetryPolicy(maximum_interval=300.0)
STEP_TIMEOUT: Seconds = 60.0
SCHEDULE_TO_CLOSE: Seconds = 3600.0


def policy(retry: RetryPolicy, timeout: Seconds, schedule_to_close: Seconds | None) -> Policy:
    """Return the engine's form of a policy; raises ValueError naming what is off."""
    if micros(timeout) <= 0:
        raise ValueError(f"timeout is {timeout}, must be more than 0 seconds")
    if schedule_to_close is not None and micros(schedule_to_close) <= 0:
        raise ValueError(f"schedule_to_close is {schedule_to_close}, must be more than 0 seconds, or None")
    return Policy(
        micros(timeout),
        micros(schedule_to_close) if schedule_to_close is not None else 0,
        micros(retry.initial_interval),
        retry.backoff_coefficient,
        micros(retry.maximum_interval),
        retry.maximum_attempts,
        retry.non_retryable_error_types,
    )
