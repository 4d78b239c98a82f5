"""Errors of librdkafka: which of them are permanent, and those that belong to no call, as log lines.

Station: `kafka.py` hangs `ErrorLog` into its clients. A broker that is down says so many times a second; each
kind of line comes through once in a while.
"""

from __future__ import annotations

import logging
import time
from typing import Protocol

from .errors import DeliveryError, KafkaUnavailable

SAME_LOG_LINE_SECONDS = 10.0

LOADING = "Coordinator load in progress"
LOADING_SECONDS = 5.0
"""So long a new cluster may make its first transaction log; librdkafka asks again, and it is no news."""

log = logging.getLogger("kasaga.kafka")


PERMANENT = frozenset(
    {
        "_UNKNOWN_TOPIC",
        "_UNKNOWN_PARTITION",
        "UNKNOWN_TOPIC_OR_PART",
        "TOPIC_EXCEPTION",
        "TOPIC_AUTHORIZATION_FAILED",
        "CLUSTER_AUTHORIZATION_FAILED",
        "MSG_SIZE_TOO_LARGE",
        "RECORD_LIST_TOO_LARGE",
        "INVALID_MSG",
        "INVALID_RECORD",
        "INVALID_REQUIRED_ACKS",
        "POLICY_VIOLATION",
        "UNSUPPORTED_FOR_MESSAGE_FORMAT",
    }
)
LEADERLESS = frozenset({"NOT_LEADER_FOR_PARTITION", "LEADER_NOT_AVAILABLE"})
OUT_OF_RANGE = frozenset({"_AUTO_OFFSET_RESET", "OFFSET_OUT_OF_RANGE"})


class ClientError(Protocol):
    """As much of confluent_kafka's KafkaError as is needed here."""

    def name(self) -> str:
        """The name, such as `_TRANSPORT`."""
        ...

    def str(self) -> str:
        """What happened, for people."""
        ...

    def fatal(self) -> bool:
        """Whether the client can't go on."""
        ...


class ErrorLog:
    """What librdkafka says outside of any call, as log lines, each kind once in a while."""

    def __init__(self, client: str) -> None:
        self._client = client
        self._last: dict[str, tuple[float, int]] = {}
        self.fatal: str | None = None

    def __call__(self, error: ClientError) -> None:
        """As `error_cb`."""
        if error.fatal():
            self.fatal = f"{error.name()}: {error.str()}"
        self.say(error.name(), error.str(), fatal=error.fatal())

    def say(self, name: str, message: str, *, fatal: bool = False) -> None:
        """Log it, unless the same was logged a moment ago."""
        now = time.monotonic()
        last, muted = self._last.get(name, (-SAME_LOG_LINE_SECONDS, 0))
        if now - last < SAME_LOG_LINE_SECONDS and not fatal:
            self._last[name] = (last, muted + 1)
            return
        self._last[name] = (now, 0)
        fields = {
            "kafka_client": self._client,
            "kafka_error": name,
            "kafka_muted": muted,
            "kafka_fatal": fatal,
        }
        level = logging.ERROR if fatal else logging.WARNING
        more = f" ({muted} more since)" if muted else ""
        log.log(level, "Kafka %s: %s: %s%s", self._client, name, message, more, extra=fields)


class Muffler(logging.Filter):
    """For librdkafka's own lines: the same kind (its third field) once in a while."""

    def __init__(self) -> None:
        super().__init__()
        self._last: dict[str, float] = {}
        self._loading = (0.0, -SAME_LOG_LINE_SECONDS)

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the line comes through."""
        now = time.monotonic()
        text = record.getMessage()
        if LOADING in text and self._loads_since(now) < LOADING_SECONDS:
            return False
        kind = text.partition(" ")[0]
        if now - self._last.get(kind, -SAME_LOG_LINE_SECONDS) < SAME_LOG_LINE_SECONDS:
            return False
        self._last[kind] = now
        return True

    def _loads_since(self, now: float) -> float:
        """For how many seconds it is said that the coordinator loads; a silence begins it anew."""
        first, last = self._loading
        self._loading = (now if now - last >= SAME_LOG_LINE_SECONDS else first, now)
        return now - self._loading[0]


librdkafka_log = logging.getLogger("kasaga.kafka.librdkafka")
librdkafka_log.addFilter(Muffler())


def delivery_error(error: ClientError) -> DeliveryError:
    """Why a record was not acknowledged."""
    name = error.name()
    return DeliveryError(name, error.str(), permanent=name in PERMANENT, fatal=error.fatal())


def unavailable(doing: str, error: ClientError) -> KafkaUnavailable:
    """Why a question got no answer."""
    failure = KafkaUnavailable(
        f"{doing}: {error.name()}: {error.str()}", remedy="are the brokers up, and is this allowed?"
    )
    failure.leaderless = error.name() in LEADERLESS
    return failure
