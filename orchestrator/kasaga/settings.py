"""Settings of the orchestrator's process: from the environment, or given by the program."""

from __future__ import annotations

import difflib
import os
import re
import socket
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from kasaga_wire.claims import DEFAULT_BYTES, Claims, claims_from
from kasaga_wire.errors import KasagaError
from kasaga_wire.kafka import KafkaSettings
from kasaga_wire.objects import Objects
from kasaga_wire.sealing import Sealer, sealer_from

from .engine.run import Definitions

PREFIX = "KASAGA_"


class SettingsInvalid(KasagaError):
    """A setting is missing or has a value that can't be."""

    code = "KSG-300"
    default_remedy = (
        "Set the environment variable named, or pass the option; the table in "
        "orchestrator/README.md#settings lists them"
    )


def _process_name() -> str:
    return f"{socket.gethostname()}-{os.getpid()}-{uuid4().hex[:6]}"


class Settings(BaseModel):
    """All settings, with their units.

    Environment: `KASAGA_` and the name in capitals; `KASAGA_KAFKA_…` for every librdkafka key; a
    name with `_FILE` at its end reads the value from that file.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    database_url: SecretStr
    kafka: KafkaSettings
    topic_prefix: str = ""
    process: str = Field(default_factory=_process_name)
    http_host: str = "127.0.0.1"
    http_port: int | None = Field(default=None, ge=0, le=65535)
    """Metrics and probes; none by default, 0 for any free port."""
    lease_seconds: float = Field(default=3.0, gt=0)
    heartbeat_seconds: float = Field(default=0.5, gt=0)
    brokers_lost_seconds: float = Field(default=10.0, gt=0)
    """Without a broker for this long, the process gives its shards up.

    Not `kafka_…`: variables that begin so are librdkafka's.
    """
    max_batch: int = Field(default=500, ge=1)
    """Records in one transaction."""
    max_timers: int = Field(default=200, ge=1)
    """Timers of one shard in one transaction."""
    sleepers_in_memory: int = Field(default=1_000, ge=4)
    """Of a shard: sleeps, time-outs of waits for signals, deadlines. The store has those that come later."""
    max_live_sagas: int = Field(default=20_000, ge=1)
    """Live coroutines in memory; the others are rebuilt from history when they are needed."""
    max_unacknowledged: int = Field(default=20_000, ge=1)
    """Records produced and not acknowledged; above it nothing new is read."""
    max_in_flight: int = Field(default=50_000, ge=1)
    """Open commands of the process above which starts pause, so that replies go first; sleeps don't count."""
    max_payload_bytes: int = Field(default=900_000, ge=1000)
    history_events: int = Field(default=100_000, ge=100)
    """Records of one run's history, which is read as a whole at a take-over; a saga with more is STUCK."""
    history_bytes: int = Field(default=50_000_000, ge=1000)
    """Bytes of them."""
    history_warn_at: float = Field(default=0.2, gt=0)
    """Part of either limit from which on it is warned of a history, and ctx.should_continue says so."""
    saga_step_seconds: float = Field(default=1.0, gt=0)
    """A saga's code may run this long between two awaits."""
    saga_kill_seconds: float = Field(default=30.0, gt=0)
    """A saga that blocks the process in a C call for this long costs the process its life."""
    hang_seconds: float = Field(default=45.0, gt=0)
    """A turn of the loop that takes longer is a reason to restart the process: /live says no."""
    retention_days: float = Field(default=30.0, gt=0)
    """Finished sagas and their histories are deleted after this many days."""
    remember_days: float = Field(default=30.0, ge=7)
    """A deleted saga's id and outcome are remembered for this many days more."""
    archive_url: str = ""
    """Where finished sagas are written before they are deleted, as fsspec takes it; none: nowhere."""
    archive_options: SecretStr = SecretStr("")
    """A JSON object of what the archive's file system takes, such as keys."""
    run_threads: int = Field(default=16, ge=1)
    """Threads for ctx.run."""
    run_abandoned: int = Field(default=64, ge=0)
    """Threads lost to functions that hang, which are replaced; beyond it ctx.run has fewer and fewer."""

    payload_keys: SecretStr = SecretStr("")
    """`id=base64,…`: payloads are encrypted with the first key, and opened with any."""
    payload_compress_bytes: int = Field(default=0, ge=0)
    """Payloads larger than this are compressed; 0 for none."""

    payload_store_url: str = ""
    """Where payloads larger than `payload_store_bytes` are written, as fsspec takes it; none: nowhere."""
    payload_store_options: SecretStr = SecretStr("")
    """A JSON object of what that file system takes, such as keys."""
    payload_store_bytes: int = Field(default=DEFAULT_BYTES, ge=0)
    """Payloads larger than this, as they are sealed, are objects."""

    def claims(self) -> Claims | None:
        """What these three ask for. Raises ObjectsInvalid."""
        options = self.payload_store_options.get_secret_value()
        return claims_from(self.payload_store_url, options, str(self.payload_store_bytes))

    def sealer(self) -> Sealer:
        """What these two ask for. Raises PayloadKeysInvalid."""
        return sealer_from(self.payload_keys.get_secret_value(), str(self.payload_compress_bytes))

    def archive(self) -> Objects | None:
        """Where `archive_url` is, if anywhere. Raises ObjectsInvalid."""
        if not self.archive_url:
            return None
        options = self.archive_options.get_secret_value()
        return Objects(self.archive_url, options, setting="KASAGA_ARCHIVE_URL")

    @classmethod
    def from_env(cls, environment: Mapping[str, str] | None = None, **given: Any) -> Settings:
        """Read `KASAGA_…`; what is `given` wins. Raises SettingsInvalid naming the variable."""
        env = dict(os.environ if environment is None else environment)
        values = read_variables(
            {name: variable_of(name) for name in cls.model_fields if name != "kafka"}, env
        )
        values |= {name: value for name, value in given.items() if value is not None}
        if "kafka" not in values:
            ours = {PREFIX + name.upper() for name in cls.model_fields}
            values["kafka"] = KafkaSettings.from_env(
                environment={
                    name: value for name, value in env.items() if name.removesuffix("_FILE") not in ours
                }
            )
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise refused(error, variable_of) from None


