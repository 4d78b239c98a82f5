"""The client for programs without an event loop: the asynchronous one, run in a loop of its own thread.

No second implementation: each method hands one coroutine over and waits for it.
"""

# ruff: noqa: A002 - `id` and `input` are the words that callers expect

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, overload

from ..saga import Saga
from .client import Attributes, Client
from .handle import Handle
from .status import SagaStatus

A = TypeVar("A")
R = TypeVar("R")
T = TypeVar("T")


class BlockingHandle(Generic[R]):
    """A saga by its id; see `Handle`."""

    def __init__(self, client: BlockingClient, handle: Handle[R]) -> None:
        self._client = client
        self._handle = handle

    @property
    def id(self) -> str:
        """The saga's id."""
        return self._handle.id

    @property
    def run_id(self) -> str | None:
        """The id of its run, once it is known."""
        return self._handle.run_id

    def result(self, timeout: float | None = None) -> R:
        """Wait for the end and return what the saga returned; see `Handle.result`."""
        return self._client.call(self._handle.result(timeout))


class BlockingClient:
    """A client of one namespace, as a context manager; safe to use from several threads. See `Client`."""

    def __init__(self, namespace: str, *arguments: Any, **options: Any) -> None:
        """Take what `Client` takes."""
        self._client = Client(namespace, *arguments, **options)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="kasaga-client", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        try:
            self.call(self._client.__aenter__())
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.call(self._client.__aexit__(kind, error, trace))
        finally:
            self._end()

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine of the asynchronous client and wait for it; Ctrl-C ends both."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    @overload
    def start(
        self,
        saga: Saga[A, R],
        input: A,
        *,
        id: str,
        attributes: Attributes | None = None,
        wait: bool = False,
        timeout: float | None = None,
    ) -> BlockingHandle[R]: ...

    @overload
    def start(
        self,
        saga: str,
        input: object,
        *,
        id: str,
        attributes: Attributes | None = None,
        wait: bool = False,
        timeout: float | None = None,
    ) -> BlockingHandle[Any]: ...

    def start(
        self,
        saga: Saga[Any, Any] | str,
        input: object,
        *,
        id: str,
        attributes: Attributes | None = None,
        wait: bool = False,
        timeout: float | None = None,
    ) -> BlockingHandle[Any]:
        """Start a saga; see `Client.start`."""
        handle: Handle[Any] = self.call(
            self._client.start(saga, input, id=id, attributes=attributes, wait=wait, timeout=timeout)
        )
        return BlockingHandle(self, handle)

    def run(
        self,
        saga: Saga[A, R],
        input: A,
        *,
        id: str,
        attributes: Attributes | None = None,
        timeout: float | None = None,
    ) -> R:
        """Start a saga and wait for its result; see `Client.run`."""
        return self.call(self._client.run(saga, input, id=id, attributes=attributes, timeout=timeout))

    @overload
    def handle(self, saga: Saga[A, R], id: str) -> BlockingHandle[R]: ...

    @overload
    def handle(self, saga: str, id: str) -> BlockingHandle[Any]: ...

    def handle(self, saga: Saga[Any, Any] | str, id: str) -> BlockingHandle[Any]:
        """Take up a saga that was started elsewhere, by its id."""
        handle: Handle[Any] = self._client.handle(saga, id)
        return BlockingHandle(self, handle)

    def cancel(self, id: str, *, reason: str = "", by: str = "", timeout: float | None = None) -> SagaStatus:
        """Undo what a saga has done, and end it; see `Client.cancel`."""
        return self.call(self._client.cancel(id, reason=reason, by=by, timeout=timeout))

    def pause(self, id: str, *, reason: str = "", by: str = "", timeout: float | None = None) -> SagaStatus:
        """Let nothing of a saga go out until it is resumed; see `Client.pause`."""
        return self.call(self._client.pause(id, reason=reason, by=by, timeout=timeout))

    def resume(self, id: str, *, reason: str = "", by: str = "", timeout: float | None = None) -> SagaStatus:
        """Let a PAUSED saga go on; see `Client.resume`."""
        return self.call(self._client.resume(id, reason=reason, by=by, timeout=timeout))

    def terminate(self, id: str, *, reason: str, by: str = "", timeout: float | None = None) -> SagaStatus:
        """End a saga as it is, the last resort; see `Client.terminate`."""
        return self.call(self._client.terminate(id, reason=reason, by=by, timeout=timeout))

    def retry(self, id: str, *, reason: str = "", by: str = "", timeout: float | None = None) -> SagaStatus:
        """Let a STUCK saga try again; see `Client.retry`."""
        return self.call(self._client.retry(id, reason=reason, by=by, timeout=timeout))

    def skip(self, id: str, *, reason: str, by: str = "", timeout: float | None = None) -> SagaStatus:
        """Go on without the undo that is stuck; see `Client.skip`."""
        return self.call(self._client.skip(id, reason=reason, by=by, timeout=timeout))

    def resolve(
        self,
        id: str,
        *,
        reason: str,
        value: object = None,
        by: str = "",
        timeout: float | None = None,
    ) -> SagaStatus:
        """Say what became of the step that is stuck; see `Client.resolve`."""
        return self.call(self._client.resolve(id, reason=reason, value=value, by=by, timeout=timeout))

    def move(
        self, id: str, *, to: int, reason: str = "", by: str = "", timeout: float | None = None
    ) -> SagaStatus:
        """Let a saga go on in another version; see `Client.move`."""
        return self.call(self._client.move(id, to=to, reason=reason, by=by, timeout=timeout))

    def reset(
        self, id: str, *, after: str, reason: str = "", by: str = "", timeout: float | None = None
    ) -> SagaStatus:
        """Set a saga back to a step; see `Client.reset`."""
        return self.call(self._client.reset(id, after=after, reason=reason, by=by, timeout=timeout))

    def signal(
        self,
        id: str,
        name: str,
        value: object = None,
        *,
        key: str = "",
        keep: bool = False,
        timeout: float | None = None,
    ) -> str:
        """Send a signal; see `Client.signal`."""
        return self.call(self._client.signal(id, name, value, key=key, keep=keep, timeout=timeout))

    @overload
    def update(
        self,
        id: str,
        name: str,
        value: object,
        expected: type[T],
        *,
        key: str = "",
        timeout: float | None = None,
    ) -> T: ...

    @overload
    def update(
        self, id: str, name: str, value: object, *, key: str = "", timeout: float | None = None
    ) -> Any: ...

    def update(
        self,
        id: str,
        name: str,
        value: object,
        expected: Any = Any,
        *,
        key: str = "",
        timeout: float | None = None,
    ) -> Any:
        """Send a value in and return the answer; see `Client.update`."""
        return self.call(self._client.update(id, name, value, expected, key=key, timeout=timeout))

    @overload
    def query(self, id: str, name: str, expected: type[T], *, timeout: float | None = None) -> T: ...

    @overload
    def query(self, id: str, name: str, *, timeout: float | None = None) -> Any: ...

    def query(self, id: str, name: str, expected: Any = Any, *, timeout: float | None = None) -> Any:
        """Ask a saga something; see `Client.query`."""
        return self.call(self._client.query(id, name, expected, timeout=timeout))

    def describe(self, id: str, *, timeout: float | None = None) -> SagaStatus:
        """Say where a saga stands; see `Client.describe`."""
        return self.call(self._client.describe(id, timeout=timeout))
