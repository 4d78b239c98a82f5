"""The laws of `test_properties.py`, for random sagas with branches: gathers, races, blocks, spawned ones."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.test_properties import PLAIN, act, checked, leaves, moods, more, moves
from engine.world import Act, World
from kasaga.errors import NotApplicable


def _containers(inner: st.SearchStrategy[Act]) -> st.SearchStrategy[Act]:
    branch = st.lists(inner, min_size=1, max_size=3).map(tuple)
    several = st.lists(branch, min_size=1, max_size=3).map(tuple)
    words = st.sampled_from(("gather", "keep", "race", "any", "spawn", "nest"))
    catch = st.none() | st.lists(leaves, max_size=1).map(tuple)
    blocks = st.sampled_from(("limit", "scope"))
    return st.builds(Act, words, catch, several) | st.builds(Act, blocks, catch, st.tuples(branch))


simple = st.sampled_from(PLAIN).map(Act) | leaves
containers = _containers(st.recursive(simple, _containers, max_leaves=4))
sagas = st.tuples(st.lists(simple, max_size=1), containers, st.lists(simple | containers, max_size=2)).map(
    lambda parts: [*parts[0], parts[1], *parts[2]]
)


@pytest.fixture(autouse=True)
def replaying() -> None:
    """Each world plays both ways at once."""


@more
@given(sagas, moods, moves)
def test_every_saga_with_branches_ends_all_done_or_all_undone_or_visibly_stuck(
    program: list[Act], behaviours: list[str], happenings: list[tuple[str, int]]
) -> None:
    with checked(program, behaviours, happenings) as world:
        world.settle()


@more
@given(sagas, moods, moves)
def test_whatever_is_stuck_in_a_branch_ends_when_code_and_operators_do_their_part(
    program: list[Act], behaviours: list[str], happenings: list[tuple[str, int]]
) -> None:
    with checked(program, behaviours, happenings) as world:
        end(world)


def end(world: World) -> None:
    for _ in range(60):
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
    assert world.play.state.final, world.play.state.reason
