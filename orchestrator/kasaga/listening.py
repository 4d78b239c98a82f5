"""What sagas hear: records of any Kafka topic, as authors declare them.

Station: `@saga(on=Event(…))` begins a saga for a record, `@saga(signals={"settled": Event(…)})` makes a
record a signal; `orchestrator/matching.py` turns records into starts and signals by what is declared here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Generic, Literal, NamedTuple, TypeVar, cast, overload

import pydantic

from kasaga_wire.errors import ContractError
from kasaga_wire.topics import TOPIC

from .errors import EventUnusable
from .policy import Seconds

E = TypeVar("E")
V = TypeVar("V")

Begin = Literal["latest", "earliest"]

KEEP_SECONDS = 3600.0
"""How long an event waits for its saga to begin, unless it says otherwise."""

MAX_KEEP_SECONDS = 86_400.0
"""The longest that it may."""

KEEP_MOST = 100_000
"""Events of one name that are kept for sagas that don't await them yet."""

_EVENT_TYPE = re.compile(r"[!-~]{1,255}")


class Heard(NamedTuple):
    """A record as it was read, for an Event's `decode`."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes
    headers: Mapping[str, str]
    """The first of each name, as text; those of CloudEvents begin with `ce_`."""
    time: datetime
    """The record's own, in UTC."""


class Event(Generic[V]):
    """Records of a Kafka topic that concern a saga; `V` is what the saga is given."""

    @overload
    def __init__(
        self,
        topic: str,
        type: type[V],
        *,
        id: Callable[[V], str] | None = None,
        when: Callable[[V], bool] | None = None,
        event_type: str = "",
        decode: Callable[[Heard], V] | None = None,
        begin: Begin = "latest",
        keep: Seconds = KEEP_SECONDS,
        key: Callable[[V], str] | None = None,
        name: str = "",
        keep_most: int = KEEP_MOST,
    ) -> None: ...
    @overload
    def __init__(
        self,
        topic: str,
        type: type[E],
        *,
        input: Callable[[E], V],
        id: Callable[[E], str] | None = None,
        when: Callable[[E], bool] | None = None,
        event_type: str = "",
        decode: Callable[[Heard], E] | None = None,
        begin: Begin = "latest",
        keep: Seconds = KEEP_SECONDS,
        key: Callable[[E], str] | None = None,
        name: str = "",
        keep_most: int = KEEP_MOST,
    ) -> None: ...
    def __init__(
        self,
        topic: str,
        type: type[Any],  # noqa: A002
        *,
        input: Callable[[Any], Any] | None = None,  # noqa: A002
        id: Callable[[Any], str] | None = None,  # noqa: A002
        when: Callable[[Any], bool] | None = None,
        event_type: str = "",
        decode: Callable[[Heard], Any] | None = None,
        begin: Begin = "latest",
        keep: Seconds = KEEP_SECONDS,
        key: Callable[[Any], str] | None = None,
        name: str = "",
        keep_most: int = KEEP_MOST,
    ) -> None:
        """Declare it. The functions are pure: the same record gives the same answer, in any process.

        Args:
            topic: its whole name; anybody's. A topic that isn't there yet is read when it is.
            type: what the record's value is, in JSON; `str` or `bytes` for the value as it stands.
            input: makes the input of the saga that begins; by default it is the event itself.
            id: the id of the saga that it concerns. A signal needs one; a start takes the record's position
                where there is none, so that each record begins one saga.
            when: whether the event concerns the saga at all; what it says no to is passed over.
            event_type: only records with this `ce_type`; others are passed over before they are read.
            decode: reads what isn't JSON, or needs a key or headers.
            begin: where a topic is read from that this namespace has never listened to: `latest`, from now
                on, or `earliest`, all that Kafka still has.
            keep: seconds that a signal waits for a saga that hasn't begun, and that an event with a key
                waits for sagas that await it; an hour by default, up to a day.
            key: what sagas await it by, 1 to 256 printable characters: `ctx.event(settled, key=order.id)`.
            name: of an event with a key, the topic by default: two Events of one topic need two names.
            keep_most: so many events with keys are kept, 100,000 by default; the oldest go first.

        Raises:
            ContractError: topic, type or a time can't be used.
        """
        if not TOPIC.fullmatch(topic):
            raise ContractError(f"Event({topic!r})", remedy="Use up to 249 of a-z A-Z 0-9 . _ and -.")
        if event_type and not _EVENT_TYPE.fullmatch(event_type):
            raise ContractError(
                f"Event({topic!r}, event_type={event_type!r})",
                remedy="Use up to 255 printable ASCII signs.",
            )
        if begin not in ("latest", "earliest"):
            raise ContractError(f"Event({topic!r}, begin={begin!r})", remedy="Use latest or earliest.")
        seconds = keep.total_seconds() if isinstance(keep, timedelta) else float(keep)
        if not 0 <= seconds <= MAX_KEEP_SECONDS:
            raise ContractError(f"Event({topic!r}, keep={keep!r})", remedy="Use 0 seconds up to a day.")
        _check_keeping(topic, name, keep_most)
        self.topic = topic
        self.name = name or topic
        self.key = key
        self.keep_most = keep_most
        self.type: Any = type
        self.input = input
        self.id = id
        self.when = when
        self.event_type = event_type
        self.begin: Begin = begin
        self.keep = seconds
        self._decode = decode
        try:
            self._adapter = pydantic.TypeAdapter[Any](type) if type not in (str, bytes) else None
        except pydantic.errors.PydanticUserError as error:
            raise ContractError(f"Event({topic!r}): {type!r} can't be read: {error.message}") from None

    def __repr__(self) -> str:
        return f"Event({self.topic!r}, {getattr(self.type, '__name__', self.type)})"

    def read(self, heard: Heard) -> object:
        """The event of a record; raises EventUnusable, or whatever `decode` does."""
        if self._decode is not None:
            return self._decode(heard)
        if self._adapter is not None:
            try:
                return cast(object, self._adapter.validate_json(heard.value))
            except pydantic.ValidationError as error:
                raise EventUnusable(_said(error)) from None
        if self.type is bytes:
            return heard.value
        try:
            return heard.value.decode()
        except UnicodeDecodeError:
            raise EventUnusable("the value is not UTF-8") from None


