"""Retry policies: what is refused at once, and how long is waited."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.harness import SECOND
from kasaga import RetryPolicy
from kasaga.engine.backoff import SPREAD, backoff
from kasaga.engine.model import Policy
from kasaga.policy import DEFAULT_RETRY, MAX_SECONDS, policies, policy, undo_policy


@pytest.fixture(autouse=True)
def replaying() -> None:
    """Nothing is played here."""


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"initial_interval": 0}, "RetryPolicy.initial_interval is 0, must be more than 0"),
        ({"initial_interval": timedelta(seconds=-1)}, "RetryPolicy.initial_interval is -1 day"),
        ({"maximum_interval": float("inf")}, "RetryPolicy.maximum_interval is inf"),
        ({"maximum_interval": float("nan")}, "RetryPolicy.maximum_interval is nan"),
        ({"maximum_interval": 1e12}, f"at most {MAX_SECONDS} seconds"),
        ({"backoff_coefficient": 0.5}, "RetryPolicy.backoff_coefficient is 0.5, must be from 1 to 100"),
        ({"backoff_coefficient": float("nan")}, "RetryPolicy.backoff_coefficient is nan"),
        ({"backoff_coefficient": 1e300}, "must be from 1 to 100"),
        ({"maximum_attempts": -1}, "RetryPolicy.maximum_attempts is -1"),
    ],
)
def test_what_can_not_be_is_refused_where_it_is_written(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match="RetryPolicy") as caught:
        RetryPolicy(**fields)
    assert says in str(caught.value)


@pytest.mark.parametrize("length", [0, -1, float("nan"), float("inf"), 1e12, timedelta()])
def test_time_outs_that_can_not_be(length: Any) -> None:
    with pytest.raises(ValueError, match="timeout is"):
        policy(DEFAULT_RETRY, length, None)
    with pytest.raises(ValueError, match="schedule_to_close is"):
        policy(DEFAULT_RETRY, 1, length)


def test_the_defaults() -> None:
    """Stated in one place; the guide's table repeats them."""
    forward, back = policies(RetryPolicy(), RetryPolicy(maximum_interval=300), 60, 3600)
    assert forward == Policy(60 * SECOND, 3600 * SECOND, SECOND, 2.0, 60 * SECOND, 10, ())
    assert back == Policy(60 * SECOND, 0, SECOND, 2.0, 300 * SECOND, 10, ())
    assert undo_policy(RetryPolicy(maximum_attempts=1), 60).maximum_attempts == 1


def test_names_of_errors_may_come_as_a_list() -> None:
    names: Any = ["A", "B"]
    assert RetryPolicy(non_retryable_error_types=names).non_retryable_error_types == ("A", "B")


lengths = st.floats(min_value=0.001, max_value=1e6)


@given(lengths, lengths, st.floats(1, 100), st.integers(1, 10**6), st.text(max_size=20))
def test_waits_grow_to_the_maximum_and_are_the_same_for_the_same_attempt(
    first: float, most: float, factor: float, attempt: int, name: str
) -> None:
    made = policy(
        RetryPolicy(initial_interval=first, maximum_interval=most, backoff_coefficient=factor), 1, None
    )
    wait = backoff(made, attempt, name)
    assert wait == backoff(made, attempt, name)
    assert 0 <= wait <= made.maximum_interval
    full = min(made.initial_interval * factor ** min(attempt - 1, 64), made.maximum_interval)
    assert wait >= full * (1 - SPREAD) - 1
