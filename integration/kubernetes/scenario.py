"""What `make kubernetes` tries: a release's whole life under load, with the audit after each part.

Inside of the sandbox; called by `__main__.py`.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import psycopg
from psycopg import sql

from examples.contracts import Order
from examples.orders import load_orders
from examples.stage import SERVICES
from kasaga.dev.servers import KafkaServer, PostgresServer
from kubernetes.cluster import Cluster
from kubernetes.configs import HOST, PODS
from kubernetes.install import CHART, DATABASES_SECRET, RELEASE, TOKEN_SECRET, Install
from shop_desk import Api, Desk, DeskError

FIRST, UPGRADE, LOSS, ROLLBACK = 100, 150, 100, 150
"""Orders of each part, 500 in all. An order of the chart's own test comes on top."""

PER_SECOND = 10.0

POSTGRES_PORT, KAFKA_PORT = 5432, 9092
"""Nobody else is in the sandbox: they can have their own."""

TEST_ORDER = "chart-test"

Tell = Callable[[str], None]


class Scenario:
    """One run on a cluster; `tag` is that of the images, `next_tag` another one of the same."""

    def __init__(self, cluster: Cluster, directory: Path, *, tag: str, next_tag: str, tell: Tell) -> None:
        self._directory = directory
        self._tag = tag
        self._next_tag = next_tag
        self._tell = tell
        self._token = secrets.token_urlsafe(24)
        self._passwords = {name: secrets.token_urlsafe(12) for name in ("kasaga", *SERVICES)}
        self._orders = iter(load_orders(FIRST + UPGRADE + LOSS + ROLLBACK))
        self._install = Install(cluster, tell)

    def run(self) -> str:
        """Does it all and gives the last line; raises ClusterError, DeskError, ServerError."""
        with ExitStack() as stack:
            postgres, kafka = self._servers()
            stack.callback(kafka.kill)
            stack.callback(postgres.kill)
            self._databases(postgres)
            self._tell(f"a Postgres and a Kafka run at {HOST}")
            self._install.prepare(self._secrets(postgres), self._values(kafka))
            try:
                sagas = self._live(postgres)
            except Exception:
                self._tell(f"something has failed; this can be seen:\n{self._install.trouble()}")
                raise
        return f"kubernetes: install, upgrade, pod loss, rollback: {sagas} sagas, audit: 0 violations"

    # --- the life of a release

    def _live(self, postgres: PostgresServer) -> int:
        """Gives how many sagas there were, the chart's own test apart."""
        self._install.install()
        self._tell("helm install: all pods are ready")
        api = Api(self._install.api(), self._token)
        desk = Desk(api.start, postgres.url, self._tell)
        desk.run(self._take(FIRST), per_second=PER_SECOND)
        self._audit("install", desk)
        desk.run(self._take(UPGRADE), per_second=PER_SECOND, meanwhile=self._upgrade)
        self._audit("upgrade", desk)
        desk.run(self._take(LOSS), per_second=PER_SECOND, meanwhile=self._install.lose_an_orchestrator)
        self._audit("pod loss", desk)
        desk.run(self._take(ROLLBACK), per_second=PER_SECOND, meanwhile=self._rollback)
        self._audit("rollback", desk)
        api.close()
        sagas = desk.audit().total()
        self._end(desk)
        return sagas

    def _upgrade(self) -> None:
        """As a new release would come: other images and another setting, so that every pod is replaced."""
        self._install.upgrade(
            image__tag=self._next_tag, examples__image__tag=self._next_tag, log__level="warning"
        )
        self._install.wait_until_all_run(self._next_tag)
        self._tell("helm upgrade: every pod is replaced")

    def _rollback(self) -> None:
        self._install.rollback()
        self._install.wait_until_all_run(self._tag)
        self._tell("helm rollback: every pod is replaced")

    def _end(self, desk: Desk) -> None:
        said = self._install.test()
        # The chart's own test is an order, too, and counts in the books.
        order = json.loads((CHART / "files" / "order.json").read_text()) | {"id": TEST_ORDER}
        desk.started.append(Order.model_validate(order))
        self._tell(f"helm test: {said.count('Succeeded')} tests succeeded")
        self._audit("test", desk)
        self._install.uninstall()
        self._tell("helm uninstall: nothing is left of the release")
        desk.audit()

    def _audit(self, what: str, desk: Desk) -> None:
        ends = desk.audit()
        restarts = self._install.restarts()
        if restarts:
            raise DeskError(f"After {what}, containers had to be started again: {restarts}")
        self._tell(
            f"audit after {what}: {ends.total()} sagas, {ends['COMPLETED']} completed, "
            f"{ends['COMPENSATED']} compensated, 0 violations"
        )

    def _take(self, count: int) -> Sequence[Order]:
        return [next(self._orders) for _ in range(count)]

    # --- what the chart is given

    def _servers(self) -> tuple[PostgresServer, KafkaServer]:
        """A Postgres and a Kafka that pods can reach, with passwords for who comes from there."""
        rules = self._directory / "pg_hba.conf"
        rules.write_text(f"host all postgres 127.0.0.1/32 trust\nhost all all {PODS} scram-sha-256\n")
        listening = {"listen_addresses": f"127.0.0.1,{HOST}", "hba_file": str(rules)}
        home = self._directory / "servers"
        postgres = PostgresServer(
            home / "postgres", port=POSTGRES_PORT, settings=listening, progress=self._tell
        )
        kafka = KafkaServer(home / "kafka", port=KAFKA_PORT, address=HOST, progress=self._tell)
        with ThreadPoolExecutor(2) as pool:
            starting = pool.submit(postgres.start), pool.submit(kafka.start)
        for each in starting:
            each.result()
        return postgres, kafka

    def _databases(self, postgres: PostgresServer) -> None:
        """A database and a role for each, named alike; the role owns nothing else."""
        for name, password in self._passwords.items():
            postgres.create_database(name)
            with psycopg.connect(postgres.url(), autocommit=True) as connection:
                role = sql.Identifier(name)
                connection.execute(
                    sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(role, sql.Literal(password))
                )
                connection.execute(sql.SQL("ALTER DATABASE {} OWNER TO {}").format(role, role))

    def _secrets(self, postgres: PostgresServer) -> dict[str, dict[str, str]]:
        urls = {
            "url"
            if name == "kasaga"
            else name: f"postgresql://{name}:{password}@{HOST}:{postgres.port}/{name}"
            for name, password in self._passwords.items()
        }
        return {DATABASES_SECRET: urls, TOKEN_SECRET: {"token": self._token}}

    def _values(self, kafka: KafkaServer) -> dict[str, object]:
        """On top of `ci/examples-values.yaml`: where things are, and what two cores can carry."""
        return {
            "fullnameOverride": RELEASE,
            "image": {
                "repository": "localhost/kasaga-examples-sagas",
                "tag": self._tag,
                "pullPolicy": "Never",
            },
            "examples": {
                "testOrder": TEST_ORDER,
                "image": {"repository": "localhost/kasaga-examples", "tag": self._tag},
                "resources": {"requests": {"cpu": "20m"}},
            },
            "kafka": {"bootstrapServers": kafka.bootstrap},
            "orchestrator": {"replicas": 2},
            "api": {"replicas": 2, "resources": {"requests": {"cpu": "20m"}}},
        }
