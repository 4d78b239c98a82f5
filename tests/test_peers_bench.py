"""The bench of peers: its ratios, and what asks and adds up; the peers themselves are not started here."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import bench.peers
from bench.driver import Measured
from bench.errors import BenchError
from bench.figures import Figures
from bench.peers.__main__ import Bench, Contest, Round, conclude, measure, sweep
from bench.peers.client import Clients, divide, together
from bench.peers.page import section
from bench.peers.ratios import COMPARED, ratios
from bench.peers.systems import SYSTEMS, Running, Setting, System
from bench.peers.tools import Tools
from bench.peers.workers.measuring import Measurement

HERE = Path(next(iter(bench.peers.__path__)))


def line(of: str, values: list[float], system: str, inbox: str = "") -> dict[str, Any]:
    about = {"system": system, **({"inbox": inbox} if inbox else {})}
    return {"figure": f"peers_{of}", "values": values, "parameters": about}


def test_a_ratio_says_how_many_times_better_we_are_round_by_round() -> None:
    found = list(
        ratios(
            [
                line("throughput", [1000.0, 1200.0, 900.0], "kasaga", "on"),
                line("throughput", [2000.0, 2100.0, 2200.0], "kasaga", "off"),
                line("throughput", [500.0, 300.0, 450.0], "restate-run"),
            ]
        )
    )
    assert [(each.of, each.peer, each.inbox) for each in found] == [
        ("throughput", "restate-run", "on"),
        ("throughput", "restate-run", "off"),
    ]
    assert found[0].values == [2.0, 4.0, 2.0]
    assert found[0].means == "kasaga / restate-run"
    assert found[1].values == [4.0, 7.0, pytest.approx(4.8889, abs=1e-4)]


@pytest.mark.parametrize("of", ["latency_1_p50", "latency_1_p99", "cpu_per_1000"])
def test_where_less_is_better_the_peer_is_divided_by_us(of: str) -> None:
    found = list(ratios([line(of, [8.0], "kasaga", "on"), line(of, [4.0], "dbos")]))
    assert [(each.values, each.means) for each in found] == [([0.5], "dbos / kasaga")]


def test_what_cannot_be_compared_gives_no_ratio() -> None:
    ours = line("throughput", [1000.0, 1100.0, 1200.0], "kasaga", "on")
    assert not list(ratios([ours]))
    assert not list(ratios([ours, line("latency_1_p50", [1.0], "dbos")]))
    assert not list(ratios([ours, line("throughput", [0.0, 0.0, 0.0], "dbos")]))
    assert not list(ratios([ours, {"figure": "throughput", "values": [5.0], "parameters": {"inbox": "on"}}]))
    assert not list(ratios([ours, line("cpu_per_1000_client", [5.0], "dbos")]))
    (short,) = ratios([ours, line("throughput", [500.0], "dbos")])
    assert short.values == [2.0]


def test_the_load_is_divided_whole() -> None:
    assert divide(32, 2) == [16, 16]
    assert divide(10, 3) == [4, 3, 3]
    assert divide(1, 2) == [1, 1]


def measured(rate: float, ends: dict[str, int], p99_ms: float = 2.0, missing: int = 0) -> Measured:
    return Measured(rate=rate, ends=ends, missing=missing, p50_ms=1.0, p99_ms=p99_ms, cpu_s=0.5)


def test_processes_that_share_the_load_are_added_up() -> None:
    found = together(
        [measured(10.0, {"completed": 100}), measured(20.0, {"completed": 200, "failed": 1}, 5.0, 2)]
    )
    assert (found.rate, found.ends, found.missing) == (30.0, {"completed": 300, "failed": 1}, 2)
    assert (found.p99_ms, found.cpu_s) == (5.0, 1.0)


def client(*answers: Measured) -> list[str]:
    said = "\n".join(each.model_dump_json() for each in answers)
    return [
        sys.executable,
        "-c",
        f"import sys\nfor said in {said.splitlines()!r}: input(); print(said, flush=True)",
    ]


def test_clients_answer_what_they_are_asked(tmp_path: Path) -> None:
    commands = [client(measured(10.0, {"completed": 3})), client(measured(5.0, {"completed": 2}))]
    with Clients(commands, tmp_path / "log") as clients:
        assert clients.closed(5, 1.0).rate == 15.0


@pytest.mark.parametrize(
    "command",
    [
        client(measured(10.0, {"completed": 3}, missing=1)),
        client(measured(10.0, {"completed": 3, "compensated": 1})),
        client(measured(0.0, {})),
        [sys.executable, "-c", "raise SystemExit('no server')"],
    ],
)
def test_a_client_that_fails_or_counts_other_ends_is_an_error(tmp_path: Path, command: list[str]) -> None:
    with Clients([command], tmp_path / "log") as clients, pytest.raises(BenchError):
        clients.single(3)


def test_a_measurement_starts_so_many_and_counts_those_that_end() -> None:
    measurement = Measurement('{"do": "single", "amount": 3, "seconds": 0.0}')
    while (at := measurement.begin()) is not None:
        measurement.done(at, "completed")
    answer = Measured.model_validate_json(measurement.answer())
    assert answer.ends == {"completed": 3}
    assert answer.rate > 0
    assert answer.p99_ms >= answer.p50_ms > 0


def asked(in_flight: int, ramp: float, seconds: float) -> Measurement:
    ask = {"do": "closed", "amount": in_flight, "ramp": ramp, "seconds": seconds}
    return Measurement(json.dumps(ask))


def test_what_counts_begins_when_as_many_have_ended_as_are_in_flight() -> None:
    measurement = asked(2, 0.0, 60.0)
    for _ in range(5):
        at = measurement.begin()
        assert at is not None
        measurement.done(at, "completed")
    answer = Measured.model_validate_json(measurement.answer())
    assert answer.ends == {"completed": 5}
    assert answer.rate == 3 / 60.0


def test_what_ends_in_the_ramp_or_after_the_time_has_no_part_in_the_rate(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for ramp, seconds in ((3600.0, 1.0), (0.0, 0.0)):
        measurement = asked(1, ramp, seconds)
        measurement.done(0.0, "completed")
        measurement.done(0.0, "completed")
        measurement.failed(RuntimeError("no worker"))
        answer = Measured.model_validate_json(measurement.answer())
        assert (answer.rate, answer.ends, answer.missing) == (0.0, {"completed": 2}, 1)
    assert measurement.begin() is None
    assert "no worker" in capsys.readouterr().err


class FakeLoad:
    def __init__(self, rate: float, log: list[str], name: str) -> None:
        self._rate, self._log, self._name = rate, log, name

    def closed(self, in_flight: int, seconds: float) -> Measured:
        if self._rate == 0:
            raise BenchError("none has ended")
        self._log.append(self._name)
        return measured(self._rate * in_flight, {"completed": 10})

    def single(self, count: int) -> Measured:
        return measured(1.0, {"completed": count})


def fake(name: str, rate: float, log: list[str], pids: Sequence[int] = ()) -> System:
    @contextmanager
    def up(_tools: Tools, directory: Path, _setting: Setting) -> Generator[Running]:
        (directory / "data").write_text("of this round")
        yield Running(FakeLoad(rate, log, name), {"server": pids, "workers": pids})

    return System(name, up, Setting(1), (Setting(1), Setting(8), Setting(4)))


@pytest.fixture
def a_bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    nowhere = Tools(tmp_path, tmp_path, tmp_path, tmp_path)
    return Bench(nowhere, keep=None, seconds=0.0, warm_up=0.0, singles=3)


def test_systems_take_turns_and_one_that_fails_is_left_out(a_bench: Bench, tmp_path: Path) -> None:
    log: list[str] = []
    contests = [Contest(fake(name, rate, log), Setting(1)) for name, rate in (("a", 5), ("b", 0), ("c", 7))]
    measure(a_bench, contests, 2, look_again=False)
    assert log == ["a", "a", "c", "c"] * 2  # each warms up first
    assert [[each.rate for each in contest.rounds] for contest in contests] == [[5.0, 5.0], [], [7.0, 7.0]]
    assert [contest.failure for contest in contests] == ["", "none has ended", ""]
    assert not list(tmp_path.iterdir())


def test_the_rounds_that_there_are_make_lines_and_ratios(capsys: pytest.CaptureFixture[str]) -> None:
    contests = [
        Contest(fake("kasaga", 1, []), Setting(1000)),
        Contest(fake("dbos", 1, []), Setting(32, 2, "loop")),
    ]
    contests[0].system = replace(contests[0].system, about={"inbox": "on"})
    for contest, rates in zip(contests, ([1000.0, 900.0], [100.0]), strict=True):
        contest.rounds = [Round(rate, 5.0, 9.0, 1.0, 2.0, 0.1, 0.25) for rate in rates]
    contests.append(Contest(fake("restate-run", 1, []), Setting(256), failure="it is not there"))
    conclude(Figures(None, {}, "c0ffee", {}), contests, 15.0)
    lines = [json.loads(each) for each in capsys.readouterr().out.splitlines()]
    (ratio,) = [each for each in lines if each["figure"] == "ratio" and each["of"] == "throughput"]
    assert (ratio["peer"], ratio["inbox"], ratio["value"], ratio["values"]) == ("dbos", "on", 10.0, [10.0])
    assert ratio["parameters"]["means"] == "kasaga / dbos"
    (cpu,) = [each for each in lines if each["figure"] == "peers_cpu_per_1000" and len(each["values"]) == 1]
    assert cpu["value"] == 3.0
    assert cpu["parameters"] == {
        "seconds": 15.0,
        "others_cores": 0.25,
        "system": "dbos",
        "in_flight": 32,
        "processes": 2,
        "mode": "loop",
    }
    assert {each["of"] for each in lines if each["figure"] == "ratio"} == set(COMPARED)
    assert "Beside peers" in section(lines)


def test_the_sweep_takes_what_gives_most(a_bench: Bench) -> None:
    assert sweep(a_bench, Contest(fake("a", 5.0, []), Setting(1))) == Setting(8)


def test_each_systems_best_setting_is_one_of_those_that_a_sweep_tries() -> None:
    assert [each.title for each in SYSTEMS if each.best not in each.tried] == []


def test_what_the_peers_run_on_is_pinned_by_sums_and_names_no_address() -> None:
    requirements = (HERE / "requirements.txt").read_text()
    pinned = re.findall(r"^[a-z0-9][^\s=]*==", requirements, re.MULTILINE)
    assert pinned
    assert requirements.count("--hash=sha256:") >= len(pinned)
    packages = json.loads((HERE / "package-lock.json").read_text())["packages"]
    assert all("integrity" in each for name, each in packages.items() if name)
    for name in ("requirements.in", "requirements.txt", "package.json", "package-lock.json"):
        assert not re.search(r"\w+://", (HERE / name).read_text())


def test_the_page_shows_each_figure_and_ratio_with_its_rounds() -> None:
    setting = {"in_flight": 256, "processes": 1}
    lines: list[dict[str, Any]] = [
        {**line("throughput", [900.0, 1000.0, 1234.0], "kasaga", "on"), "value": 1000.0},
        {**line("throughput", [400.0, 500.0, 600.0], "restate-run"), "value": 500.0},
        {**line("latency_1_p50", [7.25], "restate-run"), "value": 7.25},
        {"figure": "throughput", "value": 5.0, "values": [5.0], "parameters": {}},
    ]
    for each in lines[:3]:
        each["parameters"].update(setting)
    ratio: dict[str, Any] = {
        "figure": "ratio",
        "of": "throughput",
        "peer": "restate-run",
        "inbox": "on",
        "parameters": {},
    }
    text = section([*lines, {**ratio, "value": 2.0567, "values": [2.25, 2.0, 2.0567]}])
    assert "| `kasaga, inbox on` | 256, 1 | **1,000** (900 – 1,234) | – | – | – |" in text
    assert "| `restate-run` | 256, 1 | **500** (400 – 600) | **7.25** | – | – |" in text
    assert "| `restate-run` | on | **2.06×** (2 – 2.25) | – | – | – |" in text
    assert "Preliminary" not in text
    lines[0]["parameters"]["preliminary"] = True
    assert "Preliminary" in section(lines)
    assert section(lines[3:]) == ""
