"""A room of its own for a check that starts servers, containers and networks: Linux namespaces.

`enter` runs a module as the first process of new pid, network and mount namespaces. Everything that it
starts dies with it, whatever has become of it; so do its network (a bridge, iptables' rules, addresses) and
its mounts. That holds after a crash, Ctrl-C and SIGKILL alike, since it is the kernel that does it. No packet
leaves the room.

Called by `images.check` and `kubernetes`. Needs root.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType

DIRECTORY = "KASAGA_SANDBOX"
"""The variable that tells the module inside which directory is its own."""

PLACE, NAME, KEPT = Path("/var/tmp"), "kasaga-sandbox-", "kasaga-kept-"
"""Where the directories are, and what their names begin with; those that are kept are called otherwise."""

CGROUPS = Path("/sys/fs/cgroup")

END_SECONDS = 30.0
"""How long the kernel may take to end all processes; longer means one that is stuck in it."""

LOOK_SECONDS = 0.1


def enter(module: str, arguments: Sequence[str], *, keep: bool, tell: Callable[[str], None]) -> int:
    """Runs `python -m module arguments` inside, with a new directory. Gives its exit status.

    The directory is removed in the end unless it is to be kept; so are control groups named after it.
    Ctrl-C and SIGTERM end what is inside at once; status 130 then.
    """
    if os.geteuid() != 0:
        tell("this needs root: namespaces, mounts and a network of its own")
        return 1
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    for name in stale():
        tell(f"removing {name}, which a run that was killed has left")
        remove(name)
    directory = Path(tempfile.mkdtemp(prefix=NAME, dir=PLACE))
    directory.chmod(0o711)  # Postgres runs as another user, who has to come through
    # setpriv: if we are killed, unshare is; and with unshare everything inside.
    argv = ["setpriv", "--pdeathsig", "KILL"]
    argv += ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--"]
    argv += [sys.executable, "-m", module, *arguments]
    process: subprocess.Popen[bytes] | None = None
    try:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            env={**os.environ, DIRECTORY: str(directory)},
            start_new_session=True,  # Ctrl-C reaches us alone
        )
        return process.wait()
    except KeyboardInterrupt:
        tell("interrupted: everything it started is being ended")
        return 130
    finally:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # a second Ctrl-C must not leave half of it
        if process is not None:
            process.kill()
            process.wait(END_SECONDS)
        if keep:
            kept = directory.rename(PLACE / directory.name.replace(NAME, KEPT))
            tell(f"logs and data are in {kept}")
        remove(directory.name)


def directory() -> Path:
    """The directory of the room that this process is in; raises KeyError outside of one."""
    return Path(os.environ[DIRECTORY])


def prepare(hosts: Sequence[str] = ()) -> None:
    """The first thing inside: loopback, and what programs write to fixed places goes into our directory.

    `hosts` are names that mean this host.
    """
    home = directory()
    run = subprocess.run
    run(["ip", "link", "set", "lo", "up"], check=True)
    # Private, so that nothing of it is seen outside; shared among what runs inside, as kubelet wants it.
    run(["mount", "--make-rprivate", "/"], check=True)
    run(["mount", "--make-rshared", "/"], check=True)
    run(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run"], check=True)
    for place in ("/var/log", "/var/lib/kubelet", "/var/lib/cni"):
        Path(place).mkdir(parents=True, exist_ok=True)
        ours = home / "places" / place.strip("/").replace("/", "-")
        ours.mkdir(parents=True)
        run(["mount", "--bind", str(ours), place], check=True)
    names = home / "places" / "hosts"
    names.write_text(" ".join(["127.0.0.1 localhost", *hosts]) + "\n")
    run(["mount", "--bind", str(names), "/etc/hosts"], check=True)


def left_behind() -> list[str]:
    """What of any room is still there: processes that know its directory, mounts, and so on. Sentences."""
    mounts = Path("/proc/mounts").read_text().splitlines()
    return [
        *(f"process {pid} ({what}) still runs" for pid, what in _processes_of(NAME)),
        *(f"{line} is still mounted" for line in mounts if NAME in line),
        *(f"control group {path} is still there" for path in _cgroups_of(NAME)),
        *(f"{path} is still there" for path in PLACE.glob(f"{NAME}*")),
    ]


def stale() -> list[str]:
    """The names of rooms in which nobody is any more: whoever was to tidy up was killed."""
    names = {path.name for path in PLACE.glob(f"{NAME}*")} | {path.name for path in _cgroups_of(NAME)}
    return [name for name in sorted(names) if not any(True for _ in _processes_of(name))]


def remove(name: str) -> None:
    """Removes what the kernel keeps of a room whose processes are being killed, and its directory."""
    deadline = time.monotonic() + END_SECONDS
    while any(True for _ in _processes_of(name)) and time.monotonic() < deadline:
        time.sleep(LOOK_SECONDS)
    for path in _cgroups_of(name):
        for each in [*sorted(path.rglob("*/"), reverse=True), path]:
            while True:
                try:
                    each.rmdir()
                    break
                except OSError:  # a process in it has been killed, and isn't buried yet
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(LOOK_SECONDS)
    if (PLACE / name).exists():
        shutil.rmtree(PLACE / name)


def _cgroups_of(name: str) -> list[Path]:
    """Control groups whose name begins so: right below the root, or below each controller's."""
    return [path for depth in ("", "*/") for path in CGROUPS.glob(f"{depth}{name}*") if path.is_dir()]


def _processes_of(name: str) -> Iterator[tuple[int, str]]:
    """Processes, other than ourselves, that were told of a directory by its name."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if name.encode() in (entry / "environ").read_bytes() + (entry / "cmdline").read_bytes():
                    yield int(entry.name), (entry / "comm").read_text().strip()
            except OSError:
                continue  # it has just ended


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
