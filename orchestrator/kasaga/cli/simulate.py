"""`kasaga simulate`: a saga against fakes or handlers, with faults drawn from seeds, on a virtual clock."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..saga import App, Saga
from .errors import BadTarget
from .inputs import find_saga, load, parse_input, read_text
from .output import Output

if TYPE_CHECKING:
    from ..testing import Case

FAILED = 1
SEEDS = 100


@click.command()
@click.argument("target", metavar="MODULE:NAME")
@click.option("--saga", "name", help="Which saga, where NAME is an App with several.")
@click.option(
    "--input",
    "given",
    metavar="JSON",
    help="The saga's input: JSON, @file, or - for the standard input. By default one made from its model.",
)
@click.option("--seeds", default=SEEDS, show_default=True, type=click.IntRange(1), help="How many runs.")
@click.option("--seed", type=click.IntRange(0), help="The first one; by default drawn, and printed.")
@click.option("--matrix", is_flag=True, help="Run the failure matrix instead: each fault at each step.")
@click.option(
    "--html",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    help="With --matrix: write it as a page, too.",
)
def simulate(
    target: str,
    name: str | None,
    given: str | None,
    seeds: int,
    seed: int | None,
    matrix: bool,
    html: Path | None,
) -> int:
    """Run a saga with drawn faults; needs no servers.

    MODULE:NAME is a saga, an App, or a `kasaga.testing.Case`, which says with which handlers and invariants.
    A saga alone meets fakes that answer with values made from their contracts. Exit status 1: an invariant
    doesn't hold.
    """
    if html is not None and not matrix:
        raise click.UsageError("--html goes with --matrix")
    case = _case(target, name, given)
    if matrix:
        from ..testing.report import as_text

        report = case.matrix()
        output = Output(json=False, environment=os.environ)
        output.lines(as_text(report, width=output.width, paint=output.paint))
        if html is not None:
            html.write_text(report.html(), encoding="utf-8")
        return 0 if report.ok else FAILED
    found = case.simulate(seeds, seed=seed)
    click.echo(str(found))
    for failure in found.failures[:1]:
        click.echo(f"\nAgain: kasaga simulate {target} --seeds 1 --seed {failure.seed}")
    return 0 if found.ok else FAILED


def _case(target: str, name: str | None, given: str | None) -> Case[Any, Any]:
    """What is to be run; raises BadTarget, BadInput and what a Case raises."""
    from ..testing import Case

    found: Any = load(target)
    if _is(found, Case):
        if name is not None or given is not None:
            raise click.UsageError("a Case names its saga and its input itself")
        case: Case[Any, Any] = found
        return case
    contracts: tuple[type, ...] = ()
    if isinstance(found, App):
        contracts = tuple(contract.cls for contract in found.contracts.values())
        names = sorted({known for known, _ in found.sagas})
        if name is None and len(names) != 1:
            raise BadTarget(f"{target} has the sagas {', '.join(names)}", remedy="Name one with --saga")
        found = find_saga(found, name or names[0], None)
    elif name is not None:
        raise click.UsageError("--saga goes with an App")
    if not _is(found, Saga):
        raise BadTarget(
            f"{target} is no saga, no App and no Case", remedy="Write module:name, such as shop.sagas:payment"
        )
    saga: Saga[Any, Any] = found
    value = None if given is None else parse_input(saga, read_text(given))
    return Case(saga, value, contracts=contracts)


def _is(found: Any, kind: type) -> bool:
    """Whether a module's value is one of ours, of whatever saga."""
    return isinstance(found, kind)
