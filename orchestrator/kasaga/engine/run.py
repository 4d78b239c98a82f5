"""What the engine is given: the authors' definitions, and one saga in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from kasaga_wire.codec import Schemas
from kasaga_wire.contracts import Contract

from ..errors import MissingVersion
from . import lifecycle
from .driver import Definition, Driver, Guard, Host, unguarded
from .model import Record
from .replay import replay
from .state import State, fold


class Definitions(NamedTuple):
    """All that the engine knows of the authors' code."""

    sagas: Mapping[tuple[str, int], Definition]
    contracts: Mapping[str, Contract]
    schemas: Schemas
    fingerprint: str
    """Changes when the code does: parked sagas are then tried again."""
    max_payload: int = 900_000
    """Bytes of one value."""
    events: frozenset[str] = lifecycle.PROBLEMS
    """The states that are told on the events topic; coming out of STUCK and PAUSED is always told."""
    max_together: int = 16_000_000
    """Bytes of the inputs of steps that go out together: they are one row of history."""
    max_steps: int = 50_000
    """Steps of one run: its history is read as a whole whenever its process changes."""
    max_events: int = 100_000
    """Records of one run; a saga with more takes no further step."""
    max_bytes: int = 50_000_000
    """Bytes of them."""
    warn_at: float = 0.2
    """Of either: from here on the saga is told that its history is long."""
    fleet: Callable[[str], int] | None = None
    """The newest version of a saga that all processes have; without it the newest that is here."""

    def common(self, name: str) -> int:
        """Return the version of a new run of a saga, 0 where there is none."""
        return self.newest(name) if self.fleet is None else self.fleet(name)

    def newest(self, name: str) -> int:
        """Return the newest version that is here of a saga's code, 0 where there is none."""
        return max((version for of, version in self.sagas if of == name), default=0)

    def definition(self, state: State) -> Definition:
        """Find the saga's code; raises MissingVersion."""
        found = self.sagas.get((state.name, state.version))
        if found is None:
            which = f"{state.name} version {state.version}" if state.version else state.name
            raise MissingVersion(f"this process has no saga {which}")
        return found


class Run:
    """One saga in memory: its state and, while its code is wanted, its live coroutine."""

    __slots__ = ("driver", "state")

    def __init__(self, run_id: str, records: Iterable[Record] = ()) -> None:
        """Fold a history; raises HistoryUnreadable."""
        self.state: State = fold(run_id, records)
        self.driver: Driver | None = None

    def live(self, defs: Definitions, guard: Guard = unguarded) -> Driver:
        """Return the live coroutine, rebuilt by replay where there is none; raises SagaCodeError.

        Every step of the author's code goes through the guard of the last call.
        """
        driver = self.driver
        if driver is not None:
            driver.guard = guard
            return driver
        state = self.state
        driver = driver_of(defs, state, defs.definition(state), guard)
        if state.attributes and not state.begun_at and state.number == 1:
            driver.host.given = frozenset(state.attributes)
        if state.begun_at:
            try:
                replay(driver, state, defs.schemas)
            except BaseException:
                driver.evict()
                raise
        self.driver = driver
        return driver

    def evict(self) -> None:
        """Close the coroutine, in the thread that made it. The next event brings it back by replay."""
        driver, self.driver = self.driver, None
        if driver is not None:
            driver.evict()


def driver_of(defs: Definitions, state: State, definition: Definition, guard: Guard) -> Driver:
    """Make a driver for a saga's run as it stands; nothing is run yet."""
    host = Host(state.run_id, state.saga_id, defs.max_payload, state.number)
    return Driver(definition, host, defs.schemas, guard, offset=state.offset)
