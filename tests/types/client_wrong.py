"""Mistakes with a client that both type checkers must report.

Each is silenced on its line; test_types.py says why that is a test.
"""

from __future__ import annotations

from pydantic import BaseModel

from kasaga import SagaContext, saga
from kasaga.client import BlockingClient, Client


class Order(BaseModel):
    id: str


class Receipt(BaseModel):
    id: str


@saga("payment")
async def payment(ctx: SagaContext, order: Order) -> Receipt:
    return Receipt(id=order.id)


async def mistakes(client: Client, blocking: BlockingClient, order: Order) -> None:
    await client.start(payment, Receipt(id="1"), id="1")  # type: ignore[misc]  # pyright: ignore[reportCallIssue, reportArgumentType]
    await client.start(payment, order)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    await client.run(payment, "order", id="1")  # type: ignore[misc]  # pyright: ignore[reportArgumentType]
    number: int = await client.run(payment, order, id="1")  # type: ignore[arg-type]  # pyright: ignore[reportAssignmentType]
    print(number)
    await client.skip("1")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    client.start(payment, order, id="1")  # type: ignore[unused-coroutine]  # pyright: ignore[reportUnusedCoroutine]
    blocking.run(payment, Receipt(id="1"), id="1")  # type: ignore[misc]  # pyright: ignore[reportArgumentType]
    text: str = blocking.start(payment, order, id="1").result()  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    print(text)
