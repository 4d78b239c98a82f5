"""Settings of the API's process: from the environment, or given by the program."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)

from kasaga_wire.kafka import KafkaSettings

from ..settings import SettingsInvalid, read_variables, refused, variable_of
from .errors import Unguarded
from .models import LONGEST_WAIT

SHARED = frozenset({"database_url", "namespace", "topic_prefix", "http_host", "http_port"})
"""Settings with the same variables as the orchestrator's and the command line's."""

SHORTEST_TOKEN = 16
"""Characters; a shorter one can be guessed."""


def _listed(value: object) -> object:
    return (
        tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value
    )


class ApiSettings(BaseModel):
    """All settings, with their units.

    Environment: `KASAGA_API_` and the name in capitals, or `KASAGA_` and the name for those that the
    orchestrator has as well; a name with `_FILE` at its end reads the value from that file.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    database_url: SecretStr
    kafka: KafkaSettings
    namespace: str = ""
    """The App's; the one that the database belongs to by default."""
    topic_prefix: str = ""
    http_host: str = "127.0.0.1"
    http_port: int | None = Field(default=None, ge=0, le=65535)
    """Metrics and probes on a port of their own; none by default, 0 for any free port."""

    host: str = "127.0.0.1"
    port: int = Field(default=8080, ge=0, le=65535)
    """0 for any free port."""
    token: SecretStr | None = None
    """What callers must show; may be left out on a loopback address alone."""
    allowed_hosts: Annotated[tuple[str, ...], BeforeValidator(_listed)] = ()
    """Names that the API is reached by, without ports; with a token, any name if none is given."""
    max_body_bytes: int = Field(default=2_000_000, ge=1000)
    max_requests: int = Field(default=1000, ge=1)
    """Requests at hand; more are refused."""
    max_waiters: int = Field(default=500, ge=1)
    """Requests that wait for a saga's end or for its owner's answer; more are refused."""
    max_wait_seconds: float = Field(default=60.0, ge=1, le=LONGEST_WAIT)
    """The longest wait that a request may ask for."""
    confirm_seconds: float = Field(default=10.0, gt=0)
    """How long Kafka may take to confirm a start."""
    readers: int = Field(default=8, ge=1, le=200)
    """Connections to Postgres, and threads that read there."""
    read_seconds: float = Field(default=10.0, gt=0)
    """What one statement may take: a list's filter can ask for a walk through all sagas."""

    @field_validator("token")
    @classmethod
    def _strong(cls, token: SecretStr | None) -> SecretStr | None:
        if token is not None:
            text = token.get_secret_value()
            if len(text) < SHORTEST_TOKEN or not text.isascii() or not text.isprintable() or " " in text:
                raise ValueError(f"a token has at least {SHORTEST_TOKEN} printable characters, and no spaces")
        return token

    @model_validator(mode="after")
    def _guarded(self) -> Self:
        if self.token is None and not self.loopback:
            raise Unguarded(f"{self.host} can be reached by others, and no token is set")
        return self

    @property
    def loopback(self) -> bool:
        """Nobody but this machine reaches the address. A name other than localhost may mean anything."""
        try:
            return ipaddress.ip_address(self.host.strip("[]")).is_loopback
        except ValueError:
            return self.host.lower() == "localhost"

    @classmethod
    def from_env(cls, environment: Mapping[str, str] | None = None, **given: Any) -> Self:
        """Read `KASAGA_API_…`; what is `given` wins.

        Raises:
            SettingsInvalid: a value can't be; names the variable.
            Unguarded: others can reach the address, and there is no token.
        """
        env = dict(os.environ if environment is None else environment)
        variables = {name: api_variable(name) for name in cls.model_fields if name != "kafka"}
        values = read_variables(variables, env)
        values |= {name: value for name, value in given.items() if value is not None}
        if "kafka" not in values:
            values["kafka"] = KafkaSettings.from_env(environment=env)
        if "token" in values and not values["token"]:
            raise SettingsInvalid(
                "KASAGA_API_TOKEN: the token is empty", remedy="Put a long random text into it"
            )
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise refused(error, api_variable) from None


def api_variable(name: str) -> str:
    """Return the environment's name of a setting."""
    return variable_of(name) if name in SHARED else f"KASAGA_API_{name.upper()}"
