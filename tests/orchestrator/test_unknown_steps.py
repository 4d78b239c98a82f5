"""Steps of which nobody knows whether they happened: the end waits until that is settled."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from kasaga.errors import CannotUndo, PayloadTooLarge
from kasaga.store.base import SagaState
from kasaga_wire.contracts import Contract
from kasaga_wire.envelope import CommandEnvelope
from orchestrator.desk import DONE, FAILED, FATAL, LOST, SILENT
from orchestrator.node import Node
from orchestrator.trips import Ticket
from orchestrator.world import World


@pytest.fixture
def world() -> Iterator[World]:
    with World(shards=1) as world:
        world.odds.slow = 0.0
        yield world


def go_on(world: World, node: Node, times: int = 20, seconds: float = 0.0) -> None:
    for _ in range(times):
        world.turn(node)
        world.serve()
        world.pass_time(seconds)


def old_copies(world: World) -> int:
    """Deliver every command once more, long after; says what was executed by that."""
    before = len(world.desk.executed)
    for record in world.commands():
        world.desk.take(record)
    return len(world.desk.executed) - before


@pytest.mark.parametrize("how", [SILENT, FAILED, LOST])
def test_a_step_whose_retries_are_used_up_can_not_happen_after_the_end(world: World, how: str) -> None:
    node = world.join()
    world.desk.mood = lambda envelope: how if envelope.type == "flight.reserve" else DONE
    world.start("hasty", "a")
    go_on(world, node, 40, 0.2)
    world.desk.mood = lambda envelope: DONE

    assert world.saga("a").state is SagaState.COMPENSATED
    assert old_copies(world) == 0
    world.settle()
    world.audit()


def test_a_saga_that_goes_on_without_a_step_is_not_completed_before_that_is_settled(world: World) -> None:
    node = world.join()
    world.desk.mood = lambda envelope: DONE if envelope.type == "hotel.book" else SILENT
    world.start("stubborn", "a")
    go_on(world, node, 20, 0.2)

    assert world.saga("a").state is SagaState.RUNNING, "its code has ended, its void hasn't been answered"
    assert [each.type for each in world.desk.received if each.kind != "command"]
    world.desk.mood = lambda envelope: DONE
    world.settle()
    world.audit()
    assert world.saga("a").state is SagaState.COMPLETED
    assert old_copies(world) == 0


def test_a_step_that_turns_out_to_have_happened_is_undone_though_the_saga_goes_on(world: World) -> None:
    node = world.join()
    world.desk.mood = lambda envelope: LOST if envelope.type == "flight.reserve" else DONE
    run_id = world.start("stubborn", "a")
    go_on(world, node, 20, 0.2)
    world.settle()

    world.audit()
    assert world.saga("a").state is SagaState.COMPLETED
    effects = [each.path for each in world.desk.executed if each.run_id == run_id]
    assert effects == ["1", "2", "1~undo"] or effects == ["1", "1~undo", "2"]


@pytest.mark.parametrize("how", [LOST, FATAL])
def test_what_was_executed_and_nothing_undoes_is_stuck_never_compensated(world: World, how: str) -> None:
    """`post.send` has no compensation. If it was not executed, the void says so and all is well."""
    node = world.join()
    world.desk.mood = lambda envelope: how if envelope.type == "post.send" else DONE
    world.start("trip", "a")
    go_on(world, node, 5, 0.01)
    if how == LOST:
        world.control("cancel", "a")
        go_on(world, node, 20, 0.01)
        row = world.saga("a")
        assert (row.state, row.code) == (SagaState.STUCK, CannotUndo.code)
        world.control("resolve", "a", step="3", reason="undone by hand")
        world.desk.mood = lambda envelope: DONE
        go_on(world, node, 20, 0.01)
        assert world.saga("a").with_exceptions
    else:
        world.settle()
        world.audit()
    assert world.saga("a").state is SagaState.COMPENSATED


def test_a_start_over_the_limit_of_a_command_is_stuck_and_says_so(world: World) -> None:
    node = world.join()
    world.start("trip", "a", "x" * 930_000)
    go_on(world, node, 3)

    row = world.saga("a")
    assert (row.state, row.code) == (SagaState.STUCK, PayloadTooLarge.code)
    world.control("cancel", "a")
    world.settle()
    world.audit()


def test_a_result_over_the_limit_is_kept_and_can_be_undone(world: World) -> None:
    """The undo goes without it: the participant has stored what it answered."""
    codec = world.app.contracts["hotel"].commands["book"].result

    def result(envelope: CommandEnvelope, contract: Contract) -> bytes | None:
        return codec.encode(Ticket(ref="x" * 950_000)) if envelope.type == "hotel.book" else None

    world.desk.result = result
    world.join()
    world.start("failing", "a")
    world.settle()

    world.audit()
    assert world.saga("a").state is SagaState.COMPENSATED
    assert all(len(record.value or b"") < 900_000 for record in world.commands())
