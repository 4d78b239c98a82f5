"""What `kasaga dev` refuses before it starts or changes anything. The rest is tested on real servers."""

from __future__ import annotations

import sys
from collections.abc import Generator
from pathlib import Path

import pytest

from cli.shell import Shell
from kasaga.dev import lock
from kasaga.dev.lock import lock_data, lock_folder

APP = "from kasaga import App\napp = App('desk', sagas=[], participants=[])\n"
IMPORTED = "raise RuntimeError('imported')\n"


@pytest.fixture
def desk(shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Shell]:
    """A folder with an App and services, in which an earlier run has left something."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    shell.environment.clear()
    (tmp_path / "desk_app.py").write_text(APP)
    (tmp_path / "desk_service.py").write_text(IMPORTED)
    for package in ("desk_package", "desk_runs"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text(IMPORTED)
        (tmp_path / package / "service.py").write_text(IMPORTED)
    (tmp_path / "desk_runs" / "__main__.py").write_text(IMPORTED)
    kept = tmp_path / ".kasaga"
    (kept / "kafka" / "data").mkdir(parents=True)
    (kept / "kafka" / "data" / "records").write_text("precious")
    (kept / "ports.json").write_text('{"kafka": 1}')
    (kept / "dev.json").write_text("{}")
    yield shell
    sys.modules.pop("desk_app", None)


def kept(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in (folder / ".kasaga").rglob("*")
        if path.is_file() and path.name != "lock"
    }


@pytest.mark.parametrize("options", [(), ("--fresh",)])
def test_a_second_one_in_the_folder_changes_nothing(
    desk: Shell, tmp_path: Path, options: tuple[str, ...]
) -> None:
    before = kept(tmp_path)
    with lock_folder(tmp_path / ".kasaga"):
        said = desk("dev", "desk_app:app", *options)

    assert (said.status, said.out) == (1, "")
    assert said.err.startswith(f"kasaga: KSG-591: `kasaga dev` already runs in {tmp_path} (process ")
    assert said.err.count("\n") == 1
    assert kept(tmp_path) == before


@pytest.mark.parametrize("options", [(), ("--fresh",)])
def test_servers_that_have_outlived_an_earlier_one_keep_their_data(
    desk: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]
) -> None:
    monkeypatch.setattr(lock, "SERVER_SECONDS", 0.1)
    before = kept(tmp_path)
    with lock_data("Kafka", tmp_path / ".kasaga" / "kafka"):
        said = desk("dev", "desk_app:app", *options)

    assert said.status == 1
    assert said.err.startswith("kasaga: KSG-591: another Kafka (process ")
    assert kept(tmp_path) == before


@pytest.mark.parametrize(
    ("module", "says"),
    [
        ("desk_servise", "there is no module 'desk_servise' to run. Remedy: Did you mean desk_service?"),
        ("quite.different", "there is no module 'quite.different' to run. Remedy: Write it as in"),
        ("desk_package.servise", "there is no module 'desk_package.servise' to run."),
        (
            "desk_service.py",
            "there is no module 'desk_service.py' to run. Remedy: Did you mean desk_service?",
        ),
        (".desk_service", "there is no module '.desk_service' to run."),
        ("", "there is no module '' to run."),
        ("desk_package", "'desk_package' is a package without a __main__.py"),
    ],
)
def test_a_service_that_is_not_there_is_refused_before_anything_begins(
    desk: Shell, tmp_path: Path, module: str, says: str
) -> None:
    before = kept(tmp_path)
    said = desk("dev", "desk_app:app", "--with", module)

    assert said.status == 1
    assert said.err.startswith(f"kasaga: KSG-521: {says}")
    assert kept(tmp_path) == before
    assert not (tmp_path / ".kasaga" / "lock").exists()


def test_services_that_are_there_are_taken_without_being_imported(desk: Shell, tmp_path: Path) -> None:
    modules = ("desk_service", "desk_package.service", "desk_runs", "desk_app", "json.tool")
    with lock_folder(tmp_path / ".kasaga"):
        said = desk("dev", "desk_app:app", *(each for module in modules for each in ("--with", module)))
    assert said.err.startswith("kasaga: KSG-591")
