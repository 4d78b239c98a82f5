"""How the command begins: an orchestrator is started anew at once, and imports what it runs and no more."""

from __future__ import annotations

import os
import subprocess
import sys

import click
import pytest

from kasaga.cli import ABOUT_SAGAS, COMMANDS, cli, run

BEGIN = """
import os, sys
from kasaga import __main__ as begin

def execv(path, arguments):
    same = arguments[1:] == sys.orig_argv[1:]
    print("anew", os.environ["PYTHONHASHSEED"], same, "kasaga.cli" in sys.modules)
    sys.exit(7)

os.execv = execv
try:
    begin.main()
finally:
    print(*[name for name in sys.modules if name.startswith("kasaga.")])
"""
OTHERS = ("api", "audit", "check", "dev", "drill", "explain", "gate", "timeline", "testing", "ui")


def begun(*arguments: str, seed: str | None) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, that tells when it starts anew and what it has imported."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONHASHSEED"}
    if seed is not None:
        environment["PYTHONHASHSEED"] = seed
    return subprocess.run(
        [sys.executable, "-c", BEGIN, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("seed", [None, "1", "random"])
def test_an_orchestrator_without_the_seed_is_started_anew_before_anything_is_imported(
    seed: str | None,
) -> None:
    done = begun("orchestrator", "no.such:app", seed=seed)
    assert done.returncode == 7, done.stderr
    assert done.stdout.splitlines()[0] == "anew 0 True False"


def test_with_the_seed_it_imports_what_it_runs_and_no_more() -> None:
    done = begun("orchestrator", "no.such:app", seed="0")
    assert (done.returncode, "KSG-521" in done.stderr) == (1, True), done.stderr
    imported = {name.split(".")[1] for name in done.stdout.split()}
    assert imported & {*OTHERS} == set()
    assert {"cli", "store"} <= imported


def test_no_other_command_is_started_anew() -> None:
    done = begun("describe", "orchestrator", seed=None)
    assert (done.returncode, "KSG-522" in done.stderr) == (1, True), done.stderr
    assert "anew" not in done.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_where_the_table_says(name: str) -> None:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    assert command.name == name


def test_the_commands_about_sagas_are_there_once_more(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["saga", "--help"]) == 0
    said = capsys.readouterr().out
    assert all(f"\n  {name} " in said for name in ABOUT_SAGAS)
    assert run(["saga", "orchestrator"]) == 2
    assert run(["nothing"]) == 2
