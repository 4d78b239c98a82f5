"""Faults that strike the world as a whole, at times that the seed draws: outages, losses, time travel.

Each is one named fault, so that it can be left out of a run.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from kasaga_wire.kafka import Record
from simulator.kafka import Kafka
from simulator.machine import SECOND, Process
from simulator.postgres import restore, snapshot

if TYPE_CHECKING:
    from simulator.world import World

COPIES = 3
"""Times that old records come once more when all is over."""
WEEKS = 21 * 24 * 3600 * SECOND

KINDS = {
    "again": 12.0,
    "kafka_down": 2.0,
    "kafka_cut": 3.0,
    "store_away": 2.0,
    "store_cut": 3.0,
    "inbox_away": 3.0,
    "leave": 4.0,
    "kill": 4.0,
    "pause": 4.0,
    "zombie": 1.5,
    "postgres_back": 2.0,
    "inbox_back": 1.5,
    "truncate": 2.0,
    "tail_lost": 2.0,
    "remade": 1.5,
    "purged": 1.0,
}
"""By kind: at most about how often it strikes in a run."""
TIMES = {kind: int(most) + 1 for kind, most in KINDS.items()}
"""By kind: how often it could."""


def begin(world: World) -> None:
    """Plan them."""
    for kind, strike in STRIKES.items():
        for number in range(1, TIMES[kind] + 1):
            _plan(world, kind, number, strike)


def _plan(world: World, kind: str, number: int, strike: Callable[[World, str], None]) -> None:
    part = world.chance.between(f"when/{kind}/{number}", 0.01, 0.95)
    at = int(part * world.plan.trouble * SECOND)

    def go() -> None:
        if fault := world.strikes(kind, str(number)):
            strike(world, fault)

    world.machine.at(at, go)


def _someone(world: World, name: str, host: str = "") -> Process | None:
    found = [each for each in world.machine.processes if each.alive and host in ("", each.host)]
    return world.chance.pick(f"who/{name}", found) if found else None


def _seconds(world: World, name: str, low: float, high: float) -> int:
    return int(world.chance.between(f"how long/{name}", low, high) * SECOND)


def again(world: World, name: str) -> None:
    """A record that is somewhere in a log comes once more."""
    logs = [log.records for place, log in sorted(world.kafka.logs.items()) if _ours(world, place[0])]
    records = [record for log in logs for record in log]
    if records:
        _once_more(world.kafka, world.chance.pick(f"which/{name}", records))


def _once_more(kafka: Kafka, record: Record) -> None:
    kafka.append(record.topic, record.partition, record.key, record.value, record.headers)


def _ours(world: World, topic: str) -> bool:
    topics = world.topics
    return topic in (topics.sagas, topics.replies, topics.control) or topic.endswith(".commands")


def kafka_down(world: World, name: str) -> None:
    """No broker answers anybody."""
    world.kafka.down_until = world.machine.now + _seconds(world, name, 0.2, 15)


def kafka_cut(world: World, name: str) -> None:
    """No broker answers one process."""
    process = _someone(world, name)
    if process is not None:
        world.kafka.cut[process.name] = world.machine.now + _seconds(world, name, 0.2, 20)


def store_away(world: World, name: str) -> None:
    """The orchestrators' Postgres answers nobody."""
    world.send_away("store", "", _seconds(world, name, 0.2, 8))


def store_cut(world: World, name: str) -> None:
    """The orchestrators' Postgres doesn't answer one of them."""
    process = _someone(world, name, "orchestrator")
    if process is not None:
        world.send_away("store", process.name, _seconds(world, name, 0.2, 12))


def inbox_away(world: World, name: str) -> None:
    """The participants' Postgres is restarted: what was open is rolled back."""
    for database in world.databases.values():
        database.crash()
    world.send_away("inbox", "", _seconds(world, name, 0.2, 8))


def leave(world: World, name: str) -> None:
    """An orchestrator ends in order."""
    found = [each for each in world.orchestrators if each.loop is not None]
    if found:
        node = world.chance.pick(f"who/{name}", found)
        world.tracer.note(node.process, "leave")
        node.leaves = True


def kill(world: World, name: str) -> None:
    """A process dies, wherever it is."""
    process = _someone(world, name)
    if process is not None:
        world.kill(process)


