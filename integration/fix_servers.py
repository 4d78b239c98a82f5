"""Fixtures for a real Kafka and a real Postgres, started once for a run and shared.

Sharing is safe because tests differ in `namespace` and `database`. A test may kill, freeze or restart a
shared server: after it, `_healed` brings back whatever is down.
"""

from __future__ import annotations

import shutil
import tempfile
import uuid
from collections.abc import Callable, Generator
from pathlib import Path

import pytest

from kasaga.dev.server import Server
from kasaga.dev.servers import KafkaServer, PostgresServer, free_port

LOG_LINES_SHOWN = 40

_shared = pytest.StashKey[list[Server]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_shared] = []


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Function) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Shows the ends of the servers' logs where a test fails."""
    report = yield
    if report.failed:
        for server in item.config.stash[_shared]:
            if server.name.lower() in item.fixturenames and server.log.exists():
                tail = server.log.read_text(errors="replace").splitlines()[-LOG_LINES_SHOWN:]
                report.sections.append((f"{server.name}'s log", "\n".join(tail)))
    return report


@pytest.fixture(scope="session")
def server_directory() -> Generator[Path]:
    """Not pytest's own temporary directory: Postgres runs as another user than root, who can't enter that."""
    directory = Path(tempfile.mkdtemp(prefix="kasaga-test-"))
    directory.chmod(0o711)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(scope="session")
def progress(pytestconfig: pytest.Config) -> Callable[[str], None]:
    """Tells on the terminal what takes long, past pytest's capture."""
    reporter: pytest.TerminalReporter | None = pytestconfig.pluginmanager.get_plugin("terminalreporter")

    def tell(text: str) -> None:
        if reporter is not None:
            reporter.write_line(text)

    return tell


@pytest.fixture(scope="session")
def postgres(
    pytestconfig: pytest.Config, server_directory: Path, progress: Callable[[str], None]
) -> Generator[PostgresServer]:
    """The run's Postgres. Take `database` unless the server itself is what the test is about."""
    with PostgresServer(server_directory / "postgres", progress=progress) as server:
        pytestconfig.stash[_shared].append(server)
        yield server
        pytestconfig.stash[_shared].remove(server)


@pytest.fixture(scope="session")
def kafka(
    pytestconfig: pytest.Config, server_directory: Path, progress: Callable[[str], None]
) -> Generator[KafkaServer]:
    """The run's Kafka; it has a second listener for `kafka_proxy`."""
    with KafkaServer(server_directory / "kafka", proxy_port=free_port(), progress=progress) as server:
        pytestconfig.stash[_shared].append(server)
        yield server
        pytestconfig.stash[_shared].remove(server)


@pytest.fixture(autouse=True)
def _healed(pytestconfig: pytest.Config) -> Generator[None]:
    """Brings back the shared servers that a test took down or froze."""
    yield
    for server in pytestconfig.stash[_shared]:
        if server.is_running:
            server.resume()
        else:
            server.start()


@pytest.fixture
def namespace() -> str:
    """A namespace of Kasaga that no other test has; good as a prefix of topics, groups and databases."""
    return f"t{uuid.uuid4().hex[:10]}"


@pytest.fixture
def topic_prefix(namespace: str) -> str:
    """A prefix for Kafka topics that no other test has."""
    return f"{namespace}."


@pytest.fixture
def database(postgres: PostgresServer, namespace: str) -> Generator[str]:
    """The address of an empty database of this test's own, on the run's Postgres."""
    yield postgres.create_database(namespace)
    if not postgres.is_running:
        postgres.start()
    postgres.resume()
    postgres.drop_database(namespace)
