"""The comparison itself: no false finding of any fault's outcome, and each thing that is planted is found."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from kasaga import RetryPolicy, SagaContext, StepError, saga
from kasaga.audit.compare import Verdict, compare
from kasaga.audit.facts import SagaFacts, gather
from kasaga.audit.findings import REMEDIES, Rule
from kasaga.audit.inboxes import InboxRow, Memory, Seen, TooOld, Unanswered
from kasaga.store.base import SagaState
from kasaga.testing import Case, Fault, case
from kasaga.testing.services import Services, Virtual
from kasaga.testing.world import World
from kasaga_participant.inbox.memory import MemoryInbox
from testing.bookings import SERVED, Bank, Booking, Books, Hotel, HotelService, Post, Trip, bank_app, trip

PAGE = Path(__file__).parents[2] / "orchestrator" / "errors.md"


class Ended:
    """One run that has ended: its history, and the participants' inboxes."""

    def __init__(self, world: World, virtuals: dict[str, Virtual]) -> None:
        row = world.row
        self.facts = gather(row, ((each.seq, each.body) for each in world.store.history(row)))
        self.now = world.now().timestamp()
        self.inboxes = {name: virtual.inbox for name, virtual in virtuals.items()}
        self.run_id = str(row.run_id)

    def seen(self) -> dict[str, Seen]:
        return {name: self._of(inbox) for name, inbox in self.inboxes.items()}

    def _of(self, inbox: MemoryInbox) -> Seen:
        seen = Seen(Memory())
        for row in inbox.examine([self.run_id], "", 1000):
            seen.add(InboxRow(row.id, row.type, row.outcome, row.input_hash, row.result_hash))
        return seen

    def verdict(self, seen: dict[str, Seen] | None = None, *, later: timedelta = timedelta(0)) -> Verdict:
        return compare(self.facts, self.seen() if seen is None else seen, self.now + later.total_seconds())


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch) -> list[Ended]:
    """Every run that a test plays, as it ended."""
    found: list[Ended] = []
    playing: list[dict[str, Virtual]] = []
    begin: Callable[..., Any] = Services.begin

    def begun(self: Services, clock: Any) -> Any:
        virtuals, data = begin(self, clock)
        playing.append(dict(virtuals))
        return virtuals, data

    class Watched(World):
        def run(self, payload: bytes) -> None:
            super().run(payload)
            found.append(Ended(self, playing.pop()))

    monkeypatch.setattr(Services, "begin", begun)
    monkeypatch.setattr(case, "World", Watched)
    return found


def play(ends: list[Ended], *faults: Fault) -> Ended:
    Case(trip, Trip(id="t-1"), **SERVED).run(faults)
    return ends.pop()


def test_no_fault_and_no_pair_of_faults_makes_a_false_finding(ends: list[Ended]) -> None:
    assert Case(trip, Trip(id="t-1"), **SERVED).matrix().ok
    assert len(ends) > 100
    states = {ended.facts.state for ended in ends}
    assert states == {"COMPLETED", "COMPENSATED", "STUCK"}
    for ended in ends:
        verdict = ended.verdict()
        assert (verdict.findings, verdict.unknowable, verdict.unanswered) == ([], [], set())
    assert sum(ended.verdict().steps for ended in ends) > 200


def test_no_draw_of_faults_makes_a_false_finding(ends: list[Ended]) -> None:
    assert Case(trip, Trip(id="t-1"), **SERVED).simulate(150, seed=11).ok
    assert len(ends) == 150
    assert [ended.verdict().findings for ended in ends if ended.verdict().findings] == []


FAST = RetryPolicy(maximum_attempts=2, initial_interval=0.1)


@saga("race-and-gather")
async def racing(ctx: SagaContext, asked: Trip) -> Booking:
    """Branches whose losers are undone in a saga that goes well, one of them without a compensation."""
    hotel, bank, post = ctx.use(Hotel, retry=FAST), ctx.use(Bank, retry=FAST), ctx.use(Post, retry=FAST)
    first = await ctx.race(hotel.book(asked), post.write(asked), bank.charge(asked))
    with suppress(StepError):
        await ctx.gather(hotel.book(asked), bank.charge(asked))
    return first or Booking(number=0)


