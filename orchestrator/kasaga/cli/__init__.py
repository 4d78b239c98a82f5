"""The `kasaga` command. Exit status: 0 done, 1 an error, 2 wrong usage, 3 a saga that was not completed."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

import click

from kasaga_wire import __version__
from kasaga_wire.redaction import PROCESS

from ..client import ResultTimeout, SagaCompensated, SagaStuck
from .act import cancel, resolve, retry, skip
from .api import api
from .audit import audit
from .check import check
from .dev import dev
from .drill import drill
from .errors import Unexpected
from .message import query, signal, update
from .output import tell
from .read import describe, history, list_sagas
from .replay import export, replay
from .serve import migrate, orchestrator
from .session import Session
from .simulate import simulate
from .start import start

ERROR, NOT_COMPLETED, INTERRUPTED = 1, 3, 130

SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


@click.group(context_settings=SETTINGS)
@click.version_option(__version__, prog_name="kasaga")
def cli() -> None:
    """Sagas on Kafka and Postgres: every saga ends all done, all undone, or visibly stuck.

    Servers are named by KASAGA_DATABASE_URL and KASAGA_KAFKA_BOOTSTRAP_SERVERS (and every other key of
    librdkafka as KASAGA_KAFKA_…); without them, by what `kasaga dev` runs in this folder.
    """


@click.group("saga")
def saga_group() -> None:
    """The commands about sagas, once more: `kasaga saga list` is `kasaga list`."""


ABOUT_SAGAS = (start, list_sagas, describe, history, signal, update, query, retry, skip, resolve, cancel)

for command in (
    dev,
    check,
    replay,
    export,
    simulate,
    audit,
    drill,
    migrate,
    orchestrator,
    api,
    *ABOUT_SAGAS,
    saga_group,
):
    cli.add_command(command)
for command in ABOUT_SAGAS:
    saga_group.add_command(command)


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
        tell(error, Unexpected)
        return NOT_COMPLETED if isinstance(error, SagaCompensated | SagaStuck | ResultTimeout) else ERROR
