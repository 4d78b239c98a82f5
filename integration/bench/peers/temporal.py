"""Temporal on Postgres: one process with all its roles, and workers. Slow to build, so behind a flag."""

from __future__ import annotations

import subprocess
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench.bed import POSTGRES_SETTINGS
from bench.errors import BenchError
from bench.peers.client import Clients
from bench.peers.systems import Running, Setting, System, start, wait_for_port
from bench.peers.tools import Tools
from kasaga.dev.ports import free_port
from kasaga.dev.servers import PostgresServer

SCHEMA_SECONDS = 120.0

CONFIGURATION = """\
log: {{stdout: true, level: error}}
persistence:
  defaultStore: default
  visibilityStore: visibility
  numHistoryShards: 4
  datastores:
    default:
      sql: &sql {{pluginName: postgres12, databaseName: temporal, connectAddr: "127.0.0.1:{postgres}",
             connectProtocol: tcp, user: postgres, password: "", maxConns: 30, maxIdleConns: 30,
             maxConnLifetime: 1h}}
    visibility:
      sql: {{<<: *sql, databaseName: temporal_visibility, maxConns: 10, maxIdleConns: 10}}
global:
  membership: {{maxJoinDuration: 30s, broadcastAddress: 127.0.0.1}}
services:
  frontend: {{rpc: {{grpcPort: {ports[0]}, membershipPort: {ports[1]}, bindOnLocalHost: true,
             httpPort: {ports[2]}}}}}
  matching: {{rpc: {{grpcPort: {ports[3]}, membershipPort: {ports[4]}, bindOnLocalHost: true}}}}
  history: {{rpc: {{grpcPort: {ports[5]}, membershipPort: {ports[6]}, bindOnLocalHost: true}}}}
  worker: {{rpc: {{grpcPort: {ports[7]}, membershipPort: {ports[8]}, bindOnLocalHost: true}}}}
clusterMetadata:
  enableGlobalNamespace: false
  failoverVersionIncrement: 10
  masterClusterName: active
  currentClusterName: active
  clusterInformation:
    active: {{enabled: true, initialFailoverVersion: 1, rpcName: frontend,
              rpcAddress: "127.0.0.1:{ports[0]}"}}
dcRedirectionPolicy: {{policy: noop}}
"""


@contextmanager
def temporal(tools: Tools, directory: Path, setting: Setting) -> Generator[Running]:
    """Temporal's server on a Postgres with the settings that Kasaga's has, workers, and a client."""
    with (
        PostgresServer(directory / "postgres", settings=POSTGRES_SETTINGS) as postgres,
        ExitStack() as stack,
    ):
        for database, schema in (("temporal", "temporal"), ("temporal_visibility", "visibility")):
            postgres.create_database(database)
            _schema(tools, postgres.port, database, "setup-schema", "-v", "0.0")
            _schema(
                tools, postgres.port, database, "update-schema", "--schema-name", f"postgresql/v12/{schema}"
            )
        ports = [free_port() for _ in range(9)]
        configuration = directory / "temporal.yaml"
        configuration.write_text(CONFIGURATION.format(postgres=postgres.port, ports=ports))
        command = [
            str(tools.temporal / "server"),
            "--config-file",
            str(configuration),
            "--allow-no-auth",
            "start",
        ]
        server = start(stack, command, directory / "temporal.log")
        wait_for_port(ports[0], server, directory)
        address = f"127.0.0.1:{ports[0]}"
        module = [str(tools.python), "-m"]
        client = [[*module, "bench.peers.workers.temporal_client", address]]
        load = stack.enter_context(Clients(client, directory / "client.log"))
        workers = [
            start(
                stack,
                [*module, "bench.peers.workers.temporal_worker", address],
                directory / f"worker-{n}.log",
            )
            for n in range(setting.processes)
        ]
        yield Running(
            load,
            {
                "server": [server.pid, postgres.pid],
                "workers": [each.pid for each in workers],
                "client": load.pids,
            },
        )


def _schema(tools: Tools, port: int, database: str, *arguments: str) -> None:
    command = [str(tools.temporal / "sql"), "--plugin", "postgres12", "--ep", "127.0.0.1", "-p", str(port)]
    done = subprocess.run(
        [*command, "-u", "postgres", "--db", database, *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=SCHEMA_SECONDS,
    )
    if done.returncode != 0:
        raise BenchError(f"Temporal's schema could not be made: {(done.stdout + done.stderr)[-2000:]}")


TEMPORAL = System("temporal", temporal, Setting(16, 2), (Setting(16), Setting(64), Setting(16, 2)))
