"""The client's protocol, against an owner that is played."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from pydantic import BaseModel, create_model

import kasaga.client.acting as acting_module
import kasaga.client.handle as handle_module
from cli.fake_owner import FakeOwner
from cli.tales import Order, Stock
from kasaga import App, SagaContext, saga
from kasaga.client import (
    BadRequest,
    BlockingClient,
    Client,
    ClientClosed,
    NoAnswer,
    RejectedStart,
    ResultForgotten,
    ResultTimeout,
    SagaCompensated,
    SagaStuck,
    StartUnconfirmed,
    UnknownSaga,
)
from kasaga.client.ids import uuid7
from kasaga.errors import NotApplicable, PayloadTooLarge
from kasaga_wire.codec import codec_for
from kasaga_wire.envelope import ControlEnvelope, StartEnvelope
from kasaga_wire.errors import DeliveryError, EncodeError
from kasaga_wire.kafka import partition_for


@saga("payment", version=2)
async def payment(ctx: SagaContext, order: Order) -> Stock:
    return Stock(shelf=order.id)


app = App("orders", sagas=[payment])
ORDER = Order(id="o-1", lines=1)
DONE = payment.result.encode(Stock(shelf="A7"))


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The waits are for networks; what is played here answers at once or never."""
    for name in ("STARTED_WAIT", "FIRST_WAIT", "LONGEST_WAIT", "LIVE_WAIT", "LONGEST_NOT_YET"):
        monkeypatch.setattr(handle_module, name, 0.02)
    monkeypatch.setattr(handle_module, "NOT_YET_WAIT", 0.001)
    monkeypatch.setattr(acting_module, "FIRST_WAIT", 0.02)
    monkeypatch.setattr(acting_module, "LONGEST_ASK", 0.02)
    monkeypatch.delenv("KASAGA_DATABASE_URL", raising=False)
    monkeypatch.delenv("KASAGA_TOPIC_PREFIX", raising=False)


def play(
    scene: Callable[[Client, FakeOwner], Awaitable[object]], owner: FakeOwner | None = None
) -> FakeOwner:
    owner = owner or FakeOwner()

    async def act() -> None:
        async with Client("orders", name="shop", link=owner) as client:
            await asyncio.wait_for(scene(client, owner), 10)

    asyncio.run(act())
    return owner


async def soon(question: Callable[[], bool]) -> None:
    for _ in range(5000):
        if question():
            return
        await asyncio.sleep(0.001)
    raise AssertionError("not true in time")


def starts(owner: FakeOwner) -> list[StartEnvelope]:
    return [StartEnvelope.parse(list(out.headers)) for out in owner.sent if out.topic == "orders.sagas"]


def test_a_start_is_one_record_in_the_partition_of_its_saga() -> None:
    async def scene(client: Client, owner: FakeOwner) -> None:
        handle = await client.start(payment, ORDER, id="o-1")
        assert handle.run_id is not None

    owner = play(scene)
    sent = [out for out in owner.sent if out.topic == "orders.sagas"]
    assert len(sent) == 1
    assert sent[0].partition == partition_for(b"o-1", 16)
    assert sent[0].key == b"o-1"
    envelope = StartEnvelope.parse(list(sent[0].headers))
    assert (envelope.saga, envelope.saga_version, envelope.saga_id) == ("payment", 2, "o-1")
    assert envelope.source == "/kasaga/clients/shop"
    assert envelope.reply_to is None
    assert owner.closed


def test_the_schema_of_an_input_is_published_before_its_first_use_and_once() -> None:
    async def scene(client: Client, owner: FakeOwner) -> None:
        await client.start(payment, ORDER, id="o-1")
        await client.start(payment, ORDER, id="o-2")

    owner = play(scene)
    assert [out.topic for out in owner.sent] == ["orders.schemas", "orders.sagas", "orders.sagas"]
    assert owner.sent[0].value == payment.input.schema.json.encode()


