"""What orchestrator/testing.md shows works as it stands there, with the plugin and the command line."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import pytest

from imported import imported_from
from kasaga.cli import run as command_line
from kasaga.testing import KINDS, Fault
from kasaga.testing.faults import NAMED
from kasaga.testing.values import NoExample

ORCHESTRATOR = Path(__file__).parents[2] / "orchestrator"
GUIDE = (ORCHESTRATOR / "testing.md").read_text()
FILES = dict(re.findall(r"```python\n# (\S+\.py)\n(.*?)```", GUIDE, re.DOTALL))


@pytest.fixture
def shop(tmp_path: Path) -> Generator[Path]:
    for name, code in FILES.items():
        (tmp_path / name).write_text(code)
    with imported_from(tmp_path, "shop", "things"):
        yield tmp_path


def pytest_in(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A pytest of its own, as a user's project runs it: the plugin comes by its entry point."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-W", "error", *arguments]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    return subprocess.run(command, cwd=folder, env=kept, capture_output=True, text=True, check=False)


def test_the_guides_tests_pass(shop: Path) -> None:
    assert set(FILES) == {"shop.py", "test_payment.py", "test_money.py"}
    done = pytest_in(shop, "--kasaga-report=reports")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 passed" in done.stdout
    assert "failure matrix" in done.stdout
    assert re.search(r"payment: \d+ runs", done.stdout)
    pages = list((shop / "reports").iterdir())
    assert [page.name for page in pages] == ["test_payment.py-test_the_fixture.html"]
    assert pages[0].read_text().startswith("<!doctype html>")


def test_a_matrix_that_fails_fails_its_test(shop: Path) -> None:
    (shop / "test_wrong.py").write_text(
        "from shop import payment\n"
        "def never(result):\n"
        "    assert result.state != 'COMPENSATED', 'it was undone'\n"
        "def test_never(failure_matrix):\n"
        "    failure_matrix(payment, pairs=False, invariants=[never])\n"
    )
    done = pytest_in(shop, "test_wrong.py")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "✗ undone" in done.stdout
    assert "✗ never: it was undone" in done.stdout


def test_every_fault_is_in_the_guide() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", GUIDE, re.MULTILINE))
    assert set(rows) == set(NAMED)
    assert set(NAMED) - set(KINDS) == {"terminated"}
    for kind in NAMED:
        assert callable(getattr(Fault, kind))


def test_the_example_that_cannot_be_made_has_its_section() -> None:
    page = (ORCHESTRATOR / "errors.md").read_text()
    assert f"## {NoExample.code} NoExample" in page


# --- kasaga simulate


def test_simulate(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line(["simulate", "shop:payment", "--seeds", "20", "--seed", "5"]) == 0
    first = capsys.readouterr().out
    assert "payment: 20 runs with the seeds 5 to 24 in" in first
    assert "all invariants hold" in first
    assert command_line(["simulate", "shop:payment", "--seeds", "20", "--seed", "5"]) == 0
    strip = re.compile(r"in [\d.]+ s")
    assert strip.sub("", capsys.readouterr().out) == strip.sub("", first)


def test_simulate_draws_and_prints_its_seed(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line(["simulate", "shop:payment", "--seeds", "2"]) == 0
    assert re.search(r"with the seeds \d+ to \d+ in", capsys.readouterr().out)


def test_simulate_a_matrix_and_its_page(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = '{"id": "o", "total": 5}'
    arguments = ["simulate", "shop:payment", "--matrix", "--html", "m.html", "--input", given]
    assert command_line(arguments) == 0
    assert "1 inventory.reserve" in capsys.readouterr().out
    assert "payments.charge" in (shop / "m.html").read_text()


def test_simulate_an_app_and_a_case(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (shop / "things.py").write_text(
        "from kasaga import App\n"
        "from kasaga.testing import Case\n"
        "from shop import Inventory, Payments, payment\n"
        "app = App('orders', sagas=[payment], participants=[Inventory, Payments])\n"
        "def never(result):\n"
        "    return not result.struck\n"
        "case = Case(payment, invariants=[never])\n"
    )
    assert command_line(["simulate", "things:app", "--seeds", "3"]) == 0
    assert command_line(["simulate", "things:app", "--saga", "payment", "--seeds", "3"]) == 0
    capsys.readouterr()
    assert command_line(["simulate", "things:case", "--seeds", "30", "--seed", "1"]) == 1
    said = capsys.readouterr().out
    assert "never doesn't hold" in said
    seed = re.search(r"Again: kasaga simulate things:case --seeds 1 --seed (\d+)", said)
    assert seed is not None
    assert command_line(["simulate", "things:case", "--seeds", "1", "--seed", seed[1]]) == 1


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["shop:nothing"], 1, "KSG-521"),
        (["nowhere:saga"], 1, "KSG-521"),
        (["shop:Order"], 1, "KSG-521"),
        (["shop:payment", "--saga", "payment"], 2, "--saga goes with an App"),
        (["shop:payment", "--input", "{}"], 1, "KSG-524"),
        (["shop:payment", "--html", "x.html"], 2, "--html goes with --matrix"),
        (["shop:payment", "--seeds", "0"], 2, "0 is not in the range"),
    ],
)
def test_what_simulate_refuses(
    shop: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], status: int, said: str
) -> None:
    assert command_line(["simulate", *arguments]) == status
    assert said in capsys.readouterr().err
