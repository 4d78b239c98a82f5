"""The schedule of faults: the same for the same seed, of every kind, and never two at once on one target."""

from __future__ import annotations

from itertools import pairwise

import pytest

from chaos.schedule import Fault, Kind, deck, draw

TEN_MINUTES = 600.0


def test_one_seed_gives_one_schedule() -> None:
    assert draw(7, TEN_MINUTES) == draw(7, TEN_MINUTES)
    assert draw(7, TEN_MINUTES) != draw(8, TEN_MINUTES)


def test_a_shorter_run_is_the_beginning_of_a_longer_one() -> None:
    short = draw(7, 120.0)
    assert short
    assert draw(7, TEN_MINUTES)[: len(short)] == short


@pytest.mark.parametrize("seed", range(20))
def test_ten_minutes_see_every_kind_and_keep_to_their_time(seed: int) -> None:
    faults = draw(seed, TEN_MINUTES)
    assert {fault.kind for fault in faults} == set(Kind)
    assert len(faults) > 60
    assert [fault.number for fault in faults] == list(range(1, len(faults) + 1))
    assert faults == sorted(faults, key=lambda fault: fault.at)
    assert all(fault.at + fault.seconds <= TEN_MINUTES for fault in faults)
    assert any(later.at < earlier.at + earlier.seconds for earlier, later in pairwise(faults))


@pytest.mark.parametrize("seed", range(20))
def test_nothing_is_broken_twice_at_once(seed: int) -> None:
    last: dict[str, Fault] = {}
    for fault in draw(seed, TEN_MINUTES):
        before = last.get(fault.target)
        assert before is None or before.at + before.seconds <= fault.at
        last[fault.target] = fault


def test_only_some_kinds() -> None:
    faults = draw(1, TEN_MINUTES, deck(["restart", "kill: kafka"]))
    assert {fault.name for fault in faults} == {"restart: postgres", "restart: kafka", "kill: kafka"}
    assert Kind.DISK_FULL not in {card.kind for card in deck(without=[Kind.DISK_FULL])}
    assert deck(["nothing"]) == []


def test_names_are_for_people() -> None:
    names = {fault.name for seed in range(20) for fault in draw(seed, TEN_MINUTES)}
    assert "restart: kafka" in names
    assert "clock jump: postgres by -3,600 s" in names
    assert "partition: orchestrator-1 | postgres (mute)" in names
    assert "disk slow: postgres, 400 ms an fsync" in names
