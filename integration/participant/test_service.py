"""A participant on a real Kafka and a real Postgres: what it answers, and what it survives."""

from __future__ import annotations

import http.client
import signal
from datetime import UTC, datetime, timedelta

import pytest

from eventually import eventually
from fix_proxy import TcpProxy
from kasaga.dev.servers import KafkaServer, PostgresServer
from kasaga_wire.contracts import contract_of
from kasaga_wire.envelope import ReplyTo
from kasaga_wire.kafka import Consumer, Record
from kasaga_wire.records import audited_codec, deferral_codec
from kasaga_wire.schema import Schema, Schemas
from participant.asker import Asker
from participant.conftest import Effects, ShopProcess, ShopStarter
from participant.shop import Bought, Order, PlainShop, Shop, number_of

MANY = 300
MORE_THAN_IT_TAKES_IN_HAND = 4_000


@pytest.fixture(params=["async", "sync"])
def shop(request: pytest.FixtureRequest, start_shop: ShopStarter) -> ShopProcess:
    started = start_shop(SHOP_SYNC="1" if request.param == "sync" else "0")
    started.wait_until_serving()
    return started


def records(asker: Asker, topic: str, count: int) -> list[Record]:
    """The first records of partition 0 of a topic."""
    consumer = Consumer(asker.settings, group="records")
    consumer.assign({(topic, 0): 0})
    found: list[Record] = []

    def enough() -> bool:
        found.extend(each for each in consumer.consume(100, 0.2) if isinstance(each, Record))
        return len(found) >= count

    try:
        eventually(enough)
        return found
    finally:
        consumer.close()


def header(record: Record, name: str) -> str | None:
    return next((value.decode() for key, value in record.headers if key == name and value is not None), None)


# --- what it answers


def test_the_life_of_a_command(asker: Asker, shop: ShopProcess, effects: Effects) -> None:
    order, id_ = Order(id="o-1", wish="fail-1"), asker.new_id()

    first = asker.ask(order, id_)
    assert (first.outcome, first.error().type, first.error().retryable) == ("failed", "RetryableError", True)
    assert effects.rows() == []

    second = asker.ask(order, id_, attempt=2)
    assert (second.outcome, second.result()) == ("done", Bought(number=number_of(order)))
    assert (second.envelope.command_id, second.envelope.attempt) == (id_, 2)

    third = asker.ask(order, id_, attempt=3)
    assert (third.payload, third.envelope.attempt) == (second.payload, 3)
    assert effects.rows() == [(id_, "buy")]

    asker.undo(Order(id="o-1"), id_, knowledge="done")
    assert asker.wait(f"{id_}~undo")[0].outcome == "undone"
    assert effects.rows() == [(id_, "buy"), (f"{id_}~undo", f"unbuy {number_of(order)}")]


def test_a_refusal_travels_whole(asker: Asker, shop: ShopProcess, effects: Effects) -> None:
    reply = asker.ask(Order(id="o-1", wish="refuse"))

    error = reply.error()
    assert (reply.outcome, error.type, error.message) == ("refused", "Refused", "o-1 is sold out")
    assert (error.code, error.details, error.retryable) == ("SOLD_OUT", '{"left": 0}', False)
    assert effects.rows() == []


def test_a_batch_with_refusals_and_failures_answers_each_alone(
    asker: Asker, start_shop: ShopStarter, effects: Effects
) -> None:
    wishes = {asker.new_id(): wish for wish in ["buy", "buy", "refuse", "buy", "fail", "buy"] * 15}
    for id_, wish in wishes.items():
        asker.command(Order(id=id_, wish=wish), id_)
    asker.flush()
    start_shop()  # finds all of them waiting

    replies = dict(zip(wishes, asker.wait(*wishes), strict=True))

    expected = {"buy": "done", "refuse": "refused", "fail": "failed"}
    assert {id_: reply.outcome for id_, reply in replies.items()} == {
        id_: expected[wish] for id_, wish in wishes.items()
    }
    assert effects.rows() == sorted((id_, "buy") for id_, wish in wishes.items() if wish == "buy")


def test_a_command_older_than_max_age_is_refused(
    asker: Asker, start_shop: ShopStarter, effects: Effects
) -> None:
    start_shop()

    reply = asker.ask(Order(id="o-1"), sent=datetime.now(UTC) - timedelta(days=8))

    assert (reply.outcome, reply.error().type) == ("expired", "Forgotten")
    assert effects.rows() == []


