"""Which sagas are looked at, in which order, how often, and what is left for the next audit."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import cast

import pytest

from audit.shelf import NOON, SHARDS, Played, Shelf, minutes, play
from kasaga.audit import walk
from kasaga.audit.compare import Verdict
from kasaga.audit.facts import SagaFacts
from kasaga.audit.resume import IDLE, OVERLAP, Resumed
from kasaga.audit.tally import Tally
from kasaga.audit.walk import Auditor, Inboxes, Pace, ended, stuck
from kasaga.engine.codec import encode
from kasaga.engine.model import Asked, Record
from kasaga.orchestrator.clock import to_micros
from kasaga.store.audit import Book, MemoryBook
from kasaga.testing import Fault

FAST = 1e9
EVENING = NOON + minutes(600)


@pytest.fixture(scope="module")
def done() -> Played:
    return play()


@pytest.fixture(scope="module")
def undone() -> Played:
    return play(Fault("refused", "2"))


@pytest.fixture(scope="module")
def parked() -> Played:
    return play(Fault("refused", "2"), Fault("undo_fails", "1"))


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


def auditor(shelf: Shelf, *, rate: float = FAST, clock: float | None = None) -> Auditor:
    now = clock if clock is not None else _played_at(shelf)
    return Auditor(shelf.store, Inboxes(shelf.find), Pace(rate), confirm=0, clock=lambda: now)


def _played_at(shelf: Shelf) -> float:
    times = [each.at for _, history in shelf.sagas.values() for each in history]
    return max(times, default=NOON).timestamp()


def wrong(results: Iterable[tuple[SagaFacts, Verdict]]) -> list[tuple[str, str]]:
    return [(finding.saga_id, finding.rule.name) for _, verdict in results for finding in verdict.findings]


# --- the order of reading, and looking twice


def test_a_history_is_read_before_any_inbox(shelf: Shelf, done: Played) -> None:
    rows = [shelf.put(done, NOON) for _ in range(250)]
    assert len(list(auditor(shelf).audit(rows))) == 250
    read: set[str] = set()
    for what, about in shelf.log:
        if what == "history":
            read.add(str(about))
        else:
            asked = cast("list[str]", about)
            assert read.issuperset(asked)
    assert [what for what, _ in shelf.log if what == "hotel"] == ["hotel"] * 3, "one question a batch"


def test_what_is_there_at_the_second_look_was_a_false_alarm(shelf: Shelf, done: Played) -> None:
    row = shelf.put(done, NOON)
    path = f"{row.run_id}.1"
    hidden = shelf.inboxes["hotel"].pop(path)

    def late(participant: str) -> None:
        if [what for what, _ in shelf.log].count("hotel") > 1:
            shelf.inboxes["hotel"][path] = hidden

    shelf.on_read = late
    assert wrong(auditor(shelf).audit([row])) == []
    del shelf.inboxes["hotel"][path]
    shelf.on_read = None
    assert wrong(auditor(shelf).audit([row])) == [("s-1", "EFFECT_MISSING")]


def test_a_stuck_saga_that_goes_on_while_it_is_compared_is_left_for_later(
    shelf: Shelf, parked: Played, undone: Played
) -> None:
    """Its undo is committed after its history was read: history says nothing of it, the inbox has it."""
    row = shelf.put(parked, NOON)
    facts = next(iter(auditor(shelf).audit([row])))[0]
    assert facts.row.state == "STUCK"
    undo = next(each for each in undone.inboxes["hotel"] if each.id == "1~undo")
    shelf.inboxes["hotel"][f"{row.run_id}.1~undo"] = replace(undo, id=f"{row.run_id}.1~undo")
    assert wrong(auditor(shelf).audit([row])) == [], "an undo that is out may have been done"


def test_a_saga_whose_history_grows_is_looked_at_anew(shelf: Shelf, parked: Played, done: Played) -> None:
    row = shelf.put(parked, NOON)
    del shelf.inboxes["hotel"][f"{row.run_id}.1"]  # as if something were wrong
    looks = 0

    def grow(participant: str) -> None:
        nonlocal looks
        looks += participant == "hotel"
        kept, history = shelf.sagas[row.run_id]
        last = history[-1]
        asked = Asked(f"w-{last.seq}", "watch", "somebody", "", "", "", "")
        body = encode(Record(last.seq + 1, to_micros(last.at), 0, asked, ()))
        shelf.sagas[row.run_id] = (kept, [*history, replace(last, seq=last.seq + 1, body=body)])

    shelf.on_read = grow
    assert list(auditor(shelf).audit([row])) == []
    assert looks == 1 + walk.LOOKS


def test_a_saga_that_is_purged_meanwhile_is_left_out(shelf: Shelf, done: Played) -> None:
    rows = [shelf.put(done, NOON) for _ in range(2)]
    shelf.inboxes["hotel"].clear()

    def purge(participant: str) -> None:
        shelf.sagas.pop(rows[0].run_id, None)

    shelf.on_read = purge
    assert wrong(auditor(shelf).audit(rows)) == [("s-2", "EFFECT_MISSING")]
    gone = replace(rows[0], saga_id="gone")
    assert list(auditor(shelf).audit([gone])) == []


def test_a_silent_participant_is_asked_once_and_counted(shelf: Shelf, done: Played) -> None:
    rows = [shelf.put(done, NOON) for _ in range(350)]
    shelf.away.add("bank")
    tally = Tally()
    for facts, verdict in auditor(shelf).audit(rows):
        tally.add(facts, verdict)
    assert [what for what, _ in shelf.log].count("bank") == 1
    assert (tally.status, tally.unheard, tally.steps) == (4, {"bank": 350}, 700)


# --- load


def test_memory_is_that_of_a_batch(shelf: Shelf, done: Played) -> None:
    large = [replace(each, body=each.body) for each in done.history]
    first = shelf.put(replace(done, history=large), NOON)
    # One row stands for all: what counts is what the audit keeps of 5,000.
    rows = (first for _ in range(5_000))
    tracemalloc.start()
    try:
        count = sum(1 for _ in auditor(shelf).audit(rows))
        shelf.log.clear()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count == 5_000
    assert peak < 8_000_000


def test_the_rate_is_kept(shelf: Shelf, done: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = 100.0

    def sleep(seconds: float) -> None:
        nonlocal clock
        clock += seconds

    monkeypatch.setattr("kasaga.audit.walk.time.monotonic", lambda: clock)
    monkeypatch.setattr("kasaga.audit.walk.time.sleep", sleep)
    rows = [shelf.put(done, NOON) for _ in range(1_000)]
    assert len(list(auditor(shelf, rate=50).audit(rows))) == 1_000
    assert clock - 100.0 == pytest.approx(900 / 50)


# --- slices


def slices(shelf: Shelf, since: datetime, until: datetime) -> list[str]:
    shards = dict.fromkeys(range(SHARDS), (since, until))
    return [row.saga_id for _, found in ended(shelf, shards) for row in found]


def test_each_saga_is_found_once_however_they_crowd(
    shelf: Shelf, done: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(walk, "LIMIT", 40)
    for number in range(300):
        shelf.put(done, NOON + timedelta(milliseconds=number // 3), shard=number % SHARDS)
    for number in range(60):
        shelf.put(done, NOON + timedelta(days=3), shard=number % SHARDS)  # all at the same moment
    shelf.put(done, NOON - timedelta(seconds=1))
    shelf.put(done, NOON + timedelta(days=40))
    found = slices(shelf, NOON - timedelta(seconds=1), NOON + timedelta(days=40))
    assert sorted(found) == sorted({row.saga_id for row, _ in shelf.sagas.values()} - {"s-361"})
    asked = [about for what, about in shelf.log if what == "ended"]
    assert len(asked) < 160
    assert max(about for about in asked if isinstance(about, timedelta)) > timedelta(days=5)


def test_stuck_sagas_are_read_page_by_page(
    shelf: Shelf, parked: Played, done: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(walk, "PAGE", 7)
    for _ in range(20):
        shelf.put(parked, NOON)
        shelf.put(done, NOON)
    assert len({row.saga_id for row in stuck(shelf.store)}) == 20


# --- going on


class Night:
    """One night's audit after the other."""

    def __init__(self, shelf: Shelf, book: Book | None = None) -> None:
        self.shelf = shelf
        self.book = book or MemoryBook()

    def resumed(self, now: datetime) -> Resumed:
        store = self.shelf.store
        return Resumed(store, self.shelf, self.book, auditor(self.shelf), now=now, since=None)

    def audit(self, now: datetime = EVENING) -> tuple[list[str], list[tuple[str, str]]]:
        """Which sagas were compared, and what was wrong."""
        results = list(self.resumed(now).audit())
        return [facts.row.saga_id for facts, _ in results], wrong(results)


