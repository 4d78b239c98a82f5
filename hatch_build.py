"""The build backend's hook: with KASAGA_COMPILE=1 in the environment, mypyc compiles a wheel's hot modules.

Without it the wheel is pure Python, and takes neither a compiler nor more than hatchling. Both wheels have
every .py file: a compiled module stands beside its source, and Python takes the compiled one. An editable
installation stays pure: whoever edits wants to see what was edited.

Station: called by hatchling. Which modules are compiled, and why the others aren't, says pyproject.toml.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SWITCH = "KASAGA_COMPILE"

COMPILER = "mypy[mypyc]>=2.4"
"""mypyc is part of mypy; its extra is setuptools, which calls the C compiler."""

ROOTS = ("orchestrator", "participants", "schemas", "typings")

LEVEL = "2"
"""Of gcc."""

SETTINGS = """\
[mypy]
python_version = 3.11
explicit_package_bases = True
ignore_missing_imports = True
mypy_path = {roots}
cache_dir = {cache}
"""


class CompileHook(BuildHookInterface[Any]):
    """Compiles the listed modules of a wheel, if asked to."""

    _folder: tempfile.TemporaryDirectory[str] | None = None

    def dependencies(self) -> list[str]:
        """What the build takes besides a C compiler: mypyc, and the types of all that the modules import."""
        if not _asked():
            return []
        untyped: Any = self  # hatchling leaves the type of its metadata open
        project = untyped.metadata.core
        return [COMPILER, *project.dependencies, *project.optional_dependencies["orchestrator"]]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and have the wheel take the results.

        Raises:
            SystemExit: a module isn't there, or mypy finds a mistake in it.
            CompileError: the C compiler is missing, or failed.
        """
        if version != "standard" or not _asked():
            return
        self._folder = tempfile.TemporaryDirectory(prefix="kasaga-compile-")
        folder = Path(self._folder.name)
        build_data["force_include"].update(compiled(Path(self.root), self.config["modules"], folder))
        build_data["pure_python"] = False
        build_data["infer_tag"] = True

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove what the wheel has taken."""
        if self._folder is not None:
            self._folder.cleanup()


def _asked() -> bool:
    return os.environ.get(SWITCH, "") not in ("", "0")


def compiled(root: Path, modules: list[str], folder: Path) -> dict[str, str]:
    """Compile modules, named by their paths below `root`.

    Gives each library that was made, below `folder`, and its place in the wheel.
    """
    from mypyc.build import mypycify
    from setuptools import Distribution
    from setuptools.command.build_ext import build_ext

    settings, made = folder / "mypy.ini", folder / "lib"
    roots = ":".join(str(root / name) for name in ROOTS)
    settings.write_text(SETTINGS.format(roots=roots, cache=folder / "cache"))
    extensions = mypycify(
        [f"--config-file={settings}", *(str(root / name) for name in modules)],
        target_dir=str(folder / "c"),
        group_name="kasaga",
        opt_level=LEVEL,
        debug_level="0",
    )
    for extension in extensions:  # mypyc's -Werror is for those who work on mypyc
        extension.extra_compile_args.append("-Wno-error")
    command = build_ext(Distribution({"ext_modules": extensions}))
    command.build_lib, command.build_temp = str(made), str(folder / "objects")
    command.ensure_finalized()
    command.run()
    return {name: str(Path(name).relative_to(made)) for name in command.get_outputs()}
