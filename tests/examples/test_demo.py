"""The demo's own parts: what it kills when, and what it says in the end. The whole is an integration test."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import pytest

from examples import demo
from examples.audit import Saga
from examples.demo import Demo, Options, Saboteur, Screen, parse, working_directory
from examples.stage import ORCHESTRATORS, SERVICES, Stage


class FakeStage:
    def __init__(self) -> None:
        self.happened: list[str] = []

    def kill(self, name: str) -> None:
        self.happened.append(f"kill {name}")

    def start(self, name: str) -> None:
        self.happened.append(f"start {name}")


@pytest.fixture
def stage() -> FakeStage:
    return FakeStage()


def saboteur(stage: FakeStage, seed: int = 1) -> Saboteur:
    return Saboteur(cast(Stage, stage), Screen(), random.Random(seed))


def test_an_orchestrator_is_killed_first_and_a_service_later(stage: FakeStage) -> None:
    acting = saboteur(stage)
    acting.act(0.0)
    acting.act(0.24)
    assert stage.happened == []
    acting.act(0.25)
    acting.act(0.54)
    assert stage.happened[0] in [f"kill {name}" for name in ORCHESTRATORS]
    assert len(stage.happened) == 1
    acting.act(0.56)
    assert stage.happened[1] in [f"kill {name}" for name in SERVICES]
    assert acting.kills == 2


def test_who_was_killed_is_started_again(stage: FakeStage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "DOWN_SECONDS", 0.0)
    acting = saboteur(stage)
    acting.act(0.3)
    assert not acting.is_done
    acting.act(0.3)
    acting.act(0.6)
    acting.act(1.0)
    killed = [each.removeprefix("kill ") for each in stage.happened if each.startswith("kill")]
    assert stage.happened == [f"{what} {name}" for name in killed for what in ("kill", "start")]
    assert acting.is_done


def test_both_are_killed_even_if_all_ended_between_two_looks(stage: FakeStage) -> None:
    acting = saboteur(stage)
    acting.act(1.0)
    assert acting.kills == 2


def test_the_seed_decides_who_is_killed() -> None:
    victims: set[tuple[str, ...]] = set()
    for seed in range(30):
        stage = FakeStage()
        saboteur(stage, seed).act(1.0)
        victims.add(tuple(stage.happened))
    assert len(victims) == len(ORCHESTRATORS) * len(SERVICES)


def conclude(
    sagas: Sequence[Saga], violations: Sequence[str], capsys: pytest.CaptureFixture[str], kills: int = 2
) -> tuple[int, list[str]]:
    stage = FakeStage()
    run = Demo(Options(orders=3, seed=1, keep=False), cast(Stage, stage), Screen())
    acting = saboteur(stage)
    acting.act(1.0 if kills else 0.0)
    run.saboteur = acting
    capsys.readouterr()
    status = run.conclude(sagas, violations)
    return status, capsys.readouterr().out.splitlines()


GOOD = [Saga("o-1", "COMPLETED", ""), Saga("o-2", "COMPLETED", ""), Saga("o-3", "COMPENSATED", "no carrier")]


def test_the_last_line_of_a_good_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert conclude(GOOD, [], capsys) == (
        0,
        ["demo: 3 sagas: 2 completed, 1 compensated, 0 stuck; audit: 0 violations; 2 kills survived"],
    )


@pytest.mark.parametrize(
    ("sagas", "violations", "kills"),
    [
        pytest.param(GOOD, ["Order o-1 was charged 2 times."], 2, id="violation"),
        pytest.param([*GOOD[:2], Saga("o-3", "STUCK", "why")], [], 2, id="stuck"),
        pytest.param([*GOOD[:2], Saga("o-3", "RUNNING", "")], [], 2, id="not ended"),
        pytest.param(GOOD[:2], [], 2, id="missing"),
        pytest.param([*GOOD, Saga("o-4", "COMPLETED", "")], [], 2, id="too many"),
        pytest.param(GOOD, [], 0, id="nobody was killed"),
    ],
)
def test_a_run_that_went_wrong_ends_with_a_status_of_its_own(
    sagas: Sequence[Saga], violations: Sequence[str], kills: int, capsys: pytest.CaptureFixture[str]
) -> None:
    status, lines = conclude(sagas, violations, capsys, kills)
    assert status == 1
    told = [f"Saga {saga.saga_id} is stuck: {saga.reason}" for saga in sagas if saga.state == "STUCK"]
    assert lines[:-1] == [*told, *violations]
    assert lines[-1].startswith(f"demo: {len(sagas)} sagas: ")


def test_not_all_of_very_many_violations_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    _, lines = conclude(GOOD, [f"Order {number} has no saga." for number in range(100)], capsys)
    assert len(lines) == demo.SENTENCES_SHOWN + 2
    assert lines[-2] == "and 80 more"
    assert "audit: 100 violations" in lines[-1]


def test_the_command_line() -> None:
    assert parse([]) == Options(orders=2_000, seed=1, keep=False, jaeger=False)
    given = parse(["--orders", "7", "--seed", "3", "--keep", "--jaeger"])
    assert given == Options(orders=7, seed=3, keep=True, jaeger=True)


@pytest.mark.parametrize(("value", "wanted"), [("1", True), ("0", False), ("", False)])
def test_the_variable_asks_for_a_jaeger_too(
    value: str, wanted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JAEGER", value)
    assert parse([]).jaeger == wanted


@pytest.mark.parametrize("count", ["0", "2001", "-1"])
def test_there_are_as_many_orders_as_there_are(count: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["--orders", count])
    assert "--orders must be between 1 and 2000" in capsys.readouterr().err


def test_the_directory_is_removed_whatever_happens() -> None:
    context = working_directory(keep=False)
    directory = context.__enter__()
    (directory / "file").touch()
    assert not context.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert not directory.exists()


def test_the_directory_can_be_kept() -> None:
    with working_directory(keep=True) as directory:
        pass
    directory.rmdir()


def test_make_hands_the_demo_its_arguments() -> None:
    root = Path(__file__).parents[2]
    said = subprocess.run(
        ["make", "-n", "demo", "ARGS=--orders 200"], cwd=root, check=True, capture_output=True, text=True
    )
    assert "participants/examples/demo.py --orders 200\n" in said.stdout
