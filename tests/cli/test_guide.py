"""The guide says what the code does: every setting, metric, default and command is in it, as it is."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

from kasaga import policy
from kasaga.cli import cli
from kasaga.engine.run import Definitions
from kasaga.orchestrator.metrics import Metrics
from kasaga.settings import Settings
from kasaga_wire.headers import MAX_SAGA_ID_CHARACTERS
from kasaga_wire.topics import DEFAULT_SHARDS

GUIDE = (Path(__file__).parents[2] / "orchestrator" / "README.md").read_text()


SERVICES = (Path(__file__).parents[2] / "participants" / "README.md").read_text()


def files() -> dict[str, str]:
    """The files of the first saga and its services: the blocks that begin with a file's name."""
    found: dict[str, str] = {}
    for text in re.findall(r"^```python\n(.*?)^```$", SERVICES + GUIDE, re.MULTILINE | re.DOTALL):
        name = re.match(r"# (\w+\.py)\n", text)
        if name:
            found[name[1]] = text
    return found


def test_the_first_saga_and_its_services_can_be_copied(tmp_path: Path) -> None:
    for name, text in files().items():
        (tmp_path / name).write_text(text)
    check = "import sagas; from {0} import app; app.registries.values(); print(*sagas.app.sagas)"
    for service in ("inventory_service", "payments_service"):
        done = subprocess.run(
            [sys.executable, "-c", check.format(service)],
            cwd=tmp_path,
            check=False,
            capture_output=True,
            text=True,
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "('payment', 1)\n", "")


def row(cell: str) -> str:
    """The row of a table that begins with a cell."""
    found = [line for line in GUIDE.splitlines() if line.startswith(f"| {cell} |")]
    assert len(found) == 1, f"{cell}: {found}"
    return found[0]


@pytest.mark.parametrize("name", [name for name in Settings.model_fields if name != "kafka"])
def test_every_setting_with_its_default(name: str) -> None:
    default = Settings.model_fields[name].default
    line = row(f"`KASAGA_{name.upper()}`")
    if isinstance(default, int | float):
        assert f"| {default} |" in line


def test_no_setting_that_is_not_there() -> None:
    section = GUIDE[GUIDE.index("## Settings") : GUIDE.index("Of the command line and of clients alone")]
    named = set(re.findall(r"^\| `KASAGA_([A-Z_]+)`", section, re.MULTILINE))
    assert named - {"KAFKA_BOOTSTRAP_SERVERS"} == {name.upper() for name in Settings.model_fields} - {"KAFKA"}


def test_no_metric_that_is_not_there() -> None:
    """metrics.md has them all, and a test of its own."""
    section = GUIDE[GUIDE.index("## Metrics") : GUIDE.index("## Logs")]
    there: set[str] = set()
    for family in Metrics().registry.collect():
        there.add(f"{family.name}_total" if family.type == "counter" else family.name)
    assert set(re.findall(r"`(kasaga_[a-z_]+)", GUIDE)) <= there
    assert len(re.findall(r"^\| `kasaga_", section, re.MULTILINE)) > 5


def test_every_command() -> None:
    for name in cli.list_commands(click.Context(cli)):
        if name != "saga":
            assert re.search(rf"^\| `kasaga .*\b{name}\b", GUIDE, re.MULTILINE) or f"`{name}`" in GUIDE, name


def test_every_option_that_is_named_exists() -> None:
    context = click.Context(cli)
    found = [cli.get_command(context, name) for name in cli.list_commands(context)]
    options = {
        option
        for command in found
        if command is not None
        for parameter in command.params
        for option in (*parameter.opts, *parameter.secondary_opts)
    }
    assert set(re.findall(r"(?<=[\s`])--[a-z-]+", GUIDE)) <= options


def test_defaults_of_steps() -> None:
    assert (policy.STEP_TIMEOUT, policy.SCHEDULE_TO_CLOSE) == (60.0, 3600.0)
    assert "| 60 s |" in row("one attempt of a step or an undo, sent to answered")
    assert "| 1 h |" in row("all attempts of a step together")
    forward, back = policy.DEFAULT_RETRY, policy.DEFAULT_UNDO_RETRY
    assert f"| {forward.maximum_attempts} |" in row("attempts of a step")
    assert (forward.initial_interval, forward.backoff_coefficient, forward.maximum_interval) == (
        1.0,
        2.0,
        60.0,
    )
    assert f"| {back.maximum_attempts} |" in row("… after which the saga is STUCK, while they go on")
    assert f"up to {back.maximum_interval:g} s" in row("wait between them")
    assert "| 50,000 |" in row("steps of one saga")
    assert Definitions._field_defaults["max_steps"] == 50_000
    assert MAX_SAGA_ID_CHARACTERS == 256
    assert f"| {DEFAULT_SHARDS}, once" in row("shards")


def test_links_lead_somewhere() -> None:
    headings = {
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        for heading in re.findall(r"^#+ (.*)$", GUIDE, re.MULTILINE)
    }
    for link in re.findall(r"\]\(#([^)]+)\)", GUIDE):
        assert link in headings, link
