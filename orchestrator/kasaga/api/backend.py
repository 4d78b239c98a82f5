"""What the API stands on: the namespace's Postgres, read in threads, and a client that sends to Kafka.

Station: made by `app` for the time that it serves; routes ask it. Neither server needs to be there when it
opens, and what is away comes back by itself: a request that needs it meanwhile is told so.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from datetime import UTC, datetime
from typing import TypeVar

from kasaga_wire.errors import KafkaUnavailable, KasagaError
from kasaga_wire.redaction import hide, hide_in
from kasaga_wire.sealing import sealer_from_env

from ..client import Client, NoAnswer, UnknownSaga
from ..client.acting import Action
from ..client.status import SagaStatus
from ..errors import NotApplicable
from ..lookup import asked_before
from ..store.base import Store
from ..store.errors import StoreUnavailable, check_namespace
from ..store.postgres import PostgresStore
from ..store.settings import StoreSettings
from .ends import Ends
from .metrics import ApiMetrics
from .payloads import Payloads
from .settings import ApiSettings

log = logging.getLogger("kasaga.api")

T = TypeVar("T")

FIRST_TRY, LONGEST_TRY = 0.2, 5.0
"""Seconds between tries to reach Kafka when the process starts."""

CHECK_SECONDS = 2.0
"""How long Postgres may take to answer the readiness probe."""

CONNECT_SECONDS, ANSWER_SECONDS = 3.0, 5.0
"""How long Postgres may take to be reached, and to answer beyond what a statement may take."""

MAX_UNCONFIRMED_BYTES = 32 * 1024 * 1024
"""Starts and actions that Kafka hasn't confirmed, kept in memory; more are refused while it is away."""

AWAY = "Postgres can't be reached"

OpenStore = Callable[[ApiSettings], Store]
OpenClient = Callable[[ApiSettings, str], Client]


def open_postgres(settings: ApiSettings) -> Store:
    """The store that the API reads; connects when it is first asked."""
    reading = StoreSettings(
        settings.database_url.get_secret_value(),
        connect_timeout=CONNECT_SECONDS,
        answer_timeout=ANSWER_SECONDS,
        people_timeout=settings.read_seconds,
    )
    sealer = sealer_from_env()
    return PostgresStore(reading, application="kasaga api", readers=settings.readers, sealer=sealer)


def open_kafka(settings: ApiSettings, namespace: str) -> Client:
    """The client that the API sends with, not opened yet."""
    name = f"api@{socket.gethostname()}"
    return Client(namespace, settings.kafka, topic_prefix=settings.topic_prefix, name=name)