def test_losers_of_races_and_failed_gathers_make_no_false_finding(ends: list[Ended]) -> None:
    Case(racing, Trip(id="t-1", price=1), participants=[HotelService, bank_app()], data=Books).matrix()
    assert len(ends) > 100
    cleared = {
        step.cleared for ended in ends if ended.facts.state == "COMPLETED" for step in ended.facts.steps
    }
    assert cleared >= {"", "undone", "nothing"}
    assert [ended.verdict().findings for ended in ends if ended.verdict().findings] == []


def found(verdict: Verdict) -> list[tuple[str, str]]:
    return [(each.step, each.rule.name) for each in verdict.findings]


class Planted:
    """What is to be changed in one inbox: rows by path."""

    def __init__(self, ended: Ended) -> None:
        self._ended = ended
        self._rows = {
            (name, row.id): InboxRow(row.id, row.type, row.outcome, row.input_hash, row.result_hash)
            for name, inbox in ended.inboxes.items()
            for row in inbox.examine([ended.run_id], "", 1000)
        }

    def change(self, participant: str, path: str, **what: Any) -> Planted:
        key = (participant, f"{self._ended.run_id}.{path}")
        row = self._rows.get(key) or InboxRow(key[1], "", "")
        self._rows[key] = replace(row, **what)
        return self

    def delete(self, participant: str, path: str) -> Planted:
        del self._rows[participant, f"{self._ended.run_id}.{path}"]
        return self

    def verdict(self, *, memory: Memory | None = None, later: timedelta = timedelta(0)) -> Verdict:
        seen = {name: Seen(memory or Memory()) for name in self._ended.inboxes}
        for (name, _), row in self._rows.items():
            seen[name].add(row)
        return self._ended.verdict(seen, later=later)


def plants() -> Iterator[Any]:
    def one(name: str, change: Callable[[Planted], object], step: str, rule: str) -> Any:
        return pytest.param(change, step, rule, id=name)

    yield one("a row is gone", lambda at: at.delete("hotel", "1"), "1", "EFFECT_MISSING")
    yield one(
        "a row is a refusal", lambda at: at.change("bank", "2", outcome="refused"), "2", "EFFECT_MISSING"
    )
    yield one("a row is a fence", lambda at: at.change("bank", "2", outcome="void"), "2", "EFFECT_MISSING")
    yield one("another result", lambda at: at.change("bank", "2", result=b"x" * 32), "2", "OTHER_CONTENT")
    yield one("another input", lambda at: at.change("bank", "2", input=b"x" * 32), "2", "OTHER_CONTENT")
    yield one("another type", lambda at: at.change("bank", "2", type="bank.pay"), "2", "OTHER_CONTENT")
    yield one(
        "an undo that nobody asked for",
        lambda at: at.change("hotel", "1~undo", type="hotel.cancel", outcome="undone"),
        "1",
        "UNDONE_UNASKED",
    )
    yield one(
        "a step that nobody knows",
        lambda at: at.change("bank", "7", type="bank.charge", outcome="done"),
        "7",
        "UNKNOWN_STEP",
    )


@pytest.mark.parametrize(("change", "step", "rule"), list(plants()))
def test_what_is_planted_in_a_completed_saga_is_found(
    ends: list[Ended], change: Callable[[Planted], object], step: str, rule: str
) -> None:
    planted = Planted(play(ends))
    assert planted.verdict().findings == []
    change(planted)
    verdict = planted.verdict()
    assert found(verdict) == [(step, rule)]
    assert verdict.findings[0].saga_id == "saga-1"
    assert verdict.findings[0].rule.remedy in verdict.findings[0].document().values()


Change = Callable[[Planted], object]
BEHIND: dict[str, tuple[Change, str]] = {
    "gone": (lambda at: at.delete("hotel", "1~undo"), "NOT_UNDONE"),
    "nothing": (lambda at: at.change("hotel", "1~undo", outcome="nothing"), "NOT_UNDONE"),
    "another": (lambda at: at.change("hotel", "1~undo", type="hotel.upgrade"), "OTHER_CONTENT"),
    "no command": (lambda at: at.delete("hotel", "1"), "FENCE_MISSING"),
    "refused": (lambda at: at.change("hotel", "1", outcome="refused"), "OTHER_CONTENT"),
}


@pytest.mark.parametrize("which", BEHIND)
def test_what_is_planted_behind_an_undo_is_found(ends: list[Ended], which: str) -> None:
    change, rule = BEHIND[which]
    ended = play(ends, Fault("refused", "2"))
    assert ended.facts.state == "COMPENSATED"
    planted = Planted(ended)
    assert planted.verdict().findings == []
    change(planted)
    assert found(planted.verdict()) == [("1", rule)]


