from __future__ import annotations

import uuid
from collections.abc import Generator

import pytest

from kasaga.dev.servers import KafkaServer, PostgresServer
from payloads.vault import OLD, Vault


@pytest.fixture
def vault(
    tmp_path_factory: pytest.TempPathFactory, kafka: KafkaServer, postgres: PostgresServer
) -> Generator[Vault]:
    names = [f"t{uuid.uuid4().hex[:8]}" for _ in range(2)]
    databases = [postgres.create_database(name) for name in names]
    made = Vault(tmp_path_factory.mktemp("vault"), kafka, *databases)
    try:
        made.begin_with(OLD)
        yield made
    finally:
        made.end()
        for name in names:
            postgres.drop_database(name)
