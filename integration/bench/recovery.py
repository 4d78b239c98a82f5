"""What a death costs the sagas of an orchestrator, and what a planned change of owners does.

In flight are sagas of three kinds (`vigil_app`). *Parked* ones wait for the answer of a participant that is
away. *Slow* ones sleep, ask a participant and sleep again, spread so that so many questions a second are
asked. *Fast* ones do the same every few tenths of a second, two a shard: they show when a shard stands.

**Without progress** is measured in the histories, which have the time of each decision by the database's
clock. Between two events of a saga lies what it slept, and a rest: the way of a command through relay,
Kafka, the participant and back, or how late a timer was. The longest rest of any saga around an event is
the figure; the same of a quiet time is given beside it (`event: none`): a busy machine has rests of its own.
A saga that waits for a participant that is away isn't held up by us and doesn't count.

**After a SIGKILL** those sagas of the dead are held up that had an answer or a timer due until others had its
shards. The first and the last of them that was decided again are the figures, in seconds from the kill; how
long the last lease still ran, and when the last shard was claimed, say what of it was waiting on purpose.

Each scenario ends all its sagas, and audits every one against the participants' inboxes.
"""

from __future__ import annotations

import signal
import time
from collections import defaultdict
from datetime import datetime
from typing import cast

from bench.bed import STOP_SECONDS, Setup
from bench.errors import BenchError
from bench.scenarios import Run, scenario
from bench.vigil import Vigils
from kasaga.dev.process import wait_until

HELD_UP = 0.5
"""Seconds of a rest from which on a saga counts as held up by a death."""

AFTER_DEATH, AFTER_CHANGE = 12.0, 6.0
"""Seconds for which the sagas are looked at."""

PATIENCE = 300.0

FAST, FAST_PERIOD = 32, 0.4

MANY, SOME = 100_000, 20_000
"""Sagas in flight, half of them parked and half slow; `--largest` makes it fewer."""

QUESTIONS, SHORTEST = 250.0, 20.0
"""Questions of all slow ones a second, as long as each sleeps at least so many seconds between two."""


def _begin(run: Run, town: Vigils, most: int) -> int:
    """Bring sagas in flight, and let them come to rest; returns how many there are."""
    half = min(most, run.largest or most) // 2
    rate = min(QUESTIONS, half / SHORTEST)
    town.begin(parked=half, slow=half, rate=rate, fast=FAST, fast_period=FAST_PERIOD)
    time.sleep(AFTER_CHANGE)
    return 2 * half + FAST


def _kill(town: Vigils, figures: dict[str, list[float]]) -> None:
    """Kill one of two orchestrators, look, and put another in its place."""
    name = min(town.named)
    doomed, mine = town.named.pop(name), town.owned(name)
    killed = town.now()
    doomed.kill()
    dead = town.now()
    leases = town.query("SELECT max(lease_until) FROM kasaga.shard WHERE owner = %s", name)
    claimed = max(town.claims(mine, name).values())
    time.sleep(AFTER_DEATH)
    if not wait_until(lambda: town.have_moved(mine, dead), PATIENCE):
        raise BenchError(f"sagas of a dead orchestrator stand still: {town.logs()}")
    steps = [step for step in town.steps(dead, town.now()) if step.shard in mine]
    held = [
        step
        for step in steps
        if step.waited > HELD_UP and step.at.timestamp() - step.waited < claimed.timestamp()
    ]
    if not held:
        raise BenchError(f"no saga was held up by a death: {town.logs()}")
    ends = cast("datetime", leases[0][0])
    for figure, moment in (
        ("recovery_lease", ends),
        ("recovery_claimed", claimed),
        ("recovery_first", min(step.at for step in held)),
        ("recovery_last", max(step.at for step in held)),
    ):
        figures[figure].append((moment - killed).total_seconds())
    figures["recovery_held_up"].append(len({step.saga_id for step in held}))
    town.start_orchestrator()
    town.wait_until_owned(2)
    time.sleep(AFTER_CHANGE)


@scenario(
    "recovery", "SIGKILL of one of two orchestrators with 100,000 sagas in flight: a quarter of an hour"
)
def recovery(run: Run) -> None:
    """Measure how long its sagas stand still, once a round; count what was sent twice."""
    figures: dict[str, list[float]] = defaultdict(list)
    with run.other_bed(Vigils, Setup(orchestrators=2)) as town:
        in_flight = _begin(run, town, MANY)
        before = town.sent_again()
        for _ in range(run.rounds):
            _kill(town, figures)
        again = town.sent_again() - before
        town.end()
    for figure, values in figures.items():
        unit = "sagas" if figure == "recovery_held_up" else "s"
        run.put(figure, values, unit, in_flight=in_flight, lease=3.0)
    run.put("recovery_sent_again", again / run.rounds, "commands/kill", in_flight=in_flight)


def _change(town: Vigils, event: str) -> float:
    """Let one orchestrator come or go; returns the longest time without progress of any saga."""
    begun = town.now()
    if event == "2 to 1":
        name = min(town.named)
        process = town.named.pop(name)
        if not process.stop(signal.SIGTERM, STOP_SECONDS):
            raise BenchError(f"an orchestrator doesn't end: {town.logs()}")
    elif event == "1 to 2":
        town.start_orchestrator()
    if event != "none":
        town.wait_until_owned(len(town.named))
    time.sleep(AFTER_CHANGE)
    return town.longest_wait(begun, town.now())


@scenario("handover", "planned changes of owners: a rolling restart, which is also 2 → 1 → 2")
def handover(run: Run) -> None:
    """End one of two and start another; the longest time without progress of any saga around each change."""
    waits: dict[str, list[float]] = defaultdict(list)
    with run.other_bed(Vigils, Setup(orchestrators=2)) as town:
        in_flight = _begin(run, town, SOME)
        before = town.sent_again()
        for _ in range(run.rounds):
            for event in ("none", "2 to 1", "1 to 2"):
                waits[event].append(_change(town, event) * 1000)
        again = town.sent_again() - before
        town.end()
    for event, values in waits.items():
        run.put("handover_longest_wait", values, "ms", event=event, in_flight=in_flight)
    run.put("handover_sent_again", again / run.rounds / 2, "commands/change", in_flight=in_flight)
