"""One orchestrator process of the world, and the parts of it that a test must reach."""

from __future__ import annotations

from dataclasses import dataclass

from kasaga.orchestrator.functions import Functions
from kasaga.orchestrator.loop import Loop
from kasaga.orchestrator.metrics import Metrics
from kasaga.orchestrator.ownership import Ownership
from kasaga.orchestrator.relay import Relay
from kasaga.orchestrator.runs import Runs
from kasaga.orchestrator.watchdog import Watchdog
from kasaga.testing.network import Consumer, Producer


@dataclass
class Node:
    """One orchestrator process."""

    name: str
    loop: Loop
    consumer: Consumer
    producers: list[Producer]
    asleep_until: int = 0
    away_until: int = 0
    """Until then Postgres doesn't answer this process."""
    alive: bool = True

    @property
    def producer(self) -> Producer:
        return self.producers[-1]

    # What the loop keeps to itself, and a test must reach.

    @property
    def ownership(self) -> Ownership:
        return self.loop._ownership  # pyright: ignore[reportPrivateUsage]

    @property
    def runs(self) -> Runs:
        return self.loop._runs  # pyright: ignore[reportPrivateUsage]

    @property
    def functions(self) -> Functions:
        return self.loop._functions  # pyright: ignore[reportPrivateUsage]

    @property
    def metrics(self) -> Metrics:
        return self.loop._metrics  # pyright: ignore[reportPrivateUsage]

    @property
    def watchdog(self) -> Watchdog:
        return self.loop._watchdog  # pyright: ignore[reportPrivateUsage]

    @property
    def relay(self) -> Relay:
        return self.loop._relay  # pyright: ignore[reportPrivateUsage]
