"""Orders for the example shop, started through the HTTP API as a shop's own program would, and audited.

Called by `images.check` and `kubernetes`, which run the shop in containers and break things meanwhile.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence

import httpx
import psycopg

from examples.audit import audit, read_books, read_sagas
from examples.contracts import Order

Start = Callable[[Order], None]
"""Starts an order's saga, and returns when it will run."""

TRY_AGAIN_SECONDS = 0.5
START_SECONDS = 60.0
"""How long one start is tried again. Pods that end drop connections; the saga's id makes it idempotent."""

PATIENCE_SECONDS = 90.0
"""How long nothing may end: longer than a step's time-out, after which it is sent again."""

LOOK_SECONDS = 0.2
TELL_SECONDS = 5.0
SENTENCES_SHOWN = 20

COUNT = "SELECT state, count(*) FROM kasaga.saga GROUP BY state"
ENDED = ("COMPLETED", "COMPENSATED", "STUCK")


class DeskError(Exception):
    """Orders can't be started, don't end, or end wrongly."""


class Desk:
    """Starts orders and waits for them. `database` gives the address of a database by its name."""

    def __init__(self, start: Start, database: Callable[[str], str], tell: Callable[[str], None]) -> None:
        self._start = start
        self._database = database
        self._tell = tell
        self.started: list[Order] = []
        """Whatever may have been started: the audit is about all of it."""

    def ended(self) -> int:
        """How many sagas have ended."""
        with psycopg.connect(self._database("kasaga"), autocommit=True) as connection:
            rows: list[tuple[str, int]] = connection.execute(COUNT).fetchall()
        return sum(number for state, number in rows if state in ENDED)

    def run(
        self, orders: Sequence[Order], *, per_second: float, meanwhile: Callable[[], None] | None = None
    ) -> None:
        """Starts orders, does something meanwhile, and waits until all sagas have ended.

        While that lasts, the pace slows down as the orders run out, so that there are some to the end.

        Raises:
            DeskError: a start fails, or nothing moves any more.
        """
        before = self.ended()
        feeder = Feeder(self._start, orders, per_second)
        self.started.extend(orders)
        feeder.start()
        try:
            if meanwhile is not None:
                self._until(lambda: self.ended() > before, feeder)
                self._under_load(meanwhile, feeder)
        finally:
            feeder.hurry()
        self._until(lambda: self.ended() >= len(self.started), feeder)
        feeder.join()

    def _under_load(self, meanwhile: Callable[[], None], feeder: Feeder) -> None:
        ended, started, began = self.ended(), feeder.count, time.monotonic()
        meanwhile()
        seconds = time.monotonic() - began
        if not feeder.is_alive():
            raise DeskError(f"All orders were started before it was over, after {seconds:.0f} s.")
        more_started, more_ended = feeder.count - started, self.ended() - ended
        self._tell(
            f"that took {seconds:.0f} s; meanwhile {more_started} sagas were started, {more_ended} ended"
        )
        self._until(lambda: self.ended() > ended, feeder)

    def _until(self, done: Callable[[], bool], feeder: Feeder) -> None:
        count, moved_at, told_at = -1, time.monotonic(), time.monotonic()
        while not done():
            feeder.check()
            now, ended = time.monotonic(), self.ended()
            if ended != count:
                count, moved_at = ended, now
            if now - told_at > TELL_SECONDS:
                told_at = now
                self._tell(f"{ended} of {len(self.started)} sagas have ended")
            if now - moved_at > PATIENCE_SECONDS:
                raise DeskError(f"No saga has ended for {PATIENCE_SECONDS:.0f} s; {ended} have before.")
            time.sleep(LOOK_SECONDS)

    def audit(self) -> Counter[str]:
        """Holds the books against the sagas. Gives how they ended; raises DeskError on any violation."""
        sagas = read_sagas(self._database("kasaga"))
        books = read_books(*(self._database(name) for name in ("inventory", "payments", "shipping")))
        violations = audit(self.started, sagas, books)
        violations += [
            f"Saga {saga.saga_id} is stuck: {saga.reason}" for saga in sagas if saga.state == "STUCK"
        ]
        if violations:
            more = len(violations) - SENTENCES_SHOWN
            shown = violations[:SENTENCES_SHOWN] + ([f"and {more} more"] if more > 0 else [])
            raise DeskError("\n".join([f"audit: {len(violations)} violations", *shown]))
        return Counter(saga.state for saga in sagas)


class Feeder(threading.Thread):
    """Starts orders, slower and slower until it is told to hurry."""

    def __init__(self, start: Start, orders: Sequence[Order], per_second: float) -> None:
        super().__init__(name="feeder", daemon=True)
        self.count = 0
        """How many have been started."""
        self._begin = start
        self._orders = orders
        self._per_second = per_second
        self._hurry = threading.Event()
        self._failure: BaseException | None = None

    def run(self) -> None:
        """Starts them one after the other."""
        try:
            for order in self._orders:
                self._begin(order)
                self.count += 1
                self._hurry.wait(pause(len(self._orders), self.count, self._per_second))
                if self._hurry.is_set():
                    time.sleep(1 / self._per_second)
        except BaseException as error:  # noqa: BLE001 (told by the main thread)
            self._failure = error

    def hurry(self) -> None:
        """From now on the pace stays what it was in the beginning."""
        self._hurry.set()

    def check(self) -> None:
        """Raises what the thread died of."""
        if self._failure is not None:
            raise self._failure


def pause(orders: int, started: int, per_second: float) -> float:
    """Seconds until the next order: as long as wished at first, and longer the fewer are left.

    The last ten of a hundred take as long as all others, and the last one as long as a hundred.
    """
    return orders / max(1, orders - started) / per_second


class Api:
    """The HTTP API as the way in."""

    def __init__(self, url: str, token: str, *, transport: httpx.BaseTransport | None = None) -> None:
        headers = {"Authorization": f"Bearer {token}"}
        self._client = httpx.Client(base_url=url, headers=headers, timeout=10.0, transport=transport)

    def start(self, order: Order) -> None:
        """Starts an order's saga, again and again until it is accepted; raises DeskError."""
        body = {"name": "payment", "saga_id": order.id, "input": order.model_dump(mode="json")}
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                answer = self._client.post("/api/v1/sagas", json=body)
                if answer.is_success:
                    return
                said = f"{answer.status_code} {answer.text}"
                if answer.status_code < 500 and answer.status_code != 429:
                    raise DeskError(f"The API refuses to start {order.id}: {said}")
            except httpx.TransportError as error:
                said = f"{type(error).__name__}: {error}"
            if time.monotonic() > deadline:
                raise DeskError(f"{order.id} could not be started within {START_SECONDS:.0f} s: {said}")
            time.sleep(TRY_AGAIN_SECONDS)

    def get(self, path: str) -> httpx.Response:
        """Asks, with the token."""
        return self._client.get(path)

    def close(self) -> None:
        """Closes its connections."""
        self._client.close()
