"""A store of objects that can be away, lose what it has and change it; and participants that use it."""

from __future__ import annotations

from typing import cast

from kasaga_wire.claims import Claims, fetch, is_claim
from kasaga_wire.envelope import CommandEnvelope
from kasaga_wire.errors import ObjectsUnavailable, ObjectUnreadable
from kasaga_wire.kafka import Record
from kasaga_wire.objects import Objects
from orchestrator.desk import Reply
from orchestrator.world import World


class Shelf:
    """As `Objects`, in memory."""

    url = "memory://shelf"

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.away = False
        self.writes = 0

    def write(self, name: str, data: bytes) -> None:
        self._answer()
        self.writes += 1
        self.objects[name] = data

    def read(self, name: str, *, most: int | None = None) -> bytes | None:
        self._answer()
        found = self.objects.get(name)
        return found if found is None or most is None else found[: most + 1]

    def names(self, below: str = "") -> list[str]:
        self._answer()
        return sorted(name.rpartition("/")[2] for name in self.objects if name.startswith(f"{below}/"))

    def delete(self, name: str) -> bool:
        self._answer()
        return self.objects.pop(name, None) is not None

    def _answer(self) -> None:
        if self.away:
            raise ObjectsUnavailable("memory://shelf doesn't answer")

    def claims(self, over: int = 10) -> Claims:
        return Claims(cast("Objects", self), over)


def furnish(world: World, shelf: Shelf) -> None:
    """Let orchestrators that join, and the participants, have their payloads there.

    A participant that can't fetch what a claim names fails the test: it is there whenever it is named.
    """
    claims, take = shelf.claims(), world.desk.take
    world.claims = claims

    def taking(record: Record) -> list[Reply]:
        envelope = CommandEnvelope.parse(record.headers)
        away, shelf.away = shelf.away, False
        try:
            if is_claim(record.value):
                try:
                    assert fetch(claims, envelope.command_id, record.value or b"")
                except ObjectUnreadable as error:
                    if "was changed" not in error.message:
                        raise
                    return []  # the test's doing; it is asked again when its time is over
            else:
                assert not claims.covers(record.value)
            replies = take(record)
            run = envelope.command_id.partition(".")[0]
            return [
                each._replace(value=claims.put(run, each.value)) if claims.covers(each.value) else each
                for each in replies
            ]
        finally:
            shelf.away = away

    world.desk.take = taking  # type: ignore[method-assign]
