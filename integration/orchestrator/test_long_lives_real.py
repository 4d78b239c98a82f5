"""The account of orchestrator/longlives.md on real servers: owners are killed while it is sent signals.

With `KILLS=20` it takes a minute or two. Give `KILLS_SEED` to have the same moments again.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
import tempfile
import time
from collections.abc import Generator
from functools import partial
from pathlib import Path
from random import Random
from types import ModuleType

import pytest

from eventually import eventually
from kasaga.dev.servers import KafkaServer, PostgresServer
from kasaga.engine.codec import decode
from kasaga.engine.model import Record, Take
from kasaga.engine.renewals import Continue
from kasaga.engine.state import fold
from kasaga.lookup import look
from kasaga.store.base import SagaState
from kasaga_wire.codec import Schemas
from orchestrator.realm import ROOT, Owner, Realm

GUIDE = (ROOT / "orchestrator" / "longlives.md").read_text()
KILLS = int(os.environ.get("KILLS", "4"))
SEED = os.environ.get("KILLS_SEED") or os.urandom(4).hex()
A_MONTH = 10
"""Signals of one run: many runs, so that deaths meet their ends."""

BETWEEN_SECONDS = 0.005
"""Between two signals: nobody reads them for the time of a lease, and a saga's mailbox has its limit."""

MODULE = "longlives_accounts"


@pytest.fixture(scope="module")
def accounts() -> Generator[ModuleType]:
    """The module of the page."""
    (code,) = re.findall(r"```python\n# accounts\.py\n(.*?)```", GUIDE, re.DOTALL)
    with tempfile.TemporaryDirectory() as directory:
        made = Path(directory) / f"{MODULE}.py"
        made.write_text(re.sub(r"A_MONTH = \d+", f"A_MONTH = {A_MONTH}", code))
        sys.path.insert(0, directory)
        yield importlib.import_module(MODULE)
        sys.path.remove(directory)
        del sys.modules[MODULE]


@pytest.fixture
def realm(kafka: KafkaServer, postgres: PostgresServer, accounts: ModuleType) -> Generator[Realm]:
    assert accounts.__file__
    made = Realm(kafka, postgres, Path(accounts.__file__).parent, accounts.make_app)
    owner(made).stop()  # makes the topics
    with made.participants():
        yield made
    made.close()


def owner(realm: Realm, **environment: str) -> Owner:
    return realm.owner(TRIPS_MODULE=MODULE, **environment)


def history(realm: Realm, saga_id: str) -> list[Record]:
    return [decode(each.seq, each.body) for each in realm.store.history(realm.saga(saga_id))]


def has_taken(realm: Realm, saga_id: str, count: int) -> bool:
    found, row = len(taken(history(realm, saga_id))), realm.saga(saga_id)
    said = f"{found} of {count}, {row.state} {row.code} {row.reason}, KILLS_SEED={SEED}"
    assert found >= count, f"{said}; dead letters: {len(realm.dead_letters)}"
    return True


def has_ended(realm: Realm, saga_id: str) -> bool:
    return realm.saga(saga_id).state is SagaState.COMPLETED


def schemas_of(realm: Realm) -> Schemas:
    made = Schemas()
    for text in realm.store.schemas().values():
        made.add(text)
    return made


def taken(records: list[Record]) -> list[str]:
    return [each.signal_id for record in records for each in record.decisions if isinstance(each, Take)]


def open_account(realm: Realm, accounts: ModuleType, saga_id: str) -> None:
    saga = realm.app.sagas["account", 1]
    realm.start("account", saga_id, value=saga.input.encode(accounts.Account(id=saga_id)))
    realm.flush()


def test_each_signal_is_taken_once_and_in_order_whoever_dies(realm: Realm, accounts: ModuleType) -> None:
    dice, names = Random(SEED), ("a", "b", "c")
    owners = [owner(realm), owner(realm)]
    for name in names:
        open_account(realm, accounts, name)
    sent: dict[str, list[int]] = {name: [] for name in names}
    for _ in range(KILLS):
        until = time.monotonic() + dice.uniform(0.5, 1.5)  # any moment will do: that is the test
        while time.monotonic() < until:
            name, amount = dice.choice(names), dice.randint(1, 100)
            key = f"{name}-{len(sent[name])}"
            sent[name].append(amount)
            for _ in range(dice.choice((1, 1, 2))):
                realm.signal(name, "booked", accounts.Booking(amount=amount), key=key)
            if dice.random() < 0.2 and len(sent[name]) > 5:  # one of long ago comes again
                again = dice.randrange(len(sent[name]))
                amount = sent[name][again]
                realm.signal(name, "booked", accounts.Booking(amount=amount), key=f"{name}-{again}")
            realm.flush()
            time.sleep(BETWEEN_SECONDS)
        doomed = owners.pop(dice.randrange(len(owners)))
        doomed.kill()
        owners.append(owner(realm))
    for name in names:
        keys = [f"{name}-{number}" for number in range(len(sent[name]))]
        eventually(partial(has_taken, realm, name, len(keys)), timeout=60)
        realm.signal(name, "closed", key=f"{name}-closed")
        realm.flush()
        eventually(partial(has_ended, realm, name))
        records = history(realm, name)
        assert taken(records) == [*keys, f"{name}-closed"], f"KILLS_SEED={SEED}"
        row = realm.saga(name)
        assert row.result is not None
        assert realm.app.sagas["account", 1].result.decode(row.result, schemas_of(realm)) == sum(sent[name])
        runs = [each for record in records for each in record.decisions if isinstance(each, Continue)]
        assert [each.number for each in runs] == list(range(2, len(keys) // A_MONTH + 2))
        state = fold(str(row.run_id), records[row.base - 1 :])
        assert (state.number, state.base) == (len(runs) + 1, row.base)
        statements = [each for each in realm.desk.executed if each.run_id == str(row.run_id)]
        assert len(statements) == len({each.id for each in statements}) == len(runs), "each sent once"


@pytest.mark.parametrize("point", ["orchestrator.before_commit", "orchestrator.after_commit"])
def test_a_death_right_at_the_switch(realm: Realm, accounts: ModuleType, point: str) -> None:
    first = owner(realm)
    open_account(realm, accounts, "s")
    for number in range(A_MONTH - 1):
        realm.signal("s", "booked", accounts.Booking(amount=1), key=f"s-{number}")
    realm.flush()
    eventually(lambda: len(taken(history(realm, "s"))) == A_MONTH - 1)
    first.stop()
    realm.signal("s", "booked", accounts.Booking(amount=1), key="s-last")
    realm.signal("s", "booked", accounts.Booking(amount=5), key="s-next")
    realm.flush()
    dying = realm.begin(TRIPS_MODULE=MODULE, KASAGA_CRASH_AT=f"{point}:2")
    dying.wait_until_killed()
    second = owner(realm)
    eventually(lambda: len(taken(history(realm, "s"))) == A_MONTH + 1)
    told, _ = look(realm.store, "s", realm.saga("s").updated_at)
    assert told.run is not None
    assert told.run.number == 2
    realm.control("pause", "s")
    realm.flush()
    eventually(lambda: realm.saga("s").state is SagaState.PAUSED)
    realm.control("resume", "s")
    realm.signal("s", "closed", key="s-closed")
    realm.flush()
    eventually(lambda: realm.saga("s").state is SagaState.COMPLETED)
    records = history(realm, "s")
    assert taken(records) == [*(f"s-{each}" for each in range(A_MONTH - 1)), "s-last", "s-next", "s-closed"]
    second.stop()
