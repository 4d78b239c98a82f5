"""A record of anybody's topic to the starts and signals that the App's sagas declare for it. Pure.

Station: called by the listener for each record that it reads, and by `kasaga.testing.hear`. The same record
always gives the same ids, so a record that is read twice begins one saga and is one signal.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple
from uuid import UUID, uuid5

from kasaga_wire.envelope import Headers, StartEnvelope
from kasaga_wire.errors import ContractError, KasagaError
from kasaga_wire.headers import MAX_SAGA_ID_CHARACTERS, is_traceparent
from kasaga_wire.kafka import Record
from kasaga_wire.messages import MAX_KEY_CHARACTERS, MessageEnvelope
from kasaga_wire.topics import Topics

from ..engine.awaited import key_fault, signal_name
from ..engine.driver import HangInterrupt
from ..errors import EventUnusable, PayloadTooLarge
from ..listening import Event, Heard
from ..saga import App, Saga
from ..store.hearing import Kept
from .intake import HEARD

_POSITIONS = UUID("5b0f3a52-6a7c-4d0e-9d0e-2f6f1c1b7a10")
"""Namespace of the ids that are made of a record's position."""

MAX_TRACESTATE_BYTES = 1024

LAST_MS = 253_402_300_799_000
"""The last time that there is for Python; a producer may write any."""

Guard = Callable[[Callable[[Any], Any], Any], Any]
"""Calls a function with its argument, and ends it when it takes too long."""


class Route(NamedTuple):
    """One saga that listens to a topic."""

    saga: Saga[Any, Any]
    events: tuple[Event[Any], ...]
    """The first that a record fits counts; a signal has one."""
    signal: str
    """Its name; empty for what begins a saga."""
    awaited: bool = False
    """Whoever awaits its event by a key is concerned."""

    @property
    def what(self) -> str:
        """What a record is for it, in words."""
        if self.awaited:
            return f"event {self.events[0].name}"
        if self.signal:
            return f"signal {self.signal} of saga {self.saga.name}"
        return f"start of saga {self.saga.name}"


class Made(NamedTuple):
    """A start or a signal that is to be sent."""

    route: Route
    saga_id: str
    value: object
    """The saga's input, or the signal's value."""
    topic: str
    payload: bytes
    headers: Headers


class Unusable(NamedTuple):
    """What a record can't be, though it should."""

    route: Route
    error: KasagaError


class Matching(NamedTuple):
    """What comes of one record. Nothing at all where it concerns nobody."""

    made: list[Made]
    unusable: list[Unusable]
    kept: list[tuple[Route, Kept]]
    """To be kept for sagas that await it by a key."""


def call(function: Callable[[Any], Any], argument: Any) -> Any:
    """The guard that waits for as long as it takes."""
    return function(argument)


def position(record: Record) -> str:
    """Where a record lies, as histories show it."""
    return f"{HEARD}{record.topic}:{record.partition}:{record.offset}"


