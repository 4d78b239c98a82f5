from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from eventually import PATIENCE_SECONDS, eventually
from fix_proxy import TcpProxy
from kasaga.dev.servers import KafkaServer, PostgresServer
from raw_kafka import create_topic, flushes, producer, read


@pytest.fixture
def through(postgres: PostgresServer, postgres_proxy: TcpProxy, database: str) -> str:
    """The address of the test's database, by the proxy."""
    return postgres.url(database.rpartition("/")[2], port=postgres_proxy.port)


def impatient(address: str) -> psycopg.Connection:
    return psycopg.connect(address, autocommit=True, connect_timeout=2, tcp_user_timeout=2000)


def test_forwards(through: str) -> None:
    with impatient(through) as connection:
        assert connection.execute("SELECT 7").fetchone() == (7,)


def test_a_stopped_proxy_refuses_and_cuts_and_a_started_one_serves_again(
    through: str, postgres_proxy: TcpProxy
) -> None:
    with impatient(through) as connection:
        postgres_proxy.stop()

        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
        with pytest.raises(psycopg.OperationalError, match="refused"):
            impatient(through)

    postgres_proxy.start()
    with impatient(through) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_dropped_connections_are_cut_and_new_ones_work(through: str, postgres_proxy: TcpProxy) -> None:
    with impatient(through) as connection:
        assert postgres_proxy.connections == 1
        postgres_proxy.drop_connections()

        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")

    with impatient(through) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_a_deaf_proxy_accepts_and_never_answers(through: str, postgres_proxy: TcpProxy) -> None:
    postgres_proxy.deaf()

    with pytest.raises(psycopg.OperationalError, match="timeout"):
        impatient(through)

    postgres_proxy.start()
    with impatient(through) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_a_mute_proxy_has_the_commit_made_and_its_answer_lost(
    through: str, database: str, postgres_proxy: TcpProxy
) -> None:
    insert = "INSERT INTO written VALUES (1)"
    with (
        psycopg.connect(database, autocommit=True) as direct,
        psycopg.connect(through, autocommit=True) as connection,
        ThreadPoolExecutor(1) as another_thread,
    ):
        direct.execute("CREATE TABLE written (id int)")
        postgres_proxy.mute()

        confirmed = another_thread.submit(lambda: connection.execute(insert))

        eventually(lambda: direct.execute("SELECT * FROM written").fetchall())
        assert not confirmed.done()

        postgres_proxy.start()  # cuts what lost bytes
        with pytest.raises(psycopg.OperationalError):
            confirmed.result(PATIENCE_SECONDS)


def test_kafka_clients_stay_behind_the_proxy(
    kafka: KafkaServer, kafka_proxy: TcpProxy, namespace: str
) -> None:
    create_topic(kafka.bootstrap, namespace)
    sender = producer(kafka.proxied_bootstrap)
    sender.produce(namespace, b"before", partition=0)
    assert flushes(sender)

    kafka_proxy.stop()
    sender.produce(namespace, b"during", partition=0)
    assert not flushes(sender, 0.5)
    kafka_proxy.start()

    assert flushes(sender)
    assert read(kafka.bootstrap, namespace, 2) == [b"before", b"during"]
