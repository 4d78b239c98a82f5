"""`make images-test`: the images at work, on a real Kafka and a real Postgres, where everything is forbidden.

Outside: builds what is missing, and opens a sandbox. Inside: the services of `compose.yaml`, each container
read-only, without a capability, as the user that its image names. Orders go in through the API; one of two
orchestrators is asked to end meanwhile and comes back; the audit has the last word.
"""

from __future__ import annotations

import json
import secrets
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from signal import SIGTERM
from typing import Any

import httpx
import psycopg

import sandbox
from debian import MachineError
from examples.orders import load_orders
from examples.stage import SERVICES
from images.build import BASE, IMAGES, build
from images.composition import databases, kafka_settings, services
from images.podman import Podman, PodmanError, alone, hardened
from kasaga.dev.process import Process, ServerError, log_tail
from kasaga.dev.servers import KafkaServer, PostgresServer, free_port
from shop_desk import Api, Desk, DeskError

ORDERS, PER_SECOND = 200, 20.0

READY_SECONDS = 60.0
STOP_SECONDS = 20.0
"""How long a container may take to end after SIGTERM; Kubernetes gives 30 by default."""

LOOK_SECONDS = 0.05

HOSTS = ("kafka", "postgres")
"""The names by which `compose.yaml` calls them; everything is on one host here."""

POSTGRES_PORT, KAFKA_PORT = 5432, 9092

AS_THE_IMAGE_DOES = ("CREATE ROLE kasaga SUPERUSER LOGIN PASSWORD 'kasaga'", "CREATE DATABASE kasaga")
"""What Postgres' image makes of POSTGRES_USER."""

USER = 10001

EXPECTED: dict[str, Any] = {
    "user": USER,
    "group": USER,
    "writes": [],
    "traces": ["http", "grpc"],
    "builds": [],
}

FACTS = """
import json, os, shutil
from importlib.util import find_spec
def writes(path):
    try:
        open(path + "/written", "w").close()
    except OSError:
        return False
    return True
print(json.dumps({
    "user": os.getuid(), "group": os.getgid(),
    "writes": [path for path in ("/", "/app", "/opt", "/tmp", "/run", "/var/tmp") if writes(path)],
    "traces": [way for way in ("http", "grpc") if find_spec(f"opentelemetry.exporter.otlp.proto.{way}")],
    "builds": [name for name in ("gcc", "cc", "make", "pip", "pip3", "uv", "git") if shutil.which(name)],
}))
"""


class Containers:
    """Starts the services of `compose.yaml`, and ends them."""

    def __init__(self, podman: Podman, directory: Path, images: dict[str, str]) -> None:
        self._podman = podman
        self._directory = directory
        self._images = images
        self._services = services()
        self._running: dict[str, Process] = {}

    def start(self, name: str, service: str = "", **changes: str) -> Process:
        """Starts a container, with some of its variables changed: all share one network here."""
        image, command, environment = self._services[service or name]
        argv = [*self._podman.argv, *hardened(name, environment | changes), self._images[image], *command]
        self._running[name] = Process(argv, log=self.log(name), cwd=self._directory)
        return self._running[name]

    def log(self, name: str) -> Path:
        """Where a container's output goes."""
        return self._directory / f"{name}.log"

    def end(self, name: str) -> float:
        """Asks a container to end. Gives the seconds it took; raises DeskError unless it ended in order."""
        began = time.monotonic()
        process = self._running.pop(name)
        in_time = process.stop(SIGTERM, STOP_SECONDS)
        status = process.ended()
        if not in_time or status != 0:
            raise DeskError(
                f"{name} was asked to end and "
                + (f"ended with status {status}" if in_time else "didn't")
                + f". The end of its log:\n{log_tail(self.log(name))}"
            )
        return time.monotonic() - began

    def end_all(self) -> None:
        """Ends every container in order."""
        for name in list(self._running):
            self.end(name)

    def wait_until_ready(self, name: str, url: str) -> float:
        """Gives the seconds until a container's `/ready` says yes; raises DeskError when it never does."""
        began = time.monotonic()
        while time.monotonic() - began < READY_SECONDS:
            status = self._running[name].ended()
            if status is not None:
                break
            try:
                if httpx.get(url, timeout=1.0).status_code == 200:
                    return time.monotonic() - began
            except httpx.TransportError:
                pass
            time.sleep(LOOK_SECONDS)
        raise DeskError(f"{name} didn't get ready. The end of its log:\n{log_tail(self.log(name))}")


