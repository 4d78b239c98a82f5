"""The command line at work on a store in memory and an owner that is played."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from cli.fake_owner import FakeOwner, Sage
from cli.tales import BEGIN, Tale, put
from kasaga.cli import run
from kasaga.cli.session import Session
from kasaga.client import Client
from kasaga.store.base import Store
from kasaga.store.memory import MemoryStore
from kasaga_wire.kafka import KafkaSettings

NOW = BEGIN + timedelta(minutes=5)


@dataclass
class Said:
    """What a command answered."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def jsonl(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]


class Lasting:
    """A store that survives the commands' closing it."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return (lambda: None) if name == "close" else getattr(self._store, name)


@dataclass
class Shell:
    """Runs commands as a person would."""

    capsys: pytest.CaptureFixture[str]
    folder: Path
    owner: FakeOwner = field(default_factory=FakeOwner)
    store: MemoryStore = field(default_factory=lambda: MemoryStore(namespace="orders", clock=lambda: NOW))
    environment: dict[str, str] = field(
        default_factory=lambda: {
            "KASAGA_DATABASE_URL": "memory",
            "KASAGA_KAFKA_BOOTSTRAP_SERVERS": "nowhere:1",
            "KASAGA_BY": "anna",
        }
    )
    opened: list[str] = field(default_factory=list[str])
    brokers: list[KafkaSettings] = field(default_factory=list[KafkaSettings])

    def keep(self, *tales: Tale) -> None:
        """Have the store and the owner know these sagas."""
        put(self.store, *tales)
        for tale in tales:
            row = tale.row
            self.owner.sagas[row.saga_id] = Sage(tale.run_id, row.name, tale.state.input, row.state.value)

    def __call__(self, *arguments: str) -> Said:
        self.capsys.readouterr()
        session = Session(
            environment=self.environment,
            folder=self.folder,
            open_store=self._open_store,
            open_reader=self._open_store,
            open_client=self._open_client,
            now=lambda: NOW,
        )
        status = run(list(arguments), session)
        said = self.capsys.readouterr()
        return Said(status, said.out, said.err)

    def _open_store(self, url: str) -> Store:
        self.opened.append(url)
        lasting: Any = Lasting(self.store)
        return lasting  # type: ignore[no-any-return]

    def _open_client(self, namespace: str, kafka: KafkaSettings, **more: Any) -> Client:
        assert namespace == "orders"
        self.brokers.append(kafka)
        return Client(namespace, kafka, link=self.owner, **more)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)