class Matcher:
    """Of one App."""

    def __init__(self, app: App, topics: Topics, *, max_payload: int, guard: Guard = call) -> None:
        """`topics`: where starts and signals go. Raises ContractError where a saga listens to those."""
        self._topics = topics
        self._max_payload = max_payload
        self._guard = guard
        self.routes = _routes(app)
        own = {topics.sagas, topics.replies, topics.control, topics.answers, topics.schemas}
        for topic in own & self.routes.keys():
            raise ContractError(
                f"a saga listens to {topic}, by which Kasaga works",
                remedy="Listen to topics of your services, or to events that sagas emit.",
            )

    @property
    def kept(self) -> dict[str, int]:
        """How many records are kept of each event that is awaited by a key."""
        routes = (route for routes in self.routes.values() for route in routes if route.awaited)
        return {event.name: event.keep_most for route in routes for event in route.events}

    @property
    def topics(self) -> list[str]:
        """All that are listened to."""
        return sorted(self.routes)

    def earliest(self, topic: str) -> bool:
        """Whether a topic that was never listened to is read from its beginning: where any Event says so."""
        events = (event for route in self.routes.get(topic, ()) for event in route.events)
        return any(event.begin == "earliest" for event in events)

    def match(self, record: Record, now: datetime) -> Matching:
        """Say what comes of a record."""
        found = Matching([], [], [])
        if record.value is None:  # a tombstone tells of a key that it is gone, and nothing else
            return found
        heard = _heard(record, record.value)
        done: set[tuple[str, str]] = set()
        for route in self.routes.get(record.topic, ()):
            try:
                made = self._tried(route, record, heard, now)
            except HangInterrupt:
                late = EventUnusable(f"{route.what}: the functions of its Event don't come to an end")
                found.unusable.append(Unusable(route, late))
            except KasagaError as error:
                said = f"{route.what}: {error.message}"
                found.unusable.append(Unusable(route, EventUnusable(said, remedy=error.remedy)))
            else:
                # Two sagas may await the same signal: it is one record for whichever has the id.
                if isinstance(made, Kept):
                    found.kept.append((route, made))
                elif made is not None and not (route.signal and (made.saga_id, route.signal) in done):
                    done.add((made.saga_id, route.signal))
                    found.made.append(made)
        return found

    def _tried(self, route: Route, record: Record, heard: Heard, now: datetime) -> Made | Kept | None:
        try:
            return self._one(route, record, heard, now)
        except KasagaError:
            raise
        except (Exception, SystemExit) as error:  # of the author's functions
            raise EventUnusable(f"{type(error).__name__}: {error}") from error

    def _one(self, route: Route, record: Record, heard: Heard, now: datetime) -> Made | Kept | None:
        for event in route.events:
            if event.event_type and heard.headers.get("ce_type") != event.event_type:
                continue
            if len(heard.value) > self._max_payload:
                raise PayloadTooLarge(f"the record has {len(heard.value)} bytes, over {self._max_payload}")
            value = self._guard(event.read, heard)
            if event.when is not None and not self._guard(event.when, value):
                continue
            if route.awaited:
                return self._kept(route, event, record, value)
            saga_id = self._id(route, event, record, value)
            if event.input is not None:
                value = self._guard(event.input, value)
            make = self._signal if route.signal else self._start
            return make(route, event, record, saga_id, value, now)
        return None

    def _id(self, route: Route, event: Event[Any], record: Record, value: object) -> str:
        """The saga's id: what the author says, else of the record's position and time."""
        if event.id is None:
            text = f"{route.saga.name}:{_place(record)}"
            return text if len(text) <= MAX_SAGA_ID_CHARACTERS else str(uuid5(_POSITIONS, text))
        made: object = self._guard(event.id, value)
        if not isinstance(made, str):
            raise EventUnusable(f"its id is {made.__class__.__name__}, not str")
        if not made or len(made) > MAX_SAGA_ID_CHARACTERS or not made.isprintable():
            raise EventUnusable(
                f"{made[:80]!r} can't be a saga's id: 1 to {MAX_SAGA_ID_CHARACTERS} printable characters"
            )
        return made

    def _start(
        self, route: Route, event: Event[Any], record: Record, saga_id: str, value: object, now: datetime
    ) -> Made:
        trace = _trace(record)
        headers = StartEnvelope(
            run_id=str(uuid5(_POSITIONS, f"{route.saga.name}:{_place(record)}")),
            source=position(record),
            time=now,
            saga_id=saga_id,
            saga=route.saga.name,
            traceparent=trace[0],
            tracestate=trace[1],
        ).to_headers()
        payload = self._fit(route.saga.input.encode(value))
        return Made(route, saga_id, value, self._topics.sagas, payload, headers)

    def _signal(
        self, route: Route, event: Event[Any], record: Record, saga_id: str, value: object, now: datetime
    ) -> Made:
        codecs = route.saga.signal_codecs or {}
        payload = self._fit(codecs[route.signal].encode(value))
        trace = _trace(record)
        headers = MessageEnvelope(
            kind="signal",
            key=_key(f"{_place(record)}:{route.signal}"),
            name=route.signal,
            source=position(record),
            time=now,
            saga_id=saga_id,
            keep_seconds=int(event.keep),
            traceparent=trace[0],
            tracestate=trace[1],
        ).to_headers()
        return Made(route, saga_id, value, self._topics.control, payload, headers)

    def _kept(self, route: Route, event: Event[Any], record: Record, value: object) -> Kept:
        """What is kept of a record for who awaits its key."""
        assert event.key is not None
        made: object = self._guard(event.key, value)
        fault = key_fault(made)
        if fault:
            raise EventUnusable(fault)
        payload = self._fit(route.saga.awaited_codecs[event.name].encode(value))
        place = _key(f"{_place(record)}:{event.name}")
        name = signal_name(event.name, str(made))
        return Kept(event.name, name, place, position(record), payload, event.keep)

    def signal_of(self, route: Route, kept: Kept, saga_id: str, record: Record, now: datetime) -> Made:
        """The signal to a saga that awaits a record."""
        trace = _trace(record)
        headers = MessageEnvelope(
            kind="signal",
            key=kept.position,
            name=kept.name,
            source=kept.source,
            time=now,
            saga_id=saga_id,
            keep_seconds=0,
            traceparent=trace[0],
            tracestate=trace[1],
        ).to_headers()
        return Made(route, saga_id, None, self._topics.control, kept.payload, headers)

    def _fit(self, payload: bytes) -> bytes:
        if len(payload) > self._max_payload:
            raise PayloadTooLarge(f"what is made of it has {len(payload)} bytes, over {self._max_payload}")
        return payload


