"""Locks on the folders of `kasaga dev`; the kernel drops them when their holders are gone, however they went.

There are two kinds. The command holds one on its whole folder, and no child inherits that. Each server
inherits one on its own data: a server that outlives both the command and its guard still has it, and so no
second one is started on the same files. A Kafka notices another on its data only after both have written.

Called by `server.py` and by the command; calls nothing of ours but the errors.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

from kasaga.dev.process import POLL_SECONDS, ServerError

COMMAND_SECONDS = 0.5
"""How long a command waits for the folder: as long as another one may need to write its process id."""

SERVER_SECONDS = 5.0
"""How long a server waits for its data: as long as the guard of an earlier one may need to kill it."""

LOCK_NAME = "lock"

LINE_BYTES = 16
"""The process id, filled up with spaces, so that one write replaces another and nobody reads half of it."""


class FolderInUse(ServerError):
    """Another `kasaga dev`, or a server that has outlived one, works in this folder."""

    code = "KSG-591"


class FolderLock:
    """One exclusive lock, held from `take` until `close`, or until every process that has it is gone."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        """For a child that is to hold the lock as well. Without being handed on it closes in every child."""

    @classmethod
    def take(cls, file: Path, patience: float, in_use: Callable[[str], FolderInUse]) -> Self:
        """Takes the lock on `file`, which is made if there is none, and notes our process id in it.

        Waits at most `patience` seconds, then raises what `in_use` makes of the holder's process id ("?" if
        it isn't known). Raises ServerError where the folder can't be written or knows no locks.
        """
        until = time.monotonic() + patience
        try:
            while True:
                lock, holder = cls._try(file)
                if lock is not None:
                    return lock
                if time.monotonic() >= until:
                    raise in_use(holder)
                time.sleep(POLL_SECONDS)
        except OSError as error:
            raise ServerError(
                f"{file} can't be locked: {error.strerror}",
                remedy="Is the folder yours, and on a disk of this machine?",
            ) from error

    @classmethod
    def _try(cls, file: Path) -> tuple[Self | None, str]:
        """Gives the lock, or None and who has it."""
        lock = cls(os.open(file, os.O_RDWR | os.O_CREAT, 0o644))
        try:
            if lock._locks() and lock._is_at(file):
                lock.note(os.getpid())
                return lock, ""
            holder = lock._noted()
        except BaseException:
            lock.close()
            raise
        lock.close()
        return None, holder

    def note(self, pid: int) -> None:
        """Writes down who holds it, for the error that others get."""
        os.pwrite(self.descriptor, f"{pid}".ljust(LINE_BYTES - 1).encode() + b"\n", 0)

    def close(self) -> None:
        """Lets go of it. The file stays: if it were removed, two could each lock a file of that name."""
        os.close(self.descriptor)

    def __enter__(self) -> Self:
        """Holds what was taken."""
        return self

    def __exit__(self, *_: object) -> None:
        """Lets go."""
        self.close()

    def _locks(self) -> bool:
        try:
            fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _is_at(self, file: Path) -> bool:
        """Whether the file still has its name: somebody may have removed it before we had the lock."""
        try:
            return os.path.samestat(os.fstat(self.descriptor), file.stat())
        except FileNotFoundError:
            return False

    def _noted(self) -> str:
        line = os.pread(self.descriptor, LINE_BYTES, 0).strip()
        return line.decode() if line.isdigit() else "?"


def lock_folder(folder: Path) -> FolderLock:
    """Takes the whole folder for one `kasaga dev`; raises FolderInUse, ServerError."""

    def in_use(holder: str) -> FolderInUse:
        return FolderInUse(
            f"`kasaga dev` already runs in {folder.parent} (process {holder})",
            remedy=f"Use that one, end it (Ctrl-C, or kill {holder}), or start this one in another folder",
        )

    return FolderLock.take(folder / LOCK_NAME, COMMAND_SECONDS, in_use)


def lock_data(name: str, directory: Path) -> FolderLock:
    """Takes a server's directory; raises FolderInUse while an earlier server lives in it, ServerError."""

    def in_use(holder: str) -> FolderInUse:
        return FolderInUse(
            f"another {name} (process {holder}) works in {directory}",
            remedy=f"If it is left from a command that was killed, end it: kill {holder}",
        )

    return FolderLock.take(directory / LOCK_NAME, SERVER_SECONDS, in_use)