def _check_keeping(topic: str, name: str, most: int) -> None:
    """Raise ContractError for what an event with a key can't have."""
    if name and not TOPIC.fullmatch(name):
        raise ContractError(
            f"Event({topic!r}, name={name!r})", remedy="Use up to 249 of a-z A-Z 0-9 . _ and -."
        )
    if most < 1:
        raise ContractError(f"Event({topic!r}, keep_most={most!r})", remedy="Use 1 or more.")


def _said(error: pydantic.ValidationError) -> str:
    """The first thing that is wrong, without the value: it may be a secret."""
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(each) for each in first["loc"])
    return f"{where}: {first['msg']}" if where else first["msg"]


def check_signals(saga: str, signals: Mapping[str, object]) -> None:
    """Raise ContractError for an Event that can't be a signal."""
    for name, event in signals.items():
        if not isinstance(event, Event):
            continue
        if event.id is None:
            raise ContractError(
                f"saga {saga!r}, signal {name!r}: {event!r} doesn't say which saga it concerns",
                remedy="Give it an id: Event(…, id=lambda event: event.order_id).",
            )
        if event.input is not None:
            raise ContractError(
                f"saga {saga!r}, signal {name!r}: {event!r} has an input, which is for starts",
                remedy="A signal is the event as it is; make another one of it with decode.",
            )


def check_awaits(saga: str, awaits: Sequence[Event[Any]]) -> None:
    """Raise ContractError for an Event that can't be awaited by a key."""
    for event in awaits:
        if event.key is None:
            raise ContractError(
                f"saga {saga!r}: {event!r} is awaited and has no key",
                remedy="Give it one: Event(…, key=lambda event: event.order_id).",
            )
        if event.input is not None:
            raise ContractError(
                f"saga {saga!r}: {event!r} has an input, which is for starts",
                remedy="What is awaited is the event as it is; make another one of it with decode.",
            )


def check_names(sagas: Iterable[tuple[str, Sequence[Event[Any]]]]) -> None:
    """Raise ContractError where sagas await different events of one name."""
    known: dict[str, tuple[str, Event[Any]]] = {}
    for saga, awaits in sagas:
        for event in awaits:
            other, same = known.setdefault(event.name, (saga, event))
            if same is not event:
                raise ContractError(
                    f"sagas {other!r} and {saga!r} await two events of the name {event.name!r}",
                    remedy="Declare the Event once for all of them, or give one a name: Event(…, name=…).",
                )


def check_start(saga: str, takes: object, event: Event[Any]) -> None:
    """Raise ContractError where an Event doesn't give what the saga that it begins takes."""
    if event.input is None and event.type != takes:
        raise ContractError(
            f"saga {saga!r}: {event!r} is not the saga's input",
            remedy="Make the input of the event: Event(…, input=lambda event: Order(id=event.order_id)).",
        )
