"""What seldom becomes of signals, updates and queries: damaged histories, lost code, models that raise."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, field_validator

from engine.bodies import of
from engine.shop import Inventory, Order
from kasaga import SagaContext
from kasaga.engine import mail
from kasaga.engine.decide import over_limit, record_unread
from kasaga.engine.model import Accept, Drop, Faulted, Fired, Signalled, Updated
from kasaga.engine.run import Run
from kasaga.errors import MailboxFull, QueryFailed, SagaOver, SignalRefused, UpdateRefused
from kasaga.messages import message_codec
from kasaga_wire.errors import DecodeError


class Moody(BaseModel):
    """Reads nothing while `MOOD` holds an error."""

    text: str

    @field_validator("text")
    @classmethod
    def look(cls, text: str) -> str:
        if MOOD:
            raise MOOD[0]
        return text


MOOD: list[BaseException] = []


@pytest.fixture(autouse=True)
def _good_mood() -> Any:
    yield
    MOOD.clear()


async def moody(ctx: SagaContext, order: Order) -> str:
    first = await ctx.signal("word", Moody)
    await ctx.use(Inventory).reserve(order)
    return first.text


async def parcel(ctx: SagaContext, order: Order) -> str:
    ctx.update("move", str, lambda to: to)
    ctx.query("where", lambda: "here")
    await ctx.use(Inventory).reserve(order)
    await ctx.signal("go")
    return ""


SIGNAL = Signalled("k", "word", b"", "anna")


def test_a_saga_whose_history_can_t_be_read_keeps_signals_and_refuses_updates() -> None:
    play = of(moody)
    full = over_limit(play.state, SIGNAL._replace(payload=b"x" * 11), 10)
    assert isinstance(full, MailboxFull)
    assert over_limit(play.state, SIGNAL, 10) is None
    assert isinstance(over_limit(play.state, Updated("k", "move", b"", "anna"), 10), UpdateRefused)
    assert over_limit(play.state, Fired("1", "sleep"), 10) is None


def test_a_signal_twice_in_what_comes_for_a_history_that_can_t_be_read_is_one() -> None:
    play = of(moody)
    fault = Faulted("KSG-206", "can't be read", "restore it")
    run = play.run
    play.commit(list(record_unread(play.defs, run, [SIGNAL, SIGNAL], fault, at=play.now, row=play.next_row)))
    assert play.state.mail is not None
    assert play.state.mail.count == 1


def test_a_value_that_the_model_chokes_on_is_set_aside_and_the_wait_goes_on() -> None:
    play = of(moody)
    MOOD.append(RuntimeError("no database"))
    play.signal("word", json='{"text": "x"}')
    (drop,) = play.decided(Drop)
    assert "no database" in drop.reason
    MOOD.clear()
    play.signal("word", json='{"text": "x"}')
    play.done(2)
    assert play.state.state == "COMPLETED"


def test_a_model_that_ends_the_process_is_a_bug() -> None:
    play = of(moody)
    MOOD.append(SystemExit(3))
    play.signal("word", json='{"text": "x"}')
    assert play.state.state == "STUCK"


@pytest.mark.parametrize("payload", [b"", b"\x00", b"\x00\x01\x02\x03\x04x"])
def test_a_payload_in_no_known_schema_is_refused(payload: bytes) -> None:
    play = of(moody)
    assert isinstance(play.event(SIGNAL._replace(payload=payload)), SignalRefused)
    assert isinstance(play.event(Updated("k", "move", payload, "anna")), SignalRefused)


def test_an_update_and_a_query_of_code_that_is_gone() -> None:
    play = of(parcel)
    play.defs = play.defs._replace(sagas={})
    play.crash()
    out = play.update("move", "x")
    assert isinstance(out, UpdateRefused)
    assert "can't go on" in str(out)
    with pytest.raises(QueryFailed):
        play.query("where")


def test_a_query_of_a_saga_that_has_not_begun() -> None:
    play = of(parcel)
    play.run = Run("new")
    with pytest.raises(QueryFailed, match="hasn't begun"):
        play.query("where")


def test_a_signal_for_code_that_is_gone_is_kept() -> None:
    play = of(parcel)
    play.done(1)
    play.defs = play.defs._replace(sagas={})
    play.crash()
    play.signal("go")
    assert (play.state.state, play.state.code) == ("RUNNING", "KSG-203")
    assert play.state.mail is not None
    assert play.state.mail.count == 1


def test_histories_that_contradict_themselves_are_found() -> None:
    play = of(moody)
    play.signal("other")
    box = mail.of(play.state)
    with pytest.raises(ValueError, match="not the oldest"):
        box.remove("other", "another")
    with pytest.raises(ValueError, match="no new update"):
        mail.accept(play.state, Accept("1"), 0)


def test_a_saga_that_is_being_undone_takes_nothing() -> None:
    play = of(parcel)
    play.done(1)
    play.ask("cancel")
    assert play.state.state == "CANCELLING"
    out = play.signal("go")
    assert isinstance(out, SagaOver)
    assert "being undone" in str(out)


def test_a_wait_that_has_lasted() -> None:
    play = of(moody)
    play.now += 1_000_000
    play.signal("word", json='{"text": "x"}')
    assert play.state.ended[0][:3] == ("1", "signal", 1)


def test_json_that_is_no_text_is_the_senders_mistake() -> None:
    play = of(moody)
    play.event(SIGNAL._replace(payload=b'"\xff"', json=True))
    (drop,) = play.decided(Drop)
    assert "UTF-8" in drop.reason
    assert play.state.state == "RUNNING"
    assert isinstance(of(parcel).event(Updated("k", "move", b'"\xff"', "anna", json=True)), UpdateRefused)


def test_a_payload_that_is_cut_off_is_set_aside() -> None:
    play = of(moody)
    codec = message_codec(Moody, "signal", "word")
    play.schemas.add(codec.schema)
    play.event(SIGNAL._replace(payload=codec.encode(Moody(text="hello"))[:-2]))
    (drop,) = play.decided(Drop)
    assert drop.code == DecodeError.code
    assert play.state.state == "RUNNING"
