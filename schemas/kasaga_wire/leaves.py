"""The leaves: primitives, and what Avro calls logical types.

Station: `avro.py` picks them by annotation. Each is strict in both directions: what would lose something is
refused.
"""

from __future__ import annotations

import decimal
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from uuid import UUID

from .nodes import LONG_MAX, LONG_MIN, Bad, Emit, Node, check_text, mistyped

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
MICROS_MIN = (datetime.min.replace(tzinfo=UTC) - EPOCH) // MICROSECOND
MICROS_MAX = (datetime.max.replace(tzinfo=UTC) - EPOCH) // MICROSECOND
DAY_MICROS = 24 * 60 * 60 * 1_000_000
EPOCH_ORDINAL = date(1970, 1, 1).toordinal()


def _prepare_null(value: object) -> None:
    if value is not None:
        raise mistyped(value, "None")


def _prepare_bool(value: object) -> bool:
    if type(value) is not bool:
        raise mistyped(value, "bool")
    return value


def _prepare_int(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise mistyped(value, "int")
    if not LONG_MIN <= value <= LONG_MAX:
        raise Bad("an int beyond 64 bits", "annotate the field as Decimal with max_digits, or as str")
    return int(value)


def _prepare_float(value: object) -> float:
    if isinstance(value, float):
        return float(value)
    if isinstance(value, int) and not isinstance(value, bool):
        try:
            converted = float(value)
        except OverflowError:
            raise Bad("an int that no float equals") from None
        if int(converted) == value:  # as ints: compared as floats, what differs would look equal
            return converted
        raise Bad("an int that no float equals")
    raise mistyped(value, "float")


def _prepare_str(value: object) -> str:
    if not isinstance(value, str):
        raise mistyped(value, "str")
    return check_text(str.__str__(value))


def _prepare_bytes(value: object) -> bytes:
    if type(value) is not bytes:
        raise mistyped(value, "bytes")
    return value


def _same(schema: str) -> Emit:
    return lambda seen: schema


NULL: Node = Node(_same("null"), "null", "null", (type(None),), _prepare_null, empty=True)
BOOL: Node = Node(_same("boolean"), "boolean", "boolean", (bool,), _prepare_bool, bool)
LONG: Node = Node(_same("long"), "long", "int", (int,), _prepare_int, int)
DOUBLE: Node = Node(_same("double"), "double", "float", (float,), _prepare_float, float)
STRING: Node = Node(_same("string"), "string", "str", (str,), _prepare_str, str)
BYTES: Node = Node(_same("bytes"), "bytes", "bytes", (bytes,), _prepare_bytes, bytes)


# --- logical types


def _logical(primitive: str, logical: str, **more: int) -> Emit:
    return lambda seen: {"type": primitive, "logicalType": logical, **more}


def _prepare_datetime(value: object) -> int:
    if not isinstance(value, datetime):
        raise mistyped(value, "datetime")
    if value.utcoffset() is None:
        raise Bad("a naive datetime", "give it a time zone: datetime.now(UTC), or .replace(tzinfo=…)")
    if getattr(value, "nanosecond", 0):
        raise Bad("a timestamp finer than a microsecond", "round it to microseconds")
    gap = value - EPOCH
    micros = (gap.days * 86_400 + gap.seconds) * 1_000_000 + gap.microseconds
    if not MICROS_MIN <= micros <= MICROS_MAX:
        raise Bad("a datetime outside the years 1 to 9999 in UTC")
    return micros


def _revive_datetime(datum: Any) -> datetime:
    try:
        return EPOCH + timedelta(microseconds=datum)
    except OverflowError:
        raise Bad("a timestamp outside the years 1 to 9999") from None


def _prepare_date(value: object) -> int:
    if isinstance(value, datetime) or not isinstance(value, date):
        raise mistyped(value, "date")
    return value.toordinal() - EPOCH_ORDINAL


def _revive_date(datum: Any) -> date:
    try:
        return date.fromordinal(datum + EPOCH_ORDINAL)
    except (OverflowError, ValueError):
        raise Bad("a date outside the years 1 to 9999") from None


def _prepare_time(value: object) -> int:
    if not isinstance(value, time):
        raise mistyped(value, "time")
    if value.tzinfo is not None:
        raise Bad("a time with a time zone", "send a datetime, or the zone's name as a field of its own")
    return ((value.hour * 60 + value.minute) * 60 + value.second) * 1_000_000 + value.microsecond


def _revive_time(datum: Any) -> time:
    if not 0 <= datum < DAY_MICROS:
        raise Bad("a time of day outside of the day")
    seconds, micros = divmod(datum, 1_000_000)
    minutes, seconds = divmod(seconds, 60)
    return time(minutes // 60, minutes % 60, seconds, micros)


def _prepare_uuid(value: object) -> str:
    if not isinstance(value, UUID):
        raise mistyped(value, "UUID")
    return str(value)


def _revive_uuid(datum: Any) -> UUID:
    try:
        return UUID(datum)
    except ValueError:
        raise Bad("text that isn't a UUID") from None


TIMESTAMP: Node = Node(
    _logical("long", "timestamp-micros"),
    "long",
    "int",
    (datetime,),
    _prepare_datetime,
    revive=_revive_datetime,
)
DATE: Node = Node(_logical("int", "date"), "int", "int", (date,), _prepare_date, revive=_revive_date)
TIME: Node = Node(_logical("long", "time-micros"), "long", "int", (time,), _prepare_time, revive=_revive_time)
UUID_TEXT: Node = Node(
    _logical("string", "uuid"), "string", "str", (UUID,), _prepare_uuid, revive=_revive_uuid
)


def decimal_node(precision: int, scale: int) -> Node:
    """A Decimal of at most `precision` digits, `scale` of them behind the point."""
    context = decimal.Context(prec=precision, traps=[decimal.Inexact, decimal.InvalidOperation])
    limit = 10**precision
    longest = limit.bit_length() // 8 + 1
    refusal = f"a Decimal with more than {precision} digits, or more than {scale} behind the point"

    def prepare(value: object) -> bytes:
        if not isinstance(value, decimal.Decimal):
            raise mistyped(value, "Decimal")
        if not value.is_finite():
            raise Bad("a Decimal that is not a number")
        number = 0
        if value:
            if value.adjusted() + scale >= precision:  # before int(): Decimal("1E+999999999") is a long int
                raise Bad(refusal)
            try:
                scaled = value.scaleb(scale, context)
            except (decimal.Inexact, decimal.InvalidOperation):
                raise Bad(refusal) from None
            number = int(scaled)
            if number != scaled:
                raise Bad(refusal)
        return number.to_bytes((number if number >= 0 else ~number).bit_length() // 8 + 1, "big", signed=True)

    def revive(datum: Any) -> decimal.Decimal:
        number = int.from_bytes(datum, "big", signed=True) if len(datum) <= longest else limit
        if not -limit < number < limit:
            raise Bad(refusal)
        return decimal.Decimal(number).scaleb(-scale, context)

    emit = _logical("bytes", "decimal", precision=precision, scale=scale)
    return Node(emit, "bytes", "bytes", (decimal.Decimal,), prepare, revive=revive)
