"""Payloads compressed and encrypted on their way out of a process, and opened on their way in.

Station: where bytes leave a process for Kafka or Postgres, and where they come in. Called by both sides; the
layout is in schemas/README.md, for other languages.

A frame is told from every plain payload by its first byte: no Avro payload (`0x00`), JSON text, UTF-8 or
msgpack begins with `0xC1`. So what is plain stays readable, and a fleet is switched over one by one.

    0xC1 'K' | flags: 1 compressed, 2 encrypted | length of the key's id | the key's id | rest

`rest` is the payload; compressed by zlib if bit 1 is set; then, if bit 2 is set, a nonce of 12 bytes, the
ciphertext of AES-256-GCM and its tag of 16 bytes. What is authenticated besides is all that stands before
`rest`, then the payload's place.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Protocol

from .codec import MAX_PAYLOAD_BYTES
from .errors import CannotOpen, DecodeError, ObjectUnreadable, PayloadKeysInvalid
from .redaction import hide

MAGIC = b"\xc1K"
COMPRESSED, ENCRYPTED = 1, 2
KEY_BYTES = 32
NONCE_BYTES = 12
TAG_BYTES = 16
KEYS = "KASAGA_PAYLOAD_KEYS"
COMPRESS = "KASAGA_PAYLOAD_COMPRESS_BYTES"

MAX_KEYS = 64
MAX_HISTORY_BYTES = 1 << 30
"""Of what is opened from our own tables: Postgres holds no longer value."""

_KEY_ID = re.compile(r"[A-Za-z0-9._-]{1,32}")
_HEAD_BYTES = 4
_CLAIMED = 4
"""See claims.py."""
_FLAGS = (COMPRESSED, ENCRYPTED, COMPRESSED | ENCRYPTED)


Raw = Iterable[tuple[str, bytes | None]]
"""A record's headers."""

_BY_COMMAND = {b"kasaga.reply": "reply"}
_BOUND = ("ce_type", "ce_subject", "ce_id", "ce_kasagasignal")


class _Aead(Protocol):
    def encrypt(self, nonce: bytes, data: bytes, associated_data: bytes | None) -> bytes: ...

    def decrypt(self, nonce: bytes, data: bytes, associated_data: bytes | None) -> bytes: ...


def place(kind: str, *ids: object) -> bytes:
    """Where a payload belongs, and opens. Lengths go in front, so that no two places are alike."""
    texts = [kind, *map(str, ids)]
    return b"".join(b"%d:%s" % (len(text.encode()), text.encode()) for text in texts)


def record_place(headers: Raw) -> bytes:
    """Where the value of a record belongs, by its headers, of which the first of a name counts.

    Of commands and replies it is the command, whichever attempt; of all others the type, the saga, the
    record's id and a signal's name.
    """
    found: dict[str, bytes] = {}
    for name, value in headers:
        found.setdefault(name, value or b"")
    command = found.get("ce_kasagacommand")
    if command is not None and "ce_kasagachild" not in found:
        kind = _BY_COMMAND.get(found.get("ce_type", b""), "command")
        return place(kind, command.decode("utf-8", "replace"))
    return place("record", *(found.get(name, b"").decode("utf-8", "replace") for name in _BOUND))


def is_sealed(data: bytes | None) -> bool:
    """Whether these bytes are a frame of ours."""
    return data is not None and data[:2] == MAGIC


def key_of(data: bytes) -> str:
    """The id of the key that a frame was encrypted with; empty for one that is compressed only."""
    return data[_HEAD_BYTES : _HEAD_BYTES + data[3]].decode("ascii", "replace") if len(data) > 3 else ""


