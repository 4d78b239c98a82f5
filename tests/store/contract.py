"""What every store has to do; `test_store_memory.py` runs it in milliseconds, `integration/store` in
Postgres.

Here: leases, and commits with all that they read back. Content that is refused: `refusals.py`.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from datetime import timedelta
from typing import Protocol
from uuid import UUID, uuid4

import pytest

from kasaga.store.base import (
    LostShards,
    Offsets,
    RowKind,
    SagaFilter,
    SagaState,
    SagaWrite,
    ShardLease,
    Store,
    Suspect,
)
from kasaga.store.errors import BadBatch
from store.samples import (
    T0,
    TTL,
    Owner,
    history_row,
    outbox_row,
    refuse_all,
    run_id,
    saga_row,
    start,
)

SHARDS = 16


class Bench(Protocol):
    """One database, and what a test may do to it."""

    def store(self) -> Store:
        """Another process's view of the one database."""
        ...

    def expire(self) -> None:
        """Let every lease run out, and every process be forgotten."""
        ...

    def set_back(self) -> None:
        """Set the database's clock back by an hour."""
        ...


@pytest.fixture
def store(bench: Bench) -> Store:
    return bench.store()


@pytest.fixture
def owner(store: Store) -> Owner:
    return Owner(store)


class LeaseContract:
    def test_a_new_shard_begins_at_the_beginning(self, store: Store) -> None:
        row = store.claim(3, "p1", ttl=TTL)
        assert row is not None
        assert (row.shard, row.epoch, row.offsets, row.commit_seq) == (3, 1, None, 0)
        assert (row.acked_seq, row.next_seq, row.deaths, row.suspect) == (0, 1, 0, None)
        assert row.now.utcoffset() == timedelta(0)

    def test_a_held_shard_is_not_given_to_another(self, bench: Bench, store: Store) -> None:
        assert store.claim(3, "p1", ttl=TTL)
        assert bench.store().claim(3, "p2", ttl=TTL) is None
        assert store.shards()[3] == ShardLease(3, "p1", expired=False)

    def test_a_shard_that_is_none_is_nobodys(self, store: Store) -> None:
        assert store.claim(SHARDS, "p1", ttl=TTL) is None

    def test_each_claim_has_a_token_and_an_epoch_of_its_own(self, bench: Bench, store: Store) -> None:
        first = store.claim(3, "p1", ttl=TTL)
        again = store.claim(3, "p1", ttl=TTL)  # the answer to the first may have been lost
        bench.expire()
        taken = bench.store().claim(3, "p2", ttl=TTL)
        assert first is not None
        assert again is not None
        assert taken is not None
        assert len({first.token, again.token, taken.token}) == 3
        assert (first.epoch, again.epoch, taken.epoch) == (1, 2, 3)

    def test_only_a_shard_that_another_let_expire_counts_a_death(self, bench: Bench, store: Store) -> None:
        deaths: list[int] = []
        for process in ("p1", "p2", "p2", "p3"):
            row = store.claim(3, process, ttl=TTL)
            assert row is not None
            deaths.append(row.deaths)
            bench.expire()
        assert deaths == [0, 1, 1, 2]
        row = store.claim(3, "p3", ttl=TTL)
        assert row is not None
        store.release([(3, row.token)])
        row = store.claim(3, "p4", ttl=TTL)
        assert row is not None
        assert row.deaths == 0

    def test_pardon_forgets_deaths_and_suspects_where_the_token_holds(
        self, bench: Bench, store: Store
    ) -> None:
        owner = Owner(store).claim(3)
        owner.mark(3, 7)
        bench.expire()
        heir = Owner(bench.store(), "p2").claim(3)
        store.pardon(3, owner.rows[3].token)
        heir.claim(3)
        assert (heir.rows[3].deaths, heir.rows[3].suspect) == (1, Suspect(run_id(7), "line 7", 1))
        heir.mark(3, 7)
        heir.store.pardon(3, heir.rows[3].token)
        heir.claim(3)
        assert (heir.rows[3].deaths, heir.rows[3].suspect) == (0, None)
        bench.expire()
        owner.claim(3)
        assert (owner.rows[3].deaths, owner.rows[3].suspect) == (1, None), "its mark is forgotten, too"

    def test_a_death_counts_once_against_the_saga_that_was_marked(self, bench: Bench, store: Store) -> None:
        """And not again when the next owner dies before it has stepped anything."""
        told: list[tuple[int, Suspect | None]] = []
        for process, run in (("p1", 7), ("p2", None), ("p3", 8), ("p4", 7), ("p5", None)):
            owner = Owner(store, process).claim(3)
            told.append((owner.rows[3].deaths, owner.rows[3].suspect))
            if run:
                owner.mark(3, run)
            bench.expire()
        first, second = Suspect(run_id(7), "line 7", 1), Suspect(run_id(7), "line 7", 2)
        assert told == [(0, None), (1, first), (2, first), (3, first), (4, second)]

    def test_the_next_commit_takes_a_mark_back(self, bench: Bench, store: Store) -> None:
        owner = Owner(store).claim(3)
        owner.mark(3, 7)
        owner.commit(shards=(3,))
        bench.expire()
        assert Owner(bench.store(), "p2").claim(3).rows[3].suspect is None

    def test_a_mark_that_nobody_died_with_counts_nothing(self, bench: Bench, store: Store) -> None:
        """Neither its own process's coming back, nor handing over, is a death."""
        owner = Owner(store).claim(3)
        owner.mark(3, 7)
        owner.claim(3)
        bench.expire()
        heir = Owner(bench.store(), "p2").claim(3)
        assert (heir.rows[3].deaths, heir.rows[3].suspect) == (1, None)
        heir.mark(3, 7)
        store.release([(3, heir.rows[3].token)])
        owner.claim(3)
        bench.expire()
        assert heir.claim(3).rows[3].suspect is None

    def test_a_line_that_is_not_known_leaves_the_one_that_was(self, bench: Bench, store: Store) -> None:
        for process, place in (("p1", ""), ("p2", "line 1"), ("p3", "line 2"), ("p4", "")):
            Owner(store, process).claim(3).mark(3, 7, place)
            bench.expire()
        heir = Owner(bench.store(), "p5").claim(3)
        assert heir.rows[3].suspect == Suspect(run_id(7), "line 2", 4)

    def test_a_saga_is_acquitted_alone(self, bench: Bench, store: Store) -> None:
        for process, run in (("p1", 7), ("p2", 8), ("p3", 7)):
            Owner(store, process).claim(3).mark(3, run)
            bench.expire()
        heir = Owner(bench.store(), "p4").claim(3)
        assert heir.rows[3].suspect == Suspect(run_id(7), "line 7", 2)
        batch = heir.batch(shards=(3,))
        batch.shards[0].acquitted = run_id(7)
        heir.store.commit(batch, refuse_all)
        assert heir.claim(3).rows[3].suspect == Suspect(run_id(8), "line 8", 1)
        assert heir.rows[3].deaths == 3

    def test_handing_over_forgets_deaths_and_suspects(self, bench: Bench, store: Store) -> None:
        Owner(store).claim(3).mark(3, 7)
        bench.expire()
        heir = Owner(bench.store(), "p2").claim(3)
        store.release([(3, uuid4())])
        assert heir.claim(3).rows[3].suspect == Suspect(run_id(7), "line 7", 1)
        store.release([(3, heir.rows[3].token)])
        assert (heir.claim(3).rows[3].deaths, heir.rows[3].suspect) == (0, None)

    def test_a_heartbeat_lists_the_living(self, bench: Bench, store: Store) -> None:
        assert store.heartbeat("pb", [], ttl=TTL).processes == ["pb"]
        assert store.heartbeat("pa", [], ttl=TTL).processes == ["pa", "pb"]
        bench.expire()
        seen = store.heartbeat("pc", [], ttl=TTL)
        assert seen.processes == ["pc"]
        assert seen.shards == [ShardLease(shard, None, expired=False) for shard in range(SHARDS)]
        assert store.heartbeat("pd", [], ttl=TTL).now >= seen.now

    def test_who_leaves_is_off_the_list_and_keeps_its_shards(self, bench: Bench, store: Store) -> None:
        owner = Owner(store).claim(3, 4)
        held = [(3, owner.rows[3].token), (4, uuid4())]
        store.heartbeat("p1", [], ttl=TTL)
        store.heartbeat("p2", [], ttl=TTL)
        seen = store.heartbeat("p1", held, ttl=TTL, leaving=True)
        assert (seen.processes, seen.commits) == (["p2"], {})
        assert seen.shards[3:5] == [ShardLease(3, "p1", expired=False), ShardLease(4, "p1", expired=False)]
        bench.expire()
        seen = store.heartbeat("p1", held, ttl=TTL, leaving=True)
        assert seen.processes == []
        assert seen.shards[3:5] == [ShardLease(3, "p1", expired=False), ShardLease(4, "p1", expired=True)]

    def test_a_heartbeat_renews_what_still_is_held(self, bench: Bench, store: Store) -> None:
        owner = Owner(store).claim(3, 4)
        held = [(shard, row.token) for shard, row in owner.rows.items()]
        bench.expire()
        assert store.heartbeat("p2", [], ttl=TTL).shards[3] == ShardLease(3, "p1", expired=True)
        heir = Owner(bench.store(), "p2").claim(4)
        leases = store.heartbeat("p1", held, ttl=TTL).shards
        assert leases[3] == ShardLease(3, "p1", expired=False)
        assert leases[4] == ShardLease(4, "p2", expired=False)
        bench.expire()
        assert store.heartbeat("p1", held, ttl=TTL).shards[4] == ShardLease(4, "p2", expired=True)
        assert heir.rows[4].epoch == 2

    def test_a_heartbeat_tells_how_far_the_process_s_own_shards_have_come(self, store: Store) -> None:
        owner = Owner(store).claim(3, 4)
        held = [(shard, row.token) for shard, row in owner.rows.items()]
        assert store.heartbeat("p1", held, ttl=TTL).commits == {3: 0, 4: 0}
        store.commit(owner.batch(shards=(3,)), refuse_all)
        assert store.heartbeat("p1", held, ttl=TTL).commits == {3: 1, 4: 0}
        assert store.heartbeat("p2", [], ttl=TTL).commits == {}

    def test_a_clock_that_was_set_back_keeps_no_shard_for_the_dead(self, bench: Bench, store: Store) -> None:
        store.heartbeat("p1", [], ttl=TTL)
        store.claim(3, "p1", ttl=TTL)
        bench.set_back()
        other = bench.store()
        seen = other.heartbeat("p2", [], ttl=TTL)
        assert seen.processes == ["p2"], "its share would be nobody's"
        assert seen.shards[3] == other.shards()[3] == ShardLease(3, "p1", expired=True)
        row = other.claim(3, "p2", ttl=TTL)
        assert row is not None
        assert (row.epoch, row.deaths) == (2, 1)

    def test_a_clock_that_was_set_back_takes_nothing_from_the_living(
        self, bench: Bench, store: Store
    ) -> None:
        owner = Owner(store).claim(3)
        bench.set_back()
        seen = store.heartbeat("p1", [(3, owner.rows[3].token)], ttl=TTL)
        assert seen.shards[3] == ShardLease(3, "p1", expired=False)
        assert bench.store().claim(3, "p2", ttl=TTL) is None

    def test_a_released_shard_is_free_and_its_old_token_dead(self, bench: Bench, store: Store) -> None:
        owner = Owner(store).claim(3, 4)
        store.heartbeat("p1", [], ttl=TTL)
        store.release([(3, owner.rows[3].token), (4, uuid4())], "p1")
        seen = store.heartbeat("p2", [], ttl=TTL)
        assert seen.processes == ["p2"]
        assert seen.shards[3] == ShardLease(3, None, expired=False)
        assert seen.shards[4] == ShardLease(4, "p1", expired=False)
        with pytest.raises(LostShards):
            store.commit(owner.batch(shards=(3,)), refuse_all)
        assert bench.store().claim(3, "p2", ttl=TTL)