def pause(world: World, name: str) -> None:
    """A process is frozen, wherever it is."""
    process = _someone(world, name)
    if process is not None:
        world.freeze(process, _seconds(world, name, 0.2, 15))


def zombie(world: World, name: str) -> None:
    """A process is frozen for weeks; another is started in its place."""
    process = _someone(world, name)
    if process is not None:
        world.freeze(process, WEEKS)
        join = world.join_orchestrator if process.host == "orchestrator" else world.join_participant
        world.machine.after(SECOND, join)


def postgres_back(world: World, name: str) -> None:
    """The orchestrators' Postgres loses its last commits."""
    before = snapshot(world.store)

    def go() -> None:
        if not world.calm:
            world.book.rewound(before)
            restore(world.store, before)

    world.machine.after(_seconds(world, name, 0.01, 1.5), go)


def inbox_back(world: World, name: str) -> None:
    """A participants' Postgres loses its last commits, inbox and effects together."""
    database = world.chance.pick(f"which/{name}", list(world.databases.values()))
    before = database.snapshot()

    def go() -> None:
        if not world.calm:
            lost = database.restore(before)
            world.book.inbox_lost |= lost
            world.tracer.note(None, "inbox_restore", ids=sorted(lost))

    world.machine.after(_seconds(world, name, 0.01, 1.5), go)


def _some_log(world: World, name: str) -> tuple[str, int]:
    return world.chance.pick(
        f"which/{name}", sorted(each for each in world.kafka.logs if _ours(world, each[0]))
    )


def truncate(world: World, name: str) -> None:
    """A log forgets its beginning, read or not."""
    place = _some_log(world, name)
    log = world.kafka.logs[place]
    first = world.chance.whole(f"how many/{name}", log.first, log.end)
    _lose(world, log.records[: first - log.first])
    world.kafka.truncate(*place, first)


def tail_lost(world: World, name: str) -> None:
    """A log loses its last records, though they were acknowledged: an unclean election."""
    place = _some_log(world, name)
    log = world.kafka.logs[place]
    count = min(world.chance.whole(f"how many/{name}", 1, 3), len(log.records))
    if count:
        world.book.rewritten[place] = max(world.book.rewritten.get(place, 0), log.end)
        _lose(world, log.records[-count:])
        del log.records[-count:]


def remade(world: World, name: str) -> None:
    """A partition is deleted and made anew."""
    place = _some_log(world, name)
    _lose(world, world.kafka.logs[place].records)
    world.book.rewritten[place] = max(world.book.rewritten.get(place, 0), world.kafka.logs[place].end)
    world.kafka.remake(*place)


def _lose(world: World, records: list[Record]) -> None:
    world.kafka.lost += records


def purged(world: World, name: str) -> None:
    """An inbox forgets everything, much too early."""
    database = world.chance.pick(f"which/{name}", list(world.databases.values()))
    gone = database.inbox.forget_all()
    world.book.purged |= gone
    world.tracer.note(None, "purge", ids=sorted(gone))


STRIKES: dict[str, Callable[[World, str], None]] = {
    "again": again,
    "kafka_down": kafka_down,
    "kafka_cut": kafka_cut,
    "store_away": store_away,
    "store_cut": store_cut,
    "inbox_away": inbox_away,
    "leave": leave,
    "kill": kill,
    "pause": pause,
    "zombie": zombie,
    "postgres_back": postgres_back,
    "inbox_back": inbox_back,
    "truncate": truncate,
    "tail_lost": tail_lost,
    "remade": remade,
    "purged": purged,
}


def weeks_later(world: World) -> int:
    """When all is over: zombies wake, inboxes forget what they may, old records come once more.

    Gives the time at which that is over, too.
    """
    machine = world.machine
    frozen = [each.frozen_until for each in machine.processes if each.alive]
    late = max([machine.now, *frozen])

    def purge() -> None:
        for database in world.databases.values():
            database.inbox.purge()

    machine.at(max(machine.now, late - SECOND), purge)
    for number in range(COPIES):
        machine.at(late + number * SECOND, partial(again, world, f"late/{number}"))
    machine.at(late + COPIES * SECOND, world.people.letters.remind)
    return late + int(world.plan.trouble / 2 * SECOND)
