"""The quick bench measures every part, and its comparison tells dearer from not. No figure is asserted."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from bench import quick
from bench.errors import BenchError
from bench.figures import Figures

PARTS = {"loop", "dispatch", "codec", "relay"}


def test_every_part_is_measured_once_a_round(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quick, "SAGAS", 5)
    monkeypatch.setattr(quick, "tune_interpreter", lambda: None)
    found = quick.measure(2)
    assert found.seconds.keys() == found.ratios.keys() == PARTS
    assert {len(each) for each in found.ratios.values()} == {2}
    assert all(ratio > 0 for each in found.ratios.values() for ratio in each)


def run(monkeypatch: pytest.MonkeyPatch, ratio: float, *arguments: object) -> int:
    """The whole command, with what it would have measured."""
    found = quick.Found()
    for _ in range(3):
        found.add(dict.fromkeys(PARTS, ratio), 1.0)

    def measure(rounds: int) -> quick.Found:
        return found

    monkeypatch.setattr(quick, "measure", measure)
    monkeypatch.setattr(sys, "argv", ["bench-quick", *map(str, arguments)])
    return quick.main()


@pytest.mark.parametrize(
    ("now", "status", "said"),
    [(1.1, 0, "nothing is dearer"), (0.5, 0, "nothing is dearer"), (1.3, 1, "DEARER than 1.2 times before")],
)
def test_a_later_run_is_compared_with_an_earlier_one(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    now: float,
    status: int,
    said: str,
) -> None:
    file = tmp_path / "old.jsonl"
    assert run(monkeypatch, 9.0, "--out", file) == 0
    assert run(monkeypatch, 1.0, "--out", file) == 0, "the last line of a part counts"
    capsys.readouterr()
    assert run(monkeypatch, now, "--against", file, "--limit", 1.2) == status
    *lines, last = capsys.readouterr().out.splitlines()
    assert last.startswith(f"bench-quick: {said}")
    assert f"loop {now:.2f}" in last
    assert {json.loads(line)["parameters"]["part"] for line in lines} == PARTS


@pytest.mark.parametrize("text", ["", "nonsense\n", "[]\n", '{"figure": "quick_cpu_ratio"}\n', "\x00"])
def test_a_file_without_figures_is_an_error_before_anything_is_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, text: str
) -> None:
    file = tmp_path / "old.jsonl"
    file.write_text(text)
    assert run(monkeypatch, 1.0, "--against", file) == 2
    assert run(monkeypatch, 1.0, "--against", tmp_path / "none") == 2
    assert capsys.readouterr().out == ""


def test_runs_that_share_no_part_are_not_called_equal() -> None:
    assert quick.verdict({"loop": 1.0}, {"codec": 1.0}, 1.2)[0] is False


def test_earlier_needs_a_number(tmp_path: Path) -> None:
    file = tmp_path / "old.jsonl"
    Figures(file).put(quick.FIGURE, 1.0, "s", part="loop")
    with pytest.raises(BenchError, match="no line"):
        quick.earlier(file)
