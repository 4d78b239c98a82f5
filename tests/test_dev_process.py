"""What an error of a development server shows of its log: the reason, in little, and where the rest is."""

from __future__ import annotations

from pathlib import Path

import pytest

from kasaga.dev.process import ERROR_LINE_CHARACTERS, ServerError

KAFKA = """\
java.lang.OutOfMemoryError: far back
java.io.IOException: the log can't be read
\tat kafka.Server.start(Server.java:3)
Caused by: java.net.BindException: Address already in use
\tat sun.nio.Net.bind(Net.java:1)
\t... 7 more

INFO shut down
"""
POSTGRES = """\
LOG:  starting PostgreSQL
LOG:  could not bind: Address already in use
HINT:  Is another postmaster running?
WARNING:  could not create listen socket
FATAL:  could not create any TCP/IP sockets
LOG:  database system is shut down
"""


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (
            KAFKA,
            [
                "java.io.IOException: the log can't be read",
                "Caused by: java.net.BindException: Address already in use",
                "INFO shut down",
            ],
        ),
        (
            POSTGRES,
            [
                "LOG:  could not bind: Address already in use",
                "WARNING:  could not create listen socket",
                "FATAL:  could not create any TCP/IP sockets",
            ],
        ),
        ("x" * 9999, ["x" * ERROR_LINE_CHARACTERS]),
        ("one\n", ["one"]),
    ],
)
def test_an_error_shows_three_telling_lines_of_the_log_and_its_path(
    tmp_path: Path, text: str, shown: list[str]
) -> None:
    log = tmp_path / "server.log"
    log.write_text(text)

    error = ServerError("it ended", remedy="none", log=log)

    assert str(error).splitlines()[1:] == [f"The end of {log}:", *shown]


@pytest.mark.parametrize("text", [None, ""])
def test_a_log_without_a_word_is_not_shown(tmp_path: Path, text: str | None) -> None:
    log = tmp_path / "server.log"
    if text is not None:
        log.write_text(text)
    assert str(ServerError("it ended", remedy="none", log=log)) == "KSG-590: it ended. Remedy: none."
