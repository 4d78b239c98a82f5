"""`kasaga signal`, `update` and `query`: what people send into a running saga, and ask it.

Each is a record to the saga's owner, who answers. Values are JSON: the saga knows its own types.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import click

from ..client import Client
from ..client.ids import uuid7
from .errors import BadInput
from .inputs import read_text
from .session import Session, pass_session, sends

value_option = click.option(
    "--value", metavar="JSON|@FILE|-", default="null", help="The value; none by default."
)
key_option = click.option("--key", default="", help="Idempotency key: the same one twice counts once.")
timeout_option = click.option(
    "--timeout",
    type=click.FloatRange(0, min_open=True),
    metavar="SECONDS",
    help="For the answer; 30 by default.",
)


@click.command()
@click.argument("saga_id")
@click.argument("name")
@value_option
@key_option
@click.option("--keep", is_flag=True, help="Keep it for a saga that hasn't been started yet.")
@timeout_option
@sends
@pass_session
def signal(
    session: Session,
    /,
    saga_id: str,
    name: str,
    value: str,
    key: str,
    keep: bool,
    timeout: float | None,
) -> None:
    """Send a signal to a saga."""
    text, out = _json(value), session.output()
    key = key or str(uuid7())

    async def act(client: Client) -> None:
        await client.signal_json(saga_id, name, text, key=key, keep=keep, timeout=timeout)

    _run(session, act)
    if out.json:
        out.document({"saga_id": saga_id, "signal": name, "key": key, "outcome": "accepted"})
    else:
        out.lines([f"{saga_id}: signal {name} is accepted (key {key})"])


@click.command()
@click.argument("saga_id")
@click.argument("name")
@value_option
@key_option
@timeout_option
@sends
@pass_session
def update(session: Session, /, saga_id: str, name: str, value: str, key: str, timeout: float | None) -> None:
    """Send a value into a saga, and print its answer as JSON."""
    text = _json(value)

    async def act(client: Client) -> Any:
        return await client.update_json(saga_id, name, text, key=key, timeout=timeout)

    session.output().document(_run(session, act))


@click.command()
@click.argument("saga_id")
@click.argument("name")
@timeout_option
@sends
@pass_session
def query(session: Session, /, saga_id: str, name: str, timeout: float | None) -> None:
    """Ask a saga something, also after its end, and print its answer as JSON."""

    async def act(client: Client) -> Any:
        return await client.query(saga_id, name, timeout=timeout)

    session.output().document(_run(session, act))


def _run(session: Session, act: Any) -> Any:
    async def work() -> Any:
        async with session.client() as client:
            return await act(client)

    return asyncio.run(work())


def _json(given: str) -> str:
    text = read_text(given)
    try:
        json.loads(text)
    except ValueError as error:
        raise BadInput(
            f"--value is no JSON: {error}", remedy="""Quote it for your shell: '{"id": 3}'"""
        ) from None
    return text