def test_each_saga_is_compared_once(shelf: Shelf, done: Played) -> None:
    night = Night(shelf)
    first = [shelf.put(done, NOON + minutes(number), shard=number % SHARDS).saga_id for number in range(8)]
    assert sorted(night.audit()[0]) == sorted(first)
    assert night.audit()[0] == []
    later = NOON + minutes(30)
    second = [shelf.put(done, later + minutes(number), shard=number % SHARDS).saga_id for number in range(8)]
    # The last minute of each shard is looked at twice: owners' clocks may differ.
    assert sorted(night.audit()[0]) == sorted(second + first[-SHARDS:])
    assert minutes(1) == OVERLAP


def test_a_shard_that_commits_late_is_not_passed_over(shelf: Shelf, done: Played) -> None:
    """Its owner was slow: what ended in it long before others' last commits becomes visible only now."""
    night = Night(shelf)
    shelf.put(done, NOON, shard=0)
    shelf.put(done, NOON + minutes(60), shard=1)
    assert len(night.audit()[0]) == 2
    late = shelf.put(done, NOON + minutes(20), shard=0).saga_id
    never = shelf.put(done, NOON + minutes(5), shard=2).saga_id
    assert sorted(night.audit()[0]) == sorted(["s-1", late, never])


def test_an_idle_shard_is_not_searched_from_its_last_commit(shelf: Shelf, done: Played) -> None:
    night = Night(shelf)
    shelf.put(done, NOON, shard=0)
    night.audit(NOON + minutes(1))
    week = NOON + timedelta(days=7)
    night.audit(week)
    assert night.book.positions()[0] == week - IDLE
    fresh = shelf.put(done, week + minutes(1), shard=0).saga_id
    assert night.audit(week + minutes(2))[0] == [fresh]


