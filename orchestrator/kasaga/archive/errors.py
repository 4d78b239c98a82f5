"""Errors of the archive.

KasagaError
└── ArchiveUnreadable        KSG-313  an object of the archive is damaged
"""

from __future__ import annotations

from kasaga_wire.errors import KasagaError


class ArchiveUnreadable(KasagaError):
    """An object of the archive is damaged, or isn't one."""

    code = "KSG-313"
    default_remedy = "Restore the object. If its writer died in its middle, a later one has its sagas, too"
