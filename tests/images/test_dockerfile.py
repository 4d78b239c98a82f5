"""The Dockerfile's promises that can be read off, and what it relies on of its installer."""

from __future__ import annotations

import base64
import hashlib
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterable
from pathlib import Path

import pytest

from images.build import DOCKERFILE, IMAGES, ROOT, sources, sources_sum

TEXT = DOCKERFILE.read_text().replace("\\\n", " ")
STAGES = re.split(r"^(?=FROM )", TEXT, flags=re.MULTILINE)[1:]
BUILDING, *KEPT = STAGES


def test_each_image_has_its_stage() -> None:
    named = {match[1] for stage in STAGES if (match := re.match(r"FROM \S+ AS (\S+)", stage))}
    assert set(IMAGES.values()) <= named
    # Without --target, docker builds the last stage.
    assert STAGES[-1].strip() == "FROM kasaga"


def test_nothing_runs_in_a_stage_that_is_kept() -> None:
    """Whatever runs there could leave something behind. What is installed comes from another stage."""
    assert [line for stage in KEPT for line in stage.splitlines() if line.startswith(("RUN", "ADD"))] == []
    assert "RUN" in BUILDING


def test_every_image_has_a_user_with_a_number() -> None:
    """Kubernetes can't tell whether a name is root's."""
    for stage in KEPT:
        if stage.startswith("FROM ${BASE_IMAGE}"):
            assert re.search(r"^USER [1-9]\d*:[1-9]\d*$", stage, re.MULTILINE), stage
    assert "USER" not in "".join(stage for stage in KEPT if not stage.startswith("FROM ${BASE_IMAGE}"))


def test_all_that_is_copied_reaches_the_build() -> None:
    allowed = {path.relative_to(ROOT).as_posix() for path in sources()}
    copied = [
        each for line in BUILDING.splitlines() if line.startswith("COPY ") for each in line.split()[1:-1]
    ]
    assert copied
    for each in copied:
        assert each in allowed or any(path.startswith(f"{each}/") for path in allowed), each


def test_nothing_else_reaches_the_build() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert next(line for line in lines if line and not line.startswith("#")) == "*"
    let_through = [line[1:] for line in lines if line.startswith("!")]
    assert [each for each in let_through if f" {each} " not in f"{BUILDING} ".replace("\n", " ")] == []


def test_the_tag_changes_with_what_is_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("images.build.ROOT", tmp_path)
    monkeypatch.setattr("images.build.DOCKERFILE", tmp_path / "Dockerfile")
    (tmp_path / ".dockerignore").write_text("*\n!one\n!folder\n")
    (tmp_path / "folder").mkdir()
    for name in ("Dockerfile", "one", "folder/two"):
        (tmp_path / name).write_text("")
    sums = [sources_sum()]
    for name in ("Dockerfile", "one", "folder/two", "folder/three"):
        (tmp_path / name).write_text(name)
        sums.append(sources_sum())
    assert len(set(sums)) == 5
    (tmp_path / "four").write_text("not copied")
    assert sources_sum() == sums[-1]


def test_what_builds_is_in_the_lock() -> None:
    """The Dockerfile cuts the installer out of the lock by its name, and holds hatchling to it."""
    awk = re.search(r"awk '([^']*)' requirements.lock", BUILDING)
    assert awk is not None
    cut = subprocess.run(
        ["awk", awk[1], str(ROOT / "requirements.lock")], check=True, capture_output=True, text=True
    ).stdout
    assert re.match(r"uv==\S+ \\\n    --hash=sha256:", cut)
    assert len(re.findall(r"^\S", cut, re.MULTILINE)) == 1
    assert re.search(r"^hatchling==", (ROOT / "requirements.lock").read_text(), re.MULTILINE)


def wheel(folder: Path, name: str, needs: str = "") -> str:
    """Makes a wheel and gives its sum."""
    path = folder / f"{name}-1.0-py3-none-any.whl"
    about = f"{name}-1.0.dist-info"
    needed = f"Requires-Dist: {needs}\n" if needs else ""
    contents = {
        f"{name}.py": "",
        f"{about}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n{needed}",
        f"{about}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = ""
    for file, text in contents.items():
        total = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip("=")
        record += f"{file},sha256={total},{len(text)}\n"
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in (contents | {f"{about}/RECORD": f"{record}{about}/RECORD,,\n"}).items():
            archive.writestr(file, text)
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("lock", "installs"),
    [
        ("outer==1.0 --hash=sha256:{outer}\ninner==1.0 --hash=sha256:{inner}\n", True),
        ("outer==1.0 --hash=sha256:{outer}\ninner==1.0 --hash=sha256:{outer}\n", False),
        ("outer==1.0 --hash=sha256:{outer}\n", False),
        ("outer==1.0 --hash=sha256:{outer}\ninner==1.0\n", False),
    ],
    ids=["all sums are right", "a wrong sum", "not in the lock", "in the lock without a sum"],
)
def test_the_installer_holds_all_it_installs_to_the_sums(tmp_path: Path, lock: str, installs: bool) -> None:
    """The lock is given as a constraint, so that only what is needed is installed. Its sums must count."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    sums = {"inner": wheel(wheels, "inner"), "outer": wheel(wheels, "outer", needs="inner")}
    (tmp_path / "lock").write_text(lock.format(**sums))
    (tmp_path / "pyproject.toml").write_text(
        '[project]\nname = "x"\nversion = "1"\ndependencies = ["outer"]\n'
    )
    uv = shutil.which("uv", path=str(Path(sys.executable).parent))
    assert uv is not None
    done = subprocess.run(
        [uv, "pip", "install", "--no-config", "--no-index", "--no-cache", "--find-links", str(wheels)]
        + ["--require-hashes", "--constraint", str(tmp_path / "lock"), "--target", str(tmp_path / "target")]
        + ["--python", sys.executable, "-r", str(tmp_path / "pyproject.toml")],
        check=False,
        capture_output=True,
        text=True,
    )
    assert (done.returncode == 0) == installs, done.stderr
    assert (tmp_path / "target" / "inner.py").exists() == installs


def test_the_image_has_what_every_extra_but_the_laptop_s_brings() -> None:
    """Else an option that the guide and the chart have would end in an import error, in a container alone."""
    extras: dict[str, list[str]] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]

    def brought(names: Iterable[str]) -> set[str]:
        return {each for name in names for each in extras[name] if not each.startswith("kasaga[")}

    (command,) = (each for each in BUILDING.split("RUN ") if "/opt/kasaga/bin/python --only-binary" in each)
    installed = re.findall(r"--extra (\w+)", command)
    assert brought(installed) == brought(extras.keys() - {"dev"})
