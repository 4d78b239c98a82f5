"""Examples for fuzzing: a few parts of bytes, kept in files that people can read, and changed at random.

A file of the corpus has a line for each part, as a Python bytes literal: the bytes that a target reads, or a
record's partition, key, value and headers.
"""

from __future__ import annotations

import ast
import hashlib
import random
from collections.abc import Sequence
from pathlib import Path

CORPUS = Path(__file__).with_name("corpus")

Parts = tuple[bytes, ...]

MOST_BYTES = 65_536
"""Of one part: larger inputs tell nothing new, and take long."""

MOST_CHANGES = 6

TELLING = (
    b"", b"\0", b"\xff", b"\x80", b"\x7f", b"-1", b"0", b"1e999", b"NaN", b"9" * 40, b"%00", b"\xed\xa0\x80",
    "é".encode(), "\u202e".encode(), b"[" * 300, b"{}", b"null", b'"',
    b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01", b"0001-01-01T00:00:00Z", b"9999-12-31T23:59:59.999999Z",
)  # fmt: skip
"""What has broken programs before."""


def read(path: Path) -> Parts:
    """Reads an example."""
    return tuple(bytes(ast.literal_eval(line)) for line in path.read_text(encoding="ascii").splitlines())


def write(folder: Path, parts: Parts, name: str = "") -> Path:
    """Keeps an example, by default under a name made of its content."""
    folder.mkdir(parents=True, exist_ok=True)
    text = "".join(f"{part!r}\n" for part in parts)
    path = folder / f"{name or 'found-' + hashlib.sha256(text.encode()).hexdigest()[:12]}.txt"
    path.write_text(text, encoding="ascii")
    return path


def known(target: str) -> dict[str, Parts]:
    """The examples of one target, by their names."""
    return {path.stem: read(path) for path in sorted((CORPUS / target).glob("*.txt"))}


def changed(rng: random.Random, parts: Parts, others: Sequence[Parts]) -> Parts:
    """Gives an example made of this one by a few changes; `others` are what pieces may come from."""
    made = list(parts)
    for _ in range(rng.randint(1, MOST_CHANGES)):
        at = rng.randrange(len(made))
        match rng.randrange(8):
            case 0 if len(made) > 1:
                del made[at]
            case 1:
                made.insert(at, made[rng.randrange(len(made))])
            case 2:
                other = rng.choice(others)
                made[at] = other[rng.randrange(len(other))]
            case _:
                made[at] = _changed_bytes(rng, made[at], rng.choice(rng.choice(others)))[:MOST_BYTES]
    return tuple(made)


def _changed_bytes(rng: random.Random, data: bytes, other: bytes) -> bytes:
    begin = rng.randint(0, len(data))
    end = rng.randint(begin, min(len(data), begin + rng.choice((1, 4, 16, 256))))
    match rng.randrange(6):
        case 0:
            return data[:begin] + data[end:]
        case 1:
            return data[:begin] + bytes(rng.randrange(256) for _ in range(rng.randint(1, 6))) + data[end:]
        case 2:
            return data[:begin] + rng.choice(TELLING) + data[end:]
        case 3:
            return data[:end] + data[begin:end] * rng.choice((1, 2, 64)) + data[end:]
        case 4:
            cut = rng.randint(0, len(other))
            return data[:begin] + other[cut : cut + rng.randint(1, 64)] + data[end:]
        case _:
            flipped = bytearray(data or b"\0")
            at = rng.randrange(len(flipped))
            flipped[at] ^= 1 << rng.randrange(8)
            return bytes(flipped)
