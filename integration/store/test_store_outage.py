"""The database goes away, comes back, keeps silent: what a caller sees, and that nothing is written twice."""

from __future__ import annotations

from collections.abc import Callable, Generator

import pytest
from psycopg.conninfo import conninfo_to_dict

from eventually import eventually
from fix_proxy import TcpProxy
from kasaga.dev.servers import PostgresServer
from kasaga.store.base import SagaFilter, SagaState, StoreUnavailable
from kasaga.store.errors import NotMigrated
from kasaga.store.postgres import PostgresStore
from store.gate import Gate, gate
from store.postgres_bench import PostgresBench, shared_database
from store.refusals import Parker
from store.samples import TTL, Owner, outbox_row, refuse_all, run_id, start

__all__ = ["gate", "shared_database"]

ANSWER_SECONDS = 0.5


@pytest.fixture
def bench(shared_database: str) -> Generator[PostgresBench]:
    with PostgresBench(shared_database, answer_timeout=ANSWER_SECONDS, connect_timeout=2) as bench:
        yield bench


@pytest.fixture
def distant(bench: PostgresBench, postgres_proxy: TcpProxy) -> Owner:
    """Holds shard 3 and reaches the database through the proxy; has committed once."""
    owner = Owner(bench.postgres(port=postgres_proxy.port)).claim(3)
    owner.commit(start(3, 1, seq=1))
    return owner


def test_a_commit_whose_answer_is_lost_is_known_when_it_comes_again(
    bench: PostgresBench, distant: Owner, postgres_proxy: TcpProxy
) -> None:
    batch = distant.batch(start(3, 2, seq=2))
    postgres_proxy.mute()
    with pytest.raises(StoreUnavailable):
        distant.store.commit(batch, refuse_all)
    eventually(lambda: bench.postgres().saga("order-2"))
    postgres_proxy.start()
    committed = distant.store.commit(batch, refuse_all)
    assert committed.replaced == {}
    distant.done(batch)
    distant.commit(start(3, 3))
    assert bench.postgres().count(SagaFilter()) == {SagaState.RUNNING: 3}


def test_a_commit_that_never_arrived_is_made_when_it_comes_again(
    bench: PostgresBench, distant: Owner, postgres_proxy: TcpProxy
) -> None:
    batch = distant.batch(start(3, 2, seq=2))
    postgres_proxy.deaf()
    with pytest.raises(StoreUnavailable, match=r"no answer within 0\.5 s"):
        distant.store.commit(batch, refuse_all)
    with pytest.raises(StoreUnavailable):
        distant.store.commit(batch, refuse_all)  # no connection is made either
    postgres_proxy.start()
    assert bench.postgres().saga("order-2") is None
    distant.store.commit(batch, refuse_all)
    assert bench.postgres().saga("order-2") is not None


def test_replacements_survive_a_lost_answer(bench: PostgresBench, gate: Gate) -> None:
    """The saga was parked by a commit whose answer is lost: the caller must still hear of it."""
    owner = Owner(bench.postgres(port=gate.port)).claim(3)
    bad = start(3, 2)
    assert bad.saga is not None
    bad.saga.reason = "\x00"
    batch = owner.batch(start(3, 4), bad, loose=[outbox_row(3, 50, topic="\x00")])
    park = Parker()
    gate.lose_answer(2)  # the first is refused
    with pytest.raises(StoreUnavailable):
        owner.store.commit(batch, park)
    found = bench.postgres().saga("order-2")
    assert found is not None
    assert found.state is SagaState.STUCK
    gate.open()
    committed = owner.store.commit(batch, park)
    assert park.asked == [(run_id(2), 1)]
    assert committed.replaced.keys() == {run_id(2)}
    assert [row.seq for row, _ in committed.dropped] == [50]


@pytest.mark.parametrize("call", ["commit", "heartbeat", "claim", "open_rows", "saga"])
def test_a_stopped_server_is_unavailable_until_it_is_back(
    bench: PostgresBench, distant: Owner, postgres_proxy: TcpProxy, call: str
) -> None:
    store = distant.store
    batch = distant.batch(start(3, 2))
    calls: dict[str, Callable[[], object]] = {
        "commit": lambda: store.commit(batch, refuse_all),
        "heartbeat": lambda: store.heartbeat("p1", [], ttl=TTL),
        "claim": lambda: store.claim(4, "p1", ttl=TTL),
        "open_rows": lambda: store.open_rows(3),
        "saga": lambda: store.saga("order-1"),
    }
    postgres_proxy.stop()
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            calls[call]()
    postgres_proxy.start()
    assert calls[call]()


def test_a_cut_connection_costs_one_call(distant: Owner, postgres_proxy: TcpProxy) -> None:
    postgres_proxy.drop_connections()
    batch = distant.batch(start(3, 2))
    with pytest.raises(StoreUnavailable):
        distant.store.commit(batch, refuse_all)
    distant.store.commit(batch, refuse_all)


