"""How long to wait before the next attempt."""

from __future__ import annotations

from zlib import crc32

from .model import Policy

SPREAD = 0.2
"""Share of the wait that is taken off by chance, so that an outage's retries don't come back as one wave."""


def backoff(policy: Policy, attempt: int, command_id: str) -> int:
    """Return the wait in microseconds after failed attempt `attempt` (from 1).

    Exponential with a cap, as Temporal's retry policy; the spread comes from the command's id, so
    that a replay waits as long.
    """
    exponent = min(attempt - 1, 64)
    wait = min(policy.initial_interval * policy.backoff_coefficient**exponent, policy.maximum_interval)
    chance = crc32(f"{command_id}.{attempt}".encode()) / 0xFFFFFFFF
    return int(wait * (1 - SPREAD * chance))
