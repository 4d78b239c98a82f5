"""Notices partitions that are assigned, have records, and are not read, whatever the cause.

Station: the orchestrator's source and the participants' readers tell it what came, and let it look now and
then; what it finds they heal, each in its own way.

A look asks the brokers where quiet partitions end. One that is behind in three looks in a row, without
anything having come of it, is stalled; the third look follows the second at once, so that an answer
that was on its way can't look like none. Looks are for moments when the client's own queue is empty: a
partition whose records only wait there for their turn is read.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from .errors import KafkaFailure
from .kafka_records import Place

FIRST_SECONDS = 10.0
"""From a partition's assignment to the first look."""
QUIET_SECONDS = 30.0
"""From one look at a quiet partition to the next."""
AGAIN_SECONDS = 10.0
"""From the first look that finds a partition behind to the second."""
SURE_SECONDS = 2.0
"""From the second to the third."""
GAP_SECONDS = 1.0
"""Between two looks at whatever partitions."""
MOST_AT_ONCE = 64
"""Partitions that one look asks about, in one request for each of their brokers."""


Which = Literal["begin", "end", "group"]


class Asks(Protocol):
    """Asks brokers for offsets."""

    def offsets(self, places: Sequence[Place], which: Which, timeout: float) -> Mapping[Place, int]:
        """Where partitions begin or end, or where the group reads on; of those that a broker knows of.

        An end is the offset after the last record that may be read. Raises KafkaUnavailable.
        """
        ...


class Stall(NamedTuple):
    """A partition that is not read."""

    place: Place
    offset: int
    """The first that should be read."""
    end: int


@dataclass(slots=True)
class _Watched:
    position: int | None
    """What is to be read next; None: nothing has come yet, and the group's offset is unknown."""
    due: float
    moved: bool = False
    """Whether anything came since the last look."""
    behind: int = 0
    """In how many looks in a row it was."""


class Watch:
    """Over the partitions of one consumer after the other; only the thread that consumes may use it."""

    def __init__(self, clock: Callable[[], float], timeout: float) -> None:
        """`clock`: seconds. `timeout`: seconds, for each of the two or three questions of one look."""
        self._clock = clock
        self._timeout = timeout
        self._watched: dict[Place, _Watched] = {}
        self._told: dict[Place, int] = {}
        """Ends that were told once: never again, whoever reads there by then."""
        self._next = clock() + GAP_SECONDS

    def began(self, positions: Mapping[Place, int | None]) -> None:
        """These are assigned, to be read from there; None: from the group's offset."""
        due = self._clock() + FIRST_SECONDS
        for place, position in positions.items():
            self._watched[place] = _Watched(position, due)

    def ended(self, places: Iterable[Place]) -> None:
        """These aren't assigned any more."""
        for place in places:
            self._watched.pop(place, None)

    def came(self, positions: Mapping[Place, int]) -> None:
        """Something came of these: records, or the end; with the offset after it."""
        for place, position in positions.items():
            watched = self._watched.get(place)
            if watched is not None:
                watched.position = position
                watched.moved = True

    @property
    def due(self) -> bool:
        """Whether it is time to look."""
        return self._clock() >= self._next

    def look(self, asks: Asks, held: Container[Place]) -> list[Stall]:
        """Look at what is due, and give what is stalled. Only when the last read found the queue empty.

        `held`: what isn't to be read at present. Raises KafkaFailure where no broker answers: then nobody
        is suspected any more, and the same partitions are due later.
        """
        now = self._clock()
        if now < self._next:
            return []
        self._next = now + GAP_SECONDS
        quiet = self._quiet(now, held)
        if not quiet:
            return []
        try:
            return self._found(asks, quiet, now)
        except KafkaFailure:
            for place in quiet:
                self._settle(self._watched[place], now)
            raise

    def _quiet(self, now: float, held: Container[Place]) -> list[Place]:
        quiet: list[Place] = []
        for place, watched in self._watched.items():
            if watched.due > now:
                continue
            if watched.moved or place in held:
                self._settle(watched, now)
            elif len(quiet) < MOST_AT_ONCE:
                quiet.append(place)
        return quiet

    def _settle(self, watched: _Watched, now: float) -> None:
        watched.moved, watched.behind, watched.due = False, 0, now + QUIET_SECONDS

    def _starts(self, asks: Asks, places: list[Place]) -> dict[Place, int]:
        """Where what has brought nothing yet should be read: at the group's offset, or at the beginning."""
        starts = dict(asks.offsets(places, "group", self._timeout)) if places else {}
        rest = [place for place in places if place not in starts]
        return {**starts, **asks.offsets(rest, "begin", self._timeout)} if rest else starts

    def _found(self, asks: Asks, quiet: list[Place], now: float) -> list[Stall]:
        fresh = [place for place in quiet if self._watched[place].position is None]
        starts = self._starts(asks, fresh)
        ends = asks.offsets(quiet, "end", self._timeout)
        stalls: list[Stall] = []
        for place in quiet:
            watched = self._watched[place]
            position = watched.position if watched.position is not None else starts.get(place)
            end = ends.get(place)
            if position is None or end is None or end <= position or self._told.get(place) == end:
                self._settle(watched, now)
                continue
            watched.behind += 1
            if watched.behind < 3:
                watched.due = now + (AGAIN_SECONDS if watched.behind == 1 else SURE_SECONDS)
                continue
            self._settle(watched, now)
            first = asks.offsets([place], "begin", self._timeout).get(place, end)
            if max(first, position) < end:  # else all that was there is deleted
                self._told[place] = end
                stalls.append(Stall(place, max(first, position), end))
        return stalls
