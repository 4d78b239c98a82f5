"""`kasaga cancel`, `pause`, `resume`, `terminate`, `retry`, `skip`, `resolve`, `move`, `reset`.

Actions on one saga, on several, or on all that a filter chooses. Each is a record to the saga's owner, who
carries it out once, keeps who did it and why in the history, and answers.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid5

import click

from ..client import Client, NoAnswer, SagaStatus, UnknownSaga
from ..client import acting as client_actions
from ..engine.moving import MAX_VERSION
from ..errors import NotApplicable
from ..foresight import USUAL, Intent, as_json, foresee_all
from ..lookup import asked_before
from ..search import names_state
from ..store.base import SagaFilter, SagaRow
from ..wording import counted, printable, sentence, table
from .errors import BadInput, NotConfirmed
from .inputs import read_text
from .output import Output
from .read import chosen, filters, make_filter
from .session import Session, pass_session, sends

AT_ONCE = 64
"""Actions of a bulk that are out at a time: an owner answers a batch of them in one commit."""

SHOWN_WHOLE = 20
"""Up to so many sagas are listed one by one; of more, those that didn't go well."""

PROGRESS_SECONDS = 1.0
"""A bulk that takes longer shows how far it is."""

DONE = {
    "retry": "retried",
    "skip": "skipped",
    "resolve": "resolved",
    "cancel": "cancelled",
    "pause": "paused",
    "resume": "resumed",
    "terminate": "terminated",
    "move": "moved",
    "reset": "reset",
}
_BULKS = UUID("6b617361-6761-5a70-b000-000000000000")
"""The name space of the ids of a bulk's actions."""


class ActionFailed(click.exceptions.Exit):
    """Not every action was applied; each has said why."""


@dataclass(frozen=True)
class Action:
    """What is to be done, to each of the sagas chosen."""

    name: client_actions.Action
    reason: str
    step: str = ""
    value: Any = None
    timeout: float | None = None
    bulk: str = ""
    """With the same one, each saga is acted on once, however often it is asked."""

    def id_for(self, saga_id: str) -> str:
        """The action's id; empty for a new one."""
        return str(uuid5(_BULKS, f"{self.bulk}\n{self.name}\n{saga_id}")) if self.bulk else ""

    async def apply(
        self, client: Client, saga_id: str, by: str, before: Callable[[str, str], SagaRow | None]
    ) -> dict[str, Any]:
        """Do it to one saga; what became of it, as JSON-able values.

        `before` takes the saga's id and the action's, and returns the saga's row if it was done before.
        """
        made: dict[str, Any] = {"saga_id": saga_id, "action": self.name}
        try:
            status = await client.act(
                self.name,
                saga_id,
                reason=self.reason,
                step=self.step,
                value=self.value,
                by=by,
                timeout=self.timeout,
                action_id=self.id_for(saga_id),
            )
        except (NotApplicable, UnknownSaga, NoAnswer) as error:
            # An owner forgets what was asked of a saga that has ended; its history doesn't.
            if self.bulk and isinstance(error, NotApplicable):
                row = await asyncio.to_thread(before, saga_id, self.id_for(saga_id))
                if row is not None:
                    return self._applied(made, SagaStatus.of_row(row))
            why = {"code": error.code, "reason": error.message, "remedy": error.remedy}
            return {**made, "outcome": _outcome(error), **why}
        return self._applied(made, status)

    def _applied(self, made: dict[str, Any], status: SagaStatus) -> dict[str, Any]:
        applied = {**made, "outcome": "applied", "state": status.state or None, "run_id": status.run_id}
        return {**applied, "left": status.reason} if self.name == "terminate" else applied


def _outcome(error: NotApplicable | UnknownSaga | NoAnswer) -> str:
    if isinstance(error, NotApplicable):
        return "not_applicable"
    return "unknown" if isinstance(error, UnknownSaga) else "no_answer"


