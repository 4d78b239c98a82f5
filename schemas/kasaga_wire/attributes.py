"""Search attributes: what a saga may carry to be found by, checked, and as JSON text.

Station: clients and the HTTP API put them on a start, a saga's code sets them, the orchestrator keeps them.
JSON has no times, so a time is `{"time": "2026-11-23T10:00:00.000000Z"}`; a list is of strings; null takes an
attribute away.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeAlias, cast

from .errors import BadAttribute, EnvelopeError
from .headers import rfc3339

AttributeValue: TypeAlias = str | int | float | bool | datetime | Sequence[str]
"""What an attribute can be. A list of strings is a set, found by each of them; of one it is that string."""

Stored: TypeAlias = str | int | float | bool | datetime | tuple[str, ...]
"""The same, checked: times in UTC, lists as sorted sets of two or more, whole numbers as int."""

Changes: TypeAlias = dict[str, Stored | None]
"""Attributes to set, and those to take away (None)."""

ATTRIBUTES = "ce_kasagaattributes"
"""The header of a start that has them."""

MAX_ATTRIBUTES = 32
"""Of one saga."""

MAX_NAME_CHARACTERS = 63

MAX_VALUE_CHARACTERS = 256
"""Of one string: it is a key of an index."""

MAX_ITEMS = 16
"""Strings of one list."""

MAX_ATTRIBUTES_BYTES = 4_096
"""Of all that is set at once, as JSON: at a start it is one header."""

LARGEST_INTEGER = 2**53
"""Numbers are compared as doubles, which know every whole number up to here."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")


def check_name(name: object) -> str:
    """Return the name; raises BadAttribute."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise BadAttribute(
            f"{str(name)[:80]!r} can't be the name of an attribute",
            remedy=f"Use 1 to {MAX_NAME_CHARACTERS} letters (a-z, A-Z), digits and '_', no digit first",
        )
    return name


def check_value(name: str, value: object) -> Stored:
    """Return the value as it is kept; raises BadAttribute, which names the attribute and the remedy."""
    match value:
        case bool():
            return value
        case int():
            if -LARGEST_INTEGER <= value <= LARGEST_INTEGER:
                return value
            raise BadAttribute(f"attribute {name}: {value} is over 2^53", remedy="Give it as a string")
        case float():
            if math.isfinite(value):
                return int(value) if value.is_integer() and abs(value) <= LARGEST_INTEGER else value
            raise BadAttribute(f"attribute {name}: {value} is no number", remedy="Leave it out")
        case str():
            return _text(name, value)
        case datetime():
            return _time(name, value)
        case list() | tuple():
            return _items(name, cast("Sequence[object]", value))
        case _:
            raise BadAttribute(
                f"attribute {name}: {type(value).__name__} can't be searched for",
                remedy="Use a string, a number, a bool, a datetime with a time zone, or a list of strings",
            )


def _text(name: str, value: str) -> str:
    if len(value) > MAX_VALUE_CHARACTERS:
        said = f"attribute {name}: {len(value)} characters, over {MAX_VALUE_CHARACTERS}"
        raise BadAttribute(said, remedy="Keep what is long in the saga's input, and search for its beginning")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise BadAttribute(
            f"attribute {name}: no UTF-8", remedy="Send text without lone surrogates"
        ) from None
    if _CONTROL.search(value):
        raise BadAttribute(f"attribute {name}: a control character", remedy="Leave it out")
    return str(value)


def _time(name: str, value: datetime) -> datetime:
    try:
        if value.utcoffset() is None:
            raise BadAttribute(f"attribute {name}: a time without a zone", remedy="datetime.now(UTC)")
        return value.astimezone(UTC)
    except OverflowError:
        raise BadAttribute(f"attribute {name}: {value} is no year of UTC", remedy="Use 1 to 9999") from None


def _items(name: str, values: Sequence[object]) -> Stored:
    if len(values) > MAX_ITEMS:
        raise BadAttribute(f"attribute {name}: {len(values)} strings, over {MAX_ITEMS}", remedy="Use fewer")
    texts = [_text(name, each) for each in values if isinstance(each, str)]
    if len(texts) < len(values) or not texts:
        raise BadAttribute(f"attribute {name}: a list of strings is wanted, with one at least")
    found = sorted(set(texts))
    return tuple(found) if len(found) > 1 else found[0]


def check(attributes: Mapping[str, AttributeValue | None]) -> Changes:
    """Return attributes as they are kept; raises BadAttribute. None takes one away."""
    if len(attributes) > MAX_ATTRIBUTES:
        raise too_many(len(attributes))
    return {
        check_name(name): None if value is None else check_value(name, value)
        for name, value in attributes.items()
    }


def too_many(count: int) -> BadAttribute:
    """What is said of a saga with so many."""
    return BadAttribute(f"{count} attributes, over {MAX_ATTRIBUTES}", remedy="Search by fewer")


def merged(known: Mapping[str, Stored], changes: Mapping[str, Stored | None]) -> dict[str, Stored]:
    """What is there after a change."""
    together = {**known, **changes}
    return {name: value for name, value in together.items() if value is not None}


def as_json(attributes: Mapping[str, Stored | None]) -> dict[str, Any]:
    """Attributes as JSON-able values, by name."""
    return {name: _plain(value) for name, value in sorted(attributes.items())}


def _plain(value: Stored | None) -> Any:
    if isinstance(value, datetime):
        return {"time": rfc3339(value)}
    return list(value) if isinstance(value, tuple) else value


def to_text(attributes: Mapping[str, AttributeValue | None]) -> bytes:
    """Check attributes and write them as JSON text; raises BadAttribute. Nothing for none."""
    if not attributes:
        return b""
    text = json.dumps(as_json(check(attributes)), ensure_ascii=False, separators=(",", ":")).encode()
    if len(text) > MAX_ATTRIBUTES_BYTES:
        said = f"the attributes have {len(text)} bytes together, over {MAX_ATTRIBUTES_BYTES}"
        raise BadAttribute(said, remedy="Search by fewer, or by shorter ones")
    return text


def from_text(text: bytes | str) -> Changes:
    """Read what `to_text` has written, or somebody else; raises BadAttribute."""
    if not text:
        return {}
    try:
        given: object = json.loads(text)
    except (ValueError, RecursionError):
        raise BadAttribute("the attributes are no JSON", remedy='such as {"customer": "c-7"}') from None
    return from_json(given)


def of_header(text: str | None) -> bytes:
    """A start's header in our own words; what can't be kept is refused with the record: EnvelopeError."""
    if not text:
        return b""
    try:
        return to_text(from_text(text))
    except BadAttribute as error:
        raise EnvelopeError(ATTRIBUTES, error.message, remedy=error.remedy) from None


def from_json(given: object) -> Changes:
    """Read attributes that came as JSON; raises BadAttribute."""
    if not isinstance(given, dict):
        raise BadAttribute("attributes are an object of JSON", remedy='such as {"customer": "c-7"}')
    fields = cast("dict[str, object]", given)
    return check({name: cast("AttributeValue | None", _read(name, value)) for name, value in fields.items()})


def _read(name: str, value: object) -> object:
    if not isinstance(value, dict):
        return value
    time = cast("dict[str, object]", value).get("time")
    try:
        if len(cast("dict[str, object]", value)) != 1 or not isinstance(time, str):
            raise ValueError
        return datetime.fromisoformat(time)
    except ValueError:
        remedy = 'A time is {"time": "2026-11-23T10:00:00Z"}'
        raise BadAttribute(f"attribute {name[:80]!r} is an object and no time", remedy=remedy) from None