def test_beyond_the_horizon_an_undo_gets_the_result_that_it_carries(
    asker: Asker, start_shop: ShopStarter, effects: Effects
) -> None:
    start_shop()
    one, two = asker.new_id(), asker.new_id()
    long_ago = datetime.now(UTC) - timedelta(days=40)

    asker.undo(Order(id="o-1"), one, knowledge="done", last=long_ago, result=Bought(number=7))
    asker.undo(Order(id="o-2"), two, last=long_ago)

    assert [reply.outcome for reply in asker.wait(f"{one}~undo", f"{two}~undo")] == ["undone", "undone"]
    assert dict(effects.rows()) == {f"{one}~undo": "unbuy 7", f"{two}~undo": "unbuy None"}


def test_without_an_inbox_undo_gets_what_it_carries_and_void_cannot_know(
    kafka: KafkaServer, namespace: str, start_shop: ShopStarter
) -> None:
    with Asker(kafka.bootstrap, namespace, contract=PlainShop) as asker:
        start_shop(SHOP_PLAIN="1")
        id_ = asker.new_id()
        outcomes = [asker.ask(Order(id="o"), id_, name="say", attempt=n).outcome for n in (1, 2)]
        asker.undo(Order(id="o"), id_, name="unsay")
        asker.void(id_, name="say")
        undo, void = asker.wait(f"{id_}~undo", f"{id_}~void")

    assert [*outcomes, undo.outcome, void.outcome] == ["done", "done", "undone", "expired"]


# --- what it can't read


def test_what_cannot_be_decoded_is_answered_and_a_dead_letter(
    asker: Asker, start_shop: ShopStarter, effects: Effects
) -> None:
    start_shop()
    spec = contract_of(Shop).commands["buy"]

    poison = asker.ask(Order(id="o"), payload=spec.input.encode(Order(id="o")) + b"?")
    unknown = asker.ask(Order(id="o"), type_="shop.sell")

    assert [poison.outcome, unknown.outcome] == ["undecodable", "undecodable"]
    assert [poison.error().type, unknown.error().type] == ["DecodeError", "UnknownCommand"]
    letters = records(asker, asker.topics.dead_letters("shop"), 2)
    assert {header(letter, "kasaga_dlq_code") for letter in letters} == {"KSG-111", "KSG-423"}
    assert effects.rows() == []


def test_an_undo_that_cannot_be_decoded_puts_up_the_fence_all_the_same(
    asker: Asker, start_shop: ShopStarter, effects: Effects
) -> None:
    start_shop()
    id_ = asker.new_id()

    asker.undo(Order(id="o"), id_, payload=b"poison")

    assert asker.wait(f"{id_}~undo")[0].outcome == "nothing"
    assert asker.ask(Order(id="o"), id_).outcome == "refused"


def test_what_cannot_be_answered_is_a_dead_letter_and_stops_nobody(
    asker: Asker, start_shop: ShopStarter
) -> None:
    start_shop()
    asker.raw(b"k", b"no envelope", [])
    asker.raw(b"k", None, [("ce_specversion", b"1.0"), ("ce_type", b"\xff")])
    stolen = asker.new_id()
    asker.command(Order(id="o"), stolen, reply_to=ReplyTo("someone.elses.topic", 0))
    asker.flush()

    letters = records(asker, asker.topics.dead_letters("shop"), 3)

    assert {header(each, "kasaga_dlq_code") for each in letters} == {"KSG-120", "KSG-424"}
    assert {header(each, "kasaga_dlq_topic") for each in letters} == {asker.topics.commands("shop")}
    assert b"no envelope" in {each.value for each in letters}
    assert asker.ask(Order(id="o")).outcome == "done"


def test_a_schema_that_is_published_later_makes_a_retry_succeed(
    asker: Asker, start_shop: ShopStarter
) -> None:
    start_shop()
    newer = Schema.of(
        '{"type":"record","name":"shop.Order","fields":[{"name":"id","type":"string"},'
        '{"name":"colour","type":"string"}]}'
    )
    payload = newer.prefix + b"\x04o1\x06red"

    first = asker.ask(Order(id="o1"), id_ := asker.new_id(), payload=payload)
    asker.producer.produce(
        asker.topics.schemas, 0, str(newer.id).encode(), newer.json.encode(), None, lambda _: None
    )
    asker.flush()

    assert (first.outcome, first.error().type, first.error().retryable) == ("failed", "UnknownSchema", True)

    def retried() -> bool:
        return asker.ask(Order(id="o1"), id_, payload=payload, attempt=2).outcome == "done"

    eventually(retried)


def test_the_services_own_schemas_are_published_once(asker: Asker, start_shop: ShopStarter) -> None:
    start_shop().wait_until_serving()
    start_shop(KASAGA_KAFKA_CLIENT_ID="second").wait_until_serving()
    wanted = {
        schema.id for schema in (*contract_of(Shop).schemas(), audited_codec.schema, deferral_codec.schema)
    }

    published = records(asker, asker.topics.schemas, len(wanted))

    schemas = Schemas()
    assert {schemas.add((each.value or b"").decode()).id for each in published} == wanted
    assert len(published) == len(wanted)


