"""What is told of a run: recoveries, the table, the last line, and rates for the chart."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from chaos import chart
from chaos.faults import Struck
from chaos.load import orders
from chaos.report import Outcome, as_json, last_line, recovery, table
from chaos.schedule import Fault, Kind
from chaos.watch import Judge, Sample


def struck(number: int, at: float, seconds: float, recovered: float | None, *, met: bool = False) -> Struck:
    fault = Fault(number, at, seconds, Kind.KILL, "kafka")
    return Struck(fault, at, at + seconds, recovered, met)


def outcome() -> Outcome:
    faults = [
        struck(1, 5, 2, 9),
        struck(2, 20, 1, 60, met=True),
        struck(3, 50, 1, 60),
        struck(4, 80, 1, None),
    ]
    samples = [Sample(number / 5, number * 8, max(0, number * 8 - 40), 0) for number in range(600)]
    return Outcome(3, 120.0, faults, samples, Counter({"COMPLETED": 4_000, "COMPENSATED": 1_234}))


def test_recovery_counts_from_when_nothing_is_held_down() -> None:
    assert recovery(struck(1, 5, 2, 9.5)) == 2.5
    assert recovery(struck(1, 5, 2, None)) is None
    assert recovery(Struck(Fault(1, 5, 2, Kind.KILL, "kafka"))) is None


def test_the_longest_recovery_is_one_that_no_other_fault_is_in() -> None:
    assert last_line(outcome()) == (
        "chaos: 2 min, 4 faults, 5,234 sagas: 4,000 completed, 1,234 compensated, 0 stuck; "
        "longest recovery 9.0 s (kill: kafka); audit: 0 violations"
    )


def test_a_short_run_without_faults() -> None:
    assert last_line(Outcome(1, 22.0, [], [])).startswith("chaos: 22 s, 0 faults, 0 sagas: 0 completed")
    assert "no recovery" in last_line(Outcome(1, 22.0, [], []))


def test_the_table_marks_what_others_are_in_and_what_failed() -> None:
    failed = Struck(Fault(5, 90, 1, Kind.FREEZE, "postgres"), 90.0, 91.0, None, failure="OSError: no")
    lines = table([*outcome().struck, failed]).splitlines()[2:]
    assert lines[0].split() == ["1", "5.0", "2.0", "s", "2.0", "s", "kill:", "kafka"]
    assert "39.0 s*" in lines[1]
    assert lines[3].split()[4] == "-"
    assert lines[4].endswith("failed   freeze: postgres (OSError: no)")


def test_everything_is_kept_for_machines() -> None:
    told = json.loads(as_json(outcome()))
    assert told["states"] == {"COMPLETED": 4000, "COMPENSATED": 1234}
    assert told["faults"][0]["name"] == "kill: kafka"
    assert told["faults"][0]["recovery"] == 2.0


def test_the_chart_is_drawn_without_a_display(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    chart.draw(outcome(), tmp_path / "chart.svg")
    assert "<svg" in (tmp_path / "chart.svg").read_text()


def test_rates_are_means_of_a_second() -> None:
    times = [number / 5 for number in range(20)]
    assert chart.rate(times, [number * 8 for number in range(20)])[10:] == pytest.approx([40.0] * 10)
    assert chart.rate([0.0, 1.0, 7.0], [0, 5, 65]) == [0.0, 5.0, 10.0]


def test_a_fault_is_got_over_when_no_more_is_open_than_comes_in_a_second() -> None:
    faults = [struck(1, 5, 2, None)]
    judge = Judge(faults, calm=40)
    judge.look(Sample(6.0, 100, 100, 0))  # still held
    judge.look(Sample(7.5, 200, 100, 0))
    before = faults[0].recovered
    judge.look(Sample(8.0, 240, 200, 0))
    assert (before, faults[0].recovered, faults[0].met) == (None, 8.0, False)


def test_a_fault_that_comes_before_calm_meets_the_one_before() -> None:
    faults = [struck(1, 5, 2, None), struck(2, 8, 1, None)]
    judge = Judge(faults, calm=40)
    judge.look(Sample(9.5, 200, 100, 0))
    judge.look(Sample(10.0, 200, 180, 0))
    assert [(each.recovered, each.met) for each in faults] == [(10.0, True), (10.0, False)]


def test_orders_never_end_and_no_number_comes_twice() -> None:
    stream = orders(1)
    ids = [next(stream).id for _ in range(4_100)]
    assert len(set(ids)) == len(ids)
    assert ids[0] != ids[2_000]
