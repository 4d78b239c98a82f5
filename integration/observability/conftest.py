from __future__ import annotations

import uuid
from collections.abc import Callable, Generator
from pathlib import Path

import pytest

from examples.jaeger import JaegerServer
from kasaga.dev.servers import KafkaServer, PostgresServer
from observability.collector import Collector
from observability.watch import Watch


@pytest.fixture
def collector() -> Generator[Collector]:
    with Collector() as made:
        yield made


@pytest.fixture(scope="session")
def jaeger(server_directory: Path, progress: Callable[[str], None]) -> Generator[JaegerServer]:
    with JaegerServer(server_directory / "jaeger", progress=progress) as server:
        yield server


@pytest.fixture
def watch(
    tmp_path: Path, kafka: KafkaServer, postgres: PostgresServer, database: str, topic_prefix: str
) -> Generator[Watch]:
    """Nothing runs yet. The logs of what does are shown where a test fails."""
    own = f"t{uuid.uuid4().hex[:8]}"
    made = Watch(tmp_path, kafka, database, postgres.create_database(own), topic_prefix)
    try:
        yield made
    finally:
        made.end()
        for name in made.running:
            print(f"--- {name}\n{made.text(name)}")
        if postgres.is_running:
            postgres.drop_database(own)
