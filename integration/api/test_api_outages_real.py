"""Postgres or Kafka go away under the API, are deaf or slow, and come back; it does so by itself."""

from __future__ import annotations

from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor

import pytest
from psycopg.conninfo import conninfo_to_dict

from api.served import Served, serving
from cli.town import PATIENCE, Town, town
from eventually import eventually
from fix_proxy import TcpProxy
from kasaga.dev.servers import KafkaServer, PostgresServer

__all__ = ["town"]


@pytest.fixture
def api(
    town: Town,
    kafka: KafkaServer,
    postgres: PostgresServer,
    kafka_proxy: TcpProxy,
    postgres_proxy: TcpProxy,
) -> Generator[Served]:
    """The API behind proxies of its own: the orchestrator and the service keep their servers."""
    name = str(conninfo_to_dict(town.database)["dbname"])
    with serving(
        town,
        "outages",
        KASAGA_KAFKA_BOOTSTRAP_SERVERS=kafka.proxied_bootstrap,
        KASAGA_DATABASE_URL=postgres.url(name, port=postgres_proxy.port),
        KASAGA_API_CONFIRM_SECONDS="2",
        KASAGA_API_READ_SECONDS="2",
    ) as made:
        yield made


def test_postgres_goes_and_comes_back(api: Served, postgres_proxy: TcpProxy) -> None:
    assert api.start("o-1", wait=30).status_code == 200
    postgres_proxy.stop()
    for said in (api.get("sagas/o-1"), api.get("sagas"), api.start("o-2")):
        assert (said.status_code, said.json()["code"]) == (503, "KSG-301"), said.text
        assert said.headers["retry-after"]
        assert str(postgres_proxy.port) not in said.text
    assert (api.probe("/ready").status_code, api.probe("/live").status_code) == (503, 200)
    postgres_proxy.start()
    assert api.get("sagas/o-1").status_code == 200
    assert api.probe("/ready").status_code == 200
    assert api.start("o-2", wait=30).status_code == 200


def test_a_cut_connection_is_nothing_to_tell(api: Served, postgres_proxy: TcpProxy) -> None:
    assert api.start("c-1", wait=30).status_code == 200
    postgres_proxy.drop_connections()
    assert api.get("sagas/c-1").status_code == 200


def test_a_deaf_postgres_takes_no_one_down(api: Served, postgres_proxy: TcpProxy) -> None:
    assert api.start("d-1", wait=30).status_code == 200
    postgres_proxy.deaf()
    said = api.get("sagas/d-1")
    assert (said.status_code, said.json()["code"]) == (503, "KSG-301")
    assert api.probe("/live").status_code == 200
    assert api.caller.get("/live").status_code == 200
    postgres_proxy.start()
    eventually(lambda: api.get("sagas/d-1").status_code == 200, timeout=PATIENCE)


def test_who_waits_does_so_through_an_outage(api: Served, town: Town, postgres_proxy: TcpProxy) -> None:
    assert api.start("w-1", "wait").status_code == 202
    eventually(lambda: api.get("sagas/w-1").status_code == 200)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(api.get, "sagas/w-1/result", wait=50)
        eventually(lambda: "kasaga_api_requests_waiting 1.0" in api.probe("/metrics").text)
        postgres_proxy.stop()
        eventually(lambda: "can't be read" in api.log(), timeout=PATIENCE)
        assert town.kasaga("cancel", "w-1", "--reason", "enough").status == 0
        postgres_proxy.start()
        said = waiting.result(PATIENCE)
        assert (said.status_code, said.json()["state"]) == (200, "COMPENSATED")


def test_kafka_goes_and_comes_back(api: Served, kafka_proxy: TcpProxy) -> None:
    assert api.start("f-1", wait=30).status_code == 200
    kafka_proxy.stop()
    said = api.start("f-2")
    assert (said.status_code, said.json()["code"]) == (503, "KSG-501"), said.text
    assert said.headers["retry-after"]
    assert "same id and input" in said.json()["remedy"]
    acted = api.caller.post("/api/v1/sagas/f-1/retry", json={}, params={"wait": 2})
    assert (acted.status_code, acted.json()["code"]) == (503, "KSG-505"), acted.text
    assert api.get("sagas/f-1").status_code == 200
    kafka_proxy.start()

    def started() -> bool:
        return api.start("f-2", wait=30).status_code == 200

    eventually(started, timeout=PATIENCE)
    # What was sent before arrives as well, and is the same saga.
    assert [saga["saga_id"] for saga in api.get("sagas", id_prefix="f-").json()["sagas"]] == ["f-2", "f-1"]
    assert (
        len([1 for entry in api.get("sagas/f-2/history").json()["history"] if entry["kind"] == "start"]) == 1
    )


def test_neither_is_there_at_the_start(
    town: Town,
    kafka: KafkaServer,
    postgres: PostgresServer,
    kafka_proxy: TcpProxy,
    postgres_proxy: TcpProxy,
) -> None:
    kafka_proxy.stop()
    postgres_proxy.stop()
    name = str(conninfo_to_dict(town.database)["dbname"])
    api = Served(
        town,
        "early",
        KASAGA_KAFKA_BOOTSTRAP_SERVERS=kafka.proxied_bootstrap,
        KASAGA_DATABASE_URL=postgres.url(name, port=postgres_proxy.port),
    )
    try:
        assert api.get("sagas/x").json()["code"] == "KSG-301"
        postgres_proxy.start()
        eventually(lambda: api.get("sagas/x").json()["code"] == "KSG-504", timeout=PATIENCE)
        said = api.start("n-1")
        assert (said.status_code, said.json()["code"]) == (503, "KSG-143"), said.text
        kafka_proxy.start()
        eventually(api.is_ready, timeout=PATIENCE)
        assert api.start("n-1", wait=30).status_code == 200
    finally:
        api.close()
