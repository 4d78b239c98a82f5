"""Finished sagas on real servers: none is deleted that isn't archived, whoever dies, and whatever is away."""

from __future__ import annotations

import tempfile
from collections.abc import Generator
from pathlib import Path

import pytest

from eventually import eventually
from kasaga.archive import Archive, Archived, Period
from kasaga.dev.servers import KafkaServer, PostgresServer
from kasaga.store.base import FINAL_STATES
from kasaga_wire.objects import Objects
from orchestrator.realm import Owner, Realm, mood_for

SAGAS = 30
A_SECOND = str(1 / 86_400)


@pytest.fixture
def realm(kafka: KafkaServer, postgres: PostgresServer) -> Generator[Realm]:
    with tempfile.TemporaryDirectory() as directory:
        made = Realm(kafka, postgres, Path(directory))
        made.desk.mood = mood_for({})
        made.owner().stop()  # makes the topics
        with made.participants():
            yield made
        made.close()


def owner(realm: Realm, place: Path, **environment: str) -> Owner:
    """One that deletes each saga a second after its end."""
    return realm.owner(
        KASAGA_ARCHIVE_URL=f"file://{place}",
        KASAGA_RETENTION_DAYS=A_SECOND,
        TRIPS_RETENTION_ROUND_SECONDS="0.2",
        **environment,
    )


def begin(realm: Realm, prefix: str) -> None:
    realm.run(
        prefix, [("trip", f"{'refused' if number % 5 == 0 else 'done'}-{number}") for number in range(SAGAS)]
    )


def archived(realm: Realm, place: Path) -> dict[str, Archived]:
    found = list(Archive(Objects(f"file://{place}"), realm.namespace, pytest.fail).sagas(Period()))
    made = {each.row.saga_id: each for each in found}
    assert len(made) == len(found), "each is told once"
    return made


def test_owners_are_killed_between_the_archive_and_the_deletion(realm: Realm, tmp_path: Path) -> None:
    begin(realm, "a-")
    owner(realm, tmp_path, KASAGA_CRASH_AT="retention.archived").wait_until_killed()
    there = archived(realm, tmp_path)
    assert there, "it died behind the first object"
    assert len(realm.sagas("a-")) == SAGAS, "and deleted nothing"
    histories = {
        saga_id: tuple((e.seq, e.body) for e in realm.store.history(each.row))
        for saga_id, each in there.items()
    }
    owner(realm, tmp_path, KASAGA_CRASH_AT="retention.archived").wait_until_killed()
    owner(realm, tmp_path)
    eventually(lambda: realm.sagas("a-") == [])
    told = archived(realm, tmp_path)
    assert len(told) == SAGAS
    assert {saga_id: told[saga_id].rows for saga_id in histories} == histories
    for saga_id, each in told.items():
        left = realm.saga(saga_id)
        assert (each.row.run_id, each.row.state, each.row.ended_at) == (
            left.run_id,
            left.state,
            left.ended_at,
        )
        assert each.row.state in FINAL_STATES
        assert each.row.state == ("COMPENSATED" if "refused" in saga_id else "COMPLETED")


def test_an_archive_that_is_away_holds_deletion_back_and_no_saga(realm: Realm, tmp_path: Path) -> None:
    place = tmp_path / "disk"
    place.write_text("where the archive was mounted is something else")
    begin(realm, "b-")
    process = owner(realm, place)
    eventually(lambda: (state := realm.store.archive_state()) is not None and state.failing_since is not None)
    realm.wait_until_over("b-", SAGAS)
    begin(realm, "c-")
    realm.wait_until_over("c-", SAGAS)
    assert len(realm.sagas("b-")) == SAGAS
    realm.audit("b-")
    assert process.said("finished sagas are not deleted now")
    place.unlink()
    eventually(lambda: realm.sagas("") == [])
    assert len(archived(realm, place)) == 2 * SAGAS
    state = realm.store.archive_state()
    assert state is not None
    assert (state.failing_since, state.sagas) == (None, 2 * SAGAS)
    process.stop()
