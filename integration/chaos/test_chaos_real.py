"""`make chaos` itself, short: it breaks things, finds nothing violated, says so, and leaves nothing."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from eventually import eventually

ROOT = Path(__file__).parents[2]

SECONDS = 22.0
SEED = 38
"""Its schedule has faults of five kinds in so short a time."""

QUICK = (
    "kill: orchestrator-1",
    "kill: shipping-1",
    "freeze: orchestrator-2",
    "partition: orchestrator-3",
    "partition: payments-2",
    "cut sessions",
    "clock jump: postgres",
    "disk full",
)

END_SECONDS = 240.0

LAST_LINE = re.compile(
    r"chaos: 22 s, (\d+) faults, ([\d,]+) sagas: [\d,]+ completed, [\d,]+ compensated, 0 stuck; "
    r".*; audit: 0 violations"
)


def begin(results: Path, arguments: Sequence[str] = ()) -> subprocess.Popen[str]:
    paths = os.pathsep.join(str(ROOT / each) for each in ("integration", "participants"))
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "chaos", f"--minutes={SECONDS / 60}", f"--results={results}"]
        + ["--rate=15", f"--seed={SEED}", f"--only={','.join(QUICK)}", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONPATH": paths},
        cwd=ROOT,
    )


def processes_that_know(path: Path) -> list[str]:
    found: list[str] = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                known = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
            except OSError:
                continue
            if str(path).encode() in known:
                found.append(entry.name)
    return found


def test_what_is_broken_mends_and_nothing_is_violated(tmp_path: Path) -> None:
    results = tmp_path / "results"
    with begin(results) as process:
        said, _ = process.communicate(timeout=END_SECONDS)
    assert process.returncode == 0, said
    found = LAST_LINE.fullmatch(said.splitlines()[-1])
    assert found, said
    faults, sagas = int(found[1]), int(found[2].replace(",", ""))
    assert faults >= 3
    assert sagas >= SECONDS * 15 * 0.8
    told = json.loads((results / "run.json").read_text())
    assert len({fault["fault"]["kind"] for fault in told["faults"]}) >= 3
    assert all(fault["recovery"] is not None for fault in told["faults"])
    assert (results / "chart.svg").read_text().startswith("<?xml")
    assert said.splitlines()[-1] in (results / "faults.txt").read_text()
    assert not (results / "logs").exists()
    assert processes_that_know(results) == []


def test_an_interrupted_run_ends_everything_and_keeps_its_logs(tmp_path: Path) -> None:
    results = tmp_path / "results"
    with begin(results) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "orders come" in line:
                break
        assert processes_that_know(results)
        log = results / "logs" / "orchestrator-1.log"
        eventually(lambda: log.exists() and log.stat().st_size)
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=END_SECONDS)
    assert process.returncode == 130, said
    assert "interrupted" in said
    eventually(lambda: processes_that_know(results) == [])
    assert log.stat().st_size
    assert not [line for line in Path("/proc/mounts").read_text().splitlines() if str(results) in line]
