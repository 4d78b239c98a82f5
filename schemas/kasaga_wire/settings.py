"""Where Kafka is and how to talk to it: every key of librdkafka, passed through.

Station: `kafka.py` turns it into a client's configuration. Imports no client, so that settings can be read
anywhere.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .errors import SettingsError

PREFIX = "KASAGA_KAFKA_"
_BOOTSTRAP = "bootstrap.servers"
_SECRET = re.compile(r"password|secret|\.pem$|token|jaas|oauthbearer\.config")

# What the promise rests on is not a setting.
RESERVED = frozenset(
    {
        "acks",
        "auto.offset.reset",
        "enable.auto.commit",
        "enable.auto.offset.store",
        "enable.idempotence",
        "enable.partition.eof",
        "group.protocol",
        "isolation.level",
        "partition.assignment.strategy",
        "request.required.acks",
        "transactional.id",
    }
)

DEFAULTS = {
    "client.id": "kasaga",
    # librdkafka's own is 10 s: so long all would go on waiting for a broker that is back already.
    "reconnect.backoff.max.ms": "1000",
    # Its own is 5 minutes: a broker that starts may not know its topics, and is believed until asked again.
    "topic.metadata.refresh.interval.ms": "5000",
}


@dataclass(frozen=True, slots=True, repr=False)
class KafkaSettings:
    """The brokers, and librdkafka's own keys for everything else."""

    bootstrap: str
    options: Mapping[str, str] = field(default_factory=dict[str, str])

    def __post_init__(self) -> None:
        """Refuse what can't be, before a client is made."""
        if not self.bootstrap.strip():
            raise SettingsError("no brokers are named", remedy=f"set {PREFIX}BOOTSTRAP_SERVERS=host:9092")
        if reserved := sorted(RESERVED & self.options.keys()):
            raise SettingsError(
                f"{', '.join(reserved)} can't be set: the promise rests on it", remedy="leave it out"
            )

    def __repr__(self) -> str:
        """Without secrets."""
        shown = {key: "***" if _SECRET.search(key) else value for key, value in sorted(self.options.items())}
        return f"KafkaSettings(bootstrap={self.bootstrap!r}, options={shown!r})"

    @property
    def secrets(self) -> list[str]:
        """The values that must not be shown."""
        return [value for key, value in self.options.items() if _SECRET.search(key)]

    def config(self, **more: object) -> dict[str, object]:
        """All of it for one client: the options, and what the caller adds (`_` stands for `.`)."""
        made: dict[str, object] = {**DEFAULTS, **self.options, _BOOTSTRAP: self.bootstrap}
        made.update({key.replace("_", "."): value for key, value in more.items()})
        return made

    @classmethod
    def from_env(cls, prefix: str = PREFIX, environment: Mapping[str, str] | None = None) -> KafkaSettings:
        """From the environment: `KASAGA_KAFKA_SASL_PASSWORD` is librdkafka's `sasl.password`.

        With `_FILE` at its end, a variable names a file that holds the value.
        """
        found: dict[str, str] = {}
        given = os.environ if environment is None else environment
        for variable in sorted(given):
            if not variable.startswith(prefix):
                continue
            name, value = variable.removeprefix(prefix), given[variable]
            if name.endswith("_FILE"):
                name, value = name.removesuffix("_FILE"), _read(variable, value)
            key = name.lower().replace("_", ".")
            if key in found:
                raise SettingsError(
                    f"{prefix}{name} and {prefix}{name}_FILE are both set", remedy="set one of them"
                )
            if value:
                found[key] = value
        bootstrap = found.pop(_BOOTSTRAP, "")
        if not bootstrap:
            raise SettingsError("no brokers are named", remedy=f"set {prefix}BOOTSTRAP_SERVERS=host:9092")
        return cls(bootstrap, found)


def _read(variable: str, path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"{variable}: the file can't be read: {type(error).__name__}",
            remedy="name a file that this user may read",
        ) from None