def test_the_end_is_asked_for_with_the_start_where_it_is_wanted() -> None:
    async def scene(client: Client, owner: FakeOwner) -> None:
        assert await client.run(payment, ORDER, id="o-1") == Stock(shelf="A7")

    owner = FakeOwner()
    owner.ends_at_once = ("COMPLETED", DONE)
    play(scene, owner)
    assert starts(owner)[0].reply_to is not None
    assert owner.asked == []


def test_the_end_is_asked_for_later_where_the_start_did_not() -> None:
    async def scene(client: Client, owner: FakeOwner) -> None:
        handle = await client.start(payment, ORDER, id="o-1")
        waiting = asyncio.create_task(handle.result())
        await soon(lambda: bool(owner.asked))
        owner.end("o-1", "COMPLETED", DONE)
        assert (await waiting).shelf == "A7"

    assert {action for action, _, _ in play(scene).asked} == {"watch"}


def test_any_process_can_wait_for_a_saga_by_its_id() -> None:
    async def scene(client: Client, owner: FakeOwner) -> None:
        await client.start(payment, ORDER, id="o-1")
        owner.end("o-1", "COMPLETED", DONE)
        assert (await client.handle(payment, "o-1").result()).shelf == "A7"
        assert await client.handle("payment", "o-1").result() == {"shelf": "A7"}

    owner = FakeOwner()
    owner.published = [payment.result.schema.json]
    play(scene, owner)


def test_a_watch_that_nobody_answers_is_sent_again_under_the_same_id() -> None:
    async def scene(client: Client, owner: FakeOwner) -> None:
        handle = await client.start(payment, ORDER, id="o-1")
        owner.end("o-1", "COMPLETED", DONE)
        owner.deaf = 3
        assert (await handle.result()).shelf == "A7"

    owner = play(scene)
    watches = [
        ControlEnvelope.parse(list(out.headers)) for out in owner.sent if out.topic == "orders.control"
    ]
    assert len(watches) == 4
    assert len({watch.id for watch in watches}) == 1


def test_a_start_that_the_owner_has_not_read_yet_is_not_unknown() -> None:
    """Control records are read before starts."""

    async def scene(client: Client, owner: FakeOwner) -> None:
        owner.unread_starts = True
        handle = await client.start(payment, ORDER, id="o-1")
        waiting = asyncio.create_task(handle.result())
        await soon(lambda: len(owner.asked) >= 3)
        owner.ends_at_once = ("COMPLETED", DONE)
        owner.read_starts()
        assert (await waiting).shelf == "A7"

    play(scene)


def test_an_id_that_was_never_started_is_unknown() -> None:
    async def scene(client: Client, owner: FakeOwner) -> None:
        with pytest.raises(UnknownSaga, match="KSG-504: there is no saga o-9"):
            await client.handle(payment, "o-9").result()

    play(scene)


@pytest.mark.parametrize("wait", [False, True])
def test_the_same_start_again_gives_the_saga_that_exists(wait: bool) -> None:
    async def scene(client: Client, owner: FakeOwner) -> None:
        first = await client.start(payment, ORDER, id="o-1")
        again = await client.start(payment, ORDER, id="o-1", wait=wait)
        assert again.run_id != first.run_id
        waiting = asyncio.create_task(again.result())
        await asyncio.sleep(0.05)
        owner.end("o-1", "COMPLETED", DONE)
        assert (await waiting).shelf == "A7"
        assert again.run_id == first.run_id

    play(scene)


@pytest.mark.parametrize("wait", [False, True])
def test_another_start_under_the_same_id_never_gets_its_result(wait: bool) -> None:
    async def scene(client: Client, owner: FakeOwner) -> None:
        await client.start(payment, ORDER, id="o-1")
        owner.end("o-1", "COMPLETED", DONE)
        other = await client.start(payment, Order(id="o-1", lines=99), id="o-1", wait=wait)
        with pytest.raises(RejectedStart, match="KSG-502: saga o-1 exists already"):
            await other.result()

    play(scene)


