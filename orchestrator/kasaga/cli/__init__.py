"""The `kasaga` command. Exit status: 0 done, 1 an error, 2 wrong usage, 3 a saga that was not completed."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from importlib import import_module
from typing import ClassVar, NoReturn

import click

from kasaga_wire import __version__
from kasaga_wire.interpreter import build
from kasaga_wire.redaction import PROCESS

from .errors import Unexpected
from .output import tell
from .session import Session

ERROR, NOT_COMPLETED, INTERRUPTED = 1, 3, 130

SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


ABOUT_SAGAS = {
    "start": "start.start",
    "list": "read.list_sagas",
    "count": "read.count",
    "describe": "read.describe",
    "history": "read.history",
    "signal": "message.signal",
    "update": "message.update",
    "query": "message.query",
    "retry": "act.retry",
    "skip": "act.skip",
    "resolve": "act.resolve",
    "cancel": "act.cancel",
    "pause": "act.pause",
    "resume": "act.resume",
    "terminate": "act.terminate",
    "move": "act.move",
    "reset": "act.reset",
    "locks": "locks.locks",
}
COMMANDS = {
    "dev": "dev.dev",
    "check": "check.check",
    "replay": "replay.replay",
    "patches": "patches.patches",
    "export": "replay.export",
    "simulate": "simulate.simulate",
    "audit": "audit.audit",
    "drill": "drill.drill",
    "archive": "archive.archive",
    "payload": "payload.payload",
    "keys": "keys.keys",
    "schedule": "schedule.schedule",
    "migrate": "serve.migrate",
    "orchestrator": "serve.orchestrator",
    "api": "api.api",
    **ABOUT_SAGAS,
}
"""By name: the module in this folder, and the command in it. A process imports what it runs, and no more."""


class _Commands(click.Group):
    """A group whose commands are imported when they are asked for."""

    places: ClassVar[Mapping[str, str]]

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name them all."""
        return sorted({*super().list_commands(ctx), *self.places})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one; None where there is none of this name."""
        place = self.places.get(cmd_name)
        if place is None:
            return super().get_command(ctx, cmd_name)
        module, _, name = place.partition(".")
        command = getattr(import_module(f".{module}", __package__), name)
        assert isinstance(command, click.Command)
        return command


class _All(_Commands):
    places = COMMANDS


class _AboutSagas(_Commands):
    places = ABOUT_SAGAS


RELEASE = f"%(prog)s, version %(version)s ({build()})"


@click.group(cls=_All, context_settings=SETTINGS)
@click.version_option(__version__, prog_name="kasaga", message=RELEASE)
def cli() -> None:
    """Sagas on Kafka and Postgres: every saga ends all done, all undone, or visibly stuck.

    Servers are named by KASAGA_DATABASE_URL and KASAGA_KAFKA_BOOTSTRAP_SERVERS (and every other key of
    librdkafka as KASAGA_KAFKA_…); without them, by what `kasaga dev` runs in this folder.
    """


@cli.group("saga", cls=_AboutSagas)
def saga_group() -> None:
    """The commands about sagas, once more: `kasaga saga list` is `kasaga list`."""


def main() -> NoReturn:
    """Run the command line of this process."""
    sys.exit(run())


def run(arguments: list[str] | None = None, session: Session | None = None) -> int:
    """Run one command and return the exit status; errors are one line, without a traceback."""
    PROCESS.hide_environment(os.environ)
    try:
        returned = cli.main(
            args=arguments, prog_name="kasaga", standalone_mode=False, obj=session or Session()
        )
        return returned if isinstance(returned, int) else 0
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.exceptions.Exit as error:
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("Interrupted.", err=True)
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has seen enough; keep Python from complaining at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:  # noqa: BLE001 (whatever it is, people get one line)
        from ..client import ResultTimeout, SagaCompensated, SagaStuck

        tell(error, Unexpected)
        return NOT_COMPLETED if isinstance(error, SagaCompensated | SagaStuck | ResultTimeout) else ERROR