def action_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What all actions take: sagas by id or by filter, and care."""
    options = (
        click.argument("saga_ids", nargs=-1, metavar="[SAGA_ID]..."),
        filters,
        click.option("--dry-run", is_flag=True, help="Show what would happen to which sagas; do nothing."),
        click.option("--yes", is_flag=True, help="Don't ask before a bulk action."),
        click.option(
            "--bulk-id",
            "bulk",
            default="",
            metavar="TEXT",
            help="Yours: with the same one each saga is acted on once, so that it can be run again.",
        ),
        click.option(
            "--timeout", type=click.FloatRange(0, min_open=True), metavar="SECONDS", help="For each answer."
        ),
        sends,
    )
    for option in reversed(options):
        command = option(command)
    return command


@click.command()
@action_options
@click.option("--reason", default="", help="Why, for the history.")
@click.option("--step", default="", help="Only if the saga is stuck at this step.")
@pass_session
def retry(session: Session, /, reason: str, step: str, timeout: float | None, bulk: str, **rest: Any) -> None:
    """Let STUCK sagas try again, now."""
    act(session, Action("retry", reason, step, timeout=timeout, bulk=bulk), **rest)


@click.command()
@action_options
@click.option("--reason", required=True, help="Why, for the history.")
@click.option("--step", default="", help="Only if the saga is stuck at this step.")
@pass_session
def skip(session: Session, /, reason: str, step: str, timeout: float | None, bulk: str, **rest: Any) -> None:
    """Leave the step that a saga is stuck at undoing as it is, and go on.

    The saga's end is then COMPENSATED with exceptions.
    """
    act(session, Action("skip", reason, step, timeout=timeout, bulk=bulk), **rest)


@click.command()
@action_options
@click.option("--reason", required=True, help="How you know, for the history.")
@click.option("--step", default="", help="Only if the saga is stuck at this step.")
@click.option(
    "--value", metavar="JSON|@FILE|-", default="", help="The step's result, where one is waited for."
)
@pass_session
def resolve(
    session: Session,
    /,
    reason: str,
    step: str,
    value: str,
    timeout: float | None,
    bulk: str,
    **rest: Any,
) -> None:
    """Say what became of the step that a saga is stuck at.

    Where an undo is stuck: you undid the step by hand. Where the saga's code waits for the step's
    result: --value is that result.
    """
    try:
        parsed = json.loads(read_text(value)) if value else None
    except ValueError as error:
        raise BadInput(
            f"--value is no JSON: {error}", remedy="""Quote it for your shell: '{"id": 3}'"""
        ) from None
    act(session, Action("resolve", reason, step, parsed, timeout, bulk), **rest)


@click.command()
@action_options
@click.option("--reason", default="", help="Why, for the history.")
@pass_session
def cancel(session: Session, /, reason: str, timeout: float | None, bulk: str, **rest: Any) -> None:
    """Undo what sagas have done, and end them."""
    act(session, Action("cancel", reason, timeout=timeout, bulk=bulk), **rest)


@click.command()
@action_options
@click.option("--reason", default="", help="Why, for the history.")
@pass_session
def pause(session: Session, /, reason: str, timeout: float | None, bulk: str, **rest: Any) -> None:
    """Let nothing of sagas go out until they are resumed: no step, no retry, no undo.

    Answers, signals and timers still get in, and are decided then.
    """
    act(session, Action("pause", reason, timeout=timeout, bulk=bulk), **rest)


@click.command()
@action_options
@click.option("--reason", default="", help="Why, for the history.")
@pass_session
def resume(session: Session, /, reason: str, timeout: float | None, bulk: str, **rest: Any) -> None:
    """Let PAUSED sagas go on where they were."""
    act(session, Action("resume", reason, timeout=timeout, bulk=bulk), **rest)


@click.command()
@action_options
@click.option("--reason", required=True, help="Why, for the history.")
@pass_session
def terminate(session: Session, /, reason: str, timeout: float | None, bulk: str, **rest: Any) -> None:
    """Last resort: end sagas as they are. Nothing is undone, and what stays is said.

    A filter means STUCK sagas, unless it names states.
    """
    act(session, Action("terminate", reason, timeout=timeout, bulk=bulk), **rest)


@click.command()
@action_options
@click.option("--to", required=True, type=click.IntRange(1, MAX_VERSION), help="The version to go on in.")
@click.option("--reason", default="", help="Why, for the history.")
@pass_session
def move(session: Session, /, to: int, reason: str, timeout: float | None, bulk: str, **rest: Any) -> None:
    """Let sagas go on in another version of their code.

    Each saga's owner replays its history in that version first, and refuses where the code differs.
    """
    act(session, Action("move", reason, "", to, timeout, bulk), **rest)


@click.command()
@action_options
@click.option("--after", required=True, metavar="STEP", help="The last step that stays done, by its number.")
@click.option("--reason", default="", help="Why, for the history.")
@pass_session
def reset(
    session: Session, /, after: str, reason: str, timeout: float | None, bulk: str, **rest: Any
) -> None:
    """Undo what sagas did after a step, and run their code anew from there.

    For RUNNING and STUCK sagas. A saga's owner refuses where what came after can't be undone and done again.
    """
    act(session, Action("reset", reason, after, timeout=timeout, bulk=bulk), **rest)


# --- doing it


def act(
    session: Session,
    action: Action,
    *,
    saga_ids: tuple[str, ...],
    dry_run: bool,
    yes: bool,
    **chosen_by: Any,
) -> None:
    """Do something to the sagas named, or to those that the filter chooses.

    A filter without states means those that the action is for.
    """
    filtered = any(chosen_by.values())
    if bool(saga_ids) == filtered:
        raise click.UsageError("Name sagas by their ids, or choose them by a filter such as --state STUCK.")
    out = session.output()
    if filtered:
        where = make_filter(**chosen_by)
        if not where.states and not names_state(where.where):
            where.states = USUAL[action.name]
        saga_ids = _choose(session, action, where, out, dry_run=dry_run, yes=yes)
    elif dry_run:
        _dry_run(out, action, _named(session, saga_ids), session)
        return
    if saga_ids and not (filtered and dry_run):
        _report(out, action, asyncio.run(_apply(session, action, saga_ids, out)))


def _named(session: Session, saga_ids: Iterable[str]) -> list[SagaRow]:
    with session.store() as store:
        return [row for saga_id in saga_ids if (row := store.saga(saga_id)) is not None]


def _choose(
    session: Session, action: Action, where: SagaFilter, out: Output, *, dry_run: bool, yes: bool
) -> tuple[str, ...]:
    """The ids that a filter chooses, after asking."""
    with session.store() as store:
        rows = list(chosen(store, where))
    if not rows:
        if not out.json:
            out.note("No saga fits.")
        return ()
    if dry_run:
        _dry_run(out, action, rows, session)
    elif not yes:
        if not sys.stdin.isatty():
            raise NotConfirmed(f"this would {action.name} {counted(len(rows), 'saga')}")
        click.confirm(f"{action.name.capitalize()} {counted(len(rows), 'saga')}?", abort=True, err=True)
    return tuple(row.saga_id for row in rows)


def _dry_run(out: Output, action: Action, rows: Sequence[SagaRow], session: Session) -> None:
    value = json.dumps(action.value) if action.value is not None else ""
    intent = Intent(action.name, action.reason, session.who(), action.step, value)
    fits, cells = 0, list[tuple[str, ...]]()
    with session.store() as store:
        for seen in foresee_all(store, intent, rows, session.now()):
            fits += not seen.refused
            if out.json:
                out.line(as_json(seen, action.name))
                continue
            said = f"would be refused: {seen.refused}" if seen.refused else seen.would
            row = seen.row
            cells.append((printable(row.saga_id), row.name, row.state.value, printable(said)))
    if out.json:
        return
    out.lines(table(("SAGA", "NAME", "STATE", "WHAT WOULD HAPPEN"), cells, paint=out.paint, state=2))
    refused = f", and {len(rows) - fits} would refuse" if fits < len(rows) else ""
    out.note(f"This would {action.name} {counted(fits, 'saga')}{refused}. Nothing was done.")


async def _apply(
    session: Session, action: Action, saga_ids: Sequence[str], out: Output
) -> list[dict[str, Any]]:
    """Do it to all, some at a time; what became of each, in the order given."""
    by = session.who()
    waiting = iter(enumerate(saga_ids))
    results: list[dict[str, Any]] = [{} for _ in saga_ids]
    began, done = time.monotonic(), 0

    def before(saga_id: str, action_id: str) -> SagaRow | None:
        with session.store() as store:
            return asked_before(store, saga_id, action_id)

    async def work(client: Client) -> None:
        nonlocal done
        for place, saga_id in waiting:
            results[place] = await action.apply(client, saga_id, by, before)
            done += 1
            if out.json:
                out.line(results[place])
            elif time.monotonic() - began > PROGRESS_SECONDS:
                out.progress(f"{done} of {len(saga_ids)} {DONE[action.name]}")

    async with session.client() as client:
        workers = [asyncio.create_task(work(client)) for _ in range(min(AT_ONCE, len(saga_ids)))]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
    return results


def _report(out: Output, action: Action, results: Sequence[dict[str, Any]]) -> None:
    failed = [result for result in results if result["outcome"] != "applied"]
    if not out.json:
        shown = results if len(results) <= SHOWN_WHOLE else failed
        out.lines(_told(out, action, result) for result in shown)
        if len(results) > 1:
            applied = len(results) - len(failed)
            text = f"{applied} of {counted(len(results), 'saga')} {DONE[action.name]}"
            out.lines([f"{text}, {len(failed)} not" if failed else text])
    if failed:
        raise ActionFailed(1)


def _told(out: Output, action: Action, result: dict[str, Any]) -> str:
    if result["outcome"] == "applied":
        state = f", now {out.paint.state(result['state'])}" if result["state"] else ""
        left = f": {printable(sentence(result['left']))}" if result.get("left") else ""
        return f"{result['saga_id']}: {DONE[action.name]}{state}{left}"
    reason = sentence(result["reason"].removeprefix(f"saga {result['saga_id']}: "))
    why = f"{result['code']}: {reason} Remedy: {sentence(result['remedy'])}"
    return f"{result['saga_id']}: {out.paint('bad', 'not ' + DONE[action.name])}: {why}"
