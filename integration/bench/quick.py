"""`make bench-quick`: the CPU of the hot parts, in half a minute, without any server: fit for CI.

One process. Each round is measured against a fixed piece of pure Python before and after it, and the figure
to compare is the ratio to that: a machine that is slower, or busy, slows both. Not instructions: virtual
machines seldom let them be counted.

`make bench-quick ARGS='--out new.jsonl --against old.jsonl'` compares with a file of earlier lines; the last
line says what has become dearer, and the status is 1 if that is more than `--limit`.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import cast
from uuid import UUID

from bench.errors import BenchError
from bench.figures import Figures, tell
from bench.payment_app import Done, Inventory, Order
from counters.stepped import NAMESPACE, TOPICS, Stepped
from kasaga.engine.codec import decode, encode
from kasaga.orchestrator.clock import to_micros
from kasaga.orchestrator.relay import Relay
from kasaga.store.base import OutboxRow, RowKind, SagaState
from kasaga.store.memory import MemoryStore
from kasaga.testing import network
from kasaga_participant.inbox.memory import MemoryInbox
from kasaga_participant.store import MemoryStore as MemoryInboxStore
from kasaga_wire.codec import Schemas
from kasaga_wire.contracts import CommandSpec, command_of
from kasaga_wire.envelope import CommandEnvelope, ReplyEnvelope, ReplyTo
from kasaga_wire.interpreter import tune_interpreter
from kasaga_wire.kafka import Producer

SHARDS = 16
SAGAS = 500
"""Of a round: the orchestrator's largest batch."""
STEPS, ROWS = 2000, 10_000
"""Of a round, of the codec and of the relay."""
ROUNDS = 9
LIMIT = 1.25
"""A median of so many rounds moves by a twentieth from run to run; by a fifth where others use all cores."""
MOMENT = datetime(2030, 1, 1, tzinfo=UTC)

FIGURE, RATIO = "quick_cpu", "quick_cpu_ratio"


def spent(act: Callable[[], object]) -> float:
    """The CPU seconds that it takes. User and system: only their sum is exact, and the system has no part."""
    begun = time.process_time()
    act()
    return time.process_time() - begun


class _Point:
    __slots__ = ("x", "y")

    def __init__(self, x: int, y: int) -> None:
        self.x, self.y = x, y

    def moved(self, by: int) -> _Point:
        return _Point(self.x + by, self.y - by)


def calibration() -> None:
    """What Python programs do all day: calls, objects, dicts, lists, bytes, texts. Never to be changed."""
    known: dict[str, int] = {}
    total = 0
    for number in range(60_000):
        point = _Point(number, total & 255).moved(number & 7)
        name = f"step-{number & 1023}"
        known[name] = known.get(name, 0) + point.x
        parts = [each for each in (point.x, point.y, number) if each & 1]
        total += len(parts) + len(name.encode()) + int.from_bytes(number.to_bytes(4, "big"), "big")


class Sagas:
    """The loop and the participants in turn, over a Kafka, a store and an inbox in memory."""

    def __init__(self, stepped: Stepped) -> None:
        self._stepped = stepped

    def round(self) -> dict[str, float]:
        """CPU seconds a thousand sagas, of the orchestrator's loop and of the participants' dispatch."""
        stepped = self._stepped
        started = [stepped.start() for _ in range(SAGAS)]
        used = {"loop": 0.0, "dispatch": 0.0}
        while stepped.is_behind():
            used["loop"] += spent(stepped.turn)
            used["dispatch"] += spent(stepped.serve)
        if {stepped.state(saga_id) for saga_id in started} != {SagaState.COMPLETED}:
            raise BenchError("a saga has not completed")
        return {part: seconds / SAGAS * 1000 for part, seconds in used.items()}


class Codec:
    """A command and its reply: payloads and envelopes, there and back; and a record of history."""

    def __init__(self, stepped: Stepped) -> None:
        spec = command_of(Inventory.reserve)
        assert isinstance(spec, CommandSpec)
        self._spec, self._schemas = spec, Schemas()
        for schema in (spec.input.schema, spec.result.schema):
            self._schemas.add(schema)
        saga_id = stepped.start()
        stepped.finish()
        row = stepped.store.saga(saga_id)
        assert row is not None
        self._history = [(each.seq, each.body) for each in stepped.store.history(row)]

    def round(self) -> dict[str, float]:
        """CPU seconds a thousand steps."""
        return {"codec": spent(self._steps) / STEPS * 1000}

    def _steps(self) -> None:
        spec, run = self._spec, UUID(int=7 << 76 | 2 << 62)
        for number in range(STEPS):
            saga_id = f"order-{number:08}"
            command = CommandEnvelope(
                command_id=f"{run}.1",
                attempt=1,
                source=f"/kasaga/{NAMESPACE}",
                type=spec.type,
                time=MOMENT,
                saga_id=saga_id,
                saga="payment",
                saga_version=1,
                reply_to=ReplyTo(TOPICS.replies, number % SHARDS),
            )
            payload = spec.input.encode(Order(order_id=saga_id, amount=1999, sku="book"))
            asked = CommandEnvelope.parse(command.to_headers())
            order = spec.input.decode(payload, self._schemas)
            reply = ReplyEnvelope.to(asked, "done", source="/kasaga/participants/inventory", time=MOMENT)
            answer = spec.result.encode(Done(order_id=order.order_id, ref="r"))
            ReplyEnvelope.parse(reply.to_headers())
            spec.result.decode(answer, self._schemas)
            seq, body = self._history[number % len(self._history)]
            encode(decode(seq, body))


