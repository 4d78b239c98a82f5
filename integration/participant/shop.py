"""A service for the tests: each effect is a row that nothing keeps from being there twice.

Run as a process of its own, with everything in the environment; `SHOP_SYNC=1` makes its handlers plain
functions.
"""

from __future__ import annotations

import asyncio
import os
import time
from typing import Protocol

import psycopg
from pydantic import BaseModel

from kasaga_participant import Participant, Refused, RetryableError, SyncTx, Tx
from kasaga_wire import command, compensation, participant

TABLES = """
CREATE TABLE IF NOT EXISTS effect (command_id text NOT NULL, what text NOT NULL, pid integer NOT NULL);
"""
EFFECT = "INSERT INTO effect (command_id, what, pid) VALUES (%s, %s, %s)"


class Order(BaseModel):
    id: str
    wish: str = "buy"
    """buy, refuse, fail, or fail-<n>: fail in the first n attempts."""
    seconds: float = 0.0
    """How long the handler takes."""


class Bought(BaseModel):
    number: int


@participant("shop")
class Shop(Protocol):
    @command
    async def buy(self, order: Order) -> Bought: ...

    @compensation(buy)
    async def unbuy(self, order: Order, bought: Bought | None) -> None: ...

    @command(alone=True)
    async def call(self, order: Order) -> None: ...


@participant("plainshop", inbox=False)
class PlainShop(Protocol):
    @command
    async def say(self, order: Order) -> Bought: ...

    @compensation(say)
    async def unsay(self, order: Order, said: Bought | None) -> None: ...


def number_of(order: Order) -> int:
    return sum(order.id.encode())


def decide(order: Order, attempt: int) -> None:
    if order.wish == "refuse":
        raise Refused(f"{order.id} is sold out", code="SOLD_OUT", details={"left": 0})
    if order.wish == "fail" or (order.wish.startswith("fail-") and attempt <= int(order.wish[5:])):
        raise RetryableError(f"{order.id} not now")


class ShopService(Shop):
    def __init__(self, tx: Tx) -> None:
        self.tx = tx

    async def _effect(self, what: str) -> None:
        await self.tx.connection.execute(EFFECT, (self.tx.command.id, what, os.getpid()))

    async def buy(self, order: Order) -> Bought:
        await self._effect("buy")
        if order.seconds:
            await asyncio.sleep(order.seconds)
        decide(order, self.tx.command.attempt)
        return Bought(number=number_of(order))

    async def unbuy(self, order: Order, bought: Bought | None) -> None:
        await self._effect(f"unbuy {None if bought is None else bought.number}")
        decide(order, self.tx.command.attempt)

    async def call(self, order: Order) -> None:
        await self._effect("call")


class PlainService(PlainShop):
    def __init__(self, tx: Tx) -> None:
        self.tx = tx

    async def say(self, order: Order) -> Bought:
        decide(order, self.tx.command.attempt)
        return Bought(number=number_of(order))

    async def unsay(self, order: Order, said: Bought | None) -> None:
        decide(order, self.tx.command.attempt)


def add_functions(app: Participant) -> None:
    @app.handle(Shop.buy)
    def buy(order: Order, tx: SyncTx) -> Bought:
        tx.connection.execute(EFFECT, (tx.command.id, "buy", os.getpid()))
        if order.seconds:
            time.sleep(order.seconds)
        decide(order, tx.command.attempt)
        return Bought(number=number_of(order))

    @app.handle(Shop.unbuy)
    def unbuy(order: Order, bought: Bought | None, tx: SyncTx) -> None:
        what = f"unbuy {None if bought is None else bought.number}"
        tx.connection.execute(EFFECT, (tx.command.id, what, os.getpid()))
        decide(order, tx.command.attempt)

    @app.handle(Shop.call)
    async def call(order: Order, tx: Tx) -> None:
        await tx.connection.execute(EFFECT, (tx.command.id, "call", os.getpid()))


def make(app: Participant, *, sync: bool = False) -> Participant:
    if sync:
        add_functions(app)
    else:
        app.serve(Shop, ShopService)
    return app


def main() -> None:
    with psycopg.connect(os.environ["SHOP_DATABASE"]) as connection:
        connection.execute("SELECT pg_advisory_xact_lock(1)")  # IF NOT EXISTS is no lock
        connection.execute(TABLES)
    concurrency = int(os.environ.get("SHOP_CONCURRENCY", "4"))
    app = make(Participant("shop", concurrency=concurrency), sync=os.environ.get("SHOP_SYNC") == "1")
    if os.environ.get("SHOP_PLAIN") == "1":
        app.serve(PlainShop, PlainService)
    app.run()


if __name__ == "__main__":
    main()
