"""A process dies at each passage of each crash point, once; another goes on, and the books agree."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kasaga_wire.envelope import CommandEnvelope
from orchestrator.world import World

POINTS = (
    "orchestrator.after_claim",
    "orchestrator.after_resend",
    "orchestrator.after_read",
    "orchestrator.before_commit",
    "orchestrator.after_commit",
    "orchestrator.after_produce",
    "orchestrator.at_ack",
    "orchestrator.before_offsets",
    "orchestrator.after_offsets",
)


def story(world: World) -> None:
    """One saga of each kind that ends well, is undone, sleeps, or ends at once; and one long after them."""
    world.desk.mood = lambda envelope: "refused" if envelope.type == "post.send" else "done"
    world.odds.slow = 0.0
    world.join()
    for number, saga in enumerate(("trip", "failing", "nap", "empty")):
        world.start(saga, f"{saga}-{number}")
    until_over(world)
    world.pass_time(6)  # offsets are shown to Kafka every few seconds
    world.start("trip", "later")
    until_over(world)


def until_over(world: World) -> None:
    for _ in range(3000):
        world.step()
        if world.over():
            return
    raise AssertionError("it doesn't end")


def passages_of(point: str, story: Callable[[World], None]) -> int:
    """How often a point is passed when nobody dies."""
    with World(7) as world:
        story(world)
        return world.points.get(point, 0)


@pytest.mark.parametrize("point", POINTS)
def test_no_crash_window_loses_or_doubles_anything(point: str) -> None:
    times = passages_of(point, story)
    assert times, f"nothing passes {point}"
    for number in range(1, times + 1, 1 + times // 30):
        with World(7, lease_seconds=0.4, heartbeat_seconds=0.1) as world:
            world.crash = nth(point, number)
            story(world)
            world.audit()
            again = [each for each in attempts(world) if each > 1]
            assert not again, f"passage {number}: a command waited for its time-out: it was lost"


def attempts(world: World) -> list[int]:
    return [CommandEnvelope.parse(record.headers).attempt for record in world.commands()]


def nth(point: str, number: int) -> Callable[[str], bool]:
    """Say yes at the n-th passage of a point."""
    passed = 0

    def crash(name: str) -> bool:
        nonlocal passed
        passed += name == point
        return name == point and passed == number

    return crash
