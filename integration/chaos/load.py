"""Orders at a steady rate, whatever happens; each is tried again until Kafka has it. Called by `run.py`."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator

from examples.contracts import NAMESPACE, Order
from examples.make_orders import ORDERS, make_orders
from examples.sagas import payment
from kasaga.client import Client
from kasaga_wire.errors import KasagaError
from kasaga_wire.kafka import KafkaSettings

CONFIRM_SECONDS = 10.0
TRY_AGAIN_SECONDS = 0.5
WAITING = 3_000
"""How many orders may wait for Kafka; beyond that no new ones come."""


def orders(seed: int) -> Iterator[Order]:
    """Gives orders without end: rounds of as many as are shipped, each with numbers of its own."""
    number = 0
    while True:
        for order in make_orders(seed + number):
            yield order.model_copy(update={"id": f"{number}-{order.id}"})
        number += 1


def rounds(rate: float, seconds: float) -> int:
    """How many rounds of orders that is, at most."""
    return int(rate * seconds / ORDERS) + 2


class Load(threading.Thread):
    """Starts a saga for each order that is due."""

    def __init__(self, kafka: KafkaSettings, rate: float, seed: int) -> None:
        super().__init__(name="load", daemon=True)
        self.orders: list[Order] = []
        """Whatever may have been started: the audit is about all of it."""
        self.accepted = 0
        """How many of them Kafka has."""
        self.tries_failed = 0
        self.failure: BaseException | None = None
        self._kafka = kafka
        self._rate = rate
        self._orders = orders(seed)
        self._leave = threading.Event()

    def run(self) -> None:
        """Runs the client's event loop."""
        try:
            asyncio.run(self._run())
        except BaseException as error:  # noqa: BLE001 (told by the main thread)
            self.failure = error

    def leave(self) -> None:
        """No new orders; those that wait are tried on."""
        self._leave.set()

    @property
    def is_over(self) -> bool:
        """Whether Kafka has all orders, and no more come."""
        return not self.is_alive()

    async def _run(self) -> None:
        tasks: set[asyncio.Task[None]] = set()
        began = time.monotonic()
        due = 0
        async with Client(NAMESPACE, self._kafka, topic_prefix="", name="chaos") as client:
            while not self._leave.is_set():
                late = (time.monotonic() - began) * self._rate - due
                if late >= 1 and len(tasks) < WAITING:
                    due += 1
                    order = next(self._orders)
                    self.orders.append(order)
                    task = asyncio.create_task(self._start(client, order))
                    tasks.add(task)
                    task.add_done_callback(tasks.discard)
                elif len(tasks) >= WAITING:
                    due = int((time.monotonic() - began) * self._rate)  # what didn't come is not made up for
                    await asyncio.sleep(TRY_AGAIN_SECONDS)
                else:
                    await asyncio.sleep((1 - late) / self._rate)
            await asyncio.gather(*tasks)

    async def _start(self, client: Client, order: Order) -> None:
        while True:
            try:
                await client.start(payment, order, id=order.id, timeout=CONFIRM_SECONDS)
            except KasagaError:
                self.tries_failed += 1
                await asyncio.sleep(TRY_AGAIN_SECONDS)
            else:
                self.accepted += 1
                return