@pytest.mark.parametrize("how", ["kill", "stop"])
def test_a_restarted_server_knows_what_it_answered(
    bench: PostgresBench, postgres: PostgresServer, how: str
) -> None:
    owner = Owner(bench.postgres()).claim(3)
    owner.commit(start(3, 1, seq=1))
    if how == "kill":
        postgres.kill()
    else:
        postgres.stop()
    batch = owner.batch(start(3, 2))
    with pytest.raises(StoreUnavailable):
        owner.store.commit(batch, refuse_all)
    postgres.start()
    owner.store.commit(batch, refuse_all)
    assert owner.store.count(SagaFilter()) == {SagaState.RUNNING: 2}
    assert [row.seq for row in owner.store.open_rows(3)] == [1]


def test_a_frozen_server_is_unavailable(bench: PostgresBench, postgres: PostgresServer) -> None:
    owner = Owner(bench.postgres(answer_timeout=0.3, connect_timeout=2)).claim(3)
    batch = owner.batch(start(3, 1))
    postgres.pause()
    with pytest.raises(StoreUnavailable):
        owner.store.commit(batch, refuse_all)
    postgres.resume()
    owner.store.commit(batch, refuse_all)


def test_refused_content_leaves_the_connection_as_it_was(bench: PostgresBench) -> None:
    store = bench.postgres()
    owner = Owner(store).claim(3)
    bad = start(3, 1)
    bad.history[0].kind = "\x00"
    owner.store.commit(owner.batch(bad), Parker())
    assert store.counters.connects == 1


def test_an_ended_session_is_unavailable_once(bench: PostgresBench) -> None:
    store = bench.postgres()
    owner = Owner(store).claim(3)
    bench.run("SELECT pg_terminate_backend(%s)", store.backend_pid)
    batch = owner.batch(start(3, 1))
    with pytest.raises(StoreUnavailable):
        store.commit(batch, refuse_all)
    store.commit(batch, refuse_all)
    assert store.counters.connects == 2


def test_a_row_that_somebody_locks_is_unavailable_not_waited_for(bench: PostgresBench) -> None:
    owner = Owner(bench.postgres(lock_timeout=0.1)).claim(3)
    batch = owner.batch(start(3, 1))
    with bench.session() as other:
        other.execute("SELECT FROM kasaga.shard WHERE shard = 3 FOR UPDATE")
        with pytest.raises(StoreUnavailable, match="55P03"):
            owner.store.commit(batch, refuse_all)
        other.rollback()
    owner.store.commit(batch, refuse_all)


def test_a_full_or_shut_server_is_unavailable(bench: PostgresBench) -> None:
    """Classes 53 and 57, raised by a trigger in their stead."""
    owner = Owner(bench.postgres()).claim(3)
    batch = owner.batch(start(3, 1))
    for state in ("53100", "57P01", "40001", "40P01", "25006", "58030"):
        bench.run(
            "CREATE OR REPLACE FUNCTION pg_temp_fail() RETURNS trigger LANGUAGE plpgsql AS $$"
            f" BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '{state}'; END $$"
        )
        bench.run("CREATE TRIGGER fail BEFORE INSERT ON kasaga.history EXECUTE FUNCTION pg_temp_fail()")
        try:
            with pytest.raises(StoreUnavailable, match=state):
                owner.store.commit(batch, refuse_all)
        finally:
            bench.run("DROP TRIGGER fail ON kasaga.history")
    owner.store.commit(batch, refuse_all)


def test_a_standby_is_not_written_to(bench: PostgresBench) -> None:
    name = conninfo_to_dict(bench.conninfo)["dbname"]
    bench.run(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    try:
        with pytest.raises(StoreUnavailable, match="read-only"):
            bench.postgres().claim(3, "p1", ttl=TTL)
    finally:
        bench.run(f"ALTER DATABASE {name} RESET default_transaction_read_only")


def test_a_database_without_tables_says_so(database: str) -> None:
    store = PostgresStore(database)
    with pytest.raises(NotMigrated, match="kasaga migrate"):
        store.namespace()
    with pytest.raises(NotMigrated, match="kasaga migrate"):
        store.claim(3, "p1", ttl=TTL)
    store.close()


def test_passwords_are_in_no_message(postgres: PostgresServer) -> None:
    secret = "s3cr3t"
    for conninfo in (
        f"postgresql://nobody:{secret}@127.0.0.1:1/none",
        f"host=127.0.0.1 port={postgres.port} user=nobody password={secret} dbname=none",
    ):
        store = PostgresStore(conninfo)
        with pytest.raises(StoreUnavailable) as error:
            store.claim(3, "p1", ttl=TTL)
        shown = [
            str(error.value),
            repr(error.value),
            str(error.value.__cause__),
            repr(store),
            repr(vars(store)),
        ]
        assert not [text for text in shown if secret in text]
