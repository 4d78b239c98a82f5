"""Answers: text for people on a terminal, or one JSON document, or JSON lines where there are many.

Results go to the standard output; progress and errors to the other one.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping

import click

from kasaga_wire.errors import KasagaError
from kasaga_wire.redaction import redact

from ..wording import Paint

PLAIN_WIDTH = 120
"""Columns where the output is no terminal."""


class Output:
    """Writes answers the way that was asked for."""

    def __init__(self, *, json: bool, environment: Mapping[str, str]) -> None:
        self.json = json
        self.tty = self.on_terminal()
        self._progress_tty = sys.stderr.isatty()
        colours = self.tty and not environment.get("NO_COLOR") and environment.get("TERM") != "dumb"
        self.paint = Paint(colours=colours)
        self.width = shutil.get_terminal_size((PLAIN_WIDTH, 24)).columns if self.tty else PLAIN_WIDTH
        self._progress = 0

    @staticmethod
    def on_terminal() -> bool:
        """Whether people read the answers as they come."""
        return sys.stdout.isatty()

    def lines(self, lines: Iterable[str]) -> None:
        """Write text for people."""
        self.clear()
        for line in lines:
            click.echo(line, color=True)

    def document(self, value: object) -> None:
        """Write one JSON document."""
        self.clear()
        click.echo(json.dumps(value, ensure_ascii=False, indent=2))

    def line(self, value: object) -> None:
        """Write one line of JSON lines."""
        self.clear()
        click.echo(json.dumps(value, ensure_ascii=False))

    def note(self, text: str) -> None:
        """Tell people something beside the answer."""
        self.clear()
        click.echo(text, err=True)

    def progress(self, text: str) -> None:
        """Show, on a terminal only, how far something is; the next output replaces it."""
        if self._progress_tty:
            room = shutil.get_terminal_size((PLAIN_WIDTH, 24)).columns - 1
            shown = text[:room]
            click.echo(f"\r{shown.ljust(self._progress)}", nl=False, err=True)
            self._progress = len(shown)

    def clear(self) -> None:
        """Take the progress away."""
        if self._progress:
            click.echo(f"\r{' ' * self._progress}\r", nl=False, err=True)
            self._progress = 0


def tell(error: Exception, unexpected: Callable[[str], KasagaError]) -> None:
    """Tell people of an error in one line; with KASAGA_DEBUG, where it comes from."""
    if os.environ.get("KASAGA_DEBUG"):
        click.echo(redact("".join(traceback.format_exception(error))), err=True)
    known = error if isinstance(error, KasagaError) else unexpected(f"{type(error).__name__}: {error}")
    click.echo(f"kasaga: {redact(one_line(known))}", err=True)


def one_line(error: Exception) -> str:
    """An error as one line."""
    return " ".join(str(error).split())
