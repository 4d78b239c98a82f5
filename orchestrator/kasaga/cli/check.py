"""`kasaga check`: reads the code of an App's sagas before it is deployed."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import click

from kasaga_wire.errors import KasagaError

from ..check import Finding, Severity, check_app, check_broken
from ..wording import Paint, counted, listed, sentence
from .inputs import load_app
from .session import Session, output_option, pass_session

_COLOUR = {Severity.ERROR: "bad", Severity.WARNING: "warn", Severity.INFO: "dim"}


@click.command()
@click.argument("target", metavar="MODULE[:APP]")
@click.option("--strict", is_flag=True, help="Fail on warnings, too.")
@output_option
@pass_session
def check(session: Session, target: str, strict: bool) -> int:
    """Read the code of an App's sagas: what would not be the same in a replay, what can't be undone.

    Exit status 1: there are errors, or with --strict warnings.
    """
    out = session.output()
    try:
        app = load_app(target)
    except KasagaError as error:
        names = modules_of(error)
        if not names:
            raise
        findings, about = check_broken(error, names), "the App can't be made"
    else:
        findings = check_app(app)
        about = f"{counted(len(app.sagas), 'saga')} of {app.namespace}"
    counts = Counter(each.severity for each in findings)
    failed = bool(counts[Severity.ERROR] or (strict and counts[Severity.WARNING]))
    if out.json:
        out.document(
            {
                "ok": not failed,
                **{f"{severity}s": counts[severity] for severity in Severity},
                "findings": [{**asdict(each), "file": shown(each.file)} for each in findings],
            }
        )
        return int(failed)
    for each in findings:
        out.lines(told(each, out.paint))
    out.lines([f"{about}: {total(counts)}"])
    return int(failed)


def told(finding: Finding, paint: Paint) -> list[str]:
    """One finding for people."""
    place = f"{shown(finding.file)}:{finding.line}" if finding.file else "?"
    kind = paint(_COLOUR[finding.severity], finding.severity.value)
    saga = f" (saga {finding.saga})" if finding.saga else ""
    return [
        f"{place}: {kind} {finding.code} {finding.name}: {sentence(finding.message)}{saga}",
        f"    {sentence(finding.remedy)}",
    ]


def total(counts: Counter[Severity]) -> str:
    """`2 errors, 1 warning and 3 infos`."""
    parts = [counted(counts[severity], severity.value) for severity in Severity if counts[severity]]
    return listed(parts) or "nothing found"


def shown(file: str) -> str:
    """A path as it is seen from here."""
    here = Path.cwd()
    path = Path(file)
    return (
        str(path.relative_to(here)) if file and path.is_relative_to(here) else os.path.normpath(file or "?")
    )


def modules_of(error: KasagaError) -> list[dict[str, object]]:
    """The names of the modules that were being imported when an error was raised."""
    found: list[dict[str, object]] = []
    traceback = error.__traceback__
    while traceback is not None:
        frame = traceback.tb_frame
        if frame.f_code.co_name == "<module>":
            found.append(frame.f_globals)
        traceback = traceback.tb_next
    return found
