"""deploying.md says what the commands do: its examples are run, and the workflow's commands exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from check.shops import package, shop
from kasaga.cli import cli, run
from kasaga.cli.session import READER_SECONDS, Session
from kasaga.gate.choose import LOOK_AT, PAGE
from kasaga.gate.tally import MAX_KEPT
from kasaga.store.settings import StoreSettings

FOLDER = Path(__file__).parents[2] / "orchestrator"
GUIDE = (FOLDER / "deploying.md").read_text(encoding="utf-8")
WORKFLOW = FOLDER / "deploying.github.yml"


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)


def commands(text: str) -> list[list[str]]:
    """What a text runs of kasaga, as words."""
    found = re.findall(r"^(?:\$ )?(?:\w+=\S+ )*kasaga (.*?)(?: *[>#].*)?$", text, re.MULTILINE)
    return [shlex.split(each) for each in found]


def command_of(name: str) -> click.Command:
    """One of kasaga's commands."""
    found = cli.get_command(click.Context(cli), name)
    assert found is not None, name
    return found


def parsed(words: list[str]) -> None:
    """Have click read a command's words; raises UsageError."""
    command_of(words[0]).make_context(words[0], words[1:], obj=Session(environment={}))


def test_what_the_check_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sagas = next(each for each in blocks("python") if "@saga" in each)
    console = next(each for each in blocks("console") if "kasaga check" in each)
    with package(tmp_path, "shop", {"sagas": sagas, "contracts": shop("fine")["contracts"]}):
        assert run(["check", "shop.sagas:app"], Session(environment={})) == 1
    said = capsys.readouterr().out.splitlines()
    written = console.splitlines()[1:]
    assert said[:-1] == written[:-1]
    assert said[-1] == written[-1]


def test_what_it_ignores(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The comment of the guide, behind the line of its first example that it fits."""
    comment = re.search(
        r"  # kasaga: ignore\[KSG-610\].*", next(e for e in blocks("python") if "ignore[" in e)
    )
    assert comment
    sagas = next(each for each in blocks("python") if "@saga" in each)
    sagas = sagas.replace("await payments.charge(order)", f"await payments.charge(order){comment[0]}")
    with package(tmp_path, "shop", {"sagas": sagas, "contracts": shop("fine")["contracts"]}):
        run(["check", "shop.sagas:app"], Session(environment={}))
    assert "KSG-610" not in capsys.readouterr().out


def test_every_command_in_the_guide_exists() -> None:
    found = [words for each in blocks("console") for words in commands(each)]
    assert {words[0] for words in found} == {"check", "replay", "export"}
    for words in found:
        parsed(words)


def test_every_code_that_is_named_has_its_section() -> None:
    page = (FOLDER / "errors.md").read_text(encoding="utf-8")
    anchors = {
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        for heading in re.findall(r"^## (.*)$", page, re.MULTILINE)
    }
    links = re.findall(r"errors\.md#([\w-]+)", GUIDE)
    assert len(links) > 10
    assert set(links) <= anchors


def test_links_lead_somewhere() -> None:
    headings = {
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        for heading in re.findall(r"^#+ (.*)$", GUIDE, re.MULTILINE)
    }
    assert set(re.findall(r"\]\(#([^)]+)\)", GUIDE)) <= headings
    for file in re.findall(r"\]\(([\w.]+?)(?:#[\w-]+)?\)", GUIDE):
        assert (FOLDER / file).exists(), file


def test_the_limits_are_those_that_are_told() -> None:
    running = next(each for each in command_of("replay").params if each.name == "running")
    assert f"`--running`, {running.default:,} unless" in GUIDE
    assert f"looks at {PAGE} sagas" in GUIDE
    assert f"after {READER_SECONDS:g} seconds, or after {StoreSettings('').lock_timeout:g} that" in GUIDE
    assert f"At most {LOOK_AT:,} finished" in GUIDE
    assert f"up to {MAX_KEPT:,} differences" in GUIDE


def test_the_workflow_runs_commands_that_exist() -> None:
    workflow: dict[Any, Any] = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))
    assert workflow[True]["push"] == {"branches": ["main"]}  # YAML takes `on` for a truth
    jobs = workflow["jobs"]
    found: list[list[str]] = []
    for name, job in jobs.items():
        assert job["runs-on"]
        assert {job.get("needs", name)} <= set(jobs)
        for step in job["steps"]:
            assert ("run" in step) != ("uses" in step), step
            found += commands(step.get("run", ""))
    assert [words[0] for words in found] == ["check", "replay", "replay"]
    for words in found:
        parsed(words)


def test_a_command_that_is_not_there_would_be_noticed() -> None:
    with pytest.raises(click.UsageError):
        parsed(["replay", "shop.sagas:app", "--from-the-moon"])
    assert commands("$ kasaga check x --strict   # why\n$ A=b kasaga export > file") == [
        ["check", "x", "--strict"],
        ["export"],
    ]
