"""Everything goes wrong at once, as a seed has it; when it is over, the books agree."""

from __future__ import annotations

from random import Random

import pytest

from kasaga_wire.envelope import CommandEnvelope
from orchestrator.desk import DONE, FAILED, LOST, REFUSED, SILENT, TWICE, Mood
from orchestrator.world import Odds, World

SAGAS = 15
STEPS = 300
SEEDS = range(4)

PROFILES = {
    "calm": Odds(),
    "deaths": Odds(die=0.01, again=0.05),
    "postgres": Odds(store=0.02, unknown=0.05, outage=0.005, again=0.05),
    "frozen": Odds(freeze=0.02, again=0.05),
    "comings and goings": Odds(leave=0.01, kafka=0.05),
    "everything": Odds(
        die=0.003,
        store=0.01,
        unknown=0.02,
        outage=0.003,
        freeze=0.01,
        leave=0.003,
        kafka=0.05,
        again=0.05,
    ),
}


def moody(dice: Random) -> Mood:
    """Participants that are unwell; nothing goes wrong that the saga of that name can't get over."""

    def mood(envelope: CommandEnvelope) -> str:
        if envelope.kind == "command" and envelope.saga == "hasty":
            return dice.choice((DONE, LOST, SILENT, FAILED, REFUSED, TWICE))
        if envelope.kind == "command" and envelope.saga == "stubborn":
            return dice.choice((DONE, LOST, SILENT, TWICE))
        return DONE if dice.random() < 0.7 else dice.choice((LOST, SILENT, FAILED, TWICE))

    return mood


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("profile", PROFILES)
def test_every_saga_ends_all_done_or_all_undone(profile: str, seed: int) -> None:
    with World(seed, odds=PROFILES[profile]) as world:
        world.desk.mood = moody(world.dice)
        for _ in range(2):
            world.join()
        for number in range(SAGAS):
            world.start(
                world.dice.choice(("trip", "hasty", "stubborn", "nap", "failing", "empty")), f"s{number}"
            )
            world.run(world.dice.randint(0, 2 * STEPS // SAGAS))
        world.settle()
        world.audit()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("profile", ["calm", "deaths", "everything"])
def test_every_saga_with_branches_ends_all_done_or_all_undone(profile: str, seed: int) -> None:
    with World(seed, odds=PROFILES[profile]) as world:
        unwell = moody(world.dice)

        def mood(envelope: CommandEnvelope) -> str:
            refused = envelope.kind == "command" and world.dice.random() < 0.03
            return REFUSED if refused else unwell(envelope)

        world.desk.mood = mood
        for _ in range(2):
            world.join()
        for number in range(6):
            world.start("tour", f"s{number}")
            world.run(world.dice.randint(0, 60))
        world.settle()
        world.audit()


def test_one_seed_gives_one_run() -> None:
    def run() -> list[tuple[int, bytes | None]]:
        with World(3, odds=PROFILES["everything"]) as world:
            world.desk.mood = moody(world.dice)
            world.join()
            for number in range(5):
                world.start("hasty", f"s{number}")
                world.run(40)
            return [(record.timestamp_ms, record.value) for record in world.commands()]

    assert run() == run()
