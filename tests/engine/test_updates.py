"""Updates are validated, recorded, handled and answered; queries read, and leave no trace."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel

from engine.bodies import of, stuck
from engine.harness import Play
from engine.shop import Inventory, Mail, Order
from kasaga import SagaContext, UpdateRefused
from kasaga.engine.decide import Ignored, record_parked
from kasaga.engine.model import Accept, Answered, Faulted, Record, Resume, Updated
from kasaga.errors import QueryFailed, SagaOver


class Address(BaseModel):
    street: str


async def parcel(ctx: SagaContext, order: Order) -> str:
    streets = ["old"]
    waits = True

    def check(to: Address) -> None:
        if not to.street:
            raise UpdateRefused("no street")
        if to.street == "odd":
            raise ValueError("an odd street")

    def move(to: Address) -> dict[str, Any]:
        if to.street == "closed":
            raise UpdateRefused("closed")
        if to.street == "bug":
            raise KeyError(to.street)
        streets.append(to.street)
        return {"moved": len(streets) - 1, "at": ctx.now}

    ctx.update("move", Address, move, validate=check)
    ctx.query("street", lambda: streets[-1])
    ctx.query("waits", lambda: waits)
    ctx.query("now", lambda: ctx.now)
    ctx.query("bug", lambda: 1 // 0)
    ctx.query("large", lambda: "x" * 900_001)
    ctx.query("odd", object)
    await ctx.use(Inventory).reserve(order)
    waits = False
    return streets[-1]


def answer_of(play: Play) -> Any:
    (answered,) = play.decided(Answered)
    return answered


def test_an_update_is_handled_and_answered() -> None:
    play = of(parcel)
    play.update("move", Address(street="new"), key="m1")
    assert play.kinds == [Accept, Resume, Answered]
    assert answer_of(play).result.startswith(b'{"moved":1')
    play.update("move", json='{"street": "newer"}')
    assert answer_of(play).result.startswith(b'{"moved":2')
    assert play.query("street") == "newer"
    play.crash()
    assert play.query("street") == "newer"
    play.done(1)
    assert play.state.returned is not None
    assert b"newer" in play.state.returned


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (Address(street=""), "no street"),
        (Address(street="odd"), "an odd street"),
        ("no address", "update move"),
    ],
)
def test_what_the_validator_refuses_is_not_recorded(value: Any, why: str) -> None:
    play = of(parcel)
    out = play.update("move", value)
    assert isinstance(out, UpdateRefused)
    assert why in str(out)
    assert len(play.bodies) == 1
    assert play.query("street") == "old"


def test_what_the_handler_refuses_is_recorded() -> None:
    play = of(parcel)
    play.update("move", Address(street="closed"))
    assert answer_of(play).error == "closed"
    assert not answer_of(play).result
    play.done(1)
    assert play.state.state == "COMPLETED"


def test_the_same_update_twice_is_one() -> None:
    play = of(parcel)
    play.update("move", Address(street="a"), key="m")
    play.crash()
    assert isinstance(play.update("move", Address(street="b"), key="m"), Ignored)
    assert play.query("street") == "a"


def test_an_update_that_nobody_handles() -> None:
    out = of(parcel).update("jump", Address(street="a"))
    assert "it handles move" in str(out)


def test_a_bug_in_a_handler_parks_the_saga_and_mended_code_answers() -> None:
    async def mended(ctx: SagaContext, order: Order) -> str:
        ctx.update("move", Address, lambda to: to.street)
        await ctx.use(Inventory).reserve(order)
        return ""

    play = of(parcel)
    play.update("move", Address(street="bug"), key="m")
    assert (play.state.state, play.state.code) == ("STUCK", "KSG-207")
    assert "KeyError" in play.state.reason
    assert isinstance(play.update("move", Address(street="a")), UpdateRefused)
    app = of(mended).app
    app.sagas = {("parcel", 1): app.sagas["mended", 1]}
    play.new_code(app)
    assert play.state.state == "RUNNING"
    assert answer_of(play).result == b'"bug"'


def test_code_that_handles_it_no_more_is_another_saga() -> None:
    async def without(ctx: SagaContext, order: Order) -> str:
        await ctx.use(Inventory).reserve(order)
        return ""

    play = of(parcel)
    play.update("move", Address(street="a"))
    app = of(without).app
    app.sagas = {("parcel", 1): app.sagas["without", 1]}
    play.load(app)
    play.done(1)
    assert play.state.code == "KSG-202"


def test_a_value_that_today_s_model_can_t_read() -> None:
    async def numbered(ctx: SagaContext, order: Order) -> str:
        ctx.update("move", int, lambda to: to)
        await ctx.use(Inventory).reserve(order)
        return ""

    play = of(parcel)
    play.update("move", Address(street="a"))
    app = of(numbered).app
    app.sagas = {("parcel", 1): app.sagas["numbered", 1]}
    play.load(app)
    play.done(1)
    assert play.state.code == "KSG-208"
    assert "update move" in play.state.reason


def test_a_handler_may_begin_steps() -> None:
    async def spawning(ctx: SagaContext, order: Order) -> str:
        def remind(to: Address) -> None:
            ctx.spawn(ctx.use(Mail).send(order))

        ctx.update("remind", Address, remind)
        await ctx.use(Inventory).reserve(order)
        return ""

    play = of(spawning)
    play.update("remind", Address(street=""))
    assert play.step("2.1").type == "mail.send"
    play.done(1)
    play.done("2.1")
    assert play.state.state == "COMPLETED"


def test_after_the_end_queries_are_answered_and_updates_are_not() -> None:
    play = of(parcel)
    play.done(1)
    assert play.query("waits") is False
    assert isinstance(play.update("move", Address(street="a")), SagaOver)


def test_a_query_of_an_undone_saga() -> None:
    play = of(parcel)
    play.refused(1)
    assert play.state.state == "COMPENSATED"
    assert play.query("street") == "old"


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("nothing", "answers no query nothing"),
        ("bug", "ZeroDivisionError"),
        ("now", "Evicted"),
        ("large", "900003 bytes"),
        ("odd", "PydanticSerializationError"),
    ],
)
def test_queries_that_fail_harm_nobody(name: str, why: str) -> None:
    play = of(parcel)
    with pytest.raises(QueryFailed, match=why):
        play.query(name)
    play.done(1)
    assert play.state.state == "COMPLETED"


def test_a_query_of_a_saga_whose_code_is_gone() -> None:
    play = of(parcel)
    play.defs = play.defs._replace(sagas={})
    play.crash()
    with pytest.raises(QueryFailed, match="no saga parcel"):
        play.query("street")


def test_functions_that_wait_and_names_that_can_t_be() -> None:
    async def waits() -> None: ...

    async def asks(ctx: SagaContext, order: Order) -> str:
        ctx.query("q", waits)
        return ""

    async def handles(ctx: SagaContext, order: Order) -> str:
        ctx.update("u", Address, lambda to: None, validate=lambda to: None)
        ctx.update("u u", Address, lambda to: None)
        return ""

    assert "async def" in stuck(asks)
    assert "u u" in stuck(handles)


def test_a_fault_keeps_the_updates_of_its_batch() -> None:
    play = of(parcel)
    event = Updated("m", "move", b'{"street": "new"}', "anna", json=True)
    fault = Faulted("KSG-210", "refused", "mend it")
    play.commit(list(record_parked(play.defs, play.run, [event], fault, at=play.now, row=play.next_row)))
    assert isinstance(play.ask("retry"), Record)
    assert answer_of(play).result.startswith(b'{"moved":1')
