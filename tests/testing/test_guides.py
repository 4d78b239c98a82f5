"""What the pages for authors show works as it stands, through the whole failure matrix."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGES = Path(__file__).parents[2] / "orchestrator"


@pytest.mark.parametrize(
    ("page", "files", "tests", "passed"),
    [
        ("parallel.md", 6, "test_trips.py", 8),
        ("pivot.md", 2, "test_orders.py", 4),
        ("pausing.md", 2, "test_ends.py", 4),
        ("scopes.md", 2, "test_trips.py", 4),
        ("events.md", 2, "test_orders.py", 3),
        ("searching.md", 2, "test_orders.py", 3),
        ("changing.md", 3, "test_orders.py", 3),
        ("children.md", 2, "test_orders.py", 4),
        ("listening.md", 3, "test_fulfilment.py", 9),
        ("retention.md", 3, "test_orders.py", 1),
        ("schedules.md", 2, "test_reports.py", 3),
        ("payloads.md", 4, "test_vault.py", 3),
        ("payloads.md", 4, "test_locker.py", 1),
    ],
)
def test_the_pages_sagas_hold_whatever_goes_wrong(
    tmp_path: Path, page: str, files: int, tests: str, passed: int
) -> None:
    guide = (PAGES / page).read_text()
    found: dict[str, str] = dict(re.findall(r"```python\n# (\S+\.py)\n(.*?)```", guide, re.DOTALL))
    for name, code in found.items():
        (tmp_path / name).write_text(code)
    assert guide.count("```python") == len(found) == files
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-W", "error", "-q", tests]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{passed} passed" in done.stdout
