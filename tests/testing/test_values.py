"""Values made from models, and what a Case refuses."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal
from uuid import UUID

import pytest
from pydantic import AwareDatetime, BaseModel, Field, field_validator

from kasaga import SagaContext, saga
from kasaga.testing import Case, Fault, NoExample, run
from kasaga.testing.values import example
from kasaga_participant.errors import RegistrationError
from kasaga_wire.codec import codec_for
from kasaga_wire.errors import ContractError
from testing.bookings import Airline, Bank, Booking, Bus, Hotel, HotelService, Trip, bank_app, trip


class Colour(Enum):
    RED = "red"


class Part(BaseModel):
    name: Annotated[str, Field(min_length=8)]
    short: Annotated[str, Field(max_length=2)]


class Many(BaseModel):
    number: Annotated[int, Field(gt=3)]
    small: Annotated[int, Field(le=-5)]
    share: Annotated[float, Field(gt=0, lt=1)]
    fours: Annotated[int, Field(multiple_of=4, ge=6)]
    money: Annotated[Decimal, Field(ge=0, max_digits=12, decimal_places=2)]
    when: AwareDatetime
    day: date
    id: UUID
    colour: Colour
    kind: Literal["a", "b"]
    yes: bool
    parts: Annotated[list[Part], Field(min_length=2)]
    by_name: dict[str, int]
    perhaps: str | None
    nothing: str | None = None


def test_a_value_of_many_fields() -> None:
    made: Many = example(codec_for(Many, name="many"), "many")
    assert (made.number, made.small, made.fours, made.share) == (4, -5, 8, 0.5)
    assert made.parts == [Part(name="namexxxx", short="sh")] * 2
    assert (made.colour, made.kind, made.perhaps, made.nothing) == (Colour.RED, "a", "perhaps", None)
    assert made.when == datetime.fromisoformat("2030-01-01T00:00:00Z")


def test_plain_values() -> None:
    assert example(codec_for(None, name="none"), "none") is None
    assert example(codec_for(int, name="int"), "int") == 1


class Picky(BaseModel):
    code: str

    @field_validator("code")
    @classmethod
    def _check(cls, value: str) -> str:
        if not value.startswith("K-"):
            raise ValueError("codes begin with K-")
        return value


def test_a_model_that_asks_for_more() -> None:
    with pytest.raises(NoExample, match="codes begin with K-") as caught:
        example(codec_for(Picky, name="picky"), "the input")
    assert "the input" in str(caught.value)


def test_an_answer_that_cannot_be_made_is_told_when_it_is_needed() -> None:
    from typing import Protocol

    from kasaga_wire import command, participant

    @participant("picker")
    class Picker(Protocol):
        @command
        async def pick(self, trip: Trip) -> Picky: ...

    @saga("picks")
    async def picks(ctx: SagaContext, asked: Trip) -> None:
        await ctx.use(Picker).pick(asked)

    def picked(trip: Trip) -> Picky:
        return Picky(code="K-1")

    with pytest.raises(NoExample, match=r"the fake of picker\.pick"):
        run(picks)
    assert run(picks, fakes={Picker.pick: picked}).state == "COMPLETED"


def nothing(trip: Trip) -> None: ...


def empty() -> None: ...


REFUSED: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"fakes": {Bus.ride: nothing}}, ContractError, "the saga doesn't use 'bus'"),
    ({"fakes": {Bank.charge: empty}}, ContractError, "must take the command's input"),
    ({"fakes": {Bank.refund: nothing}}, ContractError, "input and its result"),
    (
        {"participants": [bank_app()], "fakes": {Bank.charge: nothing}},
        ContractError,
        "beside a participant",
    ),
    ({"participants": [Trip]}, ContractError, "is no contract"),
    ({"data": dict}, TypeError, "attributes"),
]


@pytest.mark.parametrize(("about", "error", "said"), REFUSED)
def test_what_a_case_refuses(about: Any, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        Case(trip, **about).run()


def test_a_service_that_lacks_a_handler() -> None:
    class Half(Hotel):
        def __init__(self, tx: object) -> None: ...

        async def book(self, trip: Trip) -> Booking:
            return Booking(number=1)

    with pytest.raises(RegistrationError, match="doesn't implement cancel"):
        Case(trip, participants=[Half]).run()


def test_faults_that_do_not_exist() -> None:
    with pytest.raises(ValueError, match="'explodes' is no fault"):
        Fault("explodes", "1")
    with pytest.raises(ContractError):
        Fault.refused(HotelService)
    assert Fault.refused(Airline.fly) == Fault("refused", "airline.fly")


def test_participants_and_fakes_made_for_each_run() -> None:
    class Data:
        def __init__(self) -> None:
            self.flown = 0

    made: list[Data] = []

    def fakes(data: Data) -> dict[Any, Any]:
        made.append(data)

        async def fly(trip: Trip) -> Booking:
            data.flown += 1
            return Booking(number=data.flown)

        return {Airline.fly: fly}

    case = Case(trip, fakes=fakes, data=Data)
    assert [case.run().value, case.run().value] == [Booking(number=1)] * 2
    assert len(made) == 2
    assert made[0] is not made[1]