class Sealer:
    """Seals and opens payloads; several threads may use one at once.

    Without keys and without compression `seal` gives the very bytes back, and `open` does so for plain ones.
    """

    __slots__ = ("_aeads", "_compress", "_first")

    def __init__(self, keys: Mapping[str, bytes] | None = None, *, compress_bytes: int = 0) -> None:
        """Take the keys in. Raises PayloadKeysInvalid.

        `keys`: 32 bytes each by id; the first encrypts, all decrypt. `compress_bytes`: larger payloads are
        compressed; 0 for none.
        """
        given = dict(keys or {})
        if len(given) > MAX_KEYS:
            raise PayloadKeysInvalid(f"{len(given)} keys; {MAX_KEYS} are the most")
        for id_, key in given.items():
            if not _KEY_ID.fullmatch(id_):
                raise PayloadKeysInvalid("a key's id is 1 to 32 of letters, digits, '.', '_' and '-'")
            if len(key) != KEY_BYTES:
                raise PayloadKeysInvalid(f"key {id_} has {len(key)} bytes, and not {KEY_BYTES}")
        if compress_bytes < 0:
            raise PayloadKeysInvalid(f"{COMPRESS}={compress_bytes} is no size")
        self._aeads = _aeads(given)
        self._first = next(iter(given), "")
        self._compress = compress_bytes

    def __repr__(self) -> str:
        """Without the keys."""
        return f"<Sealer with keys {', '.join(self._aeads) or '-'}>"

    @property
    def key_ids(self) -> tuple[str, ...]:
        """Of the keys there are, the one that encrypts first."""
        return tuple(self._aeads)

    @property
    def active(self) -> bool:
        """Whether it seals anything."""
        return bool(self._first or self._compress)

    @property
    def keys_fingerprint(self) -> str:
        """Changes when there are other ids; tells nothing of the keys."""
        return hashlib.sha256(",".join(sorted(self._aeads)).encode()).hexdigest()[:8]

    def seal(self, where: bytes, data: bytes) -> bytes:
        """The frame for a payload; itself where there is nothing to do. A frame stays as it is."""
        if not (self._first or self._compress) or not data or data[:2] == MAGIC:
            return data
        flags, rest = 0, data
        if self._compress and len(data) > self._compress:
            packed = zlib.compress(data, 6)
            if len(packed) < len(data):
                flags, rest = COMPRESSED, packed
        if not self._first:
            return _head(flags, b"") + rest if flags else data
        head = _head(flags | ENCRYPTED, self._first.encode())
        nonce = os.urandom(NONCE_BYTES)
        return head + nonce + self._aeads[self._first].encrypt(nonce, rest, head + where)

    def open(self, where: bytes, data: bytes, *, most: int = MAX_PAYLOAD_BYTES) -> bytes:
        """The payload in a frame; what isn't one is given back.

        Raises CannotOpen where the key is missing or isn't the one, which is worth a try later, and
        DecodeError for what is damaged or larger than `most` bytes.
        """
        if data[:2] != MAGIC:
            return data
        if data[2:3] == bytes((_CLAIMED,)):
            raise ObjectUnreadable(
                "the payload is in an object store, and whoever reads it here doesn't fetch it"
            )
        if len(data) < _HEAD_BYTES or len(data) < _HEAD_BYTES + data[3] or data[2] not in _FLAGS:
            raise DecodeError("a sealed payload is cut off, or of a newer release")
        flags, head, rest = data[2], data[: _HEAD_BYTES + data[3]], data[_HEAD_BYTES + data[3] :]
        if flags & ENCRYPTED:
            rest = self._decrypted(key_of(data), head + where, rest)
        return _unpacked(rest, most) if flags & COMPRESSED else rest

    def _decrypted(self, key: str, bound: bytes, rest: bytes) -> bytes:
        shown = key if _KEY_ID.fullmatch(key) else "?"
        aead = self._aeads.get(key)
        if aead is None:
            raise CannotOpen(f"encrypted with key {shown}, which this process doesn't have", key=shown)
        if len(rest) < NONCE_BYTES + TAG_BYTES:
            raise DecodeError("a sealed payload is cut off")
        from cryptography.exceptions import InvalidTag

        try:
            return aead.decrypt(rest[:NONCE_BYTES], rest[NONCE_BYTES:], bound)
        except InvalidTag:
            raise CannotOpen(
                f"encrypted with key {shown}, and it doesn't open here: the payload was changed or put in "
                "another's place, or this process has another key under that id",
                key=shown,
                remedy=f"compare what {KEYS} has under {shown} in the process that sent it and in this one",
            ) from None


def _head(flags: int, key: bytes) -> bytes:
    return MAGIC + bytes((flags, len(key))) + key


def _unpacked(data: bytes, most: int) -> bytes:
    """Never more than `most` bytes in memory, whatever the frame would grow to."""
    stream = zlib.decompressobj()
    try:
        made = stream.decompress(data, most + 1)
    except zlib.error as error:
        raise DecodeError(f"a compressed payload can't be read: {error}") from None
    if len(made) > most:
        raise DecodeError(f"a compressed payload has more than {most} bytes")
    if not stream.eof or stream.unused_data:
        raise DecodeError("a compressed payload is cut off, or has something behind it")
    return made


def _aeads(keys: Mapping[str, bytes]) -> dict[str, _Aead]:
    if not keys:
        return {}
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    except ImportError:
        raise PayloadKeysInvalid(
            "there are keys, and the library that encrypts is missing",
            remedy="install kasaga[encryption]",
        ) from None
    return {id_: AESGCM(key) for id_, key in keys.items()}


PLAIN = Sealer()
"""Seals nothing and opens what is compressed; says of what is encrypted which key is missing."""


def read_keys(text: str) -> dict[str, bytes]:
    """`id=base64,…`, also one a line, as KASAGA_PAYLOAD_KEYS has them. Raises PayloadKeysInvalid."""
    found: dict[str, bytes] = {}
    for number, part in enumerate((each for each in re.split(r"[,\s]+", text) if each), 1):
        id_, _, encoded = part.partition("=")
        hide(encoded)
        if not _KEY_ID.fullmatch(id_) or not encoded:
            raise PayloadKeysInvalid(f"entry {number} of {KEYS} isn't an id, '=' and a key in base64")
        if id_ in found:
            raise PayloadKeysInvalid(f"{KEYS} has two keys {id_}")
        try:
            found[id_] = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            raise PayloadKeysInvalid(f"key {id_} is no base64") from None
    return found


def sealer_from(keys: str, compress: str = "") -> Sealer:
    """What the two settings ask for, as texts. Raises PayloadKeysInvalid."""
    if compress and not (compress.isascii() and compress.isdecimal()):
        raise PayloadKeysInvalid(f"{COMPRESS} is no number of bytes")
    if not keys.strip() and not int(compress or 0):
        return PLAIN
    return Sealer(read_keys(keys), compress_bytes=int(compress or 0))


def sealer_from_env(environment: Mapping[str, str] | None = None) -> Sealer:
    """By KASAGA_PAYLOAD_KEYS and KASAGA_PAYLOAD_COMPRESS_BYTES, or the files that `…_FILE` names."""
    env = os.environ if environment is None else environment
    return sealer_from(_variable(KEYS, env), _variable(COMPRESS, env))


def _variable(name: str, environment: Mapping[str, str]) -> str:
    path = environment.get(f"{name}_FILE")
    if not path:
        return environment.get(name, "")
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PayloadKeysInvalid(f"{name}_FILE can't be read: {type(error).__name__}") from None
