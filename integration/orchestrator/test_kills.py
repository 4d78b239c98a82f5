"""Owners are killed at random, again and again: that is nobody's fault but a saga's that does it itself.

With `KILLS=25 KILLED_SAGAS=2000` it takes two minutes on two idle cores; that is for somebody who has changed
suspect mode. Give `KILLS_SEED` to have the same moments again.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections import Counter
from collections.abc import Generator
from pathlib import Path
from random import Random

import psycopg
import pytest

from eventually import eventually
from kasaga.dev.servers import KafkaServer, PostgresServer
from kasaga.engine.codec import decode
from kasaga.engine.model import Move
from kasaga.errors import KilledProcess
from kasaga.store.base import SagaState
from orchestrator.realm import Owner, Realm, mood_for

KILLS = int(os.environ.get("KILLS", "5"))
SAGAS = int(os.environ.get("KILLED_SAGAS", "100"))
SEED = os.environ.get("KILLS_SEED") or os.urandom(4).hex()

KINDS = ("trip", "failing", "nap", "trip", "empty", "local")
LONGEST = 1.0
"""Seconds between the start of some sagas and the next death."""


@pytest.fixture(scope="module")
def deadly(kafka: KafkaServer, postgres: PostgresServer) -> Generator[Realm]:
    """A realm in which owners die."""
    with tempfile.TemporaryDirectory() as directory:
        made = Realm(kafka, postgres, Path(directory))
        made.desk.mood = mood_for({})
        made.owner().stop()  # makes the topics
        with made.participants():
            yield made
        made.close()


@pytest.fixture(autouse=True)
def _alone(deadly: Realm) -> Generator[None]:
    yield
    for owner in deadly.owners:
        owner.end()


def most_deaths(realm: Realm) -> tuple[int, str]:
    """How many deaths in a row a shard has seen, and who owns it now."""
    with psycopg.connect(realm.database) as connection:
        found = connection.execute(
            "SELECT deaths, coalesce(owner, '') FROM kasaga.shard ORDER BY deaths DESC LIMIT 1"
        ).fetchone()
    return found or (0, "")


def convictions(realm: Realm, prefix: str) -> Counter[str]:
    """How often each saga was found to kill its process, also if it has been retried since."""
    return Counter(
        row.saga_id.removeprefix(prefix)
        for row in realm.sagas(prefix)
        for each in realm.store.history(row)
        for decision in decode(each.seq, each.body).decisions
        if isinstance(decision, Move) and decision.code == KilledProcess.code
    )


def kill_at_random(realm: Realm, prefix: str, dice: Random) -> int:
    """Start sagas and kill owners, every second one the heir; returns the most deaths in a row on a shard.

    Two new ones come when both are dead: one that came earlier would be handed shards, which forgets deaths.
    """
    owners = [realm.owner(), realm.owner()]
    most = started = 0

    def heir() -> Owner | None:
        nonlocal most
        deaths, name = most_deaths(realm)
        most = max(most, deaths)
        return next((each for each in owners if deaths and each.name == name), None)

    for number in range(KILLS):
        while started < SAGAS * (number + 1) // KILLS:
            realm.start(KINDS[started % len(KINDS)], f"{prefix}{started}")
            started += 1
        realm.flush()
        time.sleep(dice.uniform(0, LONGEST))  # any moment will do: that is the test
        doomed = eventually(heir) if number % 2 else dice.choice(owners)
        assert doomed is not None
        doomed.kill()
        owners.remove(doomed)
        if not owners:
            owners += [realm.owner(), realm.owner()]
    eventually(heir)
    return most


def test_no_healthy_saga_is_held_to_have_killed_its_owners(deadly: Realm, prefix: str) -> None:
    most = kill_at_random(deadly, prefix, Random(SEED))

    deadly.wait_until_over(prefix, SAGAS, timeout=60 + SAGAS / 10)
    rows = deadly.audit(prefix)
    assert {row.state for row in rows} == {SagaState.COMPLETED, SagaState.COMPENSATED}
    assert convictions(deadly, prefix) == {}, f"seed {SEED}"
    assert most >= 2, "no shard was ever in suspect mode"


def test_a_saga_that_kills_is_found_among_deaths_that_are_not_its_own(deadly: Realm, prefix: str) -> None:
    """Two that do it, in their own ways; the others go on meanwhile."""
    sagas = [*(("trip", f"good-{number}") for number in range(30)), ("bad", "exit"), ("bad", "kill")]
    stuck = frozenset(prefix + name for saga, name in sagas if saga == "bad")
    for saga, name in sagas:
        deadly.start(saga, prefix + name, name)
    deadly.flush()
    owner: Owner | None = None
    for number in range(30):
        found = {row.saga_id for row in deadly.sagas(prefix) if row.state is SagaState.STUCK}
        if found >= stuck:
            break
        if owner is None or not owner.alive:
            owner = deadly.owner()
        elif number % 3 == 2:
            owner.kill()
        time.sleep(0.7)
    if owner is None or not owner.alive:
        deadly.owner()

    deadly.wait_until_over(prefix, len(sagas), stuck=stuck)
    deadly.audit(prefix, stuck=stuck)
    assert convictions(deadly, prefix) == {"exit": 1, "kill": 1}
    for saga_id in stuck:
        assert "trips.py:" in deadly.saga(saga_id).reason


def test_sagas_that_are_in_no_memory_wake_whoever_dies(deadly: Realm, prefix: str) -> None:
    """Few of each shard are in memory: pages are read while owners are killed, and each saga wakes once."""
    few = {"KASAGA_SLEEPERS_IN_MEMORY": "4"}
    dice = Random(SEED)
    owners = [deadly.owner(**few), deadly.owner(**few)]
    for number in range(SAGAS):
        deadly.start("rest", f"{prefix}{number}", note=f"{dice.uniform(1, 8):.3f}")
    deadly.flush()
    for _ in range(3):
        time.sleep(dice.uniform(0.5, 2))
        owners.pop(0).kill()
        owners.append(deadly.owner(**few))

    deadly.wait_until_over(prefix, SAGAS, timeout=60)
    rows = deadly.audit(prefix)
    assert {row.state for row in rows} == {SagaState.COMPLETED}
    for row in rows:
        fired = [each for each in deadly.store.history(row) if each.kind == "Fired"]
        assert len(fired) == 1, f"{row.saga_id} woke {len(fired)} times, seed {SEED}"