class Backend:
    """One process's way to Postgres and Kafka, of one event loop."""

    def __init__(
        self,
        settings: ApiSettings,
        *,
        open_store: OpenStore = open_postgres,
        open_client: OpenClient = open_kafka,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Open nothing yet. Tests give a store and a client of their own, and a clock."""
        hide_in(settings.database_url.get_secret_value())
        hide(*settings.kafka.secrets)
        if settings.token is not None:
            hide(settings.token.get_secret_value())
        self.settings = settings
        self.now = now
        self._store = open_store(settings)
        self._open_client = open_client
        self._client: Client | None = None
        self._namespace = ""
        self._shards = 0
        self._why = "the process has just begun"
        self.metrics = ApiMetrics()
        self.payloads = Payloads()
        self.ends = Ends(self, places=settings.max_waiters, metrics=self.metrics)
        self._threads = ThreadPoolExecutor(settings.readers, thread_name_prefix="kasaga-api-read")
        self._connecting: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Begin to look for Kafka."""
        self._connecting = asyncio.create_task(self._connect(), name="kasaga-api-connect")

    async def close(self) -> None:
        """Let go of both."""
        await self.ends.close()
        if self._connecting is not None:
            self._connecting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._connecting
        client, self._client = self._client, None
        if client is not None:
            await client.__aexit__(None, None, None)
        self._threads.shutdown(wait=True)
        self._store.close()

    # --- Postgres

    async def read(self, ask: Callable[[Store], T]) -> T:
        """Ask the store in a thread, where it may block.

        Raises:
            StoreUnavailable: Postgres doesn't answer; it is asked anew with the next request.
            NamespaceMismatch: it isn't the namespace that the settings name.
        """
        if not self._namespace:
            await self.namespace()
        return await self._in_thread(lambda: ask(self._store))

    async def namespace(self) -> str:
        """Return the namespace, once the database has told it; raises as `read`."""
        if not self._namespace:
            found = await self._in_thread(self._store.namespace)
            check_namespace(found.name, self.settings.namespace or found.name)
            self._namespace, self._shards = found.name, found.shards
        return self._namespace

    async def shards(self) -> int:
        """Return the namespace's number of shards; raises as `read`."""
        await self.namespace()
        return self._shards

    async def _in_thread(self, work: Callable[[], T]) -> T:
        # With the context: what is logged there belongs to the request's saga and trace.
        context = copy_context()
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, lambda: context.run(work))
        except StoreUnavailable:
            self.metrics.store_lost()
            raise

    # --- Kafka

    @property
    def client(self) -> Client:
        """The open client; raises KafkaUnavailable while there is none, or Kafka takes nothing."""
        if self._client is None:
            raise KafkaUnavailable(
                "Kafka hasn't been reached since the API's process began; nothing was sent",
                remedy="Try again; if it lasts, the API's log says what is missing",
            )
        if self._client.unconfirmed_bytes > MAX_UNCONFIRMED_BYTES:
            raise KafkaUnavailable(
                f"{self._client.unconfirmed_bytes} bytes wait for Kafka already; nothing was sent",
                remedy="Try again; if it lasts, look at the brokers",
            )
        return self._client

    async def act(
        self,
        action: Action,
        saga_id: str,
        *,
        reason: str,
        by: str,
        step: str = "",
        value: object = None,
        timeout: float,  # noqa: ASYNC109 - the client's word
        action_id: str,
    ) -> SagaStatus:
        """Send an action to a saga's owner, as `Client.act`; the same id again is told what it did before.

        Raises as `Client.act`, and:
            KafkaUnavailable: there is no open client yet.
            Busy: too many wait already.
        """
        result = "failed"
        try:
            with self.ends.place():
                status = await self.client.act(
                    action,
                    saga_id,
                    reason=reason,
                    step=step,
                    value=value,
                    by=by,
                    timeout=timeout,
                    action_id=action_id,
                )
            result = "confirmed"
            return status
        except NoAnswer as error:
            result = "confirmed" if error.sent else "failed"
            raise
        except UnknownSaga:
            result = "confirmed"
            raise
        except NotApplicable:
            result = "confirmed"
            # An owner forgets what was asked of a saga that has ended; its history doesn't.
            row = await self.read(lambda store: asked_before(store, saga_id, action_id))
            if row is None:
                raise
            return SagaStatus.of_row(row)
        finally:
            self.metrics.sent("action", result)

    async def _connect(self) -> None:
        """Try until Postgres has told the namespace, and Kafka its topics."""
        wait = FIRST_TRY
        while self._client is None:
            try:
                client = self._open_client(self.settings, await self.namespace())
                self._client = await client.__aenter__()
            except KasagaError as error:
                if self._why != error.message:
                    log.warning("waiting for what is needed", extra={"error": str(error)})
                self._why = error.message
                await asyncio.sleep(wait)
                wait = min(wait * 2, LONGEST_TRY)
        log.info("the API is connected", extra={"namespace": self._namespace})

    # --- probes

    async def ready(self) -> tuple[bool, dict[str, object]]:
        """Say whether requests can be served: Postgres answers now, and Kafka did once.

        A lost Kafka makes the process unready for nobody: reading goes on, and a start says so itself.
        """
        try:
            async with asyncio.timeout(CHECK_SECONDS):
                await self._in_thread(self._store.namespace)
                namespace = await self.namespace()
        except (TimeoutError, StoreUnavailable):
            return False, {"reason": AWAY}
        except KasagaError as error:
            return False, {"reason": error.message}
        if self._client is None:
            return False, {"reason": "Kafka hasn't been reached yet"}
        return True, {"namespace": namespace}
