"""What every command knows: where the servers are, who asks, and how to answer.

An option wins over its environment variable; where neither names a server, the ones that `kasaga dev`
runs in this folder (or above it) are taken.
"""

from __future__ import annotations

import getpass
import json
import os
import socket
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import click

from kasaga_wire.kafka import KafkaSettings
from kasaga_wire.sealing import Sealer, sealer_from_env

from ..client import Client
from ..store.audit import Book, Ends
from ..store.base import Store
from ..store.errors import check_namespace
from .errors import NoBrokers, NoDatabase, NoNamespace
from .output import Output

DEV_FILE = Path(".kasaga") / "dev.json"
"""Where `kasaga dev` says what it runs, below the folder it was started in."""

Command = TypeVar("Command", bound=Callable[..., Any])
Opened = TypeVar("Opened", Store, Ends, Book)


def _open_postgres(url: str) -> Store:
    from ..store.postgres import PostgresStore

    return PostgresStore(url, application="kasaga cli", sealer=sealer_from_env())


READER_SECONDS = 5.0
"""The server ends a statement of `kasaga replay` that takes longer: it reads what is served to customers."""


def _open_reader(url: str) -> Store:
    """A store that can write nothing, over one connection that is kept."""
    from ..store.postgres import PostgresStore
    from ..store.settings import StoreSettings

    settings = StoreSettings(url, read_only=True, people_timeout=READER_SECONDS)
    return PostgresStore(settings, application="kasaga replay", readers=1, sealer=sealer_from_env())


def _open_ends(url: str) -> Ends:
    from ..store.audit import PostgresEnds
    from ..store.settings import StoreSettings

    return PostgresEnds(StoreSettings(url, read_only=True, people_timeout=READER_SECONDS))


def _open_book(url: str, name: str) -> Book:
    from ..store.audit import PostgresBook
    from ..store.settings import StoreSettings

    return PostgresBook(StoreSettings(url, people_timeout=READER_SECONDS), name)


