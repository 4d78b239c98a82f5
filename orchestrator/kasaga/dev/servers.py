"""The development servers' public face: a real Kafka and a real Postgres on loopback, from nothing.

    with PostgresServer(directory / "postgres") as postgres, KafkaServer(directory / "kafka") as kafka:
        postgres.create_database("kasaga")
        run(postgres.url("kasaga"), kafka.bootstrap)

Used by `kasaga dev`, the demo, the benchmark and the integration tests. Both end with the process that
started them, even if it is killed, and keep their data: `restart()` serves it again on the same port.
"""

from __future__ import annotations

from kasaga.dev.kafka import KafkaServer
from kasaga.dev.ports import free_port
from kasaga.dev.postgres import PostgresServer
from kasaga.dev.process import ServerError

__all__ = ["KafkaServer", "PostgresServer", "ServerError", "free_port"]
