"""`kasaga signal`, `update` and `query`, and what the client makes of an owner's answers."""

from __future__ import annotations

import asyncio

import pytest
from pydantic import BaseModel

from cli.fake_owner import FakeOwner, Sage
from cli.shell import Shell
from kasaga.client import Client, NoAnswer, UnknownSaga
from kasaga.client import sending as sending_module
from kasaga.client.errors import BadRequest
from kasaga.errors import MailboxFull, NotApplicable, PayloadTooLarge, SagaOver


class Approval(BaseModel):
    by: str


def test_a_signal(shop: Shell) -> None:
    said = shop("signal", "o-3", "approved", "--value", '{"by": "anna"}', "--key", "k-1")
    assert (said.status, said.out) == (0, "o-3: signal approved is accepted (key k-1)\n")
    ((envelope, value),) = shop.owner.messages
    assert (envelope.kind, envelope.key, envelope.name, envelope.json) == ("signal", "k-1", "approved", True)
    assert (value, envelope.keep) == (b'{"by":"anna"}', False)


def test_a_signal_without_a_value_and_as_json(shop: Shell) -> None:
    said = shop("signal", "o-3", "go", "--keep", "-o", "json").json
    ((envelope, value),) = shop.owner.messages
    assert said == {"saga_id": "o-3", "signal": "go", "key": envelope.key, "outcome": "accepted"}
    assert (value, envelope.keep) == (b"null", True)


def test_an_update_and_a_query(shop: Shell) -> None:
    assert shop("update", "o-3", "move", "--value", "1").json == {"done": True}
    assert shop("query", "o-3", "notes").json == ["a"]
    ((action, saga_id, body),) = shop.owner.asked
    assert (action, saga_id, body.step) == ("query", "o-3", "notes")


def test_what_the_owner_refuses_is_an_error_with_its_code(shop: Shell) -> None:
    shop.owner.refuse, shop.owner.refuse_code = "the saga has ended", SagaOver.code
    said = shop("signal", "o-3", "approved")
    assert said.status == 1
    assert said.err.startswith("kasaga: KSG-232: saga o-3: the saga has ended")


def test_what_is_no_json(shop: Shell) -> None:
    assert "KSG-524" in shop("signal", "o-3", "approved", "--value", "{").err
    assert "KSG-508" in shop("signal", "o-3", "appr oved").err
    assert not shop.owner.messages


def client_of(owner: FakeOwner) -> Client:
    owner.sagas["o-1"] = Sage("run", "payment", b"")
    return Client("orders", link=owner, topic_prefix="", name="anna", database_url="")


def test_a_lost_answer_is_asked_for_with_the_same_key() -> None:
    owner = FakeOwner()

    async def scene() -> None:
        async with client_of(owner) as client:
            owner.deaf = 1
            key = await client.signal("o-1", "approved", Approval(by="anna"))
            assert [envelope.key for envelope, _ in owner.messages] == [key, key]
            owner.deaf = 9
            with pytest.raises(NoAnswer) as caught:
                await client.signal("o-1", "approved", Approval(by="anna"), key="k", timeout=0.2)
            assert (caught.value.sent, caught.value.action_id) == (True, "k")

    asyncio.run(scene())


def test_a_saga_whose_start_lies_unread_is_waited_for_and_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    owner = FakeOwner()
    owner.unread_starts = True

    async def scene() -> None:
        async with client_of(owner) as client:
            await client.start("payment", Approval(by="x"), id="o-2")
            waiting = asyncio.create_task(client.signal("o-2", "approved"))
            for _ in range(1000):
                await asyncio.sleep(0.001 if len(owner.messages) < 2 else 0)
            owner.read_starts()
            await waiting
            monkeypatch.setattr(sending_module, "UNREAD_SECONDS", 0.1)
            with pytest.raises(UnknownSaga):
                await client.signal("o-9", "approved")

    asyncio.run(scene())


def test_two_sagas_may_be_sent_the_same_key_at_once() -> None:
    owner = FakeOwner()

    async def scene() -> None:
        async with client_of(owner) as client:
            owner.sagas["o-2"] = Sage("run", "payment", b"")
            keys = await asyncio.gather(*[client.signal(f"o-{n}", "go", key="k") for n in (1, 2)])
            assert keys == ["k", "k"]

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("code", "kind"), [("KSG-232", SagaOver), ("KSG-234", MailboxFull), ("", NotApplicable)]
)
def test_refusals_have_their_types(code: str, kind: type[NotApplicable]) -> None:
    owner = FakeOwner()
    owner.refuse, owner.refuse_code = "no", code

    async def scene() -> None:
        async with client_of(owner) as client:
            with pytest.raises(kind, match="no"):
                await client.signal("o-1", "go")

    asyncio.run(scene())


def test_what_can_t_be_sent() -> None:
    async def scene() -> None:
        async with client_of(FakeOwner()) as client:
            with pytest.raises(PayloadTooLarge):
                await client.signal("o-1", "go", "x" * 900_001)
            with pytest.raises(BadRequest, match="key"):
                await client.signal("o-1", "go", key="x" * 257)
            with pytest.raises(BadRequest, match="no JSON"):
                await client.signal_json("o-1", "go", "{")

    asyncio.run(scene())
