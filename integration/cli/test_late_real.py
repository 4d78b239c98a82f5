"""Late answers: the guide's saga, service and desk as processes, on real servers, and killed."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import uuid
from collections.abc import Generator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from cli.town import PATIENCE, Said, Town
from eventually import eventually
from kasaga.client import Client
from kasaga.dev.servers import KafkaServer, PostgresServer

GUIDE = Path(__file__).parents[2] / "participants" / "late.md"
HEARTBEAT_SECONDS = 3.0
SILENT_SECONDS = 3_600.0


class Desk(Town):
    """The files of the guide."""

    shop = "travel"
    namespace = "travel"

    def begin(self) -> None:
        for text in re.findall(r"^```python\n(.*?)^```$", GUIDE.read_text(), re.MULTILINE | re.DOTALL):
            name = re.match(r"# (\w+\.py)\n", text)
            assert name is not None, text
            (self.folder / name[1]).write_text(text)
        said = self.kasaga("migrate", "--namespace", self.namespace, "--shards", "4")
        assert said.status == 0, said.err
        self._run("orchestrator", ["-m", "kasaga", "orchestrator", "travel:app"], self.environment)
        self._run("service", ["-m", "approvals_service"], self.service_environment())
        eventually(self._has_topics, timeout=PATIENCE)

    def service_environment(self, heartbeat: float = SILENT_SECONDS, **more: str) -> dict[str, str]:
        return {
            **self.environment,
            "KASAGA_DATABASE_URL": self.own,
            "KASAGA_NAMESPACES": self.namespace,
            "KASAGA_KAFKA_GROUP_INSTANCE_ID": "approvals-0",
            "HEARTBEAT_SECONDS": str(heartbeat),
            "PYTHONPATH": f"{self.environment['PYTHONPATH']}:{self.folder}",
            **more,
        }

    def client(self, name: str = "test") -> Client:
        return Client(self.namespace, self.kafka, topic_prefix=self.prefix, name=name)

    def kill_orchestrator(self) -> None:
        self.running[0].kill()
        arguments = ["-m", "kasaga", "orchestrator", "travel:app"]
        self.running[0] = self.process("orchestrator", arguments, self.environment)

    def kill_service(self, heartbeat: float = SILENT_SECONDS, **more: str) -> None:
        """It dies where it stands, and another takes its place."""
        self.running[1].kill()
        arguments = ["-m", "approvals_service"]
        self.running[1] = self.process("service", arguments, self.service_environment(heartbeat, **more))

    def start(self, trip: str, days: int = 4) -> None:
        value = json.dumps({"id": trip, "days": days})
        said = self.kasaga("start", "travel:app", "travel", "--id", trip, "--input", value)
        assert said.status == 0, said.err

    def desk(self, what: str, trip: str, text: str, **environment: str) -> Said:
        done = subprocess.run(
            [sys.executable, "desk.py", what, trip, text],
            check=False,
            capture_output=True,
            text=True,
            cwd=self.folder,
            env=self.service_environment(SILENT_SECONDS, **environment),
            timeout=PATIENCE,
        )
        return Said(done.returncode, done.stdout, done.stderr)

    def request(self, trip: str) -> str | None:
        with psycopg.connect(self.own) as connection:
            row = connection.execute("SELECT state FROM request WHERE trip = %s", [trip]).fetchone()
        return None if row is None else str(row[0])

    def described(self, trip: str) -> dict[str, Any]:
        said = self.kasaga("describe", trip, "-o", "json")
        assert said.status == 0, said.err
        found: dict[str, Any] = json.loads(said.out)
        return found

    def deferred(self, trip: str) -> dict[str, Any]:
        """What is known of the trip once its command is accepted."""

        def found() -> dict[str, Any]:
            told = self.described(trip)
            assert told["steps"], told
            assert told["steps"][0]["state"] == "deferred", told
            return told

        return eventually(found, timeout=PATIENCE, interval=0.2)

    def ended(self, trip: str, state: str) -> dict[str, Any]:
        def found() -> dict[str, Any]:
            told = self.described(trip)
            assert told["state"] == state, told
            return told

        return eventually(found, timeout=PATIENCE, interval=0.2)


@pytest.fixture(scope="module")
def town(
    tmp_path_factory: pytest.TempPathFactory, kafka: KafkaServer, postgres: PostgresServer
) -> Generator[Desk]:
    names = [f"t{uuid.uuid4().hex[:8]}" for _ in range(2)]
    databases = [postgres.create_database(name) for name in names]
    made = Desk(tmp_path_factory.mktemp("desk"), kafka, *databases)
    try:
        made.begin()
        yield made
    finally:
        made.end()
        for name in names:
            postgres.drop_database(name)


def test_an_answer_hours_later_and_kills_in_between(town: Desk) -> None:
    town.start("oslo")
    assert "progress" not in town.deferred("oslo")["waits_for"][0]

    town.kill_orchestrator()
    said = town.desk("look", "oslo", "anna")
    assert said.status == 0, said.err

    def looked() -> str:
        [wait] = town.described("oslo")["waits_for"]
        assert json.loads(wait.get("progress", "null")) == {"on the desk of": "anna"}
        return str(wait["text"])

    assert "last heartbeat" in eventually(looked, timeout=PATIENCE, interval=0.2)
    assert "answers later" in town.kasaga("describe", "oslo").out
    town.kill_service()
    assert town.desk("approve", "oslo", "bob").status == 0
    town.kill_orchestrator()
    assert town.ended("oslo", "COMPLETED")["result"] == "approved by bob"
    assert "deferred (1 heartbeat, the last: " in town.kasaga("history", "oslo").out

    again = town.desk("approve", "oslo", "bob")
    assert again.status == 0, again.err
    other = town.desk("approve", "oslo", "eve")
    assert "KSG-454" in other.err
    assert town.request("oslo") == "approve", "the refused answer's own work was rolled back with it"


def test_a_command_that_isnt_deferred_is_answered_at_once(town: Desk) -> None:
    town.start("ghent", days=1)
    assert town.ended("ghent", "COMPLETED")["result"] == "approved by the rule for single days"


def test_a_refusal_and_a_failure_come_late_too(town: Desk) -> None:
    town.start("rome")
    town.deferred("rome")
    assert town.desk("refuse", "rome", "no money").status == 0
    assert "no money" in town.ended("rome", "COMPENSATED")["reason"]

    town.start("bern")
    town.deferred("bern")
    assert town.desk("fail", "bern", "the form is lost").status == 0

    def accepted_again() -> bool:
        return town.request("bern") == "open" and town.described("bern")["steps"][0]["attempts"] == 2

    eventually(accepted_again, timeout=PATIENCE, interval=0.2)
    assert town.desk("approve", "bern", "bob").status == 0
    assert town.ended("bern", "COMPLETED")["result"] == "approved by bob"


def test_without_heartbeats_the_step_is_undone_and_its_token_dead(town: Desk) -> None:
    town.kill_service(heartbeat=HEARTBEAT_SECONDS)
    town.start("nice")
    town.deferred("nice")
    assert "no heartbeat" in town.ended("nice", "COMPENSATED")["reason"]
    assert town.request("nice") == "withdrawn"

    late = town.desk("approve", "nice", "bob")
    assert "KSG-453" in late.err
    assert town.request("nice") == "withdrawn"
    audited = town.kasaga("audit", "nice")
    assert audited.status == 0, audited.out + audited.err
    town.kill_service()


def test_a_cancelled_saga_withdraws_what_was_accepted(town: Desk) -> None:
    town.start("pisa")
    town.deferred("pisa")
    assert town.kasaga("cancel", "pisa", "--reason", "a test").status == 0
    town.ended("pisa", "COMPENSATED")
    assert town.request("pisa") == "withdrawn"
    assert "KSG-453" in town.desk("look", "pisa", "anna").err


@pytest.mark.parametrize("point", ["after_take", "after_ack"])
def test_a_service_that_dies_over_a_late_answer_is_replaced(town: Desk, point: str) -> None:
    town.start(point)
    town.deferred(point)
    town.kill_service(KASAGA_CRASH_AT=f"participant.late.{point}")
    dying = town.running[1]
    assert town.desk("approve", point, "bob").status == 0
    assert eventually(dying.ended, timeout=PATIENCE) == -signal.SIGKILL
    town.kill_service()
    assert town.ended(point, "COMPLETED")["result"] == "approved by bob"


def test_an_answer_that_dies_before_its_commit_is_none(town: Desk) -> None:
    town.start("kyiv")
    town.deferred("kyiv")
    died = town.desk("approve", "kyiv", "eve", KASAGA_CRASH_AT="participant.late.before_commit")
    assert died.status == -signal.SIGKILL
    assert town.request("kyiv") == "open"
    assert town.desk("approve", "kyiv", "bob").status == 0
    assert town.ended("kyiv", "COMPLETED")["result"] == "approved by bob"


def test_a_service_that_dies_over_the_acceptance_accepts_once(town: Desk) -> None:
    for point in ("after_handler", "before_commit", "after_commit"):
        town.kill_service(KASAGA_CRASH_AT=f"participant.{point}")
        dying = town.running[1]
        town.start(f"die-{point}")
        assert eventually(dying.ended, timeout=PATIENCE) == -signal.SIGKILL
        town.kill_service()
        town.deferred(f"die-{point}")
        assert town.desk("approve", f"die-{point}", "bob").status == 0
        assert town.ended(f"die-{point}", "COMPLETED")["result"] == "approved by bob"
