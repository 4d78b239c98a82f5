"""Large payloads between Kafka and a store of objects, in threads of its own, where there is such a store.

Station: the runtime has commands fetched before they become jobs, the answers have results written before
they are sent. The event loop waits for no store. Where one doesn't do it after some tries, the command is
answered `failed` with the reason: its step is tried again, and by then the inbox has the result.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from kasaga_wire.claims import MAX_OBJECT_BYTES, Claims, claimed, fetch, folder_of, is_claim
from kasaga_wire.crashpoints import crash_point
from kasaga_wire.errors import KasagaError, ObjectsUnavailable, ObjectUnreadable

from .outage import delay
from .sender import Outgoing

THREADS = 8
TRIES = 3
"""Of one object, before its command has failed."""
SECONDS = 30.0
"""How long one try may take; the store's library may have its own patience besides."""

Answer = TypeVar("Answer")


class Porter:
    """Of one process, in its event loop."""

    def __init__(self, claims: Claims) -> None:
        self._claims = claims
        self._threads = ThreadPoolExecutor(THREADS, "kasaga-objects")
        self._tasks: set[asyncio.Task[None]] = set()
        self.post: Callable[[Outgoing], None] = lambda outgoing: None
        """Sends a record; set by the runtime."""

    @property
    def busy(self) -> bool:
        """Whether anything is on its way."""
        return bool(self._tasks)

    def run(self, task: asyncio.Task[None]) -> None:
        """Keep a task until it is done."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def covers(self, value: bytes) -> bool:
        """Whether a payload is to be an object."""
        return self._claims.covers(value)

    async def fetch(self, command_id: str, claim: bytes) -> bytes | ObjectUnreadable:
        """The payload that a command claims, or why it can't be had."""
        for tries in range(TRIES):
            try:
                return await self._ask(lambda: fetch(self._claims, command_id, claim))
            except ObjectUnreadable as error:
                if error.lasting or tries == TRIES - 1:
                    return error
            except ObjectsUnavailable as error:
                if tries == TRIES - 1:
                    return ObjectUnreadable(error.message, lasting=False)
            await asyncio.sleep(delay(tries))
        raise AssertionError("the last try returns")

    def send(self, outgoing: Outgoing, command_id: str, instead: Callable[[KasagaError], Outgoing]) -> None:
        """Send a record when its payload is written; if it can't be, send what is to be said `instead`."""
        self.run(asyncio.ensure_future(self._send(outgoing, command_id, instead)))

    async def _send(
        self, outgoing: Outgoing, command_id: str, instead: Callable[[KasagaError], Outgoing]
    ) -> None:
        data = outgoing.value or b""
        for tries in range(TRIES):
            try:
                outgoing.value = await self._ask(lambda: self._claims.put(folder_of(command_id), data))
            except KasagaError as error:
                if tries == TRIES - 1:
                    outgoing = instead(error)
                else:
                    await asyncio.sleep(delay(tries))
            else:
                break
        crash_point("participant.after_object")
        self.post(outgoing)

    async def _ask(self, ask: Callable[[], Answer]) -> Answer:
        """Raises what `ask` raises, and ObjectsUnavailable."""
        try:
            async with asyncio.timeout(SECONDS):
                return await asyncio.get_running_loop().run_in_executor(self._threads, ask)
        except TimeoutError:
            raise ObjectsUnavailable(f"{self._claims.url} doesn't answer within {SECONDS:g} s") from None

    def close(self) -> None:
        """End; nobody waits for what is under way."""
        for task in self._tasks:
            task.cancel()
        self._threads.shutdown(wait=False, cancel_futures=True)


def room_of(value: bytes | None) -> int:
    """The bytes that a record's payload takes when it is fetched, besides those of the record."""
    if not is_claim(value):
        return 0
    try:
        return min(claimed(value or b"")[1], MAX_OBJECT_BYTES)
    except ObjectUnreadable:
        return 0
