"""What the chart renders, run for real: the processes take their settings and secrets, answer their probes,
pass the chart's own tests, and end in time when they are told to."""

from __future__ import annotations

from collections.abc import Generator
from functools import partial
from pathlib import Path

import psycopg
import pytest

from eventually import eventually
from fix_proxy import TcpProxy
from helm.chart import CHART, Helm
from helm.yard import PATIENCE, Yard
from kasaga.dev.servers import KafkaServer, PostgresServer

SERVICES = ("inventory", "payments", "shipping")
TOKEN = "a-token-of-this-test-alone"


@pytest.fixture
def yard(
    helm: Helm,
    tmp_path: Path,
    kafka: KafkaServer,
    postgres: PostgresServer,
    postgres_proxy: TcpProxy,
    database: str,
    namespace: str,
    topic_prefix: str,
) -> Generator[Yard]:
    """The example install; the orchestrator's Postgres is behind a proxy."""
    assert database
    rendered = helm.template(
        CHART / "ci" / "examples-values.yaml",
        tests=True,
        more={
            "kafka.bootstrapServers": kafka.bootstrap,
            "topicPrefix": topic_prefix,
            "api.allowedHosts": ["sagas.example.com"],
            "kafka.config": {"socket.keepalive.enable": True},
            "kafka.existingSecret": {"name": "kafka", "keys": {"client.id": "name"}},
        },
    )
    others = {name: postgres.create_database(f"{namespace}_{name}") for name in SERVICES}
    secrets = {
        "kasaga-databases": {"url": postgres.url(namespace, port=postgres_proxy.port), **others},
        "kasaga-api": {"token": TOKEN},
        "kafka": {"name": "chart"},
    }
    made = Yard(tmp_path, rendered, secrets)
    try:
        yield made
    finally:
        made.close()
        for name in SERVICES:
            postgres.drop_database(f"{namespace}_{name}")


def deployments(yard: Yard) -> list[str]:
    return sorted(yard.rendered.of("Deployment"))


def test_an_install_from_its_first_hook_to_its_last_pod(
    yard: Yard, postgres_proxy: TcpProxy, database: str
) -> None:
    status, said = yard.run("kasaga-migration")
    assert status == 0, said

    for name in deployments(yard):
        yard.start(name)
    for name in deployments(yard):
        eventually(partial(yard.is_ready, name), timeout=PATIENCE)
    for name, service in yard.rendered.of("Service").items():
        assert "metrics" in [port["name"] for port in service["spec"]["ports"]]
        status, said = yard.ask(name, "metrics", "/metrics")
        assert (status, "\nkasaga_" in said) == (200, True), name
    helm_test(yard)
    with psycopg.connect(database) as connection:
        [(count,)] = connection.execute("SELECT count(*) FROM kasaga.saga WHERE saga_id = 'kasaga-test-1'")
    assert count == 1

    # The same again is an upgrade that changes nothing.
    status, said = yard.run("kasaga-migration")
    assert (status, "up to date" in said) == (0, True)

    postgres_proxy.stop()
    eventually(lambda: yard.probe("kasaga-orchestrator", "readinessProbe")[0] == 503, timeout=PATIENCE)
    eventually(lambda: yard.probe("kasaga-api", "readinessProbe")[0] == 503, timeout=PATIENCE)
    for name in ("kasaga-orchestrator", "kasaga-api"):
        assert yard.probe(name, "livenessProbe")[0] == 200, "a lost database is no reason to end a pod"
    postgres_proxy.start()
    for name in ("kasaga-orchestrator", "kasaga-api"):
        eventually(partial(yard.is_ready, name), timeout=PATIENCE)

    ended = {name: yard.end(name) for name in deployments(yard)}
    assert set(ended.values()) == {0}, ended
    with psycopg.connect(database) as connection:
        [(owned,)] = connection.execute("SELECT count(*) FROM kasaga.shard WHERE owner IS NOT NULL")
    assert owned == 0, "shards are handed over, not left to their leases"


def helm_test(yard: Yard) -> None:
    """What `helm test` runs."""
    here = {"SERVICE": "127.0.0.1", "PORT": str(yard.port("kasaga-orchestrator", "metrics"))}
    status, said = yard.run("kasaga-test-orchestrators", **here)
    assert (status, "16 of 16 shards have an owner" in said) == (0, True), said
    status, said = yard.run("kasaga-test-api", URL=f"http://127.0.0.1:{yard.port('kasaga-api', 'http')}")
    assert (status, said) == (0, "the API is ready, and asks for its token\n")
    status, said = yard.run("kasaga-test-saga")
    assert status == 0, said
    assert "tracking" in said