class Check:
    """One run, inside of the sandbox."""

    def __init__(self, images: dict[str, str]) -> None:
        self._images = images
        self._podman = Podman()
        self._token = secrets.token_urlsafe(24)
        self._tell = teller()

    def run(self) -> None:
        """Does it all; raises DeskError, PodmanError, ServerError."""
        directory = sandbox.directory()
        for image in self._images.values():
            self._facts(image)
        with ExitStack() as stack:
            postgres = stack.enter_context(self._postgres(directory))
            home = directory / "kafka"
            kafka = KafkaServer(home, port=KAFKA_PORT, address="kafka", settings=kafka_settings())
            stack.enter_context(kafka)
            self._tell("a Postgres and a Kafka run")
            containers = Containers(self._podman, directory, self._images)
            self._migrate(containers)
            self._serve(containers, postgres)

    def _postgres(self, directory: Path) -> PostgresServer:
        """A Postgres as its image would make it of `compose.yaml`."""
        server = PostgresServer(directory / "postgres", port=POSTGRES_PORT).start()
        with psycopg.connect(server.url(), autocommit=True) as connection:
            for statement in (*AS_THE_IMAGE_DOES, *databases()):
                connection.execute(statement.encode())
        return server

    def _facts(self, image: str) -> None:
        """What an image is, from its labels and from within."""
        about = self._podman.inspect(image)
        labels = about["Labels"]
        if not labels.get("org.opencontainers.image.version") or not about["User"].split(":")[0].isdigit():
            raise DeskError(
                f"{image}: the labels or the user aren't as they should be: {labels}, {about['User']}"
            )
        name = f"facts-{secrets.token_hex(4)}"
        options = [*hardened(name, {}), "--entrypoint=python", image, "-c", FACTS]
        facts: dict[str, Any] = json.loads(self._podman.run(options, seconds=60))
        if facts != EXPECTED:
            raise DeskError(f"{image}: a container of it should say {EXPECTED}, and says {facts}")
        base = int(self._podman.inspect(BASE)["Size"])
        size = int(about["Size"])
        self._tell(f"{image}: {size / 1e6:.0f} MB, of which {base / 1e6:.0f} the base; user {facts['user']}")

    def _migrate(self, containers: Containers) -> None:
        began = time.monotonic()
        process = containers.start("migrate")
        while (status := process.ended()) is None and time.monotonic() - began < READY_SECONDS:
            time.sleep(LOOK_SECONDS)
        if status != 0:
            raise DeskError(f"The migration failed:\n{log_tail(containers.log('migrate'))}")
        self._tell(f"migrated in {time.monotonic() - began:.1f} s, container and all")

    def _serve(self, containers: Containers, postgres: PostgresServer) -> None:
        def serve(name: str, service: str = "", **changes: str) -> None:
            port = free_port()
            containers.start(name, service, KASAGA_HTTP_PORT=str(port), **changes)
            seconds = containers.wait_until_ready(name, f"http://127.0.0.1:{port}/ready")
            self._tell(f"{name} was ready after {seconds:.1f} s")

        serve("orchestrator-1", "orchestrator")
        serve("orchestrator-2", "orchestrator")
        serve("api", KASAGA_API_TOKEN=self._token)
        for name in SERVICES:
            serve(name)
        url = "http://127.0.0.1:8080"

        def replace() -> None:
            self._tell(
                f"orchestrator-1 handed its shards over and ended in {containers.end('orchestrator-1'):.1f} s"
            )
            serve("orchestrator-1", "orchestrator")

        api = Api(url, self._token)
        desk = Desk(api.start, postgres.url, self._tell)
        desk.run(load_orders(ORDERS), per_second=PER_SECOND, meanwhile=replace)
        self._ask(api, url)
        containers.end_all()
        ends = desk.audit()
        self._tell(
            f"images: {ends.total()} sagas: {ends['COMPLETED']} completed, "
            f"{ends['COMPENSATED']} compensated; audit: 0 violations"
        )

    def _ask(self, api: Api, url: str) -> None:
        """The API says how an order's saga ended, and nothing to strangers."""
        path = f"/api/v1/sagas/{load_orders(1)[0].id}"
        stranger = httpx.get(f"{url}{path}", timeout=10.0)
        answer = api.get(path)
        api.close()
        if stranger.status_code != 401 or answer.json().get("state") not in ("COMPLETED", "COMPENSATED"):
            raise DeskError(f"The API answers {stranger.status_code} to strangers, and to us: {answer.text}")


def teller() -> Callable[[str], None]:
    """Gives what writes lines with the time since now."""
    began = time.monotonic()
    return lambda text: print(f"{time.monotonic() - began:6.1f} s  {text}", flush=True)


def outside() -> int:
    """Builds, then runs this module inside of a sandbox."""

    def tell(text: str) -> None:
        print(f"images: {text}", flush=True)

    try:
        with alone(tell):
            images = build(tell)
            return sandbox.enter("images.check", [json.dumps(images)], keep=False, tell=tell)
    except (MachineError, PodmanError) as error:
        tell(f"failed: {error}")
        return 1


def inside(images: dict[str, str]) -> int:
    """Runs the check; the exit status says whether all went well."""
    sandbox.prepare(HOSTS)
    try:
        Check(images).run()
    except (DeskError, PodmanError, ServerError, httpx.HTTPError, psycopg.Error) as error:
        print(f"images: failed: {error}", flush=True)
        return 1
    return 0


if __name__ == "__main__":
    if set(IMAGES) <= set(json.loads(sys.argv[1]) if len(sys.argv) > 1 else {}):
        sys.exit(inside(json.loads(sys.argv[1])))
    sys.exit(outside())