@dataclass
class Session:
    """The options that all commands share, and what they lead to. Tests replace the last six fields."""

    database_url: str = ""
    kafka: str = ""
    namespace: str = ""
    topic_prefix: str = ""
    by: str = ""
    json: bool = False
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)
    folder: Path = field(default_factory=Path.cwd)
    open_store: Callable[[str], Store] = _open_postgres
    open_reader: Callable[[str], Store] = _open_reader
    open_ends: Callable[[str], Ends] = _open_ends
    open_book: Callable[[str, str], Book] = _open_book
    open_client: Callable[..., Client] = Client
    now: Callable[[], datetime] = lambda: datetime.now(UTC)

    def output(self) -> Output:
        """How to answer."""
        return Output(json=self.json, environment=self.environment)

    # --- settings

    def setting(self, name: str) -> str:
        """An option, else `KASAGA_…` or the file that `KASAGA_…_FILE` names, else what `kasaga dev` runs."""
        given = str(getattr(self, name))
        variable = f"KASAGA_{'KAFKA_BOOTSTRAP_SERVERS' if name == 'kafka' else name.upper()}"
        if given:
            return given
        if path := self.environment.get(f"{variable}_FILE"):
            return Path(path).read_text(encoding="utf-8").strip()
        return self.environment.get(variable) or str(self._dev().get(name, ""))

    def secret(self, variable: str) -> str:
        """What a variable holds, or the file that `…_FILE` names; never shown anywhere."""
        if path := self.environment.get(f"{variable}_FILE"):
            return Path(path).read_text(encoding="utf-8").strip()
        return self.environment.get(variable, "")

    def sealer(self) -> Sealer:
        """What opens payloads, and seals them. Raises PayloadKeysInvalid."""
        return sealer_from_env(self.environment)

    def _dev(self) -> Mapping[str, Any]:
        """What `kasaga dev` runs. Nothing where any server is named otherwise: the two are never mixed."""
        named = ("KASAGA_DATABASE_URL", "KASAGA_KAFKA_BOOTSTRAP_SERVERS")
        if (
            self.database_url
            or self.kafka
            or any(self.environment.get(name) or self.environment.get(f"{name}_FILE") for name in named)
        ):
            return {}
        for folder in (self.folder, *self.folder.parents):
            try:
                return dict(json.loads((folder / DEV_FILE).read_text(encoding="utf-8")))
            except (OSError, ValueError):
                continue
        return {}

    def kafka_settings(self) -> KafkaSettings:
        """The brokers; raises NoBrokers where none are named."""
        environment = dict(self.environment)
        bootstrap = self.setting("kafka")
        if not bootstrap:
            raise NoBrokers("no Kafka brokers are named")
        environment["KASAGA_KAFKA_BOOTSTRAP_SERVERS"] = bootstrap
        environment.pop("KASAGA_KAFKA_BOOTSTRAP_SERVERS_FILE", None)
        return KafkaSettings.from_env(environment=environment)

    def who(self) -> str:
        """Who acts, for the history."""
        if self.by or self.environment.get("KASAGA_BY"):
            return self.by or self.environment["KASAGA_BY"]
        try:
            user = getpass.getuser()
        except (KeyError, OSError):
            user = "somebody"
        return f"{user}@{socket.gethostname()}"

    # --- what they lead to

    @contextmanager
    def store(self) -> Generator[Store]:
        """The orchestrator's database, to read; raises NoDatabase, NamespaceMismatch."""
        with self._opened(self.open_store) as store:
            self._check_namespace(store)
            yield store

    @contextmanager
    def reader(self) -> Generator[Store]:
        """The same, or a copy of it, for somebody who reads much: read-only, with a short time limit."""
        with self._opened(self.open_reader) as store:
            self._check_namespace(store)
            yield store

    def _check_namespace(self, store: Store) -> None:
        """Refuse the database of another namespace than the one named: its sagas look like any others."""
        if named := self.setting("namespace"):
            check_namespace(store.namespace().name, named)

    @contextmanager
    def ends(self) -> Generator[Ends]:
        """When sagas ended, of the same database."""
        with self._opened(self.open_ends) as ends:
            yield ends

    @contextmanager
    def book(self, name: str) -> Generator[Book]:
        """How far the audits of a name have come."""
        with self._opened(lambda url: self.open_book(url, name)) as book:
            yield book

    def database(self) -> str:
        """The address of the orchestrator's database; raises NoDatabase."""
        url = self.setting("database_url")
        if not url:
            raise NoDatabase("no database is named")
        return url

    @contextmanager
    def _opened(self, open_store: Callable[[str], Opened]) -> Generator[Opened]:
        store = open_store(self.database())
        try:
            yield store
        finally:
            store.close()

    def namespace_name(self) -> str:
        """The namespace: as named, else the one that the database belongs to."""
        named = self.setting("namespace")
        if named:
            return named
        if not self.setting("database_url"):
            raise NoNamespace("no namespace is named, and no database that would tell it")
        with self.store() as store:
            return store.namespace().name

    def client(self, namespace: str = "") -> Client:
        """A client of the namespace, not opened yet."""
        return self.open_client(
            namespace or self.namespace_name(),
            self.kafka_settings(),
            topic_prefix=self.setting("topic_prefix"),
            name=self.who(),
            database_url=self.setting("database_url"),
        )


pass_session = click.make_pass_decorator(Session, ensure=True)


def _keep(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    if value is not None and parameter.name:
        setattr(context.ensure_object(Session), parameter.name, value)


def _option(*names: str, help: str, **more: Any) -> Callable[[Command], Command]:  # noqa: A002
    return click.option(*names, help=help, expose_value=False, callback=_keep, **more)


def _json(context: click.Context, parameter: click.Parameter, value: str | None) -> None:
    context.ensure_object(Session).json = value == "json"


output_option = click.option(
    "-o",
    "--output",
    type=click.Choice(["text", "json"]),
    default="text",
    expose_value=False,
    callback=_json,
    help="text for people (default), or json for programs.",
)
database_option = _option("--database-url", metavar="URL", help="The orchestrator's Postgres.")
kafka_option = _option("--kafka", metavar="HOST:PORT", help="Kafka's bootstrap servers.")
prefix_option = _option("--topic-prefix", metavar="TEXT", help="What all topics begin with.")
namespace_option = _option("--namespace", metavar="NAME", help="The App's namespace.")
by_option = _option("--by", metavar="NAME", help="Who acts, for the history; you@host by default.")


def reads(command: Command) -> Command:
    """The options of a command that reads the database."""
    return database_option(output_option(command))


def sends(command: Command) -> Command:
    """The options of a command that sends records."""
    for each in (output_option, by_option, namespace_option, prefix_option, kafka_option, database_option):
        command = each(command)
    return command
