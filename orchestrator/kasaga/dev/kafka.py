"""A real Apache Kafka on loopback: one node, KRaft, broker and controller in one JVM.

Besides its plain listener it can have a second one that tells clients to come by another port, for a proxy
that stands there: clients follow what a broker advertises, not the address that they were given.
"""

from __future__ import annotations

import base64
import signal
import socket
import struct
import subprocess
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from kasaga.dev.jars import find_java, kafka_class_path
from kasaga.dev.ports import free_port
from kasaga.dev.process import Process, ServerError
from kasaga.dev.server import Progress, Server, silent

LOOPBACK = "127.0.0.1"

PROBE_SECONDS = 2.0
"""How long one attempt to speak to the broker may take."""

METADATA_REQUEST = struct.Struct(">ihhihi?")
"""Length, API key, version, correlation id, client id (null), topics (none), may create topics."""

LOG4J = """\
rootLogger.level = WARN
rootLogger.appenderRef.file.ref = file
logger.server.name = kafka.server.KafkaRaftServer
logger.server.level = INFO
appender.file.type = RollingFile
appender.file.name = file
appender.file.fileName = ${sys:kasaga.log}
appender.file.filePattern = ${sys:kasaga.log}.%i
appender.file.layout.type = PatternLayout
appender.file.layout.pattern = %d %p %c{1}: %m%n
appender.file.policies.type = SizeBasedTriggeringPolicy
appender.file.policies.size = 20MB
appender.file.strategy.type = DefaultRolloverStrategy
appender.file.strategy.max = 2
"""

DEFAULT_SETTINGS = {
    "auto.create.topics.enable": "false",
    # A killed broker may come back only when its old session is over, by default for 9 s.
    "broker.heartbeat.interval.ms": "250",
    "broker.session.timeout.ms": "2000",
    "group.initial.rebalance.delay.ms": "0",
    "log.cleaner.dedupe.buffer.size": "16777216",
    "num.partitions": "1",
    "offsets.topic.num.partitions": "8",
    "offsets.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "share.coordinator.state.topic.num.partitions": "2",
    "share.coordinator.state.topic.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "8",
    "transaction.state.log.replication.factor": "1",
}


class KafkaServer(Server):
    """An Apache Kafka whose data is in `directory`; `settings` are its own, by their own names.

    With `proxy_port`, there is a second listener on `proxy_target` for a proxy to forward to; who comes in
    by it is told that the broker lives at 127.0.0.1:`proxy_port`. `address` is another one of this machine's,
    for clients that can't reach its loopback: containers with a network of their own.
    """

    name: ClassVar[str] = "Kafka"
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM
    port_taken: ClassVar[str] = "Address already in use"

    def __init__(
        self,
        directory: Path,
        *,
        port: int | None = None,
        settings: Mapping[str, str] | None = None,
        proxy_port: int | None = None,
        address: str = LOOPBACK,
        heap_mb: int = 512,
        progress: Progress = silent,
    ) -> None:
        super().__init__(directory, port, progress)
        self.settings = DEFAULT_SETTINGS | dict(settings or {})
        self.proxy_port = proxy_port
        self._address = address
        self.proxy_target = free_port()
        self._controller_port = free_port()
        self._heap_mb = heap_mb
        self._java = ""
        self._class_path = ""

    @property
    def output(self) -> Path:
        """What the JVM prints before or beside Kafka's log."""
        return self.directory / "kafka.out"

    @property
    def bootstrap(self) -> str:
        """The address for clients."""
        return f"{self._address}:{self.port}"

    @property
    def proxied_bootstrap(self) -> str:
        """The address for clients that come by the proxy."""
        if self.proxy_port is None:
            raise ServerError("This Kafka has no listener for a proxy.", remedy="Give it a proxy_port.")
        return f"127.0.0.1:{self.proxy_port}"

    def _prepare(self) -> None:
        if not self._class_path:
            self._class_path = kafka_class_path(self._progress)
            self._java = find_java()
        (self.directory / "log4j2.properties").write_text(LOG4J)
        self._write_properties()
        if not (self.directory / "data" / "meta.properties").exists():
            self._format()

    @property
    def _properties(self) -> Path:
        return self.directory / "server.properties"

    def _write_properties(self) -> None:
        listeners = {"PLAIN": self.port, "CONTROLLER": self._controller_port}
        advertised = {"PLAIN": self.port}
        if self.proxy_port is not None:
            listeners["PROXIED"] = self.proxy_target
            advertised["PROXIED"] = self.proxy_port
        settings = {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@127.0.0.1:{self._controller_port}",
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "PLAIN",
            "listener.security.protocol.map": ",".join(f"{name}:PLAINTEXT" for name in listeners),
            "listeners": _addresses(listeners, self._address),
            "advertised.listeners": _addresses(advertised, self._address),
            "log.dirs": str(self.directory / "data"),
        } | self.settings
        self._properties.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))

    def _format(self) -> None:
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        done = subprocess.run(
            [*self._java_command("-XX:TieredStopAtLevel=1"), "kafka.tools.StorageTool", "format"]
            + [f"--cluster-id={cluster}", "-c", str(self._properties)],
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            cwd=self.directory,
            pass_fds=self._kept,
        )
        if done.returncode != 0:
            raise ServerError(
                f"Kafka's storage could not be formatted: {done.stderr.strip() or done.stdout.strip()}",
                remedy=f"Are the settings right, and is {self.directory / 'data'} empty?",
                log=self.log,
            )

    def _java_command(self, *options: str) -> list[str]:
        return [
            self._java,
            f"-Xmx{self._heap_mb}m",
            "-XX:+UseSerialGC",
            "-XX:+ExitOnOutOfMemoryError",
            "-Djava.awt.headless=true",
            "-Dlog4j2.disable.jmx=true",
            f"-Dlog4j2.configurationFile={self.directory / 'log4j2.properties'}",
            f"-Dkasaga.log={self.log}",
            *options,
            "-cp",
            self._class_path,
        ]

    def _launch(self) -> Process:
        argv = [*self._java_command(), "kafka.Kafka", str(self._properties)]
        return Process(argv, log=self.output, cwd=self.directory, keep=self._kept)

    def _move(self) -> None:
        # Any of the three may be the one that was taken.
        super()._move()
        self._controller_port = free_port()
        self.proxy_target = free_port()
        self._write_properties()

    def _answers(self) -> bool:
        try:
            return _brokers_at(self._address, self.port) > 0
        except (OSError, struct.error):
            return False


def _addresses(ports: Mapping[str, int], plain: str) -> str:
    """All are on loopback but the one for clients, which may be elsewhere."""
    return ",".join(
        f"{name}://{plain if name == 'PLAIN' else LOOPBACK}:{port}" for name, port in ports.items()
    )


def _brokers_at(address: str, port: int) -> int:
    """Asks for the cluster's metadata, by hand, and counts the brokers that serve.

    An open port is not enough: a broker listens before its controller lets it serve. By hand, because
    librdkafka belongs to `kasaga_wire.kafka`, and a client of it fills the screen with warnings while
    nobody answers yet.
    """
    with socket.create_connection((address, port), PROBE_SECONDS) as connection:
        # Metadata, version 4; -1 as the client id's length is null.
        connection.sendall(METADATA_REQUEST.pack(METADATA_REQUEST.size - 4, 3, 4, 1, -1, 0, False))
        head = b""
        while len(head) < 16:
            chunk = connection.recv(1024)
            if not chunk:
                return 0
            head += chunk
    # Length, correlation id, throttle time, number of brokers.
    return int(struct.unpack_from(">iiii", head)[3])