def test_an_audit_that_is_killed_in_the_middle_is_gone_on_with(
    shelf: Shelf, done: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(walk, "LONGEST", minutes(1))
    monkeypatch.setattr(walk, "FIRST", minutes(1))
    night = Night(shelf)
    rows = [shelf.put(done, NOON + minutes(2 * number)) for number in range(10)]
    del shelf.inboxes["hotel"][f"{rows[0].run_id}.1"]
    seen: list[str] = []
    for facts, _ in night.resumed(NOON + minutes(60)).audit():
        seen.append(facts.row.saga_id)
        if len(seen) == 5:
            break  # killed: the fifth was compared, and nothing of it written down
    again, findings = night.audit(NOON + minutes(60))
    assert sorted({*seen, *again}) == sorted(row.saga_id for row in rows)
    assert set(seen) & set(again) == {"s-1", "s-5"}, "the wrong one, and the one that was at work"
    assert findings == [("s-1", "EFFECT_MISSING")]


def test_what_is_wrong_is_looked_at_until_it_is_well(shelf: Shelf, done: Played) -> None:
    night = Night(shelf)
    row = shelf.put(done, NOON)
    shelf.put(done, NOON)
    hidden = shelf.inboxes["hotel"].pop(f"{row.run_id}.1")
    for _ in range(3):
        assert night.audit()[1] == [("s-1", "EFFECT_MISSING")]
    shelf.inboxes["hotel"][f"{row.run_id}.1"] = hidden
    assert night.audit() == (["s-1"], [])
    assert night.audit() == ([], [])


def test_what_was_wrong_and_is_too_old_now_is_not_well(shelf: Shelf, done: Played) -> None:
    night = Night(shelf)
    row = shelf.put(done, NOON)
    del shelf.inboxes["hotel"][f"{row.run_id}.1"]
    assert night.audit()[1]
    old = auditor(shelf, clock=_played_at(shelf) + 8 * 86_400)
    for _ in range(2):
        results = list(Resumed(shelf.store, shelf, night.book, old, now=NOON, since=None).audit())
        assert [(facts.row.saga_id, len(verdict.unknowable)) for facts, verdict in results] == [("s-1", 1)]
    shelf.sagas.clear()
    assert night.audit() == ([], [])
    assert night.book.open(10) == []


def test_what_somebody_has_mended_by_hand_is_left_alone(shelf: Shelf, done: Played) -> None:
    night = Night(shelf)
    row = shelf.put(done, NOON)
    del shelf.inboxes["hotel"][f"{row.run_id}.1"]
    assert night.audit()[1]
    night.resumed(NOON).mended([row])
    assert night.audit() == ([], [])


def test_while_somebody_does_not_answer_the_position_stays(shelf: Shelf, done: Played) -> None:
    night = Night(shelf)
    shelf.put(done, NOON)
    shelf.away.add("bank")
    assert night.audit()[0] == ["s-1"]
    assert night.book.positions()[0] < NOON
    shelf.put(done, NOON + minutes(1))
    shelf.away.clear()
    assert sorted(night.audit()[0]) == ["s-1", "s-2"]
    assert night.audit()[0] == []


def test_with_too_many_wrong_ones_nothing_goes_on(
    shelf: Shelf, done: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kasaga.audit.resume.MAX_OPEN", 3)
    night = Night(shelf)
    for _ in range(5):
        shelf.put(done, NOON)
    shelf.inboxes["hotel"].clear()
    assert len(night.audit()[1]) == 5
    shelf.put(done, NOON + minutes(9))
    before = night.book.positions()
    assert len(night.audit()[1]) >= 5
    assert night.book.positions() == before