def test_an_undone_saga_says_why() -> None:
    async def scene(client: Client, owner: FakeOwner) -> None:
        handle = await client.start(payment, ORDER, id="o-1", wait=True)
        owner.end("o-1", "COMPENSATED", reason="the card is blocked", step="2")
        with pytest.raises(SagaCompensated) as caught:
            await handle.result()
        assert (caught.value.reason, caught.value.step, caught.value.saga_id) == (
            "the card is blocked",
            "2",
            "o-1",
        )
        assert str(caught.value) == "KSG-510: saga o-1 was undone: the card is blocked."

    play(scene)


def test_a_stuck_saga_says_so_and_can_be_waited_for_again() -> None:
    async def scene(client: Client, owner: FakeOwner) -> None:
        handle = await client.start(payment, ORDER, id="o-1", wait=True)
        owner.end("o-1", "STUCK", reason="release has failed 10 times", step="1")
        with pytest.raises(SagaStuck, match="KSG-511"):
            await handle.result()
        with pytest.raises(SagaStuck):
            await handle.result()
        owner.end("o-1", "COMPLETED", DONE)
        assert (await handle.result()).shelf == "A7"

    play(scene)


def test_waiting_ends_when_the_caller_wants_and_the_saga_goes_on() -> None:
    async def scene(client: Client, owner: FakeOwner) -> None:
        handle = await client.start(payment, ORDER, id="o-1", wait=True)
        with pytest.raises(ResultTimeout, match=r"KSG-503: saga o-1 hasn't ended within 0\.05 s; it goes on"):
            await handle.result(timeout=0.05)
        owner.end("o-1", "COMPLETED", DONE)
        assert (await handle.result()).shelf == "A7"

    play(scene)


def test_a_result_that_was_purged_says_so() -> None:
    async def scene(client: Client, owner: FakeOwner) -> None:
        await client.start(payment, ORDER, id="o-1")
        owner.end("o-1", "COMPLETED", None)
        with pytest.raises(ResultForgotten):
            await client.handle(payment, "o-1").result()

    play(scene)


def test_a_start_that_kafka_does_not_confirm_may_have_happened() -> None:
    async def scene(client: Client, owner: FakeOwner) -> None:
        owner.confirm = lambda out: out.topic == "orders.sagas"
        with pytest.raises(
            StartUnconfirmed, match=r"within 0\.05 s\. Remedy: Start it again with the same id"
        ):
            await client.start(payment, ORDER, id="o-1", timeout=0.05)
        owner.confirm = lambda out: DeliveryError("_MSG_TIMED_OUT", "timed out", permanent=False)
        with pytest.raises(StartUnconfirmed, match="_MSG_TIMED_OUT"):
            await client.start(payment, ORDER, id="o-1")

    play(scene)


def test_what_kafka_refuses_for_good_is_told_as_it_is() -> None:
    async def scene(client: Client, owner: FakeOwner) -> None:
        owner.confirm = lambda out: DeliveryError("TOPIC_AUTHORIZATION_FAILED", "no", permanent=True)
        with pytest.raises(DeliveryError, match="KSG-142: TOPIC_AUTHORIZATION_FAILED"):
            await client.start(payment, ORDER, id="o-1")

    play(scene)


def test_what_cannot_be_started_is_refused_before_anything_is_sent() -> None:
    class Blob(BaseModel):
        data: bytes

    @saga("blob")
    async def blob(ctx: SagaContext, value: Blob) -> None:
        return None

    async def scene(client: Client, owner: FakeOwner) -> None:
        for bad in ("", "x" * 257, "new\nline"):
            with pytest.raises(BadRequest, match="KSG-508"):
                await client.start(payment, ORDER, id=bad)
        wrong: Any = Order.model_construct(id="o-1", lines="many")
        with pytest.raises(EncodeError, match="lines"):
            await client.start(payment, wrong, id="o-1")
        with pytest.raises(PayloadTooLarge):
            await client.start(blob, Blob(data=bytes(900_001)), id="b")

    assert play(scene).sent == []


