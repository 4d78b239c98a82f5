"""Tests of your sagas: each step fails in each way, on a virtual clock, without Kafka and without Postgres.

    from kasaga.testing import Fault, matrix, run

    report = matrix(payment, order, fakes={Inventory.reserve: lambda order: Reservation(id=1)})
    assert report.ok, report
    result = run(payment, order, faults=[Fault.timeout_happened(Payments.charge)])
    assert result.state == "COMPENSATED", result

The saga runs in the real engine, loop and relay, the participants behind the real inbox; what is replaced
are the network, the databases and the time. `orchestrator/testing.md` is the guide.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar, Unpack

from ..saga import Saga
from .case import About, Case
from .delivery import Handling
from .faults import KINDS, Fault
from .hearing import Hears, hear
from .invariants import leaves_no_trace
from .matrix import Report, Row
from .result import Invariant, Outside, Result
from .services import Fakes, Later
from .signals import Signal
from .simulate import Failure, Simulation
from .values import NoExample

__all__ = [
    "KINDS",
    "About",
    "Case",
    "Failure",
    "Fakes",
    "Fault",
    "Handling",
    "Hears",
    "Invariant",
    "Later",
    "NoExample",
    "Outside",
    "Report",
    "Result",
    "Row",
    "Signal",
    "Simulation",
    "hear",
    "leaves_no_trace",
    "matrix",
    "run",
    "simulate",
]

A = TypeVar("A")
R = TypeVar("R")


def run(
    saga: Saga[A, R],
    input: A | None = None,  # noqa: A002 (what everybody calls it)
    *,
    faults: Iterable[Fault] = (),
    **about: Unpack[About],
) -> Result:
    """Run a saga once with these faults: `Case(saga, input, …).run(faults)`."""
    return Case(saga, input, **about).run(faults)


def matrix(
    saga: Saga[A, R],
    input: A | None = None,  # noqa: A002
    *,
    pairs: bool = True,
    **about: Unpack[About],
) -> Report:
    """Run a saga with each fault at each step, then with pairs: `Case(saga, input, …).matrix()`."""
    return Case(saga, input, **about).matrix(pairs=pairs)


def simulate(
    saga: Saga[A, R],
    input: A | None = None,  # noqa: A002
    *,
    seeds: int = 100,
    seed: int | None = None,
    **about: Unpack[About],
) -> Simulation:
    """Run a saga with faults drawn from seeds: `Case(saga, input, …).simulate(seeds, seed=seed)`."""
    return Case(saga, input, **about).simulate(seeds, seed=seed)
