"""The bench's figures and their page, from a sample of lines; the servers are not started here."""

from __future__ import annotations

import json
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bench import scenarios
from bench.bed import Setup
from bench.errors import BenchError
from bench.figures import Figures
from bench.page import Line, read, write
from bench.scenarios import Run, load_all
from bench.sections import CURVES

MACHINE = {"cpu": "a cpu", "cores": 2}


def sample(path: Path) -> Path:
    """What a bench writes."""
    run = Run(Figures(path, {"preliminary": True}, "c0ffee0123456789+", MACHINE))
    run.put("machine", 40.0, "million additions/s", before="throughput")
    run.put("throughput", [900.0, 1100.0, 1000.0], "sagas/s", inbox="on", shards=16, others_cores=0.25)
    run.put("throughput", [1500.0, 1510.0, 1520.0], "sagas/s", inbox="off", shards=16, others_cores=0.5)
    for size, value in ((0, 1000.0), (100_000, 998.5), (1_000_000, 912.0)):
        run.put("growth_finished", [value, value - 10, value + 10], "sagas/s", size=size)
    run.put("growth_shards_cpu", 1.5, "CPU s/1,000 sagas", size=8, by_process={"kafka": 0.5, "load": 0.25})
    run.put("something_new", 0.01234, "share", process="kafka")
    Figures(path, {}, "c0ffee", {"cpu": "a cpu"}).put(
        "machine", 40.0, "million additions/s", before="latency"
    )
    with path.open("a") as file:
        file.write(
            '{"figure": "ratio", "of": "throughput", "peer": "restate-run", "inbox": "on", "value": 5.3}\n'
        )
    return path


def test_a_figure_is_one_line_that_says_everything(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = Figures(tmp_path / "out", {"preliminary": True}, "c0ffee", MACHINE)

    figures.put("throughput", [1.0, 4.0, 2.0], "sagas/s", inbox="on")

    said = capsys.readouterr().out
    assert said == (tmp_path / "out").read_text()
    line = json.loads(said)
    assert line.pop("at").endswith("Z")
    assert line == {
        "figure": "throughput",
        "value": 2.0,
        "unit": "sagas/s",
        "values": [1.0, 4.0, 2.0],
        "rounds": 3,
        "median": 2.0,
        "spread": 1.5,
        "parameters": {"preliminary": True, "inbox": "on"},
        "commit": "c0ffee",
        "machine": MACHINE,
    }


def test_the_page_has_every_figure_and_a_chart_of_every_curve(tmp_path: Path) -> None:
    page, docs = tmp_path / "BENCHMARKS.md", tmp_path / "docs" / "bench"

    write(read(sample(tmp_path / "lines")), page, docs)

    text = page.read_text()
    assert "**Preliminary.**" in text
    assert text.count("| cpu | a cpu |") == 1
    assert "c0ffee0123+" in text
    assert "40 to 40 million a second" in text
    assert "0.25 to 0.50 cores" in text
    assert "| throughput | inbox on | **1,000** | 900 – 1,100 | sagas/s |" in text
    assert "| throughput | inbox off | **1,510** | 1,500 – 1,520 | sagas/s |" in text
    assert "| 100,000 | **998** (988 – 1,008) |" in text
    assert "| something_new | seconds 15, process kafka | **0.0123** | one | share |" in text
    assert "| `restate-run` | on | **5.3×** | – | – | – |" in text
    assert text.count("restate-run` | on") == 1
    assert "(docs/bench/growth_finished.svg)" in text
    assert "At 8, CPU s/1,000 sagas: kafka 0.5, load 0.25." in text
    assert [each.name for each in docs.iterdir()] == ["growth_finished.svg"]
    assert not any(f"{{{name}}}" in text for name in ("preliminary", "machine", "tables", "peers", "curves"))
    drawn = (docs / "growth_finished.svg").read_text()
    assert "<svg" in drawn
    assert "1,000,000" in drawn


def test_a_page_made_anew_is_the_same_and_keeps_what_was_written_by_hand(tmp_path: Path) -> None:
    page, docs, lines = tmp_path / "BENCHMARKS.md", tmp_path / "docs", read(sample(tmp_path / "lines"))
    write(lines, page, docs)
    by_hand = "The profile says: \\1 and {tables} are text.\n"
    page.write_text(page.read_text().replace("Nothing was written here yet.\n", by_hand))
    chart = (docs / "growth_finished.svg").read_bytes()

    for _ in range(2):
        write(lines, page, docs)

        assert page.read_text().count(by_hand) == 1
    assert (docs / "growth_finished.svg").read_bytes() == chart


def test_of_the_same_measured_twice_the_last_counts(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    for commit, parameters, value in (("a", {"preliminary": True}, 1.0), ("b", {}, 2.0)):
        Figures(path, parameters, commit, MACHINE).put(
            "throughput", value, "sagas/s", inbox="on", others_cores=value
        )
    Figures(path, {}, "b", MACHINE).put("throughput", 3.0, "sagas/s", inbox="off")

    assert [(each.value, each.commit) for each in read(path)] == [(2.0, "b"), (3.0, "b")]


@pytest.mark.parametrize("text", ["no json", '{"figure": "throughput"}', '{"value": 1.0}', "[]"])
def test_a_line_that_is_none_stops_the_page(tmp_path: Path, text: str) -> None:
    (tmp_path / "lines").write_text(text)

    with pytest.raises(ValueError, match="Line"):
        read(tmp_path / "lines")


def test_figures_of_a_bed_that_fails_its_audit_are_never_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    well = True

    @contextmanager
    def audited(kind: object, setup: Setup, directory: Path, *, audit: bool) -> Generator[None]:
        yield
        if not well:
            raise BenchError("a violation")

    monkeypatch.setattr(scenarios, "other_bed", audited)
    out = tmp_path / "lines"
    run = Run(Figures(out, {}, "c0ffee", MACHINE))
    with run.bed(Setup()):
        run.put("throughput", 1.0, "sagas/s")
        assert not out.exists()
    well = False
    with pytest.raises(BenchError), run.bed(Setup()):
        run.put("throughput", 2.0, "sagas/s", inbox="off")
    run.put("machine", 3.0, "million additions/s")

    assert [each.value for each in read(out)] == [1.0, 3.0]


def test_every_scenario_is_registered_and_says_what_it_measures() -> None:
    known = load_all()

    assert {"throughput", "compensation", "latency", "growth-in-flight", "growth-history"} <= set(known)
    assert all(each.about for each in known.values())


def test_a_line_without_rounds_has_one() -> None:
    assert Line(figure="ratio", value=2.0).rounds == [2.0]
    assert len({figure for curve in CURVES for figure in curve.figures}) == sum(
        len(curve.figures) for curve in CURVES
    )