class CommitContract:
    def test_an_heir_reads_what_was_sent_only_of_what_it_has_to_send(self, owner: Owner) -> None:
        owner.claim(3)
        command = RowKind.COMMAND
        kinds = (command, command, RowKind.TIMER, RowKind.LOCAL, RowKind.RECORD, command)
        opens = [
            outbox_row(3, seq, run_id(1), kind=kind, send_at=T0 if seq == 2 else None, due_at=T0)
            for seq, kind in enumerate(kinds, 1)
        ]
        owner.store.commit(owner.batch(replace(start(3, 1), opens=opens)), refuse_all)
        assert owner.store.open_rows(3) == owner.store.open_rows(3, acked=0) == opens
        found = owner.store.open_rows(3, acked=5)
        assert [found[1], *found[2:4], found[5]] == [opens[1], *opens[2:4], opens[5]], "delayed, ours, new"
        for number in (0, 4):
            bare = replace(opens[number], topic="", partition=None, key=None, headers=[], payload=None)
            assert found[number] == bare

    def test_all_that_is_written_is_read_back(self, bench: Bench, owner: Owner) -> None:
        owner.claim(3)
        run = run_id(1)
        history = [history_row(0, b""), history_row(1, bytes(range(256)) * 20, step="", kind="ünïcödé ☃ 🦆")]
        opens = [
            outbox_row(3, 1, run),
            outbox_row(3, 2, run, kind=RowKind.TIMER, headers=[], payload=None, key=None, partition=5),
            outbox_row(
                3, 2**40, run, kind=RowKind.LOCAL, due_at=None, send_at=T0, attempt=2**31 - 1, topic=""
            ),
        ]
        loose = [outbox_row(3, 9, None, kind=RowKind.RECORD, headers=[("é", b"\x00")], payload=b"")]
        saga = saga_row(
            3,
            1,
            SagaState.STUCK,
            ended_at=T0,
            step="2.1",
            code="KSG-202",
            reason='it\'s \\ "odd" {a,NULL} €',
            remedy="NULL",
            with_exceptions=True,
            parked_code="abc",
            result=b"\x00\xff",
        )
        batch = owner.batch(SagaWrite(3, run, history, saga, new=True, opens=opens), loose=loose)
        marked = Suspect(run, "sagas.py:7 in pay")
        batch.shards[0] = replace(batch.shards[0], next_seq=2**40 + 1, acked_seq=7, suspect=marked)
        committed = owner.store.commit(batch, refuse_all)
        assert (committed.replaced, committed.dropped) == ({}, [])

        store = bench.store()
        assert store.load([(3, run)]) == {run: history}
        assert list(store.history(saga)) == history
        assert store.find([(3, "order-1")]) == {"order-1": saga}
        assert store.find_runs([(3, run), (3, run_id(2))]) == {run: saga}
        assert store.find_runs([(4, run)]) == {}
        assert store.saga("order-1") == saga
        assert store.list_sagas(SagaFilter()) == [saga]
        assert store.open_rows(3) == [opens[0], opens[1], loose[0], opens[2]]
        assert store.waits(saga) == opens
        bench.expire()
        row = store.claim(3, "p2", ttl=TTL)
        assert row is not None
        assert (row.commit_seq, row.acked_seq, row.next_seq) == (1, 7, 2**40 + 1)
        assert row.suspect == marked._replace(deaths=1)
        assert (row.now, row.offsets) == (batch.shards[0].now, batch.shards[0].offsets)

    def test_a_store_keeps_copies(self, owner: Owner) -> None:
        owner.claim(3)
        write = start(3, 1, seq=1)
        kept = deepcopy(write)
        owner.commit(write)
        assert write.saga is not None
        write.saga.state = SagaState.STUCK
        write.opens[0].attempt = 9
        write.opens[0].headers.clear()
        write.history[0].body = b"else"
        assert owner.store.saga("order-1") == kept.saga
        assert owner.store.open_rows(3) == kept.opens
        assert owner.store.load([(3, run_id(1))]) == {run_id(1): kept.history}

    def test_a_state_change_keeps_what_a_saga_was_started_with(self, owner: Owner) -> None:
        owner.claim(3)
        owner.commit(start(3, 1), start(3, 2))
        changed = saga_row(
            3, 1, SagaState.COMPLETED, version=2, ended_at=T0, result=b"r", name="x", saga_id="y"
        )
        owner.commit(SagaWrite(3, run_id(1), [history_row(1)], changed))
        kept = replace(changed, name="payment", saga_id="order-1")
        assert owner.store.saga("order-1") == kept
        assert owner.store.list_sagas(SagaFilter()) == [saga_row(3, 2), kept]

    def test_a_saga_that_has_ended_may_go_on_and_end_otherwise(self, owner: Owner) -> None:
        owner.claim(3).commit(start(3, 1))
        ends = (SagaState.COMPLETED, T0), (SagaState.CANCELLING, None), (SagaState.COMPENSATED, T0)
        for number, (state, ended) in enumerate(ends, 1):
            row = saga_row(3, 1, state, ended_at=ended)
            owner.commit(SagaWrite(3, run_id(1), [history_row(number)], row))
            assert owner.store.list_sagas(SagaFilter()) == [row]

    def test_a_change_to_a_saga_that_is_not_there_is_nothing(self, owner: Owner) -> None:
        owner.claim(3)
        owner.commit(SagaWrite(3, run_id(1), [history_row(1)], saga_row(3, 1)))
        assert owner.store.list_sagas(SagaFilter()) == []

    def test_rows_are_closed_by_their_saga_or_when_acknowledged(self, owner: Owner) -> None:
        owner.claim(3, 4)
        owner.commit(start(3, 1, seq=1), start(4, 2, seq=1), loose=[outbox_row(3, 2), outbox_row(3, 3)])
        again = SagaWrite(3, run_id(1), opens=[outbox_row(3, 4), outbox_row(3, 5)], closes=[1, 4, 77])
        owner.commit(again, shards=(3, 4), acked=[(3, 2), (4, 99)])
        assert [row.seq for row in owner.store.open_rows(3)] == [3, 5]
        assert [row.seq for row in owner.store.open_rows(4)] == [1]

    def test_the_same_batch_is_committed_once(self, bench: Bench, owner: Owner) -> None:
        owner.claim(3, 4)
        batch = owner.batch(start(3, 1, seq=1), start(4, 2, seq=1))
        first = owner.store.commit(batch, refuse_all)
        again = owner.store.commit(batch, refuse_all)
        assert again.now >= first.now
        other = bench.store().commit(deepcopy(batch), refuse_all)
        assert other.replaced == {}
        assert len(owner.store.load([(3, run_id(1))])[run_id(1)]) == 1
        owner.done(batch)
        owner.commit(start(3, 5), shards=(4,))

    def test_a_lost_token_commits_nothing_at_all(self, bench: Bench, owner: Owner) -> None:
        owner.claim(3, 4, 5)
        bench.expire()
        heir = Owner(bench.store(), "p2").claim(4, 5)
        with pytest.raises(LostShards) as lost:
            owner.store.commit(owner.batch(start(3, 1, seq=1), start(4, 2), shards=(5,)), refuse_all)
        assert lost.value.shards == {4, 5}
        assert not lost.value.astray
        assert owner.store.list_sagas(SagaFilter()) == []
        assert owner.store.open_rows(3) == []
        owner.commit(start(3, 1, seq=1))  # what is left of it goes on
        heir.commit(start(4, 2))
        assert owner.store.count(SagaFilter()) == {SagaState.RUNNING: 2}

    def test_what_was_committed_before_a_shard_was_lost_stays_known(self, bench: Bench, owner: Owner) -> None:
        owner.claim(3, 4)
        batch = owner.batch(start(3, 1), start(4, 2))
        owner.store.commit(batch, refuse_all)  # and its answer is lost
        bench.expire()
        Owner(bench.store(), "p2").claim(4)
        with pytest.raises(LostShards) as lost:
            owner.store.commit(batch, refuse_all)
        assert lost.value.shards == {4}
        rest = replace(batch, shards=batch.shards[:1], sagas=batch.sagas[:1])
        owner.store.commit(rest, refuse_all)
        assert len(owner.store.load([(3, run_id(1))])[run_id(1)]) == 1

    @pytest.mark.parametrize("commit_seq", [0, 1, 4, 9])
    def test_a_commit_number_that_is_not_next_is_astray(self, owner: Owner, commit_seq: int) -> None:
        owner.claim(3, 4)
        owner.commit(shards=(3,))
        owner.commit(shards=(3, 4))
        batch = owner.batch(start(3, 1), start(4, 2))
        batch.shards[0].commit_seq = commit_seq
        with pytest.raises(LostShards) as lost:
            owner.store.commit(batch, refuse_all)
        assert lost.value.shards == lost.value.astray == {3}
        assert owner.store.list_sagas(SagaFilter()) == []
        owner.claim(3)
        owner.commit(start(3, 1), start(4, 2))

    def test_two_parts_that_went_apart_are_astray(self, owner: Owner) -> None:
        owner.claim(3, 4)
        owner.commit(shards=(3,))
        batch = owner.batch(shards=(3, 4))
        batch.shards[0].commit_seq = 1  # known, while shard 4's is fresh
        with pytest.raises(LostShards) as lost:
            owner.store.commit(batch, refuse_all)
        assert lost.value.astray == {3, 4}

    def test_a_batch_without_sagas_moves_the_shard_on(self, owner: Owner) -> None:
        owner.claim(3)
        owner.commit(shards=(3,))
        row = owner.store.claim(3, "p1", ttl=TTL)
        assert row is not None
        assert (row.commit_seq, row.offsets, row.now) == (1, Offsets(1, 2, 3), T0 + timedelta(seconds=1))

    def test_many_sagas_in_many_shards_at_once(self, owner: Owner) -> None:
        owner.claim(*range(SHARDS))
        owner.commit(*(start(number % SHARDS, number, seq=number + 1) for number in range(700)))
        assert owner.store.count(SagaFilter()) == {SagaState.RUNNING: 700}
        runs = [(number % SHARDS, run_id(number)) for number in range(700)]
        assert len(owner.store.load([*runs, (0, run_id(7777))])) == 700
        found = owner.store.find([(shard, f"order-{number}") for number, (shard, _) in enumerate(runs)])
        assert len(found) == 700
        assert sum(len(owner.store.open_rows(shard)) for shard in range(SHARDS)) == 700

    def test_a_batch_that_contradicts_itself_is_refused(self, owner: Owner) -> None:
        owner.claim(3, 4)
        shard = owner.shard_write(3)
        bad = [
            owner.batch(start(3, 1), start(3, 1)),
            owner.batch(start(3, 1), loose=[outbox_row(4, 1)]),
            owner.batch(start(3, 1), acked=[(4, 1)]),
            owner.batch(SagaWrite(3, run_id(1), opens=[outbox_row(4, 1)])),
            owner.batch(SagaWrite(3, run_id(1), opens=[outbox_row(3, 1_000_000)])),
            owner.batch(SagaWrite(3, run_id(1), saga=saga_row(3, 2))),
            owner.batch(start(3, 1), shards=(3,)),
        ]
        bad[-1].shards = [shard, shard]
        bad.append(owner.batch(shards=(3,)))
        bad[-1].shards[0].suspect = Suspect(run_id(1), "a NUL \x00")
        unfenced = owner.batch(start(3, 1))
        unfenced.shards = [owner.shard_write(4)]
        nothing = owner.batch(shards=(3,))
        nothing.shards = []
        for batch in [*bad, unfenced, nothing]:
            with pytest.raises(BadBatch):
                owner.store.commit(batch, refuse_all)
        assert owner.store.list_sagas(SagaFilter()) == []

    def test_nothing_is_asked_and_nothing_is_found(self, store: Store) -> None:
        none: list[tuple[int, UUID]] = []
        assert store.load(none) == {}
        assert store.find([]) == {}
        assert store.find_runs(none) == {}
        assert store.find([(3, "nobody")]) == {}
        assert store.saga("nobody") is None
        assert list(store.history(saga_row(3, 1))) == []
        assert store.waits(saga_row(3, 1)) == []
        assert store.open_rows(3) == []
        store.put_schemas({})
        for unkeepable in ("a\x00b", "\ud800"):
            assert store.find([(3, unkeepable)]) == {}
            assert store.saga(unkeepable) is None
            assert store.list_sagas(SagaFilter(name=unkeepable)) == []
            assert store.count(SagaFilter(saga_id_prefix=unkeepable)) == {}
        assert store.schemas() == {}
        assert store.definitions() == []
