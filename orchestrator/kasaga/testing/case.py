"""A saga, the participants it is tested with, and what must hold: declared once, run with any faults.

Station: the face that tests see, with `matrix.py` and `simulate.py` behind it. Makes a world for each run.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import gc
import logging
import threading
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING, Any, Generic, TypedDict, TypeVar

from kasaga_wire.codec import Schemas
from kasaga_wire.contracts import contract_of
from kasaga_wire.records import own_schemas
from kasaga_wire.topics import Topics

from ..engine.lifecycle import COMPLETED
from ..engine.state import fold
from ..saga import App, Saga
from ..settings import limited
from ..timeline_data import decoder
from ..wording import moment
from . import invariants as rules
from .faults import Fault, Given, Plan
from .result import Invariant, Result
from .services import Fakes, Served, Services, find_contracts
from .signals import Signal, in_order
from .values import example
from .world import Stage, World, make_settings, silent

if TYPE_CHECKING:
    from .matrix import Report
    from .simulate import Simulation

A = TypeVar("A")
R = TypeVar("R")
T = TypeVar("T")


GARBAGE = 50_000
"""Objects after which the youngest are looked through: most of what a run makes lives as long as the run."""


class About(TypedDict, total=False):
    """What a Case may be told beside its saga and its input."""

    participants: Iterable[Served] | Callable[..., Iterable[Served]]
    fakes: Fakes | Callable[..., Fakes]
    data: Callable[[], object]
    invariants: Iterable[Invariant]
    contracts: Iterable[Callable[..., Any]]
    signals: Iterable[Signal]


class Case(Generic[A, R]):
    """What is tested. Every run begins anew: nothing of one reaches the next."""

    def __init__(
        self,
        saga: Saga[A, R],
        input: A | None = None,  # noqa: A002 (what everybody calls it)
        *,
        participants: Iterable[Served] | Callable[..., Iterable[Served]] = (),
        fakes: Fakes | Callable[..., Fakes] | None = None,
        data: Callable[[], object] | None = None,
        invariants: Iterable[Invariant] = (),
        contracts: Iterable[Callable[..., Any]] = (),
        signals: Iterable[Signal] = (),
    ) -> None:
        """Name the saga and who takes part; nothing runs yet.

        Args:
            saga: what `@saga` made.
            input: its argument; by default one made from its model's schema.
            participants: `Participant` apps, or service classes. A function is called for each run, and gets
                the run's data if there is `data`.
            fakes: by command, such as `{Payments.charge: lambda order: Charge(id=7)}`, what stands in for the
                handlers of contracts that no participant serves. It may take the transaction after the input
                (and after the result, of a compensation), and may be async. A command without one answers
                with a value made from its result's schema, a compensation succeeds. A function is called as
                above.
            data: makes what stands for the services' databases, anew for each run: handlers find it as
                `tx.connection`, and a transaction that is rolled back takes back what it changed in its
                attributes. A part that is an `Outside` isn't taken back.
            invariants: called with each Result. They raise AssertionError, or give False.
            contracts: those that the saga uses where its code doesn't name them.
            signals: what is sent to the saga while it runs.

        Raises:
            ContractError: a contract isn't declared right.
            EncodeError: the input isn't the saga's.
            NoExample: no input was given, and none could be made.
        """
        found = {contract.name: contract for contract in map(contract_of, contracts)}
        named, others = find_contracts(saga.function)
        found = {**named, **found}
        sagas = [saga, *(each for each in others if each is not saga)]
        app = App("testing", sagas=sagas, participants=[contract.cls for contract in found.values()])
        schemas = Schemas()
        settings = make_settings()
        defs = limited(app.definitions(schemas, max_payload=settings.max_payload_bytes), settings)
        for schema in own_schemas():
            schemas.add(schema)
        self.saga = saga
        self.input: A = example(saga.input, f"the input of saga {saga.name!r}") if input is None else input
        self._payload = saga.input.encode(self.input)
        self._invariants = tuple(invariants)
        services = Services(
            app.contracts.values(), schemas, participants=participants, fakes=fakes or {}, data=data
        )
        self._stage = Stage(
            saga, app, defs, services, silent(), settings, Topics("testing"), in_order(signals)
        )

    def run(self, faults: Iterable[Fault] = ()) -> Result:
        """Run the saga once, with these faults, and check the invariants: `result.violations`.

        Raises ContractError, RegistrationError and TypeError where participants, fakes or data don't fit the
        contracts, NoExample where an answer was needed that can't be made. So do the other two.
        """
        return self._apart(lambda: self.play(Given(faults)))

    def matrix(self, *, pairs: bool = True) -> Report:
        """Run it with each fault at each step, then with pairs of them."""
        from .matrix import explore

        return self._apart(lambda: explore(self, pairs=pairs))

    def simulate(self, seeds: int = 100, *, seed: int | None = None) -> Simulation:
        """Run it with faults, delays and orders drawn from `seeds` seeds, the first being `seed`."""
        from .simulate import simulate

        return self._apart(lambda: simulate(self, seeds, seed))

    def _apart(self, work: Callable[[], T]) -> T:
        def run() -> T:
            with _undisturbed(), contextlib.closing(self._stage.services):
                return work()

        return apart(run)

    # --- one run

    def play(self, plan: Plan, dice: Random | None = None) -> Result:
        """Run the saga once in the calling thread: the callers above have prepared it."""
        services = self._stage.services
        world = World(self._stage, plan, dice=dice)
        before = copy.deepcopy(world.data)
        world.run(self._payload)
        if services.problems:
            raise services.problems.pop()
        result = self._result(world, plan, before)
        result = replace(result, left=rules.left_behind(result))
        result.violations.extend(rules.check(result, self._invariants))
        return result

    def _result(self, world: World, plan: Plan, before: object) -> Result:
        row, records = world.row, world.records()
        struck = tuple(sorted(world.courier.struck, key=lambda each: (len(each.step), each.step, each.kind)))
        decoding = Schemas()
        for text in world.schemas().values():
            decoding.add(text)
        value = None
        if row.state == COMPLETED and row.result is not None:
            value = self.saga.result.decode(row.result, decoding)
        return Result(
            saga=self.saga.name,
            faults=plan.faults if isinstance(plan, Given) else struck,
            struck=struck,
            state=str(row.state),
            code=row.code,
            reason=row.reason,
            remedy=row.remedy,
            value=value,
            handled=tuple(world.courier.handled),
            steps=dict(world.courier.steps),
            data=world.data,
            before=before,
            took=moment(records[-1].at) - moment(records[0].at),
            left=(),
            row=row,
            folded=fold(str(row.run_id), records),
            records=records,
            decode=decoder(decoding),
            moved=world.moved_after_its_end,
            turns=world.turns,
            children=world.children(),
        )


def apart(work: Callable[[], T]) -> T:
    """Do it here, or in a thread where an event loop runs in this one: handlers need a loop of their own."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return work()
    done: list[T] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            done.append(work())
        except BaseException as error:  # noqa: BLE001 (it is raised again in the thread that asked)
            failed.append(error)

    thread = threading.Thread(target=run, name="kasaga-testing")
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return done[0]


@contextmanager
def _undisturbed() -> Generator[None]:
    """Keep the engine's log quiet, since the timeline tells what it would say, and collect garbage seldom."""
    logger, thresholds = logging.getLogger("kasaga"), gc.get_threshold()
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    gc.set_threshold(GARBAGE, *thresholds[1:])
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        logger.setLevel(level)