# --- stopping, moving, falling


def test_a_graceful_stop_loses_nothing_and_repeats_nothing(
    asker: Asker, start_shop: ShopStarter, effects: Effects
) -> None:
    ids = [asker.new_id() for _ in range(MORE_THAN_IT_TAKES_IN_HAND)]
    for id_ in ids:
        asker.command(Order(id=id_), id_)
    asker.flush()
    first = start_shop()
    eventually(lambda: asker.collect() or asker.count > 0)

    first.stop()
    asker.collect(0.5)
    answered = asker.count
    start_shop()
    asker.wait(*ids)

    assert 0 < answered < len(ids)
    assert all(len(replies) == 1 for replies in asker.replies.values())
    assert effects.rows() == sorted((id_, "buy") for id_ in ids)


def test_a_second_process_takes_its_share_and_nothing_runs_twice(
    asker: Asker, start_shop: ShopStarter, effects: Effects
) -> None:
    ids = [asker.new_id() for _ in range(2 * MANY)]
    first = start_shop()
    first.wait_until_serving()
    for id_ in ids[:MANY]:
        asker.command(Order(id=id_, seconds=0.01), id_)
    asker.flush()

    second = start_shop()
    second.wait_until_serving()
    for id_ in ids[MANY:]:
        asker.command(Order(id=id_), id_)
    asker.flush()
    asker.wait(*ids)

    assert effects.rows() == sorted((id_, "buy") for id_ in ids)
    assert effects.by_pid().keys() == {first.pid, second.pid}


