"""Payloads too large for Kafka: an object in a folder or an object store, and a claim to it in the record.

Station: beside `sealing`, outside of it: what is sealed is claimed, and what was fetched is opened. Called by
both sides; the layout is in schemas/README.md, for other languages.

    0xC1 'K' | flags: 4 | 0 | bytes of the object, 8, big-endian | its SHA-256 | its folder

The object's name is its folder, which is the run that it belongs to, and its sum in hexadecimal digits. So to
write it twice is to write it once, and all of a run go with one folder. An object is written before anything
names it: what nobody names does no harm, what is named is there.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path

from .codec import MAX_PAYLOAD_BYTES
from .errors import ObjectsInvalid, ObjectsUnavailable, ObjectUnreadable
from .objects import Objects
from .sealing import MAGIC

CLAIMED = 4
"""The flag of a frame that is a claim."""

URL = "KASAGA_PAYLOAD_STORE_URL"
OPTIONS = "KASAGA_PAYLOAD_STORE_OPTIONS"
BYTES = "KASAGA_PAYLOAD_STORE_BYTES"
DEFAULT_BYTES = 100_000
"""Larger payloads are objects: Kafka is quick with small records, and takes none over a megabyte."""
MAX_OBJECT_BYTES = MAX_PAYLOAD_BYTES + 1024
"""Of a payload that is sealed."""

_BEGIN = MAGIC + bytes((CLAIMED, 0))
_FOLDER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SUM_AT = len(_BEGIN) + 8
_FOLDER_AT = _SUM_AT + 32


def is_claim(data: bytes | None) -> bool:
    """Whether this is a claim, and the payload elsewhere."""
    return data is not None and data[: len(_BEGIN)] == _BEGIN


class Claims:
    """Objects of payloads. Threads may use it at once; all calls but `covers` block."""

    def __init__(self, objects: Objects, over: int = DEFAULT_BYTES) -> None:
        """Payloads of more than `over` bytes are objects."""
        self._objects, self._over = objects, over

    @property
    def url(self) -> str:
        """Where they are, as people are shown it."""
        return self._objects.url

    def covers(self, data: bytes | None) -> bool:
        """Whether a payload is to be an object."""
        return data is not None and len(data) > self._over and not is_claim(data)

    def put(self, folder: str, data: bytes) -> bytes:
        """Have a payload's object written, durably; returns the claim. Raises ObjectsUnavailable."""
        digest = hashlib.sha256(data)
        self._objects.write(f"{folder}/{digest.hexdigest()}", data)
        return _BEGIN + len(data).to_bytes(8, "big") + digest.digest() + folder.encode()

    def get(self, folder: str, claim: bytes) -> bytes:
        """The payload that is claimed, of the run it belongs to. Raises ObjectUnreadable."""
        size, digest, named = _parts(claim)
        if named != folder:
            raise ObjectUnreadable(f"the payload is claimed of {named}, and belongs to {folder}")
        name = f"{folder}/{digest.hex()}"
        if size > MAX_OBJECT_BYTES:
            raise ObjectUnreadable(f"{name} is said to have {size} bytes; {MAX_OBJECT_BYTES} are the most")
        try:
            data = self._objects.read(name, most=size)
        except ObjectsUnavailable as error:
            raise ObjectUnreadable(error.message, lasting=False) from None
        if data is None:
            raise ObjectUnreadable(f"{self.url}/{name} isn't there")
        if len(data) != size or hashlib.sha256(data).digest() != digest:
            raise ObjectUnreadable(f"{self.url}/{name} was changed: it isn't what was written")
        return data

    def clear(self, folder: str) -> int:
        """Delete all objects of a run; returns how many there were. Raises ObjectsUnavailable."""
        return sum(self._objects.delete(f"{folder}/{name}") for name in self._objects.names(folder))


def folder_of(command_id: str) -> str:
    """The folder of a command's payload and its reply's: its run. Raises ObjectUnreadable."""
    run = command_id.partition(".")[0]
    if not _FOLDER.fullmatch(run):
        raise ObjectUnreadable("the command's id names no run")
    return run


def claimed(claim: bytes) -> tuple[str, int]:
    """The name and size that a claim says. Raises ObjectUnreadable."""
    size, digest, folder = _parts(claim)
    return f"{folder}/{digest.hex()}", size


def fetch(claims: Claims | None, command_id: str, claim: bytes) -> bytes:
    """The payload that a command, or the reply to it, claims. Raises ObjectUnreadable; blocks."""
    if claims is None:
        raise ObjectUnreadable(
            f"the payload is in an object store, and this process has no {URL}",
            remedy=f"Give it the {URL} of who sent it",
        )
    return claims.get(folder_of(command_id), claim)


def _parts(claim: bytes) -> tuple[int, bytes, str]:
    folder = claim[_FOLDER_AT:].decode("ascii", "replace")
    if not is_claim(claim) or not _FOLDER.fullmatch(folder):
        raise ObjectUnreadable("a claim to a payload is cut off, or of a newer release")
    return int.from_bytes(claim[len(_BEGIN) : _SUM_AT], "big"), claim[_SUM_AT:_FOLDER_AT], folder


def claims_from(url: str, options: str = "", over: str = "") -> Claims | None:
    """What the three settings ask for, as texts; None where there is no URL. Raises ObjectsInvalid."""
    if not url.strip():
        return None
    if over and not (over.isascii() and over.isdecimal()):
        raise ObjectsInvalid(
            f"{BYTES} is no number of bytes", remedy=f"Set it to one, such as {DEFAULT_BYTES}"
        )
    return Claims(Objects(url, options, setting=URL), int(over) if over else DEFAULT_BYTES)


def claims_from_env(environment: Mapping[str, str] | None = None) -> Claims | None:
    """By KASAGA_PAYLOAD_STORE_URL and its like, or the files that `…_FILE` names. Raises ObjectsInvalid."""
    env = os.environ if environment is None else environment
    return claims_from(*(_variable(name, env) for name in (URL, OPTIONS, BYTES)))


def _variable(name: str, environment: Mapping[str, str]) -> str:
    path = environment.get(f"{name}_FILE")
    if not path:
        return environment.get(name, "").strip()
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ObjectsInvalid(f"{name}_FILE can't be read: {type(error).__name__}") from None
