"""Records to bytes and back: one msgpack array, so that payloads stay bytes and reading is cheap.

Layout: `[format, at, row, [event code, …fields], [[decision code, …fields], …]]`. Codes are never
used again. A field that is new in a release stands at the end and has a default, so older rows are
read as they are; a row with more fields than this release knows was written by a newer one and is
refused by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, cast

import msgpack  # pyright: ignore[reportMissingTypeStubs]

from kasaga_wire.sealing import is_sealed, key_of

from ..errors import HistoryUnreadable
from .attributes import SetAttributes
from .deferrals import Defer, Deferred
from .keylocks import Barred, Granted, Lock
from .kinship import Parent, Recall, Recalled, Report
from .model import (
    Accept,
    Alarm,
    Answered,
    Asked,
    Clear,
    CodeArrived,
    Deadline,
    Decision,
    Drop,
    Emit,
    Enter,
    Event,
    Faulted,
    Fence,
    Fired,
    Hold,
    Leave,
    Listen,
    Move,
    Pivot,
    Policy,
    Postpone,
    Ran,
    Record,
    Release,
    Replied,
    Resume,
    Return,
    RunLocal,
    Send,
    Settle,
    Signalled,
    Sleep,
    Started,
    Take,
    Tell,
    Unblock,
    Undeliverable,
    Updated,
)
from .renewals import Continue, Swell
from .resets import Reset
from .versions import Adopt, Await, Patch

__all__ = ["FORMAT", "HistoryUnreadable", "decode", "encode"]

FORMAT = 1

_EVENTS: dict[int, type[NamedTuple]] = {
    1: Started,
    2: Replied,
    3: Fired,
    4: Ran,
    5: Undeliverable,
    6: Asked,
    7: Faulted,
    8: CodeArrived,
    9: Signalled,
    10: Updated,
    11: Deferred,
    12: Recalled,
    15: Granted,
    16: Barred,
}
_DECISIONS: dict[int, type[NamedTuple]] = {
    1: Resume,
    2: Send,
    3: Sleep,
    4: Deadline,
    5: RunLocal,
    6: Settle,
    7: Clear,
    8: Return,
    9: Move,
    10: Tell,
    11: Unblock,
    12: Leave,
    13: Listen,
    14: Alarm,
    15: Take,
    16: Drop,
    17: Accept,
    18: Answered,
    19: Pivot,
    20: Enter,
    21: Hold,
    22: Release,
    23: Postpone,
    24: Fence,
    25: Defer,
    26: Emit,
    27: Report,
    28: Recall,
    29: SetAttributes,
    30: Await,
    31: Patch,
    32: Adopt,
    33: Continue,
    34: Swell,
    35: Lock,
    36: Reset,
}
_CODES: dict[type[NamedTuple], int] = {
    kind: code for table in (_EVENTS, _DECISIONS) for code, kind in table.items()
}
_LEAST: dict[type, tuple[int, int, tuple[Any, ...]]] = {
    kind: (code, len(kind._fields) - len(kind._field_defaults), tuple(kind._field_defaults.values()))
    for kind, code in _CODES.items()
}
"""By type: its code, how many of its fields have no default, and the defaults of the others."""


def _flat(item: Event | Decision) -> list[Any]:
    """One item as a list, without the defaults at its end."""
    code, least, defaults = _LEAST[type(item)]
    fields = cast("tuple[Any, ...]", item)
    end = len(fields)
    while end > least and fields[end - 1] == defaults[end - 1 - least]:
        end -= 1
    return [code, *fields[:end]]


def encode(record: Record) -> bytes:
    """Return the body of a history row."""
    _, at, row, event, decisions = record
    return cast("bytes", msgpack.packb([FORMAT, at, row, _flat(event), [_flat(item) for item in decisions]]))


def decode(seq: int, body: bytes) -> Record:
    """Read the body of history row `seq`; raises HistoryUnreadable."""
    try:
        fields: Any = msgpack.unpackb(body, use_list=False)
        if fields[0] != FORMAT:
            raise HistoryUnreadable(f"row {seq} has format {fields[0]}; this release reads {FORMAT}")
        _, at, row, event, decisions = fields
        if type(at) is not int or type(row) is not int:
            raise TypeError("its time and its first row are no numbers")
        made = tuple([_decision(each) for each in decisions])
        fields = event[1:]
        if event[0] in _WITH_PARENTS:
            fields = tuple([Parent(*each) if type(each) is tuple else each for each in fields])
        return Record(seq, at, row, _MAKE_EVENT[event[0]](*fields), made)
    except (ValueError, TypeError, KeyError, IndexError) as error:
        if is_sealed(body):
            raise _unopened(seq, body) from None
        raise HistoryUnreadable(f"row {seq} can't be read: {type(error).__name__}: {error}") from error


def _unopened(seq: int, body: bytes) -> HistoryUnreadable:
    """A body that the store couldn't open."""
    key = key_of(body) or "-"
    return HistoryUnreadable(
        f"row {seq} is encrypted with key {key}, which doesn't open it here",
        remedy=f"Give the orchestrators key {key} in KASAGA_PAYLOAD_KEYS, then retry the saga",
    )


def _decision(fields: tuple[Any, ...]) -> Decision:
    """One decision; what is a list in it is a policy."""
    code = fields[0]
    if code in _WITH_POLICIES:
        fields = tuple([_MAKE_POLICY(*each) if type(each) is tuple else each for each in fields])
    return _MAKE_DECISION[code](*fields[1:])


_MAKE_EVENT: Mapping[int, Callable[..., Event]] = cast("Any", _EVENTS)
_MAKE_DECISION: Mapping[int, Callable[..., Decision]] = cast("Any", _DECISIONS)
_MAKE_POLICY: Callable[..., Policy] = Policy
_WITH_PARENTS = frozenset({_CODES[Started], _CODES[Recalled]})
_WITH_POLICIES = frozenset({_CODES[Send], _CODES[RunLocal]})
