"""A realm for all tests that can share one: making topics and a database costs more than most tests."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Generator
from pathlib import Path

import pytest

from kasaga.dev.servers import KafkaServer, PostgresServer
from orchestrator.realm import Realm, mood_for


@pytest.fixture(scope="session")
def realm(kafka: KafkaServer, postgres: PostgresServer) -> Generator[Realm]:
    """A realm without processes."""
    with tempfile.TemporaryDirectory() as directory:
        made = Realm(kafka, postgres, Path(directory))
        made.desk.mood = mood_for({})
        yield made
        made.close()


@pytest.fixture(scope="session")
def peopled(realm: Realm) -> Generator[Realm]:
    """A realm with one orchestrator that stays, and participants at work."""
    realm.owner()
    with realm.participants():
        yield realm


@pytest.fixture
def prefix() -> str:
    """For the ids of a test's own sagas."""
    return f"{uuid.uuid4().hex[:8]}-"
