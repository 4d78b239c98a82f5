"""Keeps secrets out of what is logged: known values wherever they turn up, and what looks like a password.

Station: `logs.py` sends every text through `redact` before it is written. Values become known through `hide`:
by the settings that hold them, and by `configure_logs` from the environment.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from urllib.parse import quote, quote_plus, unquote

SHOWN = "***"

SHORTEST = 4
"""Characters. A shorter secret isn't looked for by its value, which would blot out half of every line; it is
still found where it stands as a password in an address or a connection string."""

SHORTEST_LINE = 16
"""Characters of a line of a secret of several lines, such as a private key, that is hidden by itself."""

_IN_URL = re.compile(r"(\b[a-z][a-z0-9+.-]*://[^\s:/?#@'\"]*):([^\s'\"]*)@", re.IGNORECASE)
_IN_TEXT = re.compile(
    r"\b(\w*(?:password|passwd|secret))(\s*=\s*|['\"]\s*:\s*)('(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|[^\s'\",;&]+)",
    re.IGNORECASE,
)
_SECRET_NAME = re.compile(r"PASSWORD|PASSWD|SECRET|TOKEN|_PEM\b|JAAS|PRIVATE_KEY|OAUTHBEARER_CONFIG")
_URL_NAME = re.compile(r"_(URL|DSN|CONNINFO)\b")
_OTLP_HEADERS = re.compile(r"OTEL_EXPORTER_OTLP_(\w+_)?HEADERS\b")


class Secrets:
    """What must not be shown. One for a process; threads may use it at once."""

    def __init__(self) -> None:
        self._known: set[str] = set()
        self._pattern: re.Pattern[str] | None = None

    def hide(self, *values: str | None) -> None:
        """Never show these from now on, as they are or as an address writes them."""
        for value in values:
            if not value:
                continue
            for each in (value, *_long_lines(value)):
                self._known |= {each, quote(each, safe=""), quote_plus(each), unquote(each), _escaped(each)}
        known = sorted((each for each in self._known if len(each) >= SHORTEST), key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, known))) if known else None

    def hide_in(self, address: str | None) -> None:
        """Never show the passwords in an address or a connection string."""
        if not address:
            return
        self.hide(*(found[1] for found in _IN_URL.findall(address)))
        self.hide(*(_unquoted(found[2]) for found in _IN_TEXT.findall(address)))

    def hide_environment(self, environment: Mapping[str, str]) -> None:
        """Never show what Kasaga's, Postgres' and OpenTelemetry's variables hold of secrets."""
        for name, value in environment.items():
            if _OTLP_HEADERS.match(name):
                self.hide(*(pair.partition("=")[2].strip() for pair in value.split(",")))
            elif name.startswith(("KASAGA_", "PG")) and not name.endswith("_FILE"):
                if _SECRET_NAME.search(name):
                    self.hide(value)
                elif _URL_NAME.search(name):
                    self.hide_in(value)

    def redact(self, text: str) -> str:
        """The text without any secret."""
        pattern = self._pattern
        if pattern is not None:
            text = pattern.sub(SHOWN, text)
        if "://" in text:
            text = _IN_URL.sub(rf"\1:{SHOWN}@", text)
        if "=" in text or ":" in text:
            text = _IN_TEXT.sub(rf"\1\2{SHOWN}", text)
        return text


def _long_lines(value: str) -> Iterable[str]:
    return (line for line in value.splitlines() if len(line) >= SHORTEST_LINE and line != value)


def _escaped(value: str) -> str:
    """As `repr` shows it."""
    return value.encode("unicode_escape").decode()


def _unquoted(value: str) -> str:
    """A value of a connection string, without its quotes and backslashes."""
    quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
    return re.sub(r"\\(.)", r"\1", value[1:-1] if quoted else value)


PROCESS = Secrets()
"""Of this process."""
hide, hide_in, redact = PROCESS.hide, PROCESS.hide_in, PROCESS.redact
