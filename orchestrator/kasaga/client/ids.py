"""Ids that clients make: of runs, of actions, and of themselves."""

from __future__ import annotations

import secrets
import time
from uuid import UUID


def uuid7() -> UUID:
    """A new UUID of version 7: 48 bits of time in milliseconds, then chance. Later ones sort later."""
    millis = time.time_ns() // 1_000_000
    chance = secrets.randbits(74)
    value = (millis & (1 << 48) - 1) << 80
    value |= 0x7 << 76
    value |= (chance >> 62) << 64
    value |= 0b10 << 62
    value |= chance & (1 << 62) - 1
    return UUID(int=value)
