"""A rolling upgrade of real processes: images with different versions of a saga, and deaths on the way."""

from __future__ import annotations

import tempfile
from collections.abc import Generator
from pathlib import Path

import pytest

from eventually import eventually
from kasaga.dev.servers import KafkaServer, PostgresServer
from kasaga.store.base import SagaState
from orchestrator.realm import SHARDS, Owner, Realm, mood_for

NEW = {"TRIPS_VERSIONS": "both"}


@pytest.fixture
def realm(kafka: KafkaServer, postgres: PostgresServer) -> Generator[Realm]:
    with tempfile.TemporaryDirectory() as directory:
        made = Realm(kafka, postgres, Path(directory))
        made.desk.mood = mood_for({})
        made.owner().stop()  # makes the topics
        with made.participants():
            yield made
        for owner in made.owners:
            owner.end()
        made.close()


def started(realm: Realm, prefix: str, count: int = 8, version: int | None = None) -> None:
    for number in range(count):
        realm.start("trip", f"{prefix}{number}", version=version)
    realm.flush()


def ended(realm: Realm, prefix: str, count: int = 8) -> bool:
    rows = realm.sagas(prefix)
    return len(rows) == count and all(row.state is SagaState.COMPLETED for row in rows)


def versions(realm: Realm, prefix: str) -> set[int]:
    return {row.version for row in realm.sagas(prefix)}


def shared(realm: Realm, *owners: Owner) -> bool:
    return all(len(realm.owned(owner)) == SHARDS // len(owners) for owner in owners)


def test_a_rolling_upgrade_with_deaths(realm: Realm) -> None:
    old = realm.owner()
    new = realm.owner(**NEW)
    eventually(lambda: shared(realm, old, new))
    assert {name: "trip/2" in has for name, has in realm.store.fleet().items()} == {
        old.name: False,
        new.name: True,
    }
    started(realm, "during")
    eventually(lambda: ended(realm, "during"))
    assert versions(realm, "during") == {1}, "the old image lives, and has no other"

    started(realm, "asked", version=2)
    eventually(lambda: any(row.code == "KSG-203" for row in realm.sagas("asked")))
    waiting = [row for row in realm.sagas("asked") if row.code == "KSG-203"]
    assert {row.state for row in waiting} == {SagaState.RUNNING}
    assert all("no saga trip version 2" in row.reason and row.remedy for row in waiting)

    new.kill()
    heir = realm.owner(**NEW)
    old.kill()
    eventually(lambda: ended(realm, "asked"))
    assert versions(realm, "asked") == {2}

    started(realm, "after")
    eventually(lambda: ended(realm, "after"))
    assert versions(realm, "after") == {2}, "now all that live have it"
    heir.stop()


def test_running_sagas_stay_on_their_version(realm: Realm) -> None:
    old = realm.owner()
    started(realm, "before")
    eventually(lambda: len(realm.sagas("before")) == 8)
    new = realm.begin(**NEW)
    old.kill()
    eventually(lambda: shared(realm, new))  # the sagas may be over before the new one has begun to listen
    eventually(lambda: ended(realm, "before"))
    assert versions(realm, "before") == {1}
    new.stop()


def test_sagas_are_moved_to_a_version_that_fits_though_their_owner_dies(realm: Realm) -> None:
    owner = realm.owner(**NEW)
    for number in range(8):
        realm.start("rest", f"moved{number}", note="5", version=1)
        realm.start("nap", f"stays{number}", version=1)
    realm.flush()
    eventually(lambda: len(realm.sagas("moved")) == len(realm.sagas("stays")) == 8)
    moved = [realm.control("move", f"moved{number}", value="2") for number in range(8)]
    stays = [realm.control("move", f"stays{number}", value="2") for number in range(8)]
    realm.flush()
    owner.kill()
    heir = realm.owner(**NEW)
    eventually(lambda: ended(realm, "moved") and ended(realm, "stays"))
    eventually(lambda: all(realm.answers_to(each) for each in (*moved, *stays)))
    assert {realm.answers_to(each)[-1].what for each in moved} == {"applied"}
    assert {realm.answers_to(each)[-1].what for each in stays} == {"not_applicable"}
    assert (versions(realm, "moved"), versions(realm, "stays")) == ({2}, {1})
    assert {len(list(realm.store.history(row))) for row in realm.sagas("moved")} == {4}, "each moved once"
    realm.audit("moved")
    heir.stop()
