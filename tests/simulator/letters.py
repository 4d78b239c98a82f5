"""Those who send signals, one after the other, each until it is answered; and what must come of it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from kasaga.engine.codec import decode
from kasaga.engine.lifecycle import COMPLETED
from kasaga.engine.model import Drop, Record, Signalled, Take
from kasaga.messages import message_codec
from kasaga.store.base import FINAL_STATES
from kasaga_wire.codec import Schemas
from kasaga_wire.envelope import AnswerEnvelope, ReplyTo
from kasaga_wire.messages import MessageEnvelope
from kasaga_wire.records import answer_codec
from simulator import trips
from simulator.machine import SECOND

if TYPE_CHECKING:
    from simulator.world import World

CODEC = message_codec(str, "signal", "letter")
PATIENCE = 2 * SECOND
"""After which a sender asks again."""
LONG = 60 * SECOND


class Letters:
    """Of one world: senders that write `<saga>/0`, `<saga>/1`, … each with that as its key."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.sent: dict[str, int] = {}
        """By saga, how many letters its sender has begun with."""

    def begin(self, saga_id: str) -> None:
        """Somebody begins to write to a saga, perhaps before it has begun itself."""
        self.sent[saga_id] = 1
        wait = int(self._world.chance.between(f"letter/{saga_id}", 0.0, 1.5) * SECOND)
        self._world.machine.after(wait, partial(self._send, saga_id, 0))

    def _send(self, saga_id: str, number: int) -> None:
        """Send a letter, again if it was sent before, and look for the answer."""
        world, key = self._world, f"{saga_id}/{number}"
        self._write(saga_id, number)
        again = world.chance.next(f"again/{key}")
        if world.chance.number(again) < 0.3:
            wait = int(world.chance.between(f"when/{again}", 0.0, 6) * SECOND)
            world.machine.at(world.machine.now + wait, partial(self._repeat, saga_id, number))
        self._look(saga_id, number, 0)

    def _write(self, saga_id: str, number: int) -> None:
        world, key = self._world, f"{saga_id}/{number}"
        envelope = MessageEnvelope(
            kind="signal",
            key=key,
            name="letter",
            source="/kasaga/clients/sim",
            time=world.now(),
            saga_id=saga_id,
            reply_to=ReplyTo(world.topics.answers, 0),
        )
        shard, value = world.shard_of(saga_id), CODEC.encode(str(number))
        world.kafka.append(world.topics.control, shard, saga_id.encode(), value, envelope.to_headers())

    def _repeat(self, saga_id: str, number: int) -> None:
        """The same record once more, whatever has become of it: a sender that has lost its memory."""
        world = self._world
        log = world.kafka.logs[world.topics.control, world.shard_of(saga_id)]
        for record in log.records:
            if (b"ce_id", f"{saga_id}/{number}".encode()) in [(n.encode(), v) for n, v in record.headers]:
                world.kafka.append(record.topic, record.partition, record.key, record.value, record.headers)
                return

    def _look(self, saga_id: str, number: int, waited: int) -> None:
        """Go on with the next letter when this one is answered."""
        world, key = self._world, f"{saga_id}/{number}"
        said = self.said(key)
        if "not_applicable" in said:
            return
        if "accepted" in said:
            if number + 1 < trips.LETTERS:
                self.sent[saga_id] = number + 2
                self._send(saga_id, number + 1)
            else:
                late = int(world.plan.trouble * SECOND) + LONG
                world.machine.at(max(world.machine.now, late), partial(self._remind, saga_id))
            return
        step = SECOND // 10
        if waited >= PATIENCE and self._in_vain(saga_id):
            return  # whoever asked for ever would keep the clock from going on
        if waited >= PATIENCE:
            world.machine.at(world.machine.now + step, partial(self._send, saga_id, number))
        else:
            look = partial(self._look, saga_id, number, waited + step)
            world.machine.at(world.machine.now + step, look)

    def remind(self) -> None:
        """A late copy of a start that Kafka had lost may have begun a saga that nobody writes to any more."""
        for saga_id in self.sent:
            self._remind(saga_id)

    def _remind(self, saga_id: str) -> None:
        """Send once more what a saga says it hasn't got: Postgres has lost it, and Kafka too."""
        world = self._world
        for row in world.sagas():
            if row.saga_id == saga_id and row.state not in FINAL_STATES:
                came = {
                    record.event.signal_id
                    for record in (decode(each.seq, each.body) for each in world.store.history(row))
                    if isinstance(record.event, Signalled)
                }
                for number in range(trips.LETTERS):
                    if f"{saga_id}/{number}" not in came:
                        self._write(saga_id, number)

    def _in_vain(self, saga_id: str) -> bool:
        """Whether nobody has read a saga's start, long after all was well again: Kafka has lost it."""
        world = self._world
        if world.machine.now < world.plan.trouble * SECOND + LONG:
            return False
        return saga_id not in world.book.expected() | {row.saga_id for row in world.sagas()}

    def said(self, key: str) -> list[str]:
        """What has been answered to a letter."""
        found: list[str] = []
        world = self._world
        for record in world.kafka.logs[world.topics.answers, 0].records:
            if AnswerEnvelope.parse(record.headers).asked == key:
                found.append(answer_codec.decode(record.value or b"", Schemas()).what)
        return found

    def wrong(self, saga_id: str, state: str, records: list[Record], *, excused: bool) -> list[str]:
        """Say what is wrong with what has become of the letters to a saga."""
        found: list[str] = []
        if saga_id not in self.sent:
            return found
        came = [each.event.signal_id for each in records if isinstance(each.event, Signalled)]
        taken = [each.signal_id for record in records for each in record.decisions if isinstance(each, Take)]
        dropped = [each for record in records for each in record.decisions if isinstance(each, Drop)]
        if len(set(came)) < len(came):
            found.append(f"signals were recorded twice: {came}")
        if len(set(taken)) < len(taken):
            found.append(f"signals were taken twice: {taken}")
        if taken != came[: len(taken)]:
            found.append(f"signals came as {came} and were taken as {taken}")
        if came != sorted(came) and not excused:
            found.append(f"signals were recorded out of order: {came}")
        if dropped:
            found.append(f"signals were set aside: {dropped}")
        if state == COMPLETED and len(taken) != trips.LETTERS:
            found.append(f"it is COMPLETED with the signals {taken}")
        for number in range(self.sent.get(saga_id, 0)):
            key = f"{saga_id}/{number}"
            if not excused and "accepted" in self.said(key) and key not in came:
                found.append(f"signal {key} was accepted, and isn't in the history")
        return found
