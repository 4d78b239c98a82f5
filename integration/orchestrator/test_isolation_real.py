"""The rooms of orchestrator/isolation.md on real servers: owners are killed while sagas hold and wait."""

from __future__ import annotations

import importlib
import os
import re
import sys
import tempfile
import time
from collections.abc import Generator
from functools import partial
from itertools import groupby
from pathlib import Path
from random import Random
from types import ModuleType
from typing import Any

import pytest

from eventually import eventually
from kasaga.dev.servers import KafkaServer, PostgresServer
from kasaga.lookup import look
from kasaga.store.base import SagaState
from kasaga_wire.envelope import CommandEnvelope
from orchestrator.realm import ROOT, Owner, Realm

GUIDE = (ROOT / "orchestrator" / "isolation.md").read_text()
SEED = os.environ.get("KILLS_SEED") or os.urandom(4).hex()
MODULE = "isolation_rooms"


@pytest.fixture(scope="module")
def rooms() -> Generator[ModuleType]:
    """The module of the page."""
    (code,) = re.findall(r"```python\n# rooms\.py\n(.*?)```", GUIDE, re.DOTALL)
    with tempfile.TemporaryDirectory() as directory:
        made = Path(directory) / f"{MODULE}.py"
        made.write_text(code)
        sys.path.insert(0, directory)
        yield importlib.import_module(MODULE)
        sys.path.remove(directory)
        del sys.modules[MODULE]


@pytest.fixture
def realm(kafka: KafkaServer, postgres: PostgresServer, rooms: ModuleType) -> Generator[Realm]:
    assert rooms.__file__
    made = Realm(kafka, postgres, Path(rooms.__file__).parent, rooms.make_app)
    made.desk.mood = no_money
    owner(made).stop()  # makes the topics
    yield made
    made.close()


def no_money(envelope: CommandEnvelope) -> str:
    return "refused" if envelope.type == "payments.charge" and "-no-" in envelope.saga_id else "done"


def owner(realm: Realm) -> Owner:
    return realm.owner(TRIPS_MODULE=MODULE)


def begin(realm: Realm, saga: str, saga_id: str, value: Any) -> None:
    realm.start(saga, saga_id, value=realm.app.sagas[saga, 1].input.encode(value))
    realm.flush()


def queue(realm: Realm, room: int) -> list[str]:
    return [row.saga_id for row in realm.store.queues([f"room:{room}"])]


def is_queue(realm: Realm, room: int, names: list[str]) -> bool:
    return queue(realm, room) == names


def test_places_in_a_queue_outlive_who_gave_them(realm: Realm, rooms: ModuleType) -> None:
    first = owner(realm)
    names = ["s-1", "s-no-2", "s-3"]
    for number, name in enumerate(names):
        begin(realm, "stay", name, rooms.Stay(room="7", guest=name))
        eventually(partial(is_queue, realm, 7, names[: number + 1]))
    told, _ = look(realm.store, "s-3", realm.saga("s-3").updated_at)
    assert "room:7 is held by saga s-1, and 1 other comes first" in told.waits[0].text
    first.kill()
    owner(realm)
    assert queue(realm, 7) == names
    with realm.participants():
        realm.wait_until_over("s-", 3)
        realm.audit("s-")
    states = {row.saga_id: row.state for row in realm.sagas("s-")}
    assert [states[name] for name in names] == [
        SagaState.COMPLETED,
        SagaState.COMPENSATED,
        SagaState.COMPLETED,
    ]
    assert [run for run, _ in groupby(each.run_id for each in realm.desk.executed)] == [
        str(realm.saga(name).run_id) for name in names
    ]
    assert realm.store.locks() == []


def test_of_two_in_opposite_order_one_is_undone(realm: Realm, rooms: ModuleType) -> None:
    for _ in range(2):
        owner(realm)
    begin(realm, "exchange", "x-a", rooms.Exchange(room="7", other="12"))
    begin(realm, "exchange", "x-b", rooms.Exchange(room="12", other="7"))
    eventually(lambda: queue(realm, 7) == ["x-a"] and queue(realm, 12) == ["x-b"])
    with realm.participants():
        realm.wait_until_over("x-", 2)
        realm.audit("x-")
    rows = sorted(realm.sagas("x-"), key=lambda row: row.state)
    assert [row.state for row in rows] == [SagaState.COMPENSATED, SagaState.COMPLETED]
    assert "another time" in rows[0].reason
    assert " would wait for room:" in rows[0].reason
    assert realm.store.locks() == []


def test_no_two_are_at_work_in_a_room_whoever_dies(realm: Realm, rooms: ModuleType) -> None:
    dice, owners = Random(SEED), [owner(realm), owner(realm)]
    room_of: dict[str, str] = {}
    with realm.participants():
        for number in range(60):
            name = f"k-{'no-' if number % 3 == 0 else ''}{number}"
            room_of[name] = str(number % 2)
            begin(realm, "stay", name, rooms.Stay(room=room_of[name], guest=name))
            if number % 20 == 15:
                time.sleep(dice.uniform(0, 0.5))  # any moment will do: that is the test
                owners.pop(0).kill()
                owners.append(owner(realm))
        realm.wait_until_over("k-", 60)
        rows = realm.audit("k-")
    for row in rows:
        wanted = SagaState.COMPENSATED if "-no-" in row.saga_id else SagaState.COMPLETED
        assert row.state is wanted, f"{row.saga_id} {row.reason}, KILLS_SEED={SEED}"
    rooms_of_runs = {str(row.run_id): room_of[row.saga_id] for row in rows}
    for room in "01":
        done = [each.run_id for each in realm.desk.executed if rooms_of_runs[each.run_id] == room]
        runs = [run for run, _ in groupby(done)]
        assert len(runs) == len(set(runs)) == 30, f"two at once in room {room}, KILLS_SEED={SEED}"
    assert realm.store.locks() == []
