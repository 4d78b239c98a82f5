"""Retry policies and the defaults of steps. Field names are Temporal's."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache

from .engine.model import Policy

Seconds = float | timedelta
"""A length of time: seconds, or a timedelta."""


MAX_COEFFICIENT = 100.0
"""No wait needs to grow faster."""

MAX_SECONDS = 10 * 366 * 86_400
"""No length of time is longer: ten years."""

MAX_KEY = 512
"""Bytes of a key: it travels with each attempt, and with each event."""


def micros(length: Seconds) -> int:
    """Return a length of time in microseconds."""
    return round((length.total_seconds() if isinstance(length, timedelta) else length) * 1_000_000)


def _positive(name: str, length: Seconds) -> None:
    seconds = length.total_seconds() if isinstance(length, timedelta) else length
    if not (math.isfinite(seconds) and 0 < seconds <= MAX_SECONDS):
        raise ValueError(f"{name} is {length}, must be more than 0 and at most {MAX_SECONDS} seconds")


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
        """Refuse what would fail much later."""
        object.__setattr__(self, "non_retryable_error_types", tuple(self.non_retryable_error_types))
        if not 1 <= self.backoff_coefficient <= MAX_COEFFICIENT:
            given = self.backoff_coefficient
            raise ValueError(
                f"RetryPolicy.backoff_coefficient is {given}, must be from 1 to {MAX_COEFFICIENT}"
            )
        if self.maximum_attempts < 0:
            given = self.maximum_attempts
            raise ValueError(f"RetryPolicy.maximum_attempts is {given}, must be 0 (no limit) or more")
        for name in ("initial_interval", "maximum_interval"):
            _positive(f"RetryPolicy.{name}", getattr(self, name))


DEFAULT_RETRY = RetryPolicy()
DEFAULT_UNDO_RETRY = RetryPolicy(maximum_interval=300.0)
STEP_TIMEOUT: Seconds = 60.0
RUN_TIMEOUT: Seconds = 60.0
SCHEDULE_TO_CLOSE: Seconds = 3600.0


@lru_cache(maxsize=1024)
def policy(retry: RetryPolicy, timeout: Seconds, schedule_to_close: Seconds | None) -> Policy:
    """Return the engine's form of a policy; raises ValueError naming what is off."""
    _positive("timeout", timeout)
    if schedule_to_close is not None:
        _positive("schedule_to_close", schedule_to_close)
    return Policy(
        micros(timeout),
        micros(schedule_to_close) if schedule_to_close is not None else 0,
        micros(retry.initial_interval),
        retry.backoff_coefficient,
        micros(retry.maximum_interval),
        retry.maximum_attempts,
        retry.non_retryable_error_types,
    )


@lru_cache(maxsize=1024)
def undo_policy(retry: RetryPolicy, timeout: Seconds) -> Policy:
    """Return the engine's form of an undo's policy; raises ValueError naming what is off."""
    if retry.maximum_attempts == 0:
        raise ValueError(
            "undo_retry.maximum_attempts is 0: an undo is retried without end anyway, and this is the number "
            "after which the saga says STUCK, so that it never fails in silence; give it 1 or more"
        )
    return policy(retry, timeout, None)


_DEFAULTS = (
    policy(DEFAULT_RETRY, STEP_TIMEOUT, SCHEDULE_TO_CLOSE),
    undo_policy(DEFAULT_UNDO_RETRY, STEP_TIMEOUT),
)


def local_policies(
    retry: RetryPolicy, undo_retry: RetryPolicy, timeout: Seconds | None
) -> tuple[Policy, Policy]:
    """Return both policies of a function of ctx.run; raises ValueError naming what is off."""
    if timeout is not None:
        return policy(retry, timeout, None), undo_policy(undo_retry, timeout)
    made = policy(retry, STEP_TIMEOUT, None), undo_policy(undo_retry, STEP_TIMEOUT)
    return made[0]._replace(timeout=0), made[1]._replace(timeout=0)


def policies(
    retry: RetryPolicy, undo_retry: RetryPolicy, timeout: Seconds, schedule_to_close: Seconds | None
) -> tuple[Policy, Policy]:
    """Return both policies of a step. Most sagas leave all at its default, which then costs nothing."""
    if (
        retry is DEFAULT_RETRY
        and undo_retry is DEFAULT_UNDO_RETRY
        and timeout is STEP_TIMEOUT
        and schedule_to_close is SCHEDULE_TO_CLOSE
    ):
        return _DEFAULTS
    return policy(retry, timeout, schedule_to_close), undo_policy(undo_retry, timeout)
