"""What ends a bench."""

from __future__ import annotations


class BenchError(Exception):
    """A figure can't be had, or what was measured isn't what was promised."""
