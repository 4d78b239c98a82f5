"""Finished sagas in a folder or an object store, before retention deletes them; and reading them there.

    writing   what retention asks, in its thread: objects of sagas, each durable before its sagas are deleted
    sheet     one object: a file of histories (`gate.histories`), compressed, whose lines say more
    reading   sagas by id or by when they began
    errors    KSG-313

retention.md tells people of it. An object is called by its namespace, the day on which its sagas began, the
first and the last of their runs, and a sum of what is in it.
"""

from .errors import ArchiveUnreadable
from .reading import Archive, Period
from .sheet import Archived
from .writing import Archiver

__all__ = ["Archive", "ArchiveUnreadable", "Archived", "Archiver", "Period"]
