"""A saga is set back, with a real Kafka, a real Postgres, and owners that are killed while it is."""

from __future__ import annotations

import json
import uuid
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from cli.real_shop import Approval, Order
from cli.reset_shop import twice
from cli.test_pause_real import described, inbox, start_service, stop_service
from cli.test_signals_real import kill_orchestrator
from cli.town import PATIENCE, Town
from eventually import eventually
from kasaga.client import BlockingClient
from kasaga.dev.servers import KafkaServer, PostgresServer
from kasaga.errors import NotApplicable


class Turning(Town):
    shop = "cli.reset_shop"


@pytest.fixture
def turning(tmp_path: Path, kafka: KafkaServer, postgres: PostgresServer) -> Generator[Turning]:
    names = [f"t{uuid.uuid4().hex[:8]}" for _ in range(2)]
    made = Turning(tmp_path, kafka, *[postgres.create_database(name) for name in names])
    try:
        made.begin()
        yield made
    finally:
        made.end()
        for name in names:
            postgres.drop_database(name)


def waits(town: Town) -> Any:
    return described(town, "r-1")["waits_for"][0]["text"]


def test_it_is_undone_and_runs_anew_though_owners_die(turning: Turning) -> None:
    with BlockingClient(turning.namespace, turning.kafka, topic_prefix=turning.prefix) as client:
        handle = client.start(twice, Order(id="r-1"), id="r-1")
        eventually(lambda: "approved" in waits(turning), timeout=PATIENCE, interval=0.3)
        dry = turning.kasaga("reset", "r-1", "--after", "1", "--dry-run")
        assert dry.status == 0, dry.err
        stop_service(turning)
        said = turning.kasaga("reset", "r-1", "--after", "1", "--reason", "a wrong turn")
        assert said.status == 0, said.err
        kill_orchestrator(turning)
        with pytest.raises(NotApplicable, match=r"KSG-230|undo"):
            client.reset("r-1", after="1", timeout=PATIENCE)
        kill_orchestrator(turning)
        start_service(turning)
        eventually(lambda: len(inbox(turning)) == 4, timeout=PATIENCE, interval=0.3)
        eventually(lambda: "approved" in waits(turning), timeout=PATIENCE, interval=0.3)
        client.signal("r-1", "approved", Approval(by="ben"))
        assert handle.result(timeout=PATIENCE) == "2 for ben"
    history = turning.kasaga("history", "r-1").out
    assert "a wrong turn" in history
    done = inbox(turning)
    run = described(turning, "r-1")["run_id"]
    assert done.keys() >= {f"{run}.{number}" for number in (1, 2, 4)}, "3 was the wait"
    assert sorted(done.values()) == ["done", "done", "done", "undone"]
    audit = turning.kasaga("audit", "--inbox", f"goods={turning.own}", "-o", "json")
    assert (audit.status, json.loads(audit.out)["violations"]) == (0, 0), audit.out + audit.err
