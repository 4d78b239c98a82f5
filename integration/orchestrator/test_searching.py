"""Search attributes on a real Kafka and Postgres: sagas are found by them, whoever dies."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from eventually import eventually
from kasaga.engine.attributes import changed_by
from kasaga.engine.codec import decode
from kasaga.search import parse
from kasaga.store.base import SagaFilter, SagaState
from kasaga_wire.attributes import Stored, merged, to_text
from orchestrator.realm import Realm

POINTS = (
    "orchestrator.before_commit:3",
    "orchestrator.after_commit:3",
    "orchestrator.after_produce:3",
    "store.sent.fence:3",
)
SAGAS = 24


def found(realm: Realm, query: str) -> set[str]:
    rows = realm.store.list_sagas(SagaFilter(where=parse(query, datetime.now(UTC))), limit=500)
    return {row.saga_id for row in rows}


@pytest.mark.parametrize("point", POINTS)
def test_sagas_are_found_by_what_they_are_though_their_process_dies(
    peopled: Realm, prefix: str, point: str
) -> None:
    doomed = peopled.owner(KASAGA_CRASH_AT=point)
    for number in range(SAGAS):
        given = to_text({"test": prefix, "number": number, "customer": f"{prefix}{number % 3}"})
        peopled.start("named", f"{prefix}{number}", attributes=given)
    peopled.flush()
    doomed.wait_until_killed()
    peopled.wait_until_over(prefix, SAGAS)
    rows = peopled.audit(prefix)
    assert {row.state for row in rows} == {SagaState.COMPLETED}

    ids = [f"{prefix}{number}" for number in range(SAGAS)]
    mine = f'attr.test = "{prefix}"'
    assert found(peopled, mine) == set(ids)
    assert found(peopled, f'attr.customer = "{prefix}1" and attr.number >= 10') == set(ids[10::3])
    assert found(peopled, f"{mine} and attr.number < 5 and state = COMPLETED") == set(ids[:5])
    assert found(peopled, f'{mine} and attr.phase = "sent" and attr.trip starts with "{prefix}"') == set(ids)
    assert found(peopled, f'{mine} and (attr.phase = "booked" or attr.gone exists)') == set()
    for row in rows:
        known: dict[str, Stored] = {}
        for entry in peopled.store.history(row):
            known = merged(known, changed_by(decode(entry.seq, entry.body)))
        told = peopled.store.saga(row.saga_id)
        assert told is not None
        assert told.attributes == known  # the table says what the history says


def test_a_start_with_attributes_that_cannot_be_kept_is_a_dead_letter(peopled: Realm, prefix: str) -> None:
    peopled.start("named", f"{prefix}bad", attributes=b'{"a b": 1}', ask=False)
    peopled.start("named", f"{prefix}good", attributes=b'{"a": 1}')
    peopled.flush()
    peopled.wait_until_over(prefix, 1)

    def refused() -> list[bytes]:
        mine = [each for each in peopled.dead_letters if each.key == f"{prefix}bad".encode()]
        return [dict(each.headers).get("kasaga_dlq_reason") or b"" for each in mine]

    eventually(lambda: [b"ce_kasagaattributes" in each for each in refused()] == [True])
