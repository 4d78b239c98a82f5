"""What can be set, with its unit: from arguments, else from the environment when the app runs.

Station: filled by `Participant`, read by everything else.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from typing import Final, Literal

from kasaga_wire.claims import Claims
from kasaga_wire.kafka import KafkaSettings
from kasaga_wire.redaction import hide, hide_in
from kasaga_wire.sealing import PLAIN, Sealer

from .errors import StartError
from .inbox.rows import Rules
from .inbox.statements import Limits

MAX_REPLY_BYTES = 900_000
"""A reply's payload. Below `message.max.bytes` of librdkafka and of topics, with room for the headers."""
IN_HAND_RECORDS = 2_000
"""Records read and not yet answered, over all contracts of the process."""
IN_HAND_BYTES = 64 * 1024 * 1024
"""The same in bytes of keys and values: few large commands must not fill the memory."""
BATCH_SECONDS = 0.05
"""A batch is filled with commands whose handlers are expected to take about this long, all together."""
BATCH_RISK = 0.5
"""Where more failures than this are expected in a batch, each of its handlers gets a savepoint."""
SLOW_HANDLER_SECONDS = 10.0
"""A handler that runs longer is named in the log. It is never killed."""
COMMIT_SECONDS = 0.5
"""How often offsets are committed to Kafka."""
REVOKE_SECONDS = 2.0
"""How long a rebalance may wait for what has been begun. The group waits as long."""
PURGE_SECONDS = 60.0
"""How often the inbox is searched for rows to forget."""
BACKOFF_FIRST_SECONDS = 0.1
BACKOFF_CAP_SECONDS = 5.0
"""Between two tries to reach a database or a broker: doubled from the first to the cap."""
MAX_HANDLER_KILLS = 3
"""After so many lost connections in a row under one handler, it is the handler's failure."""


class FromEnvironment(Enum):
    """The argument's default: read the environment when the app runs."""

    TOKEN = "environment"


FROM_ENVIRONMENT: Final = FromEnvironment.TOKEN
Unset = Literal[FromEnvironment.TOKEN]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything a running participant goes by. See `Participant` for what each one means."""

    name: str
    kafka: KafkaSettings
    database_url: str | None
    namespaces: tuple[str, ...]
    topic_prefix: str
    max_age: timedelta
    retention: timedelta
    batch: int
    concurrency: int
    create_topics: bool
    partitions: int
    http_port: int | None
    http_host: str
    stop_timeout: timedelta
    idle_in_transaction: timedelta
    prepare: bool
    drill: bool = False
    drill_alone: bool = False
    sealer: Sealer = PLAIN
    claims: Claims | None = None

    def __post_init__(self) -> None:
        """Refuse what can't work, by name."""
        for name in ("batch", "concurrency", "partitions"):
            if getattr(self, name) < 1:
                raise StartError(f"{name} must be at least 1")
        if self.max_age <= timedelta(0) or self.retention < 2 * self.max_age:
            raise StartError(
                f"retention ({self.retention}) must be at least twice max_age ({self.max_age})",
                remedy="leave retention out, or raise it",
            )
        hide_in(self.database_url)
        hide(*self.kafka.secrets)
        if not self.namespaces:
            raise StartError("no namespace is named", remedy='namespaces=("shop",)')

    @property
    def rules(self) -> Rules:
        """How old is too old."""
        return Rules(self.max_age.total_seconds(), self.retention.total_seconds())

    @property
    def limits(self) -> Limits:
        """What the inbox's SQL needs to know."""
        return Limits(self.retention.total_seconds(), self.idle_in_transaction.total_seconds())


def database_url(given: str | Unset | None, environment: Mapping[str, str] | None = None) -> str | None:
    """The argument, or KASAGA_DATABASE_URL (or the content of the file that KASAGA_DATABASE_URL_FILE names).

    Nothing at all is an error: to run without an inbox is something to be said.
    """
    if given is not FROM_ENVIRONMENT:
        return given
    env = os.environ if environment is None else environment
    if path := env.get("KASAGA_DATABASE_URL_FILE"):
        try:
            with open(path, encoding="utf-8") as file:
                return file.read().strip()
        except OSError as error:
            raise StartError(f"KASAGA_DATABASE_URL_FILE: {error.strerror}: {path}") from None
    if url := env.get("KASAGA_DATABASE_URL"):
        return url
    raise StartError(
        "no database is named",
        remedy="set KASAGA_DATABASE_URL, or give database_url=…; None to run without an inbox",
    )


def namespaces(
    given: tuple[str, ...] | None, environment: Mapping[str, str] | None = None
) -> tuple[str, ...]:
    """The argument, or KASAGA_NAMESPACES, separated by commas; else `kasaga`."""
    if given is not None:
        return given
    env = os.environ if environment is None else environment
    found = tuple(name.strip() for name in env.get("KASAGA_NAMESPACES", "kasaga").split(","))
    return tuple(name for name in found if name)


def topic_prefix(given: str | None, environment: Mapping[str, str] | None = None) -> str:
    """The argument, or KASAGA_TOPIC_PREFIX, else none."""
    if given is not None:
        return given
    return (os.environ if environment is None else environment).get("KASAGA_TOPIC_PREFIX", "")


def is_set(name: str, environment: Mapping[str, str] | None = None) -> bool:
    """Whether a variable is 1 or true. Raises StartError for anything but these, 0, false and nothing."""
    text = (os.environ if environment is None else environment).get(name, "").lower()
    if text not in ("", "0", "1", "false", "true"):
        raise StartError(f"{name}={text!r} is neither 1 nor 0")
    return text in ("1", "true")


def http_port(given: int | None, environment: Mapping[str, str] | None = None) -> int | None:
    """The argument, or KASAGA_HTTP_PORT, else no HTTP."""
    if given is not None:
        return given
    text = (os.environ if environment is None else environment).get("KASAGA_HTTP_PORT", "")
    if text and not (text.isascii() and text.isdecimal() and int(text) < 65_536):
        raise StartError(f"KASAGA_HTTP_PORT={text!r} is no port")
    return int(text) if text else None