def test_a_saga_can_be_started_by_its_name_alone() -> None:
    async def scene(client: Client, owner: FakeOwner) -> None:
        handle = await client.start("payment", ORDER, id="o-1", wait=True)
        assert await handle.result() == {"shelf": "A7"}

    owner = FakeOwner()
    owner.published = [payment.result.schema.json]
    owner.ends_at_once = ("COMPLETED", DONE)
    play(scene, owner)
    assert starts(owner)[0].saga_version is None
    assert owner.sagas["o-1"].value == payment.input.encode(ORDER)


def test_a_result_in_a_schema_of_another_release_is_read_with_the_published_one() -> None:
    other_release = create_model("Stock", shelf=(str, ...), row=(int, ...))
    newer = codec_for(other_release, name="payment.result")

    async def scene(client: Client, owner: FakeOwner) -> None:
        handle = await client.start(payment, ORDER, id="o-1", wait=True)
        owner.end("o-1", "COMPLETED", newer.encode(other_release(shelf="A7", row=3)))
        assert (await handle.result()).shelf == "A7"

    owner = FakeOwner()
    owner.published = [newer.schema.json]
    play(scene, owner)


def test_actions_carry_who_and_why_and_are_answered() -> None:
    async def scene(client: Client, owner: FakeOwner) -> None:
        await client.start(payment, ORDER, id="o-1")
        owner.sagas["o-1"].state = "STUCK"
        assert (await client.retry("o-1", reason="mended", by="anna")).state == "STUCK"
        await client.skip("o-1", reason="gone", step="1")
        await client.resolve("o-1", reason="by hand", value={"shelf": "A7"})
        await client.cancel("o-1")

    owner = play(scene)
    assert [(action, body.by, body.reason, body.step, body.value) for action, _, body in owner.asked] == [
        ("retry", "anna", "mended", None, None),
        ("skip", "shop", "gone", "1", None),
        ("resolve", "shop", "by hand", None, '{"shelf": "A7"}'),
        ("cancel", "shop", "", None, None),
    ]


def test_an_action_without_an_answer_is_sent_again_under_the_same_id() -> None:
    async def scene(client: Client, owner: FakeOwner) -> None:
        await client.start(payment, ORDER, id="o-1")
        owner.deaf = 2
        await client.cancel("o-1")
        owner.deaf = 1000
        with pytest.raises(NoAnswer, match=r"KSG-505: nobody answered `cancel` for saga o-1 within 0\.05 s"):
            await client.cancel("o-1", timeout=0.05)

    owner = play(scene)
    ids = [ControlEnvelope.parse(list(out.headers)).id for out in owner.sent if out.topic == "orders.control"]
    assert len(set(ids)) == 2


def test_the_same_action_again_has_the_same_id() -> None:
    async def scene(client: Client, owner: FakeOwner) -> None:
        await client.start(payment, ORDER, id="o-1")
        owner.deaf = 1000
        with pytest.raises(NoAnswer) as unanswered:
            await client.cancel("o-1", timeout=0.05)
        assert unanswered.value.sent
        owner.deaf = 0
        await client.act("cancel", "o-1", action_id=unanswered.value.action_id)
        owner.confirm = lambda outgoing: True
        with pytest.raises(NoAnswer) as unsent:
            await client.cancel("o-1", timeout=0.05)
        assert not unsent.value.sent

    owner = play(scene)
    controls = [out for out in owner.sent if out.topic == "orders.control"]
    assert len({ControlEnvelope.parse(list(out.headers)).id for out in controls}) == 2


def test_an_input_that_is_encoded_already() -> None:
    async def scene(client: Client, owner: FakeOwner) -> None:
        payload = payment.input.encode(ORDER)
        await client.start_encoded("payment", payload, payment.input.schema, id="o-1", version=2)
        await client.start(payment, ORDER, id="o-1")
        with pytest.raises(PayloadTooLarge):
            await client.start_encoded("payment", b"0" * 900_001, payment.input.schema, id="o-2")

    first, second = starts(owner := play(scene))
    assert (first.saga, first.saga_version, first.saga_id) == ("payment", 2, "o-1")
    sent = [out.value for out in owner.sent if out.topic == "orders.sagas"]
    assert sent[0] == sent[1]
    assert first.run_id != second.run_id
    assert [out.key for out in owner.sent if out.topic == "orders.schemas"] == [
        str(payment.input.schema.id).encode()
    ]


