"""A saga of two steps: every outcome of each step, in every order in which they can come.

A walk over all that can happen at each point, one choice after the other, until the saga ends; then
the last choice that had another way is taken the other way.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import suppress

import pytest

from engine.harness import Play
from engine.shop import ANSWERS, ORDER, PARTICIPANTS, Inventory, Mail, Order
from kasaga import App, RetryPolicy, Saga, SagaContext, StepError, saga
from kasaga.engine.model import COMMAND, UNDO, VOID, Send

ONCE = RetryPolicy(maximum_attempts=1)


class Choices:
    """Takes every way through a program that asks it for its choices."""

    def __init__(self) -> None:
        self.taken: list[tuple[int, int]] = []
        self.position = 0
        self.over = False

    def choose(self, ways: int) -> int:
        if self.position == len(self.taken):
            self.taken.append((0, ways))
        way, of = self.taken[self.position]
        assert of == ways, "the program isn't deterministic"
        self.position += 1
        return way

    def next(self) -> bool:
        """Take the next way; say whether there is one."""
        while self.taken and self.taken[-1][0] + 1 == self.taken[-1][1]:
            self.taken.pop()
        if self.taken:
            way, of = self.taken.pop()
            self.taken.append((way + 1, of))
        self.position = 0
        return bool(self.taken)


@saga("plain")
async def plain(ctx: SagaContext, order: Order) -> None:
    await ctx.use(Inventory, retry=ONCE, undo_retry=ONCE).reserve(order)
    await ctx.use(Mail, retry=ONCE, undo_retry=ONCE).send(order)


@saga("catching")
async def catching(ctx: SagaContext, order: Order) -> None:
    try:
        await ctx.use(Inventory, retry=ONCE, undo_retry=ONCE).reserve(order)
    except StepError:
        await ctx.use(Mail, retry=ONCE, undo_retry=ONCE).send(order)


@saga("going-on")
async def reversed_order(ctx: SagaContext, order: Order) -> None:
    with suppress(StepError):
        await ctx.use(Mail, retry=ONCE, undo_retry=ONCE).send(order)
    await ctx.use(Inventory, retry=ONCE, undo_retry=ONCE).reserve(order)


Ways = list[tuple[str, Callable[[], object]]]


def ways(play: Play, told: list[str]) -> Ways:
    """All that can happen now; each undo fails once at most, or a walk would have no end."""
    found: Ways = []
    for decision in play.rows.values():
        if isinstance(decision, Send):
            path = decision.step
            named = [
                (f"{path} {decision.form} {name}", act) for name, act in answers(play, path, decision.form)
            ]
            found += [way for way in named if way[0] not in told]
    if play.state.phase == "RUNNING":
        found.append(("cancel", lambda: play.ask("cancel")))
    for path in play.state.blocked:
        found.append((f"skip {path}", lambda path=path: play.ask("skip", step=path)))  # type: ignore[misc]
    return found


def answers(play: Play, path: str, form: str) -> Ways:
    if form == COMMAND:
        return [
            ("done", lambda: play.done(path)),
            ("refused", lambda: play.answer(path, "refused", form=COMMAND)),
            ("failed", lambda: play.answer(path, "failed", form=COMMAND)),
            ("fired", lambda: play.fire(path, COMMAND)),
        ]
    if form == UNDO:
        return [
            ("undone", lambda: play.undo(path, "undone")),
            ("nothing", lambda: play.undo(path, "nothing")),
            ("failed", lambda: play.undo(path, "failed")),
        ]
    assert form == VOID
    return [
        ("voided", lambda: play.undo(path, "voided")),
        ("executed", lambda: play.undo(path, "executed")),
    ]


@pytest.mark.parametrize("declared", [plain, catching, reversed_order])
def test_all_that_can_happen_to_two_steps(declared: Saga[Order, None]) -> None:
    app = App("shop", sagas=[declared], participants=PARTICIPANTS)
    choices, ends = Choices(), Counter[str]()
    while True:
        play = Play(app, declared.name, ANSWERS)
        play.start(ORDER)
        told: list[str] = []
        while not play.state.final:
            found = ways(play, told)
            name, act = found[choices.choose(len(found))]
            told.append(name)
            act()
        ends[play.state.state] += 1
        check(play, told)
        play.evict()
        if not choices.next():
            break
    assert set(ends) == {"COMPLETED", "COMPENSATED"}
    assert ends["COMPENSATED"] > 50


def check(play: Play, told: list[str]) -> None:
    """What the harness doesn't check already: that the end is the one that the answers say."""
    state = play.state
    executed = any("executed" in each for each in told)
    skipped = any(each.startswith("skip") for each in told)
    assert (state.state == "COMPENSATED") or "cancel" not in told, told
    assert skipped or not executed, told
    assert skipped or not state.with_exceptions, told
    for path, step in state.steps.items():
        answered = {each.split()[2] for each in told if each.startswith((f"{path} undo", f"{path} void"))}
        assert not answered or step.undo_how or not step.undo_form, told
        if state.state == "COMPENSATED" and step.outcome == "done" and step.compensation:
            assert step.undo_how in ("undone", "nothing", "skipped"), told
        if step.outcome == "unknown":
            assert step.undo_how in ("undone", "nothing", "voided", "skipped"), told
        if step.outcome == "refused":
            assert not step.undo_form, told