def limited(defs: Definitions, settings: Settings) -> Definitions:
    """Give definitions the limits of a run's history."""
    return defs._replace(
        max_events=settings.history_events,
        max_bytes=settings.history_bytes,
        warn_at=settings.history_warn_at,
    )


OTHERS = frozenset(
    PREFIX + name
    for name in (
        *("BY", "DEBUG", "LOG_FORMAT", "LOG_LEVEL", "NAMESPACE"),  # of the command line
        *("DRILL", "DRILL_ALONE", "NAMESPACES"),  # of participants
        *("CACHE", "CHROMIUM", "COMPILE", "CRASH_AT", "FREEZE_AT", "SANDBOX"),  # of building and testing
    )
)
"""Variables that are no settings of a process that serves, and that it may be started with all the same."""

FAMILIES = (PREFIX + "KAFKA_", PREFIX + "INBOX_")
"""What begins so is judged where it is used: librdkafka refuses a key that it doesn't know."""

API_FAMILY = PREFIX + "API_"

_SERVICE_LINK = re.compile(
    r"_SERVICE_HOST$|_SERVICE_PORT(_[A-Z0-9_]+)?$|_PORT_[0-9]+_(TCP|UDP|SCTP)(_[A-Z]+)?$"
)
"""What Kubernetes tells each container of the services beside it; one is called kasaga-api."""


def strays(environment: Mapping[str, str], *, api: Collection[str] = ()) -> list[tuple[str, str]]:
    """Return the variables that look like settings and are none, each with the name that was perhaps meant.

    `api`: the API's own variables, in its process; any other leaves what begins as they do alone.
    """
    ours = {variable_of(name) for name in Settings.model_fields if name != "kafka"}
    # Those that only a family knows are here for who mistypes the family itself.
    known = {*ours, *OTHERS, *api, PREFIX + "KAFKA_BOOTSTRAP_SERVERS"}
    families = FAMILIES if api else (*FAMILIES, API_FAMILY)
    found: list[tuple[str, str]] = []
    for name in sorted(environment):
        bare = name.removesuffix("_FILE")
        linked = _SERVICE_LINK.search(name) or (name.endswith("_PORT") and "://" in environment[name])
        if not name.startswith(PREFIX) or bare in known or name.startswith(families) or linked:
            continue
        found.append((name, next(iter(difflib.get_close_matches(bare, known, n=1, cutoff=0.0)), "")))
    return found


def variable_of(name: str) -> str:
    """Return the environment's name of a setting."""
    return PREFIX + name.upper()


def read_variables(variables: Mapping[str, str], environment: Mapping[str, str]) -> dict[str, Any]:
    """Return the settings that the environment has: of each its variable, or the file that `…_FILE` names.

    Raises SettingsInvalid where such a file can't be read.
    """
    values: dict[str, Any] = {}
    for name, variable in variables.items():
        path = environment.get(variable + "_FILE")
        if path is not None:
            try:
                values[name] = Path(path).read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                raise SettingsInvalid(f"{variable}_FILE: {path} can't be read: {error}") from None
        elif environment.get(variable):
            values[name] = environment[variable]
    return values


def refused(error: ValidationError, variable: Callable[[str], str]) -> SettingsInvalid:
    """Name the first setting that can't be, without its value: it may be a secret."""
    first = error.errors(include_input=False)[0]
    name = variable(str(first["loc"][0])) if first["loc"] else "settings"
    return SettingsInvalid(f"{name}: {first['msg']}")
