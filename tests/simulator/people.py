"""Those who start sagas, those who cancel them, and the operator who looks after what is STUCK."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import UUID

from kasaga.store.base import FINAL_STATES, SagaRow, SagaState
from kasaga_wire.envelope import ControlEnvelope, ReplyTo, StartEnvelope
from kasaga_wire.records import Control, control_codec
from simulator import families, kin, labels, trips
from simulator.letters import Letters
from simulator.machine import NEVER, SECOND
from simulator.processes import CODE

if TYPE_CHECKING:
    from simulator.world import World

NAMES = (
    *("payment", "payment", "patient", "careful", "careful", "sleeper", "hurried"),
    *("failing", "local", "sold", "buggy"),
)
LISTENERS = 0.15
SUBSCRIBERS = 0.5
"""Part of those who are written to that go on as new runs."""
"""How many of the sagas take signals."""
CHOOSERS = 0.12
"""How many of the others have scopes."""
PARENTS = 0.3
"""How many of the others have children."""
FAMILIES = ("family", "family", "hasty")
ENDED, ENDED_PARENTS = 0.04, 0.12
"""How many of all, and of those that have children, somebody terminates."""
LABELLED = 0.4
"""How many of all are started with search attributes."""
EVERY = 4 * SECOND
"""Between two looks of the operator."""


class People:
    """Of one world."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.started: dict[str, str] = {}
        """Run ids by saga id."""
        self.kinds: dict[str, str] = {}
        self.acts: Counter[str] = Counter()
        """By saga: how often the operator has acted on it."""
        self.letters = Letters(world)
        self._left: set[str] = set()
        self._due = 0
        """Starts that are yet to come."""

    def begin(self) -> None:
        """Plan the starts and what follows them."""
        world, chance, plan = self._world, self._world.chance, self._world.plan
        count = plan.sagas if plan.sagas is not None else chance.whole("sagas", 2, 12)
        for number in range(count):
            if plan.only is not None and number not in plan.only:
                continue
            at = int(chance.between(f"start/{number}", 0.001, 0.6) * plan.trouble * SECOND)
            self._due += 1
            world.machine.at(at, partial(self._start, number))
            if chance.number(f"cancelled/{number}") < 0.15:
                wait = int(chance.between(f"cancel/{number}", 0.0, 5) * SECOND)
                world.machine.at(at + wait, partial(self.ask, "cancel", f"saga-{number}"))
            parent = self._name(number) in FAMILIES
            self._halt(f"saga-{number}", at, ENDED_PARENTS if parent else ENDED)
            for path in range(2, 5) if parent else ():
                self._halt(f"saga-{number}.{path}", at, ENDED)
        world.machine.after(EVERY, self._look)

    def _halt(self, saga_id: str, at: int, ended: float) -> None:
        """Pause a saga, and have it resumed, or the operator do so when all is calm; or end it as it is."""
        world, chance, number = self._world, self._world.chance, saga_id.removeprefix("saga-")
        if chance.number(f"paused/{number}") < 0.15:
            begin = at + int(chance.between(f"pause/{number}", 0.0, 5) * SECOND)
            world.machine.at(begin, partial(self.ask, "pause", saga_id))
            if chance.number(f"resumed/{number}") < 0.7:
                wait = int(chance.between(f"resume/{number}", 0.0, 90) * SECOND)
                world.machine.at(begin + wait, partial(self.ask, "resume", saga_id))
        if chance.number(f"terminated/{number}") < ended:
            wait = int(chance.between(f"terminate/{number}", 0.0, 20) * SECOND)
            world.machine.at(at + wait, partial(self.ask, "terminate", saga_id))

    @property
    def satisfied(self) -> bool:
        """Whether nothing is planned any more."""
        return not self._due

    def _start(self, number: int) -> None:
        world, chance = self._world, self._world.chance
        self._due -= 1
        saga_id, run_id = f"saga-{number}", str(world.run_id(number))
        name = self._name(number)
        note = chance.pick(f"sleep/{number}", trips.SLEEPS) if name == "sleeper" else ""
        if name in FAMILIES:
            drawn = families.draw(chance, saga_id, self._ids(number))
            note = drawn.note
            trips.BROKEN.update(drawn.buggy)
        if name == "buggy" or (name in trips.WRITTEN_TO and chance.number(f"bug/{number}") < 0.3):
            trips.BROKEN.add(saga_id)
        if name in trips.WRITTEN_TO:
            self.letters.begin(saga_id)
        start = StartEnvelope(
            run_id=run_id,
            source="/kasaga/clients/sim",
            time=world.now(),
            saga_id=saga_id,
            saga=name,
            reply_to=ReplyTo(world.topics.answers, 0),
            attributes=labels.given(saga_id) if chance.number(f"labelled/{number}") < LABELLED else b"",
        )
        order = trips.Order(id=saga_id, note=note)
        payload = CODE.app.sagas[name, 1].input.encode(order)
        self.started[saga_id], self.kinds[saga_id] = run_id, name
        shard = world.shard_of(saga_id)
        record = world.kafka.append(world.topics.sagas, shard, saga_id.encode(), payload, start.to_headers())
        world.tracer.note(
            None, "produce", record=saga_id, topic=record.topic, partition=shard, id=run_id, kind="start"
        )

    def _name(self, number: int) -> str:
        """Which saga a start is for."""
        chance, plan = self._world.chance, self._world.plan
        if plan.saga:
            return plan.saga
        if chance.number(f"listens/{number}") < LISTENERS:
            return "subscriber" if chance.number(f"subscribes/{number}") < SUBSCRIBERS else "listener"
        if chance.number(f"chooses/{number}") < CHOOSERS:
            return "choosy"
        if chance.number(f"begins others/{number}") < PARENTS:
            return chance.pick(f"family/{number}", FAMILIES)
        return chance.pick(f"saga/{number}", NAMES)

    def _ids(self, number: int) -> list[str]:
        """Ids that children ask for, though others may have them: siblings, cousins, or a client's saga."""
        others = [
            other for other in range(12) if other != number and self._name(other) not in trips.WRITTEN_TO
        ]
        return ["shared-0", "shared-1", f"saga-{others[number % len(others)]}"] if others else ["shared-0"]

    def ask(self, action: str, saga_id: str, **about: Any) -> None:
        """Put a control record into Kafka."""
        world = self._world
        envelope = ControlEnvelope(
            id=str(world.uuid()),
            source="/kasaga/clients/sim",
            action=action,
            time=world.now(),
            saga_id=saga_id,
            reply_to=ReplyTo(world.topics.answers, 0),
        )
        body = control_codec.encode(Control(action=action, by="sim", **{"reason": "simulated", **about}))
        shard = world.shard_of(saga_id)
        world.kafka.append(world.topics.control, shard, saga_id.encode(), body, envelope.to_headers())
        world.tracer.note(
            None,
            "produce",
            record=saga_id,
            topic=world.topics.control,
            partition=shard,
            id=envelope.id,
            kind="control",
            action=action,
        )

    def mend(self) -> None:
        """The saga's code is mended."""
        trips.BROKEN.clear()

    def leaves(self, row: SagaRow) -> bool:
        """Whether the operator has decided to leave a STUCK saga as it is, or one that it waits for."""
        if row.state is SagaState.STUCK:
            return row.saga_id in self._left
        return bool(self._left) and kin.waits(self._world, row, self.leaves)

    def left(self, rows: Iterable[SagaRow]) -> set[UUID]:
        """The runs whose commands may stay open: those that are STUCK, and those that wait for one."""
        return {
            row.run_id
            for row in rows
            if row.state is SagaState.STUCK or (row.state not in FINAL_STATES and self.leaves(row))
        }

    def _look(self) -> None:
        """Look for STUCK sagas, and do something about them."""
        world = self._world
        stuck = [
            row for row in world.sagas() if row.state is SagaState.STUCK and row.saga_id not in self._left
        ]
        for row in stuck:
            self._act(row)
        paused = [row for row in world.sagas() if row.state is SagaState.PAUSED] if world.calm else []
        for row in paused:
            self.ask("resume", row.saga_id)
        idle_until = 0 if stuck or paused else NEVER
        world.machine.at(world.machine.now + EVERY, self._look, idle_until=idle_until)

    def _act(self, row: SagaRow) -> None:
        chance = self._world.chance
        self.acts[row.saga_id] += 1
        times = self.acts[row.saga_id]
        what = chance.number(f"act/{row.saga_id}/{times}")
        calm = self._world.calm
        if times > 12 or (calm and times > 4 and what < 0.3):
            self._left.add(row.saga_id)
        elif what < 0.6 or not calm:
            self.ask("retry", row.saga_id)
        elif what < 0.8:
            self.ask("skip", row.saga_id)
        elif what < 0.9:
            self.ask("resolve", row.saga_id, value='{"ref": "by hand"}')
        else:
            self.ask("cancel", row.saga_id)
