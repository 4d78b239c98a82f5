"""What the bench's scenarios of cost read from a broker's folder, and that the page has their figures."""

from __future__ import annotations

import re
from pathlib import Path

from bench import cost
from bench.sections import SECTIONS


def test_the_logs_of_a_broker_by_topic(tmp_path: Path) -> None:
    for name, size in (("a.b-c-0/1.log", 3), ("a.b-c-11/1.log", 4), ("a.b-c-11/2.log", 5), ("x-0/1.log", 0)):
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(bytes(size))
    (tmp_path / "a.b-c-0" / "1.index").write_bytes(bytes(99))
    (tmp_path / "meta.properties").write_text("x")
    assert sorted(cost.log_sizes(tmp_path)) == [("a.b-c", 3), ("a.b-c", 4), ("a.b-c", 5), ("x", 0)]


def test_every_figure_of_cost_stands_on_the_page() -> None:
    source = Path(cost.__file__).read_text(encoding="utf-8")
    figures = set(re.findall(r'"((?:idle|startup|[a-z]+_per)_?[a-z0-9_]*)"', source)) - {"idle", "idle_s"}
    assert len(figures) == 10
    assert figures <= {figure for section in SECTIONS for figure in section.figures}
