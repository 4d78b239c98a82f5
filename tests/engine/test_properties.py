"""Laws, for random sagas among random participants over a Kafka that loses, repeats and reorders."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from contextlib import contextmanager

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from engine.world import Act, World
from kasaga.engine.leftovers import leftovers
from kasaga.engine.model import (
    COMMAND,
    DONE,
    LOCAL,
    SCOPED,
    UNDO_FORMS,
    UNDONE,
    UNKNOWN,
    Asked,
    Faulted,
    RunLocal,
    Send,
    Settle,
)
from kasaga.engine.state import State, fold
from kasaga.errors import NotApplicable

PLAIN = ("inventory", "payments", "shipping", "mail", "nap", "read", "write")

leaves = st.sampled_from((*PLAIN, "fail", "bug")).map(Act)
caught = st.tuples(st.sampled_from(PLAIN), st.lists(leaves, max_size=2)).map(
    lambda pair: Act(pair[0], tuple(pair[1]))
)
sagas = st.lists(st.one_of(st.sampled_from(PLAIN).map(Act), caught, leaves), max_size=6)
moods = st.lists(st.sampled_from(("ok", "ok", "ok", "refuse", "flaky", "never", "stiff")), max_size=6)

OPERATOR = ("retry", "skip", "resolve", "cancel", "watch", "pause", "resume", "pause", "resume", "terminate")

MOVES: dict[str, Callable[[World, int], object]] = {
    "deliver": lambda world, n: world.deliver(n),
    "deliver and keep": lambda world, n: world.deliver(n, keep=True),
    "read": lambda world, n: world.read_news(n),
    "read and keep": lambda world, n: world.read_news(n, keep=True),
    "lose": lambda world, n: world.lose(n),
    "tick": lambda world, n: world.tick(),
    "crash": lambda world, n: world.crash(),
    "resend": lambda world, n: world.resend(),
    "undeliverable": lambda world, n: world.refuse(n),
    "fault": lambda world, n: world.happens(Faulted("KSG-210", f"why {n % 3}", "mend it", "")),
    "new code": lambda world, n: world.new_code(),
    "operator": lambda world, n: act(world, OPERATOR[n % len(OPERATOR)]),
}
OFTEN = ("deliver", "read", "deliver", "read", "deliver and keep", "read and keep", "tick", "crash")

moves = st.lists(st.tuples(st.sampled_from((*OFTEN, *OFTEN, *MOVES)), st.integers(0, 50)), max_size=50)

more = settings(
    max_examples=int(os.environ.get("KASAGA_EXAMPLES", "300")),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


@pytest.fixture(autouse=True)
def replaying() -> None:
    """Each world plays both ways at once."""


def act(world: World, action: str) -> None:
    """An operator's action at the step that is stuck, if there is one."""
    step = next(iter(world.play.state.blocked), "")
    name = f"a{len(world.play.bodies)}"
    world.happens(Asked(name, action, "anna", "why", step, "{}", "shop.answers/1"))


def run(program: list[Act], behaviours: list[str], happenings: list[tuple[str, int]]) -> World:
    world = World(program, behaviours)
    world.start()
    for move, number in happenings:
        MOVES[move](world, number)
    return world


def check_order(world: World) -> None:
    """While a saga is undone, an undo goes out only when nothing behind its step is left."""
    state = fold("run", ())
    for record in world.play.records:
        state.begin(record.event, record.at, record.row)
        for decision in record.decisions:
            if isinstance(decision, Send | RunLocal):
                step = state.steps.get(decision.step)
                if decision.form in UNDO_FORMS:
                    assert step is not None
                    undoing = state.phase in ("COMPENSATING", "CANCELLING")
                    if undoing and decision.attempt == 1 and not isinstance(record.event, Asked):
                        behind = state.order[state.order.index(step) + 1 :]
                        assert not any(each.to_undo or each.undo_open for each in behind)
                else:
                    assert (step is None) == (decision.attempt == 1)
                    assert step is None or not step.outcome
                    assert state.phase == "RUNNING"
            elif isinstance(decision, Settle) and decision.outcome == UNDONE:
                check_scope(state, decision.step)
            state.apply(decision)
        state.end()


def check_scope(state: State, scope: str) -> None:
    """Behind a scope that an outcome has left the code goes on when nothing in it is left to be undone."""
    leaves = [leave for _, leave in state.leaves or () if leave.why == SCOPED and leave.steps[0] == scope]
    assert len(leaves) == 1
    within = [state.steps[path] for path in leaves[0].steps[1:]]
    assert all(step.outcome for step in within)
    assert not any(step.to_undo or step.undo_open or step.blocked for step in within)


def check_end(world: World) -> None:
    """What the engine says of each step is what its participant did."""
    state = world.play.state
    assert all(count in (0, 1) for count in world.effects.values())
    assert all(count == 1 for count in world.executed.values())
    left = {path for path, count in world.effects.items() if count}
    known = {step.path for step in state.order if step.outcome == DONE and step.kind == COMMAND}
    writes = {step.path for step in state.order if step.kind == LOCAL and step.compensation}
    stays = {step.path for step in state.order if step.undo_how in ("skipped", "resolved")}
    final = {step.path for step in state.order if not step.compensation}
    lost = {step.path for step in state.order if step.left in ("lost", "cut off", "scoped")}
    stays |= {path for path in lost if state.steps[path].undo_how == "executed"}
    assert not {path for path in lost - final - stays - writes if path in left} or state.state == "STUCK"
    if state.state == "TERMINATED":
        assert left <= {each.step for each in leftovers(state)} | stays
    elif state.state == "COMPLETED":
        assert known - writes - lost <= left | stays
        assert left - writes - stays <= known
        assert all(state.steps[path].outcome != UNKNOWN for path in left - stays)
    elif state.state == "COMPENSATED":
        assert left <= final | stays
        assert left - stays <= known
    else:
        assert state.state == "STUCK"
        assert state.reason
        assert state.remedy


@contextmanager
def checked(program: list[Act], behaviours: list[str], happenings: list[tuple[str, int]]) -> Generator[World]:
    """A world in which a saga has run; it is held against the laws once it has been brought to its end."""
    world = run(program, behaviours, happenings)
    try:
        yield world
        event(world.play.state.state)
        world.flush()
        check_end(world)
        check_order(world)
    finally:
        world.close()


@more
@given(sagas, moods, moves)
def test_every_saga_ends_all_done_or_all_undone_or_visibly_stuck(
    program: list[Act], behaviours: list[str], happenings: list[tuple[str, int]]
) -> None:
    with checked(program, behaviours, happenings) as world:
        world.settle()


@more
@given(sagas, moods, moves)
def test_whatever_is_stuck_ends_when_code_and_operators_do_their_part(
    program: list[Act], behaviours: list[str], happenings: list[tuple[str, int]]
) -> None:
    with checked(program, behaviours, happenings) as world:
        for _ in range(30):
            world.settle()
            if world.play.state.final:
                break
            if world.play.state.parked:
                world.new_code()
                if world.play.state.parked:
                    act(world, "retry")
            else:
                act(world, "skip")
                assert not isinstance(world.play.last, NotApplicable)
        assert world.play.state.final