class Relaying:
    """Committed rows to a producer, and their acknowledgements."""

    def __init__(self) -> None:
        self._kafka = network.Kafka()
        self._kafka.create(TOPICS.commands("inventory"), 4)
        make = cast("Callable[[], Producer]", lambda: network.Producer(self._kafka))
        self._relay = Relay(make, network.Partitions(self._kafka))
        for shard in range(SHARDS):
            self._relay.own(shard)
        self._next = 0

    def round(self) -> dict[str, float]:
        """CPU seconds a thousand rows."""
        rows = [self._row(self._next + number) for number in range(ROWS)]
        self._next += ROWS
        used = spent(lambda: self._send(rows))
        self._kafka.create(TOPICS.commands("inventory"), 4)
        return {"relay": used / ROWS * 1000}

    def _send(self, rows: Sequence[OutboxRow]) -> None:
        now = to_micros(MOMENT)
        self._relay.send(rows, now)
        self._relay.poll(now)
        for row in rows:
            self._relay.closed(row.shard, row.seq)
        for shard in range(SHARDS):
            self._relay.acknowledged(shard, self._next)
        if self._relay.unacknowledged:
            raise BenchError("rows are not acknowledged")

    def _row(self, seq: int) -> OutboxRow:
        run = UUID(int=seq << 80 | 7 << 76 | 2 << 62)
        headers = [("ce_id", f"{run}.1.1".encode()), ("ce_subject", b"order")] * 5
        topic, key = TOPICS.commands("inventory"), f"order-{seq}".encode()
        return OutboxRow(
            seq % SHARDS, seq, RowKind.COMMAND, run, "1", topic, None, key, headers, bytes(90), 1, None, None
        )


@dataclass(slots=True)
class Found:
    """Of each part, seconds a thousand pieces and their ratio to the calibration, one of each round."""

    seconds: dict[str, list[float]] = field(default_factory=dict[str, list[float]])
    ratios: dict[str, list[float]] = field(default_factory=dict[str, list[float]])

    def add(self, round_: Mapping[str, float], calibrated: float) -> None:
        """Add one round."""
        for part, seconds in round_.items():
            self.seconds.setdefault(part, []).append(seconds)
            self.ratios.setdefault(part, []).append(seconds / calibrated)


def measure(rounds: int) -> Found:
    """Measure everything so many times, after one time that doesn't count."""
    store, inbox = MemoryStore(namespace=NAMESPACE, shards=SHARDS), MemoryInboxStore(MemoryInbox())
    found = Found()
    with Stepped(store, inbox, shards=SHARDS) as stepped:
        parts: list[Sagas | Codec | Relaying] = [Codec(stepped), Sagas(stepped), Relaying()]
        tune_interpreter()
        for number in range(rounds + 1):
            for part in parts:
                gc.collect()
                before = spent(calibration)
                round_ = part.round()
                if number:
                    found.add(round_, (before + spent(calibration)) / 2)
    return found


def earlier(path: Path) -> dict[str, float]:
    """The last ratio of each part in a file of figures; raises BenchError if it can't be read or has none."""
    found: dict[str, float] = {}
    try:
        lines: Iterable[str] = path.read_text(encoding="utf-8").splitlines()
        for line in lines:
            figure = json.loads(line)
            if figure["figure"] == RATIO:
                found[str(figure["parameters"]["part"])] = float(figure["value"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BenchError(f"{path} holds no figures: {error}") from error
    if not found:
        raise BenchError(f"{path} has no line of {RATIO}")
    return found


def verdict(now: Mapping[str, float], before: Mapping[str, float], limit: float) -> tuple[bool, str]:
    """Whether nothing is dearer than `limit` times what it was, and a sentence that says how it stands."""
    ratios = {part: now[part] / before[part] for part in now if before.get(part)}
    if not ratios:
        return False, "the two have no part in common"
    said = ", ".join(f"{part} {ratio:.2f}" for part, ratio in ratios.items())
    dearer = [part for part, ratio in ratios.items() if ratio > limit]
    if dearer:
        return False, f"DEARER than {limit:g} times before: {', '.join(dearer)} (now to before: {said})"
    return True, f"nothing is dearer than {limit:g} times before (now to before: {said})"


def main() -> int:
    """Measure, print, compare. Returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="bench-quick", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--out", type=Path, help="append the figures to this file too")
    parser.add_argument("--against", type=Path, help="a file of earlier figures")
    parser.add_argument(
        "--limit", type=float, default=LIMIT, help="times before at most; default: %(default)s"
    )
    options = parser.parse_args()
    try:
        before = earlier(options.against) if options.against is not None else None
        found = measure(max(1, options.rounds))
    except BenchError as error:
        tell(str(error))
        return 2
    figures = Figures(options.out, {"piece": "1000 sagas; codec: steps; relay: rows"})
    for part, seconds in found.seconds.items():
        figures.put(FIGURE, seconds, "s", part=part)
        figures.put(RATIO, found.ratios[part], "calibrations", part=part)
    if before is None:
        return 0
    well, said = verdict({part: median(each) for part, each in found.ratios.items()}, before, options.limit)
    print(f"bench-quick: {said}", flush=True)
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