def test_an_action_that_does_not_fit_says_why() -> None:
    async def scene(client: Client, owner: FakeOwner) -> None:
        with pytest.raises(UnknownSaga):
            await client.cancel("o-9")
        await client.start(payment, ORDER, id="o-1")
        owner.refuse = "only a STUCK saga can be retried, this one is RUNNING"
        with pytest.raises(NotApplicable, match="KSG-230: saga o-1: only a STUCK saga can be retried"):
            await client.retry("o-1")

    play(scene)


def test_describe_asks_the_owner_where_there_is_no_database() -> None:
    async def scene(client: Client, owner: FakeOwner) -> None:
        handle = await client.start(payment, ORDER, id="o-1")
        assert (await handle.describe()).state == "RUNNING"
        owner.end("o-1", "STUCK", reason="no disk", step="1")
        status = await client.describe("o-1")
        assert (status.state, status.reason, status.step, status.final) == ("STUCK", "no disk", "1", False)
        with pytest.raises(UnknownSaga):
            await client.describe("o-9")

    owner = play(scene)
    watches = [
        ControlEnvelope.parse(list(out.headers)) for out in owner.sent if out.topic == "orders.control"
    ]
    assert len({watch.id for watch in watches if watch.saga_id == "o-1"}) == 1


def test_asking_again_and_again_is_one_question() -> None:
    """A saga tells its end to a limited number of them."""

    async def scene(client: Client, owner: FakeOwner) -> None:
        handle = await client.start(payment, ORDER, id="o-1")
        for _ in range(3):
            with pytest.raises(ResultTimeout):
                await handle.result(timeout=0.03)

    owner = play(scene)
    watches = [
        ControlEnvelope.parse(list(out.headers)) for out in owner.sent if out.topic == "orders.control"
    ]
    assert len(watches) >= 3
    assert len({watch.id for watch in watches}) == 1


def test_other_peoples_answers_and_rubbish_are_passed_by() -> None:
    async def scene(client: Client, owner: FakeOwner) -> None:
        handle = await client.start(payment, ORDER, id="o-1", wait=True)
        reply = starts(owner)[0].reply_to
        assert reply is not None
        owner.hear(reply.partition, [], b"rubbish")
        owner.hear(reply.partition, [("ce_specversion", b"1.0")], b"rubbish")
        owner.end("o-1", "COMPLETED", DONE)
        assert (await handle.result()).shelf == "A7"

    play(scene)


def test_the_question_of_a_handle_that_nobody_holds_is_forgotten() -> None:
    async def scene(client: Client, owner: FakeOwner) -> None:
        for number in range(100):
            await client.start(payment, ORDER, id=f"o-{number}", wait=True)
        assert len(client._questions) < 5  # pyright: ignore[reportPrivateUsage]

    play(scene)


def test_a_client_that_is_not_open_says_so() -> None:
    async def act() -> None:
        with pytest.raises(ClientClosed, match="KSG-506"):
            await Client("orders", link=FakeOwner()).start(payment, ORDER, id="o-1")

    asyncio.run(act())


def test_the_blocking_face() -> None:
    owner = FakeOwner()
    owner.ends_at_once = ("COMPLETED", DONE)
    with BlockingClient("orders", link=owner) as client:
        assert client.run(payment, ORDER, id="o-1").shelf == "A7"
        handle = client.start(payment, ORDER, id="o-2")
        assert handle.result(timeout=5).shelf == "A7"
        assert client.handle(payment, "o-1").result().shelf == "A7"
        assert client.describe("o-2").state == "COMPLETED"
        with pytest.raises(UnknownSaga):
            client.cancel("o-9")
    assert owner.closed


def test_run_ids_sort_by_time() -> None:
    made = [uuid7() for _ in range(50)]
    assert {each.version for each in made} == {7}
    assert len(set(made)) == 50
    assert made[0].int >> 80 <= made[-1].int >> 80
