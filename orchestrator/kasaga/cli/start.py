"""`kasaga start`: start one saga, and wait for its end if that is wanted."""

from __future__ import annotations

import asyncio
from typing import Any

import click

from kasaga_wire.attributes import AttributeValue
from kasaga_wire.errors import KasagaError

from ..client import Client, Handle, SagaCompensated, SagaStuck
from .inputs import attribute, find_saga, load_app, parse_input, read_text
from .output import Output
from .session import Session, pass_session, sends

PROGRESS_SECONDS = 1.0
"""How often, while the end is waited for, it is shown where the saga stands."""


@click.command()
@click.argument("target", metavar="MODULE:APP")
@click.argument("name")
@click.option(
    "--id",
    "saga_id",
    required=True,
    help="Yours, such as an order's number; the same again starts nothing new.",
)
@click.option("--input", "given", required=True, metavar="JSON|@FILE|-", help="The saga's argument.")
@click.option("--version", type=click.IntRange(1), help="The newest by default.")
@click.option(
    "--attribute",
    "attributes",
    type=attribute,
    multiple=True,
    metavar="NAME=VALUE",
    help="To be searched by; may be repeated.",
)
@click.option("--wait", is_flag=True, help="Wait for the end, and print the result.")
@click.option(
    "--timeout", type=click.FloatRange(0, min_open=True), metavar="SECONDS", help="Wait no longer than this."
)
@sends
@pass_session
def start(
    session: Session,
    target: str,
    name: str,
    saga_id: str,
    given: str,
    version: int | None,
    attributes: tuple[tuple[str, AttributeValue], ...],
    wait: bool,
    timeout: float | None,
) -> None:
    """Start saga NAME of an App. Exit status 3: it was waited for, and wasn't completed."""
    app = load_app(target)
    saga = find_saga(app, name, version)
    value = parse_input(saga, read_text(given))
    out = session.output()

    async def act() -> None:
        async with session.client(app.namespace) as client:
            handle = await client.start(saga, value, id=saga_id, attributes=dict(attributes), wait=wait)
            if not wait:
                _accepted(out, handle)
                return
            out.progress(f"{name} {saga_id} is accepted")
            result = await _waited(client, handle, out, timeout)
            encoded = await client.to_json(saga.result.encode(result))
            state = {"saga_id": saga_id, "run_id": handle.run_id, "state": "COMPLETED", "result": encoded}
            if out.json:
                out.document(state)
            elif encoded is None:
                out.lines([f"{name} {saga_id} is {out.paint.state('COMPLETED')}"])
            else:
                out.document(encoded)

    try:
        asyncio.run(act())
    except (SagaCompensated, SagaStuck) as error:
        if out.json:
            state = "STUCK" if isinstance(error, SagaStuck) else "COMPENSATED"
            out.document(
                {
                    "saga_id": saga_id,
                    "state": state,
                    "code": error.why or None,
                    "reason": error.reason or None,
                    "remedy": error.remedy or None,
                    "step": error.step or None,
                }
            )
        raise


def _accepted(out: Output, handle: Handle[Any]) -> None:
    # No run is named: where the id has a saga already, none will ever have the run id that was just sent.
    # Only the owner knows, and it answers a start that isn't waited for to nobody.
    if out.json:
        out.document({"saga_id": handle.id, "run_id": None, "state": "ACCEPTED"})
    else:
        out.lines([f"{handle.name} {handle.id} is accepted"])


async def _waited(client: Client, handle: Handle[Any], out: Output, timeout: float | None) -> Any:  # noqa: ASYNC109
    """The result; meanwhile, where the database can be asked, where the saga stands."""

    async def show() -> None:
        while True:
            await asyncio.sleep(PROGRESS_SECONDS)
            try:
                status = await client.describe(handle.id, timeout=PROGRESS_SECONDS)
            except KasagaError:
                continue
            about = f": {status.reason}" if status.reason else ""
            out.progress(f"{handle.name} {handle.id} is {status.state}{about}")

    showing = asyncio.create_task(show()) if client.knows_database else None
    try:
        return await handle.result(timeout)
    finally:
        if showing is not None:
            showing.cancel()
        out.clear()
