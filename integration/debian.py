"""Programs that come from Debian: found on the machine, else installed where we may.

Called by `images` and `kubernetes`, the two checks that need more than a Python.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Mapping

LOG_LINES_SHOWN = 15


class MachineError(Exception):
    """This machine lacks something that a check needs; the message says what to do."""


def bring(programs: Mapping[str, str], tell: Callable[[str], None]) -> None:
    """Installs the Debian packages of those programs that aren't here; raises MachineError where it can't.

    `programs` says for each program in which package it is.
    """
    missing = sorted({package for program, package in programs.items() if find(program) is None})
    if not missing:
        return
    names = " ".join(missing)
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise MachineError(f"This machine lacks {names}. On Debian, as root: apt-get install {names}")
    tell(f"installing {names}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["update", "-qq"], ["install", "-qq", "-y", "--no-install-recommends", *missing]):
        done = subprocess.run(
            ["apt-get", *command],
            check=False,
            capture_output=True,
            text=True,
            env=environment,
            stdin=subprocess.DEVNULL,
        )
        if done.returncode != 0:
            tail = "\n".join((done.stdout + done.stderr).splitlines()[-LOG_LINES_SHOWN:])
            raise MachineError(f"apt-get {' '.join(command)} failed:\n{tail}")
    still = sorted(program for program in programs if find(program) is None)
    if still:
        raise MachineError(f"{names} are installed, and {', '.join(still)} still can't be found.")


def find(program: str) -> str | None:
    """Where a program is; also in the places of the system's own, which a user's PATH may lack."""
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin")
