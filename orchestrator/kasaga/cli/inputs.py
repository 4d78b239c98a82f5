"""What people type: times, an App's place, a saga's input."""

from __future__ import annotations

import importlib
import json
import re
import sys
import traceback
from datetime import UTC, datetime
from difflib import get_close_matches
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

from kasaga_wire.attributes import AttributeValue, check_name, check_value
from kasaga_wire.codec import Schemas
from kasaga_wire.errors import BadAttribute, KasagaError
from kasaga_wire.from_json import from_json

from ..saga import App, Saga
from ..search import Condition, parse
from ..wording import when as read_time
from .errors import BadInput, BadTarget

MAX_INPUT_FILE_BYTES = 8 * 1024 * 1024
"""No saga takes more; a larger file was named by mistake."""

_NUMBER = re.compile(r"-?\d+(\.\d+)?([eE][+-]?\d+)?")
_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt][\d:.]+([Zz]|[+-]\d\d:?\d\d)")

MEND = "Mend the field that is named"
WRITE_JSON = """Write JSON between single quotes, such as '{"id": 3}', or @order.json for a file"""


def when(text: str) -> datetime:
    """A time, or how long ago: see `wording.when`."""
    try:
        return read_time(text, datetime.now(UTC))
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def attribute(text: str) -> tuple[str, AttributeValue]:
    """`name=value`: a number, true, false, a time or a JSON list of strings if it reads so, else text.

    Between double quotes it is text in any case.
    """
    name, sign, given = text.partition("=")
    if not sign:
        raise click.BadParameter(f"{text!r} is not name=value")
    value: object = given
    if given[:1] in ('"', "["):
        try:
            value = json.loads(given)
        except ValueError:
            raise click.BadParameter(f"{given!r} is no JSON") from None
    elif given in ("true", "false"):
        value = given == "true"
    elif _NUMBER.fullmatch(given):
        value = float(given) if set(given) & set(".eE") else int(given)
    elif _TIME.fullmatch(given):
        try:
            value = datetime.fromisoformat(given)
        except ValueError:
            raise click.BadParameter(f"{given!r} is no time") from None
    try:
        return check_name(name), check_value(name, value)
    except BadAttribute as error:
        raise click.BadParameter(str(error)) from None


def condition(text: str) -> Condition:
    """A query in the language of `searching.md`."""
    return parse(text, datetime.now(UTC))


def load(target: str, kind: str = "App") -> Any:
    """Import `module:name` from the current folder or the environment; None where it has no such name.

    `kind` is what it should name. Raises BadTarget, ContractError.
    """
    module_name, _, attribute = target.partition(":")
    if not module_name or module_name.endswith(".py") or "/" in module_name:
        raise BadTarget(f"{target!r} names no {kind}", remedy="Write module:app, such as shop.sagas:app")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except KasagaError:
        raise
    except SystemExit as error:
        raise BadTarget(
            f"{module_name} ends the process when it is imported (status {error.code})",
            remedy='Put what a program does below `if __name__ == "__main__":`',
        ) from error
    except Exception as error:
        raise BadTarget(
            f"{module_name} can't be imported: {_where(error)}",
            remedy="Run it from the folder that holds the module, or install its package",
        ) from error
    found: Any = module
    for part in (attribute or "app").split("."):
        found = getattr(found, part, None)
    return found


def load_app(target: str) -> App:
    """Import `module:app` likewise; raises BadTarget, ContractError."""
    found = load(target)
    if not isinstance(found, App):
        module_name, _, attribute = target.partition(":")
        module = sys.modules[module_name]
        apps = sorted(name for name, value in vars(module).items() if isinstance(value, App))
        hint = (
            f"It has {', '.join(f'{module_name}:{name}' for name in apps)}"
            if apps
            else "Make one: app = App(…)"
        )
        raise BadTarget(f"{module_name} has no App named {attribute or 'app'!r}", remedy=hint)
    return found


def check_module(name: str) -> None:
    """Make sure that `python -m name` finds something here, without running any of it. Raises BadTarget."""
    top, *below = name.split(".")
    try:
        spec = find_spec(top) if top else None
    except ValueError:  # imported already, and no module that could be found again
        spec = None
    found = top
    for part in below:
        spec = _find_below(spec, f"{found}.{part}") if part else None
        found = f"{found}.{part}"
    if spec is None:
        near = get_close_matches(name, sorted(path.stem for path in Path.cwd().glob("*.py")), 1)
        raise BadTarget(
            f"there is no module {name!r} to run",
            remedy=f"Did you mean {near[0]}?"
            if near
            else "Write it as in `python -m`, and run it from the folder that holds it",
        )
    if spec.submodule_search_locations is not None and _find_below(spec, f"{name}.__main__") is None:
        raise BadTarget(
            f"{name!r} is a package without a __main__.py",
            remedy=f"Name the module in it that runs, such as {name}.service",
        )


def _find_below(package: ModuleSpec | None, name: str) -> ModuleSpec | None:
    """A module in a package that isn't imported: that could want a setting which only the service gets."""
    if package is None or package.submodule_search_locations is None:
        return None
    imported = sys.modules.get(package.name)
    places = imported.__path__ if imported is not None else package.submodule_search_locations
    return PathFinder.find_spec(name, places)


def _where(error: Exception) -> str:
    """The error, and the author's line that it came from."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if "importlib" not in frame.filename and Path(frame.filename) != Path(__file__)
    ]
    text = f"{type(error).__name__}: {error}"
    if isinstance(error, SyntaxError) and error.filename:
        return f"{text.partition(' (')[0]} ({Path(error.filename).name}:{error.lineno})"
    return f"{text} ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else text


def find_saga(app: App, name: str, version: int | None) -> Saga[Any, Any]:
    """The saga of an App by its name, the newest version unless one is named; raises BadTarget."""
    found = app.sagas.get((name, version or app.latest(name)))
    if found is None:
        known = ", ".join(f"{known} {version}" for known, version in sorted(app.sagas)) or "none"
        wanted = f"{name!r} version {version}" if version else repr(name)
        raise BadTarget(f"the App has no saga {wanted}", remedy=f"It has: {known}")
    return found


def read_text(given: str) -> str:
    """JSON as typed, `@file`, or `-` for the standard input."""
    if given == "-":
        return sys.stdin.read()
    if not given.startswith("@"):
        return given
    path = Path(given[1:])
    try:
        if path.stat().st_size > MAX_INPUT_FILE_BYTES:
            raise BadInput(f"{path} is larger than any saga's input", remedy="Name the right file")
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise BadInput(
            f"{path} can't be read: {error.strerror}", remedy="Name a file that you may read"
        ) from None
    except UnicodeDecodeError:
        raise BadInput(f"{path} is not text", remedy="Name a file of JSON, in UTF-8") from None


def parse_input(saga: Saga[Any, Any], text: str) -> Any:
    """JSON text as the saga's argument; raises BadInput naming the field.

    Read as the HTTP API reads it, so that the same text is the same input for both: by the schema, which
    refuses fields that it doesn't have, and then by the author's model.
    """
    fits = f"the input doesn't fit saga {saga.name!r}"
    try:
        given: object = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{fits}: it is no JSON: {error}", remedy=WRITE_JSON) from None
    try:
        return saga.input.decode(from_json(given, saga.input.schema), Schemas())
    except KasagaError as error:
        raise BadInput(f"{fits}: {error.message}", remedy=error.remedy or MEND) from None
