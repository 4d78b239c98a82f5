"""A shop whose compensations work, raise, break a deferred constraint, commit by themselves, call outside.

    python -m kasaga orchestrator audit.drill_shop:app
    python -m audit.drill_shop

An order's id says what becomes of its compensations.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

import psycopg
from pydantic import BaseModel

from kasaga import App, SagaContext, saga
from kasaga_participant import Participant, SyncTx, Tx
from kasaga_wire import command, compensation, participant

NAMESPACE = "drillshop"

TABLES = """
CREATE TABLE IF NOT EXISTS reserved (
    order_id text PRIMARY KEY, command_id text NOT NULL, released int NOT NULL
);
CREATE TABLE IF NOT EXISTS book (id text PRIMARY KEY);
CREATE TABLE IF NOT EXISTS entry (
    book text NOT NULL REFERENCES book (id) DEFERRABLE INITIALLY DEFERRED, order_id text NOT NULL
);
"""


class Order(BaseModel):
    id: str


class Token(BaseModel):
    order_id: str


@participant("stock")
class Stock(Protocol):
    @command
    async def reserve(self, order: Order) -> Token: ...
    @compensation(reserve)
    async def release(self, order: Order, token: Token | None) -> None: ...


@participant("ledger")
class Ledger(Protocol):
    @command
    async def post(self, order: Order) -> Token: ...
    @compensation(post)
    async def unpost(self, order: Order, token: Token | None) -> None: ...


@participant("bank")
class Bank(Protocol):
    @command(alone=True)
    async def charge(self, order: Order) -> Token: ...
    @compensation(charge, alone=True)
    async def refund(self, order: Order, token: Token | None) -> None: ...


@participant("mailer", inbox=False)
class Mailer(Protocol):
    @command
    async def mail(self, order: Order) -> Token: ...
    @compensation(mail)
    async def unmail(self, order: Order, token: Token | None) -> None: ...


@saga("buying", version=1)
async def buying(ctx: SagaContext, order: Order) -> Token:
    await ctx.use(Stock).reserve(order)
    await ctx.use(Ledger).post(order)
    await ctx.use(Mailer).mail(order)
    return await ctx.use(Bank).charge(order)


app = App(NAMESPACE, sagas=[buying], participants=[Stock, Ledger, Bank, Mailer])
service = Participant("drillshop", namespaces=(NAMESPACE,))


def outside(what: str, order: Order) -> None:
    """A call that nobody can take back."""
    with Path(os.environ["OUTSIDE"]).open("a", encoding="utf-8") as file:
        file.write(f"{what} {order.id}\n")


class StockService(Stock):
    def __init__(self, tx: Tx) -> None:
        self.tx = tx

    async def reserve(self, order: Order) -> Token:
        values = (order.id, self.tx.command.id)
        await self.tx.connection.execute("INSERT INTO reserved VALUES (%s, %s, 0)", values)
        return Token(order_id=order.id)

    async def release(self, order: Order, token: Token | None) -> None:
        assert token == Token(order_id=order.id)
        assert (self.tx.command.saga_id, self.tx.command.saga) == (order.id, "buying")
        if "raises" in order.id:
            raise RuntimeError(f"the shelf of {order.id} is gone")
        found = await self.tx.connection.execute(
            "UPDATE reserved SET released = released + 1 WHERE command_id = %s", (self.tx.command.undoes,)
        )
        assert found.rowcount == 1, "it finds what the command did by the command's own id"
        if "leaves" in order.id:
            await self.tx.connection.execute("ROLLBACK")
            await self.tx.connection.execute("DELETE FROM reserved")
        if "commits" in order.id:
            await self.tx.connection.execute("COMMIT")


@service.handle(Ledger.post)
def post(order: Order, tx: SyncTx) -> Token:
    tx.connection.execute("INSERT INTO entry VALUES ('main', %s)", (order.id,))
    return Token(order_id=order.id)


@service.handle(Ledger.unpost)
def unpost(order: Order, token: Token | None, tx: SyncTx) -> None:
    book = "none" if "deferred" in order.id else "main"
    tx.connection.execute("UPDATE entry SET book = %s WHERE order_id = %s", (book, order.id))


@service.handle(Bank.charge)
async def charge(order: Order, tx: Tx) -> Token:
    return Token(order_id=order.id)


@service.handle(Bank.refund)
async def refund(order: Order, token: Token | None, tx: Tx) -> None:
    if not tx.command.drill:
        outside("refund", order)


@service.handle(Mailer.mail)
async def mail(order: Order, tx: Tx) -> Token:
    return Token(order_id=order.id)


@service.handle(Mailer.unmail)
async def unmail(order: Order, token: Token | None, tx: Tx) -> None:
    outside("unmail", order)


service.serve(Stock, StockService)


if __name__ == "__main__":
    with psycopg.connect(os.environ["KASAGA_DATABASE_URL"]) as connection:
        connection.execute("SELECT pg_advisory_xact_lock(1)")
        connection.execute(TABLES)
        connection.execute("INSERT INTO book VALUES ('main') ON CONFLICT DO NOTHING")
    service.run()
