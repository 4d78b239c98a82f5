"""Owners that are frozen, cut off from one server, join and leave: nothing is lost, none decides twice."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager

import pytest

from eventually import eventually
from fix_proxy import TcpProxy
from kasaga.store.base import SagaState
from orchestrator.realm import Owner, Realm
from orchestrator.test_crashes import LOAD


@contextmanager
def steady_load(realm: Realm, prefix: str, every: float = 0.03) -> Generator[Callable[[], int]]:
    """Start sagas, one after the other, until the block ends; gives how many so far."""
    stop = threading.Event()
    started = 0

    def feed() -> None:
        nonlocal started
        kinds = ("trip", "failing", "nap", "trip", "empty")
        while not stop.wait(every):
            realm.start(kinds[started % len(kinds)], f"{prefix}{started}")
            started += 1

    thread = threading.Thread(target=feed, daemon=True)
    thread.start()
    try:
        yield lambda: started
    finally:
        stop.set()
        thread.join()


def second(realm: Realm, **environment: str) -> Owner:
    """An owner beside the one that stays: both have a fair share."""
    owner = realm.owner(**environment)
    eventually(lambda: len(realm.owned(owner)) == 2)
    return owner


@pytest.mark.parametrize(
    "point", ["orchestrator.before_commit:4", "orchestrator.after_commit:3", "store.sent.fence:4"]
)
def test_a_zombie_with_a_batch_in_memory_changes_nothing(peopled: Realm, prefix: str, point: str) -> None:
    """It holds what it has decided, or committed and not produced, while another owner ends its sagas."""
    zombie = second(peopled, KASAGA_FREEZE_AT=point)
    peopled.run(prefix, LOAD)
    eventually(lambda: zombie.frozen)
    peopled.wait_until_over(prefix, len(LOAD))
    ended = {row.run_id: (row.state, row.updated_at) for row in peopled.audit(prefix)}
    assert not peopled.owned(zombie)

    zombie.send(signal.SIGCONT)

    eventually(lambda: len(peopled.owned(zombie)) == 2)
    assert zombie.said("shards lost") or zombie.said("shards released")
    peopled.run(prefix, [("trip", f"later-{number}") for number in range(8)])
    peopled.wait_until_over(prefix, len(LOAD) + 8)
    rows = {row.run_id: (row.state, row.updated_at) for row in peopled.audit(prefix)}
    assert ended.items() <= rows.items()
    zombie.stop()


def test_owners_join_and_leave_under_load(peopled: Realm, prefix: str) -> None:
    with steady_load(peopled, prefix) as started:
        leaver = second(peopled)
        victim = peopled.owner()
        eventually(lambda: len(peopled.owned(victim)) >= 1)
        eventually(lambda: started() > 50)
        leaver.stop()
        assert not peopled.owned(leaver), "it hands over before it ends"
        eventually(lambda: len(peopled.owned(victim)) == 2)
        victim.kill()
        frozen = second(peopled)
        frozen.send(signal.SIGSTOP)
        eventually(lambda: not peopled.owned(frozen))
        frozen.send(signal.SIGCONT)
        eventually(lambda: len(peopled.owned(frozen)) == 2)
        count = started()
    peopled.wait_until_over(prefix, started())
    peopled.audit(prefix)
    assert count > 0
    frozen.stop()


def test_an_owner_that_loses_kafka_alone_gives_its_shards_up(
    peopled: Realm, prefix: str, kafka_proxy: TcpProxy
) -> None:
    cut_off = second(
        peopled,
        KASAGA_KAFKA_BOOTSTRAP_SERVERS=peopled.kafka.proxied_bootstrap,
        KASAGA_BROKERS_LOST_SECONDS="2",
        KASAGA_KAFKA_RECONNECT_BACKOFF_MAX_MS="200",
    )
    with steady_load(peopled, prefix) as started:
        eventually(lambda: started() > 20)
        kafka_proxy.stop()
        eventually(lambda: not peopled.owned(cut_off))
        assert cut_off.alive
        kafka_proxy.start()
        eventually(lambda: len(peopled.owned(cut_off)) == 2)
    peopled.wait_until_over(prefix, started())
    peopled.audit(prefix)
    cut_off.stop()


@pytest.mark.parametrize("how", ["stop", "deaf", "mute"])
def test_an_owner_that_loses_postgres_alone(
    peopled: Realm, prefix: str, postgres_proxy: TcpProxy, how: str
) -> None:
    """Mute: what it sends is committed, and it is never told."""
    url = peopled.postgres.url(peopled.namespace, port=postgres_proxy.port)
    cut_off = second(peopled, KASAGA_DATABASE_URL=url)
    with steady_load(peopled, prefix) as started:
        eventually(lambda: started() > 20)
        for _ in range(3):  # a moment, in which the lease doesn't run out
            getattr(postgres_proxy, how)()
            postgres_proxy.start()
        getattr(postgres_proxy, how)()
        eventually(lambda: not peopled.owned(cut_off))
        assert cut_off.alive
        postgres_proxy.start()
        eventually(lambda: len(peopled.owned(cut_off)) == 2)
    peopled.wait_until_over(prefix, started())
    rows = peopled.audit(prefix)
    assert {row.state for row in rows} == {SagaState.COMPLETED, SagaState.COMPENSATED}
    cut_off.stop()


def test_both_servers_die_under_load_and_come_back(peopled: Realm, prefix: str) -> None:
    with steady_load(peopled, prefix, every=0.1) as started:
        eventually(lambda: started() > 10)
        peopled.postgres.kill()
        peopled.postgres.start()
        before = started()
        eventually(lambda: started() > before + 10)
        peopled.kafka.kill()
        peopled.kafka.start()
        before = started()
        eventually(lambda: started() > before + 10)
        peopled.postgres.kill()
        peopled.kafka.kill()
        peopled.kafka.start()
        peopled.postgres.start()
    peopled.wait_until_over(prefix, started())
    peopled.audit(prefix)
