"""A record to starts and signals: the same each time, and what can't be one is told with its reason."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import BaseModel

from kasaga import App, Event, Heard, SagaContext, saga
from kasaga.orchestrator.matching import Matcher
from kasaga.orchestrator.watchdog import Watchdog
from kasaga.saga import Saga
from kasaga_wire.codec import Schemas
from kasaga_wire.envelope import StartEnvelope
from kasaga_wire.errors import ContractError, EnvelopeError
from kasaga_wire.kafka_records import Record
from kasaga_wire.messages import MessageEnvelope
from kasaga_wire.topics import Topics

NOW = datetime(2026, 11, 23, tzinfo=UTC)
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Order(BaseModel):
    id: str
    total: int = 0


def listening(*, on: Any = (), signals: Any = None, name: str = "order", version: int = 1) -> Saga[Any, Any]:
    @saga(name, on=on, signals=signals, version=version)
    async def declared(ctx: SagaContext, order: Order) -> None: ...

    return declared


def record(
    value: object, topic: str = "orders", *, offset: int = 3, at: int = 1000, **headers: str
) -> Record:
    body = value if isinstance(value, bytes) or value is None else json.dumps(value).encode()
    sent = [(name, text.encode()) for name, text in headers.items()]
    return Record(topic, 2, offset, b"key", body, [*sent], at)


def matcher(*sagas: Saga[Any, Any], max_payload: int = 10_000, **more: Any) -> Matcher:
    return Matcher(App("shop", sagas=sagas), Topics("shop"), max_payload=max_payload, **more)


def why(found: Matcher, heard: Record) -> str:
    [unusable] = found.match(heard, NOW).unusable
    assert unusable.error.code == "KSG-270"
    return unusable.error.message


def test_a_start_is_of_the_records_position_and_time() -> None:
    found = matcher(listening(on=Event("orders", Order)))
    [first] = found.match(record({"id": "a"}, traceparent=TRACE), NOW).made
    [again] = found.match(record({"id": "a"}, traceparent=TRACE), datetime.now(UTC)).made
    envelope = StartEnvelope.parse(first.headers)
    assert (envelope.saga_id, envelope.saga) == ("order:orders:2:3:1000", "order")
    assert (envelope.source, envelope.traceparent) == ("kafka:orders:2:3", TRACE)
    assert (first.topic, envelope.run_id) == ("shop.sagas", StartEnvelope.parse(again.headers).run_id)
    others = [record({"id": "a"}, offset=4), record({"id": "a"}, at=1001)]
    ids = {found.match(each, NOW).made[0].saga_id for each in others}
    assert len(ids | {envelope.saga_id}) == 3


def test_a_signal_is_kept_for_a_time_and_has_the_position_for_a_key() -> None:
    event = Event("orders", Order, id=lambda order: order.id, keep=60)
    one, other = listening(signals={"paid": event}), listening(signals={"paid": event}, name="other")
    [made] = matcher(one, other).match(record({"id": "a"}, traceparent="nonsense"), NOW).made
    envelope = MessageEnvelope.parse(made.headers)
    assert (made.topic, envelope.saga_id, envelope.name) == ("shop.control", "a", "paid")
    assert (envelope.key, envelope.keep_seconds) == ("orders:2:3:1000:paid", 60)
    assert envelope.traceparent is None
    codecs = one.signal_codecs
    assert codecs is not None
    assert codecs["paid"].decode(made.payload, Schemas()) == Order(id="a")


def test_long_topics_make_ids_that_fit() -> None:
    topic = "t" * 249
    event = Event(topic, Order, id=lambda order: order.id)
    made = matcher(listening(on=Event(topic, Order), signals={"paid": event})).match(
        record({"id": "a"}, topic), NOW
    )
    assert len(made.made) == 2
    assert [len(made.made[0].headers) > 0, not made.unusable] == [True, True]
    for each in made.made:
        (MessageEnvelope if each.route.signal else StartEnvelope).parse(each.headers)


@pytest.mark.parametrize(
    ("heard", "says"),
    [
        (record(b"\xff"), "JSON"),
        (record(b"{" * 5000), "JSON"),
        (record({"id": 7}), "id: Input should be a valid string"),
        (record({"id": ""}), "can't be a saga's id"),
        (record({"id": "x" * 257}), "can't be a saga's id"),
        (record({"id": "x\n"}), "can't be a saga's id"),
        (record({"id": "a", "total": -1}), "ValueError: below zero"),
        (record({"id": "a", "total": -2}), "SystemExit"),
        (record({"id": "a", "total": -3}), "its id is int"),
        (record(b" " * 10_001), "over 10000"),
    ],
)
def test_what_cant_be_used_is_told(heard: Record, says: str) -> None:
    def when(order: Order) -> bool:
        if order.total == -1:
            raise ValueError("below zero")
        if order.total == -2:
            raise SystemExit
        return True

    def name(order: Order) -> Any:
        return order.id if order.total != -3 else 3

    assert says in why(matcher(listening(on=Event("orders", Order, when=when, id=name))), heard)


def test_a_value_is_in_no_message() -> None:
    found = matcher(listening(on=Event("orders", Order)))
    assert "secret" not in why(found, record({"id": "a", "total": "secret"}))


def test_a_function_without_an_end_is_broken_off() -> None:
    def when(order: Order) -> bool:
        until = time.monotonic() + 30
        while time.monotonic() < until:
            pass
        return True

    watchdog = Watchdog(limit=0.05)
    watchdog.start()
    try:
        found = matcher(listening(on=Event("orders", Order, when=when)), guard=watchdog.guard)
        assert "don't come to an end" in why(found, record({"id": "a"}))
    finally:
        watchdog.stop()


def test_what_concerns_nobody_is_passed_over() -> None:
    found = matcher(
        listening(on=Event("orders", Order, event_type="placed", when=lambda order: order.total > 0))
    )
    for heard in (
        record(None, ce_type="placed"),
        record(b"{", ce_type="x"),
        record({"id": "a"}, ce_type="placed"),
    ):
        assert found.match(heard, NOW) == ([], [], [])
    assert len(found.match(record({"id": "a", "total": 1}, ce_type="placed"), NOW).made) == 1


def test_text_bytes_and_decode() -> None:
    def decode(heard: Heard) -> Order:
        return Order(id=f"{heard.topic} {heard.partition} {heard.headers['ce_type']} {heard.value!r}")

    text = listening(on=Event("a", str, input=lambda text: Order(id=text)), name="text")
    raw = listening(on=Event("b", bytes, input=lambda raw: Order(id=raw.hex())), name="raw")
    own = listening(on=Event("c", Order, decode=decode), name="own")
    found = matcher(text, raw, own)
    values = [
        found.match(each, NOW).made[0].value
        for each in (record(b"x", "a"), record(b"\xff", "b"), record(b"v", "c", ce_type="t"))
    ]
    assert values == [Order(id="x"), Order(id="ff"), Order(id="c 2 t b'v'")]
    assert "not UTF-8" in why(found, record(b"\xff", "a"))


def test_the_newest_version_listens_and_the_first_event_that_fits_counts() -> None:
    old = listening(
        on=Event("orders", Order), signals={"gone": Event("gone", Order, id=lambda order: order.id)}
    )
    two = [
        Event("orders", Order, when=lambda order: order.total > 5, id=lambda order: "big"),
        Event("orders", Order, id=lambda order: "any"),
        Event("others", Order),
    ]
    found = matcher(old, listening(on=two, version=2))
    assert found.topics == ["gone", "orders", "others"]
    ids = [found.match(record({"id": "a", "total": total}), NOW).made for total in (9, 1)]
    assert [[made.saga_id for made in each] for each in ids] == [["big"], ["any"]]


def test_the_time_of_a_record_may_be_anything() -> None:
    found = matcher(listening(on=Event("orders", Order)))
    for at in (-1, 2**62):
        assert len(found.match(record({"id": "a"}, at=at), NOW).made) == 1


def test_what_cant_be_declared() -> None:
    for topic in ("", "..", "a/b", "t" * 250):
        with pytest.raises(ContractError):
            Event(topic, Order)
    with pytest.raises(ContractError, match="which saga it concerns"):
        listening(signals={"paid": Event("a", Order)})
    with pytest.raises(ContractError, match="which is for starts"):
        listening(signals={"paid": Event("a", Order, id=lambda o: o.id, input=lambda o: o)})
    with pytest.raises(ContractError, match="by which Kasaga works"):
        matcher(listening(on=Event("shop.sagas", Order)))
    with pytest.raises(ContractError, match="is not the saga's input"):
        App("shop", sagas=[listening(on=Event("a", dict))]).definitions(Schemas(), max_payload=1000)
    wrongs: list[dict[str, Any]] = [{"keep": 86_401}, {"keep": -1}, {"begin": "first"}, {"event_type": "a b"}]
    for wrong in wrongs:
        with pytest.raises(ContractError):
            Event("a", Order, **wrong)


@pytest.mark.parametrize("text", ["soon", "-1", "86401", "1" * 20, "٣"])
def test_a_time_to_keep_that_cant_be(text: str) -> None:
    event = Event("orders", Order, id=lambda order: order.id)
    [made] = matcher(listening(signals={"paid": event})).match(record({"id": "a"}), NOW).made
    headers = [(n, text.encode() if n == "ce_kasagakeep" else v) for n, v in made.headers]
    with pytest.raises(EnvelopeError):
        MessageEnvelope.parse(headers)
