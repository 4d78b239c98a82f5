"""Avro leaves as people read them in JSON.

Station: `codec.to_json` calls it for each leaf.
"""

from __future__ import annotations

import base64
import decimal
import math
from datetime import date, timedelta
from typing import Any, cast

from .leaves import EPOCH, EPOCH_ORDINAL
from .nodes import Json


def rfc3339(micros: int) -> str:
    """Microseconds since 1970 as text, or the number when no calendar has it."""
    try:
        moment = EPOCH + timedelta(microseconds=micros)
        return moment.isoformat(timespec="microseconds")[:26] + "Z"
    except OverflowError:
        return str(micros)


def _time(micros: int) -> str:
    seconds, rest = divmod(micros, 1_000_000)
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}.{rest:06}"


def _date(days: int) -> str:
    try:
        return date.fromordinal(days + EPOCH_ORDINAL).isoformat()
    except (OverflowError, ValueError):
        return str(days)


def _decimal(data: bytes, schema: dict[str, Json]) -> str:
    number = decimal.Decimal(int.from_bytes(data[:1024], "big", signed=True))
    sign, digits, _ = number.as_tuple()
    return str(decimal.Decimal((sign, digits, -int(schema.get("scale", 0)))))


def shown(logical: str, value: Any) -> Json:
    """One leaf. Bytes become base64, numbers that JSON doesn't know become text."""
    if logical == "decimal":
        data, schema = cast(tuple[bytes, dict[str, Json]], value)
        return _decimal(data, schema)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if not isinstance(value, int) or isinstance(value, bool):
        return value
    match logical:
        case "timestamp-micros":
            return rfc3339(value)
        case "timestamp-millis":
            return rfc3339(value * 1000)
        case "time-micros":
            return _time(value)
        case "time-millis":
            return _time(value * 1000)
        case "date":
            return _date(value)
        case _:
            return value