@pytest.mark.parametrize("fault", ["refused", "timeout_not_happened"])
@pytest.mark.parametrize(("gone", "rule"), [(True, "FENCE_MISSING"), (False, "EFFECT_LEFT")])
def test_an_effect_after_its_refusal_or_fence_is_found(
    ends: list[Ended], fault: str, gone: bool, rule: str
) -> None:
    planted = Planted(play(ends, Fault(fault, "2")))
    assert planted.verdict().findings == []
    if gone:
        planted.delete("bank", "2")
    else:
        planted.change("bank", "2", outcome="done")
    assert found(planted.verdict()) == [("2", rule)]


def test_what_is_too_old_is_no_violation(ends: list[Ended]) -> None:
    planted = Planted(play(ends, Fault("refused", "2"))).delete("hotel", "1~undo").delete("bank", "2")
    assert len(planted.verdict(later=timedelta(days=6)).findings) == 2
    verdict = planted.verdict(later=timedelta(days=8))
    assert verdict.findings == []
    assert [each.partition(": ")[2] for each in verdict.unknowable] == [
        "hotel longer ago than its inbox remembers",
        "bank longer ago than its inbox remembers",
    ]


def test_a_copy_of_the_database_that_lags_proves_nothing_yet(ends: list[Ended]) -> None:
    ended = play(ends)
    planted = Planted(ended).delete("hotel", "1")
    started = ended.facts.steps[0].first_at / 1_000_000
    verdict = planted.verdict(memory=Memory(as_of=started - 1))
    assert (verdict.findings, verdict.unknowable, verdict.unanswered) == ([], [], {"hotel"})
    assert found(planted.verdict(memory=Memory(as_of=ended.now))) == [("1", "EFFECT_MISSING")]


def test_without_an_inbox_nobody_can_know(ends: list[Ended]) -> None:
    verdict = Planted(play(ends)).delete("hotel", "1").verdict(memory=Memory(remembers=False))
    assert (verdict.findings, len(verdict.unknowable)) == ([], 3)


def test_who_does_not_answer_is_named(ends: list[Ended]) -> None:
    ended = play(ends)
    seen = ended.seen()
    del seen["bank"]
    verdict = ended.verdict(seen)
    assert (verdict.findings, verdict.unanswered, verdict.steps) == ([], {"bank"}, 2)


def changed(facts: SagaFacts, path: str, **what: Any) -> SagaFacts:
    steps = tuple(replace(step, **what) if step.path == path else step for step in facts.steps)
    return replace(facts, steps=steps)


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ({"outcome": "", "cleared": ""}, "COMPENSATED, and it has no outcome"),
        ({"outcome": "unknown", "cleared": ""}, "COMPENSATED, and nobody knows whether it happened"),
        ({"cleared": ""}, "COMPENSATED, and it is done, and hotel.cancel was never sent"),
        ({"cleared": "", "undo_open": True}, "COMPENSATED, and its undo isn't answered"),
    ],
)
def test_a_history_that_ends_half_done_is_found(ends: list[Ended], what: dict[str, Any], said: str) -> None:
    ended = play(ends, Fault("refused", "2"))
    ended.facts = changed(ended.facts, "1", **what)
    assert [each.history for each in ended.verdict().findings if each.rule is Rule.HALF_DONE] == [said]


def test_a_row_that_says_something_else_than_its_history_is_found(ends: list[Ended]) -> None:
    ended = play(ends)
    ended.facts = replace(ended.facts, row=replace(ended.facts.row, state=SagaState.COMPENSATED))
    assert found(ended.verdict()) == [("", "HALF_DONE")]


def test_a_history_that_is_damaged_is_a_finding(ends: list[Ended]) -> None:
    row = play(ends).facts.row
    facts = gather(row, [(1, b"garbage"), (2, b"")])
    verdict = compare(facts, {}, 0.0)
    assert found(verdict) == [("", "UNREADABLE")]
    assert "row 1" in verdict.findings[0].history


def test_each_finding_and_error_has_its_section() -> None:
    sections = dict(re.findall(r"^## (KSG-6[45]\d) (\w+)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE))
    rules = {rule.value: rule.name.replace("_", "").lower() for rule in Rule}
    errors = {each.code: each.__name__.lower() for each in (Unanswered, TooOld)}
    assert {code: name.lower() for code, name in sections.items()} == rules | errors
    assert set(REMEDIES) == set(Rule)
