"""Objects in a folder or an object store, through `fsspec`: whole bytes under a name, durable or not there.

Station: the bottom; the archive asks it, and whatever else keeps bytes outside of Postgres and Kafka. All
calls block, for as long as the store's library likes: never in a loop's thread. `fsspec` is an extra, and
imported when it is needed.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast
from uuid import uuid4

from .errors import ObjectsInvalid, ObjectsUnavailable
from .redaction import hide, hide_in, redact

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

MAX_OBJECT_BYTES = 1 << 30
MESSAGE_SHOWN = 300
"""Characters of what a store's library says."""

PART = ".part-"
"""What isn't whole yet is called so, in folders; object stores show nothing before it is whole."""

_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*)://(.*)", re.DOTALL)
_PASSWORD = re.compile(r"[^/?#]*:[^/?#]*@")
_LOCAL = ("file", "local")
_HARMLESS = frozenset(
    {"anon", "endpoint_url", "host", "port", "protocol", "region", "region_name", "username", "use_ssl"}
)
"""Options whose values are shown in messages; all others may be secret, whatever they are called."""

Answer = TypeVar("Answer")


class Objects:
    """The objects below one address. Threads may use it at once."""

    def __init__(self, url: str, options: str = "", *, setting: str = "the URL") -> None:
        """Take the address in, without asking anybody. Raises ObjectsInvalid, which names `setting`.

        `options`: a JSON object of what the store's file system takes, such as keys. Its values are secret.
        """
        found = _SCHEME.fullmatch(url.strip())
        if found is None:
            raise ObjectsInvalid(f"{setting} is no URL with a scheme, such as file:///var/archive")
        if _PASSWORD.match(found[2]) or "?" in found[2] or "#" in found[2]:
            hide_in(url)
            raise ObjectsInvalid(
                f"{setting} has a password, a query or a fragment, and it is shown to people",
                remedy="Give credentials by the options, or where the store's own library looks for them",
            )
        self.url = url.strip().rstrip("/")
        """As people are shown it: it holds no secret."""
        self._local = found[1] in _LOCAL
        if self._local and not found[2].startswith("/"):
            raise ObjectsInvalid(
                f"{setting} has no absolute path", remedy="Write three slashes: file:///var/archive"
            )
        self._options = _options(options, setting)
        self._opened: tuple[AbstractFileSystem, str] | None = None
        _check_protocol(found[1], setting)

    def write(self, name: str, data: bytes) -> None:
        """Have these bytes under a name, durably; what was there is replaced. Raises ObjectsUnavailable.

        In a folder, file and folder are synced to the disk. In a store, it is asked how many bytes it has.
        """
        self._ask("written", name, lambda system, root: self._write(system, f"{root}/{name}", data))

    def _write(self, system: AbstractFileSystem, path: str, data: bytes) -> None:
        if self._local:
            _write_file(Path(path), data)
            return
        try:
            system.pipe_file(path, data)
        except FileNotFoundError:  # file systems with folders of their own; in buckets there are none to make
            system.makedirs(path.rpartition("/")[0], exist_ok=True)
            system.pipe_file(path, data)
        system.invalidate_cache(path.rpartition("/")[0])
        size = system.info(path).get("size")
        if size is not None and size != len(data):
            raise OSError(f"{size} bytes are there, and not {len(data)}")

    def read(self, name: str, *, most: int | None = None) -> bytes | None:
        """The bytes under a name, None where there are none. Raises ObjectsUnavailable.

        `most`: of a larger one the first `most` bytes and one more are read.
        """
        end = None if most is None else most + 1

        def read(system: AbstractFileSystem, root: str) -> bytes | None:
            try:
                return system.cat_file(f"{root}/{name}", start=None, end=end)
            except FileNotFoundError:
                return None

        return self._ask("read", name, read)

    def names(self, below: str = "") -> list[str]:
        """Names of the objects and folders right below a folder, sorted. Raises ObjectsUnavailable."""

        def names(system: AbstractFileSystem, root: str) -> list[str]:
            folder = f"{root}/{below}".rstrip("/")
            system.invalidate_cache(folder)
            try:
                found = system.ls(folder, detail=False)
            except (FileNotFoundError, NotADirectoryError):
                return []
            bare = {str(each).rstrip("/").rpartition("/")[2] for each in found}
            return sorted(each for each in bare if each and PART not in each)

        return self._ask("listed", below, names)

    def delete(self, name: str) -> bool:
        """Take an object away; False where there was none. Raises ObjectsUnavailable."""

        def delete(system: AbstractFileSystem, root: str) -> bool:
            try:
                system.rm_file(f"{root}/{name}")
            except FileNotFoundError:
                return False
            return True

        return self._ask("deleted", name, delete)

    def _ask(self, done: str, name: str, ask: Callable[[AbstractFileSystem, str], Answer]) -> Answer:
        try:
            return ask(*self._system())
        except Exception as error:  # noqa: BLE001 (each store's library has exceptions of its own)
            said = redact(f"{type(error).__name__}: {error}")[:MESSAGE_SHOWN]
            where = f"{self.url}/{name}".rstrip("/")
            raise ObjectsUnavailable(f"{where} can't be {done}: {said}") from None

    def _system(self) -> tuple[AbstractFileSystem, str]:
        """The file system and the path in it; made at the first call, since some connect then."""
        if self._opened is None:
            from fsspec.core import url_to_fs

            system, root = url_to_fs(self.url, **self._options)
            self._opened = system, root.rstrip("/")
        return self._opened


def _write_file(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{PART}{uuid4().hex}")
    try:
        with part.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink()
        raise
    for folder in (path.parent, *path.parent.parents[:2]):  # those that may just have been made
        _sync(folder)


def _sync(folder: Path) -> None:
    try:
        number = os.open(folder, os.O_RDONLY)
    except PermissionError:
        return  # somebody else's, and so not made by us
    try:
        os.fsync(number)
    finally:
        os.close(number)


def _check_protocol(protocol: str, setting: str) -> None:
    try:
        from fsspec import get_filesystem_class
    except ImportError:
        raise ObjectsInvalid(
            f"{setting} is set, and the library that reads and writes there is missing",
            remedy="Install kasaga[archive]",
        ) from None
    try:
        get_filesystem_class(protocol)
    except (ImportError, ValueError) as error:
        raise ObjectsInvalid(
            f"{setting}: fsspec can't do {protocol}: {error}",
            remedy="Install what the message names beside Kasaga, as s3fs for s3://, or mend the scheme",
        ) from None


def _options(text: str, setting: str) -> dict[str, Any]:
    made: object = None
    with contextlib.suppress(ValueError):
        made = json.loads(text) if text.strip() else {}
    if not isinstance(made, dict):
        hide(text)
        raise ObjectsInvalid(f"{setting}'s options are no JSON object", remedy='Write them as {"key": "…"}')
    found = cast("dict[str, Any]", made)
    _hide(found)
    # What it once listed and what it opened with other options would be given back as it was.
    return {"use_listings_cache": False, "skip_instance_cache": True, **found}


def _hide(options: Mapping[str, Any]) -> None:
    for name, value in options.items():
        if isinstance(value, dict):
            _hide(cast("dict[str, Any]", value))
        elif isinstance(value, str):
            hide_in(value) if name in _HARMLESS else hide(value)
