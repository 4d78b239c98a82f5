"""Times, lengths and counts as people read them; colours where a terminal shows them.

Pure. Called by `explain.py`, `timeline.py` and the command line.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

from kasaga_wire.attributes import Stored

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_AGO = re.compile(r"(\d+(?:\.\d+)?)\s*(s|sec|m|min|h|d|w)\Z", re.ASCII)
_UNITS = {"s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400, "w": 604_800}

LEAST_ROOM = 20
"""Characters that the last column of a table has, however narrow the terminal is."""

GAP = "  "
"""Between two columns."""


def moment(micros: int) -> datetime:
    """Microseconds since 1970, as the engine counts, as a time in UTC."""
    return EPOCH + timedelta(microseconds=micros)


def when(text: str, now: datetime) -> datetime:
    """A time as people type it: 2026-01-31, 2026-01-31T10:00 (UTC), any offset; or how long ago: 90s, 2h.

    Raises ValueError, with a sentence that says what can be written.
    """
    text = text.strip()
    try:
        if ago := _AGO.match(text):
            return now - timedelta(seconds=float(ago[1]) * _UNITS[ago[2]])
        moment = datetime.fromisoformat(text)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError(
            f"{text!r} is no time: write 2026-01-31T10:00 (UTC), or 90s, 2h, 3d for so long ago"
        ) from None


def stamp(at: datetime) -> str:
    """A time for people, in UTC, to the second."""
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")


def rfc3339(at: datetime) -> str:
    """A time for programs, in UTC, to the microsecond."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def length(span: timedelta) -> str:
    """A length of time with at most two units: `12 ms`, `1.2 s`, `3 min 20 s`, `2 d 4 h`."""
    seconds = max(0.0, span.total_seconds())
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    for unit, name, below, below_name in (
        (60, "min", 1, "s"),
        (3600, "h", 60, "min"),
        (86_400, "d", 3600, "h"),
    ):
        if whole < unit * (60 if unit < 3600 else 24) or unit == 86_400:
            count, rest = divmod(whole, unit)
            rest //= below
            return f"{count} {name} {rest} {below_name}" if rest else f"{count} {name}"
    raise AssertionError("days take any length")


def offset(span: timedelta) -> str:
    """How long after the start something was: `+0.012`, `+3:20`, `+2:04:11`, `+3d 04:11:00`."""
    seconds = max(0.0, span.total_seconds())
    if seconds < 60:
        return f"+{seconds:.3f}"
    whole = int(seconds)
    minutes, second = divmod(whole, 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    if days:
        return f"+{days}d {hour:02}:{minute:02}:{second:02}"
    return f"+{hour}:{minute:02}:{second:02}" if hour else f"+{minute}:{second:02}"


def counted(count: int, one: str, many: str = "") -> str:
    """`1 attempt`, `3 attempts`."""
    return f"{count} {one if count == 1 else many or one + 's'}"


def listed(words: Sequence[str], last: str = "and") -> str:
    """`a`, `a and b`, `a, b and c`."""
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} {last} {words[-1]}"


def sentence(text: str) -> str:
    """Text with a full stop at its end."""
    return text if text.endswith((".", "!", "?", ":")) else f"{text}."


def shortened(text: str, limit: int) -> str:
    """Text cut to `limit` characters, with an ellipsis where something is missing; on one line."""
    line = " ".join(text.split())
    return line if len(line) <= limit else f"{line[: limit - 1]}…"


def printable(text: str) -> str:
    """Text that can't steer a terminal: control characters but new lines are written out in hexadecimals."""
    if text.isprintable():
        return text
    return "".join(
        each
        if each == "\n" or unicodedata.category(each) not in ("Cc", "Cf", "Cs")
        else f"\\x{ord(each):02x}"
        for each in text
    )


class Paint:
    """Colours by meaning. `PLAIN` leaves text as it is."""

    CODES = {"good": "32", "bad": "31", "warn": "33", "busy": "36", "dim": "2", "bold": "1"}  # noqa: RUF012

    def __init__(self, *, colours: bool) -> None:
        self.colours = colours

    def __call__(self, meaning: str, text: str) -> str:
        """Text in the colour of its meaning."""
        code = self.CODES.get(meaning, "")
        return f"\x1b[{code}m{text}\x1b[0m" if self.colours and code and text else text

    def state(self, state: str, width: int = 0) -> str:
        """A saga's state in its colour, padded to `width`."""
        return self(STATE_MEANING.get(state, ""), state.ljust(width))


STATE_MEANING = {
    "RUNNING": "busy",
    "COMPENSATING": "warn",
    "CANCELLING": "warn",
    "PAUSED": "warn",
    "STUCK": "bad",
    "COMPLETED": "good",
    "COMPENSATED": "warn",
    "TERMINATED": "bad",
}

PLAIN = Paint(colours=False)


def attributes_text(attributes: Mapping[str, Stored | None]) -> str:
    """`amount = 120, customer = "c-7"`: search attributes as a query has them; None was taken away."""
    return ", ".join(_attribute(name, value) for name, value in sorted(attributes.items()))


def _attribute(name: str, value: Stored | None) -> str:
    if value is None:
        return f"{name} is missing"
    if isinstance(value, datetime):
        return f"{name} = {rfc3339(value)}"
    if isinstance(value, tuple):
        return f"{name} = [{', '.join(json.dumps(each, ensure_ascii=False) for each in value)}]"
    return f"{name} = {json.dumps(value, ensure_ascii=False)}"


def table(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    paint: Paint = PLAIN,
    state: int = -1,
    width: int = 0,
) -> list[str]:
    """Aligned columns; the last is cut to fit lines into `width`. `state` is the column of sagas' states."""
    if width:
        room = width - sum(
            max(len(line[each]) for line in (head, *rows)) + len(GAP) for each in range(len(head) - 1)
        )
        rows = [(*row[:-1], shortened(row[-1], max(room, LEAST_ROOM))) for row in rows]
    widths = [max(len(line[column]) for line in (head, *rows)) for column in range(len(head))]
    widths[-1] = 0
    lines = [
        paint("dim", GAP.join(word.ljust(width) for word, width in zip(head, widths, strict=True)).rstrip())
    ]
    for row in rows:
        cells = [
            paint.state(cell, width) if column == state else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append(GAP.join(cells).rstrip())
    return lines
