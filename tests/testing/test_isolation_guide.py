"""What orchestrator/isolation.md shows is typed, and says what the code says; integration runs it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from kasaga.orchestrator.locking import told
from kasaga.store.locks import Behind

GUIDE = (Path(__file__).parents[2] / "orchestrator" / "isolation.md").read_text()
FILES: dict[str, str] = dict(re.findall(r"```python\n# (\S+\.py)\n(.*?)```", GUIDE, re.DOTALL))


def test_the_page_holds(tmp_path: Path) -> None:
    for name, code in FILES.items():
        (tmp_path / name).write_text(code)
    assert GUIDE.count("```python") == len(FILES) == 1
    (tmp_path / "mypy.ini").write_text("[mypy]\nstrict = true\nwarn_unreachable = true\n")
    typed = [sys.executable, "-m", "mypy", "rooms.py"]
    said = subprocess.run(typed, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stdout
    assert told((Behind("b", "room:12"), Behind("a", "room:7"))) in GUIDE