def test_a_frozen_process_that_comes_back_does_no_harm(
    asker: Asker, start_shop: ShopStarter, effects: Effects
) -> None:
    zombie = start_shop(SHOP_CONCURRENCY="1")
    zombie.wait_until_serving()
    ids = [asker.new_id() for _ in range(MANY)]
    for id_ in ids:
        asker.command(Order(id=id_, seconds=0.001), id_)
    asker.flush()
    eventually(lambda: asker.collect() or asker.count > 0)

    zombie.send(signal.SIGSTOP)
    start_shop()
    # What the zombie has claimed waits for its transaction to end, one batch here; all else goes on.
    # With as many transactions as the other has it could hold all of those up.
    eventually(lambda: asker.collect() or asker.count > MANY // 2, timeout=60)
    zombie.send(signal.SIGCONT)
    asker.wait(*ids)

    assert effects.rows() == sorted((id_, "buy") for id_ in ids)
    assert all(len({reply.outcome for reply in asker.replies[id_]}) == 1 for id_ in ids)
    zombie.stop()


def test_postgres_away_and_back(
    asker: Asker, start_shop: ShopStarter, effects: Effects, postgres: PostgresServer
) -> None:
    shop = start_shop()
    shop.wait_until_serving()
    asker.ask(Order(id="before"))
    ids = [asker.new_id() for _ in range(MANY)]

    postgres.kill()
    for id_ in ids:
        asker.command(Order(id=id_), id_)
    asker.flush()
    eventually(lambda: "database is away" in shop.log.read_text())
    postgres.start()
    replies = asker.wait(*ids)

    assert {reply.outcome for reply in replies} == {"done"}  # patience, not a flood of failures
    assert all(len(asker.replies[id_]) == 1 for id_ in ids)
    assert [row for row in effects.rows() if row[0] in ids] == sorted((id_, "buy") for id_ in ids)
    assert "database is back" in shop.log.read_text()
    shop.stop()


@pytest.mark.parametrize("fault", ["drop_connections", "mute"])
def test_lost_connections_and_lost_answers_repeat_nothing(
    asker: Asker,
    start_shop: ShopStarter,
    effects: Effects,
    postgres: PostgresServer,
    postgres_proxy: TcpProxy,
    namespace: str,
    fault: str,
) -> None:
    url = postgres.url(namespace, port=postgres_proxy.port)
    shop = start_shop(KASAGA_DATABASE_URL=url)
    shop.wait_until_serving()
    ids = [asker.new_id() for _ in range(MANY)]
    for number, id_ in enumerate(ids):
        asker.command(Order(id=id_, seconds=0.001), id_)
        if number % 100 == 50:
            asker.flush()
            eventually(lambda: asker.collect() or asker.count > 0)
            getattr(postgres_proxy, fault)()
            postgres_proxy.start()
    asker.flush()

    replies = asker.wait(*ids)

    assert {reply.outcome for reply in replies} == {"done"}
    assert effects.rows() == sorted((id_, "buy") for id_ in ids)
    shop.stop()


def test_kafka_away_and_back(
    asker: Asker, start_shop: ShopStarter, effects: Effects, kafka: KafkaServer, kafka_proxy: TcpProxy
) -> None:
    shop = start_shop(KASAGA_KAFKA_BOOTSTRAP_SERVERS=kafka.proxied_bootstrap)
    shop.wait_until_serving()
    asker.ask(Order(id="before"))
    ids = [asker.new_id() for _ in range(MANY)]
    for id_ in ids:
        asker.command(Order(id=id_, seconds=0.001), id_)
    asker.flush()
    eventually(lambda: asker.collect() or asker.count > 1)

    kafka_proxy.stop()
    for id_ in (more := [asker.new_id() for _ in range(10)]):
        asker.command(Order(id=id_), id_)
    asker.flush()
    kafka_proxy.start()
    asker.wait(*ids, *more)

    assert [row for row in effects.rows() if row[0] in ids] == sorted((id_, "buy") for id_ in ids)
    shop.stop()


def test_partitions_lost_while_they_were_paused_are_read_again(
    asker: Asker, start_shop: ShopStarter, effects: Effects, kafka: KafkaServer
) -> None:
    # Kafka freezes while the shop has its hands full: it pauses, then its session ends, then all comes back.
    ids = [asker.new_id() for _ in range(MORE_THAN_IT_TAKES_IN_HAND)]
    for id_ in ids:
        asker.command(Order(id=id_, seconds=0.002), id_)
    asker.flush()
    shop = start_shop()
    eventually(lambda: asker.collect() or asker.count > 0)

    kafka.pause()
    eventually(lambda: "has lost partitions" in shop.log.read_text())
    kafka.resume()
    asker.wait(*ids)

    assert effects.rows() == sorted((id_, "buy") for id_ in ids)
    shop.stop()


def test_a_shop_that_starts_before_its_servers_waits_for_them(
    asker: Asker, start_shop: ShopStarter, kafka: KafkaServer, kafka_proxy: TcpProxy
) -> None:
    kafka_proxy.stop()
    shop = start_shop(KASAGA_KAFKA_BOOTSTRAP_SERVERS=kafka.proxied_bootstrap)
    eventually(lambda: "waiting for Kafka" in shop.log.read_text())

    kafka_proxy.start()

    assert asker.ask(Order(id="o")).outcome == "done"


def page(port: int, path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    except OSError as error:
        return 0, str(error)
    finally:
        connection.close()


def test_a_process_that_gets_no_partition_is_ready_all_the_same(
    kafka: KafkaServer, namespace: str, start_shop: ShopStarter
) -> None:
    with Asker(kafka.bootstrap, namespace, partitions=1) as asker:
        shops = [start_shop(KASAGA_HTTP_PORT="0") for _ in range(2)]
        ports = [shop.http_port() for shop in shops]
        for port in ports:
            eventually(lambda port=port: page(port, "/ready") == (200, "ready\n"))  # type: ignore[misc]
        asker.ask(Order(id="o-1"))
        asker.ask(Order(id="o-2", wish="refuse"))

    assert [page(port, "/live") for port in ports] == [(200, "live\n")] * 2
    text = "".join(page(port, "/metrics")[1] for port in ports)
    counted = 'kasaga_participant_commands_total{command="buy",outcome="%s",participant="shop"} 1.0'
    assert all(counted % outcome in text for outcome in ("done", "refused"))


def test_readiness_tells_of_the_database(
    asker: Asker, start_shop: ShopStarter, postgres: PostgresServer, postgres_proxy: TcpProxy, namespace: str
) -> None:
    url = postgres.url(namespace, port=postgres_proxy.port)
    shop = start_shop(KASAGA_DATABASE_URL=url, KASAGA_HTTP_PORT="0")
    shop.wait_until_serving()
    port = shop.http_port()
    postgres_proxy.stop()
    asker.command(Order(id="o"), id_ := asker.new_id())
    asker.flush()
    eventually(lambda: page(port, "/ready") == (503, "the inbox's database is away\n"))
    assert page(port, "/live")[0] == 200

    postgres_proxy.start()
    assert asker.wait(id_)[0].outcome == "done"
    eventually(lambda: page(port, "/ready")[0] == 200)


def test_offsets_are_committed_when_it_stops(
    asker: Asker, start_shop: ShopStarter, kafka: KafkaServer
) -> None:
    shop = start_shop()
    for number in range(20):
        asker.ask(Order(id=f"o-{number}"))
    shop.stop()

    topic = asker.topics.commands("shop")
    assert sum(committed(kafka.bootstrap, topic, asker.partitions)) == 20


def committed(bootstrap: str, topic: str, partitions: int) -> list[int]:
    from confluent_kafka import Consumer as RawConsumer
    from confluent_kafka import TopicPartition

    consumer = RawConsumer({"bootstrap.servers": bootstrap, "group.id": topic})
    try:
        places = [TopicPartition(topic, number) for number in range(partitions)]
        return [max(0, each.offset) for each in consumer.committed(places, timeout=10)]
    finally:
        consumer.close()
