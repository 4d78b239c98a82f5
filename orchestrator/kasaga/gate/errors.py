"""Errors of the deploy gate.

KasagaError
└── FileUnreadable           KSG-630  a file isn't one of histories
"""

from __future__ import annotations

from kasaga_wire.errors import KasagaError


class FileUnreadable(KasagaError):
    """A file isn't one of histories, or is damaged."""

    code = "KSG-630"
    default_remedy = "Write it anew with `kasaga export`."