def _routes(app: App) -> dict[str, list[Route]]:
    """Who listens to which topic. Of each saga, and of each signal, the newest version's word counts."""
    newest: dict[tuple[str, str], Route] = {}
    awaited: dict[str, Route] = {}
    for (name, version), saga in sorted(app.sagas.items()):
        for signal, event in saga.heard.items():
            newest[name, signal] = Route(saga, (event,), signal)
        awaited |= {event.name: Route(saga, (event,), event.name, awaited=True) for event in saga.awaits}
        if version == app.latest(name):
            newest[name, ""] = Route(saga, saga.on, "")
    found: dict[str, list[Route]] = {}
    for route in (*newest.values(), *awaited.values()):
        for topic in sorted({event.topic for event in route.events}):
            events = tuple(event for event in route.events if event.topic == topic)
            found.setdefault(topic, []).append(route._replace(events=events))
    return found


def _place(record: Record) -> str:
    """A record's position, and its time: a topic that is made anew begins with the same positions."""
    return f"{record.topic}:{record.partition}:{record.offset}:{record.timestamp_ms}"


def _key(text: str) -> str:
    """A signal's id."""
    return text if len(text) <= MAX_KEY_CHARACTERS else str(uuid5(_POSITIONS, text))


def _heard(record: Record, value: bytes) -> Heard:
    moment = datetime.fromtimestamp(min(max(record.timestamp_ms, 0), LAST_MS) / 1000, UTC)
    headers = _texts(record.headers)
    return Heard(record.topic, record.partition, record.offset, record.key, value, headers, moment)


def _texts(headers: Sequence[tuple[str, bytes | None]]) -> Mapping[str, str]:
    found: dict[str, str] = {}
    for name, value in headers:
        if value is not None:
            found.setdefault(name, value.decode("utf-8", "replace"))
    return found


def _trace(record: Record) -> tuple[str | None, str | None]:
    """The trace that the record is of; one that can't be understood must not cost the record."""
    values = dict(reversed([(name, value) for name, value in record.headers if value is not None]))
    parent, state = values.get("traceparent"), values.get("tracestate")
    if parent is None or not is_traceparent(parent):
        return None, None
    if state is None or len(state) > MAX_TRACESTATE_BYTES or not state.isascii():
        return parent.decode(), None
    return parent.decode(), state.decode()
