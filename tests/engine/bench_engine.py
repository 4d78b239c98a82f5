"""Microseconds and bytes of the engine: `PYTHONPATH=tests python tests/engine/bench_engine.py`.

Prints CPU time, the best of several rounds: what else the machine does is no cost of the engine.
"""

from __future__ import annotations

import cProfile
import gc
import pstats
import sys
import time
import tracemalloc
from collections.abc import Callable

from engine.shop import ANSWERS, ORDER, PARTICIPANTS, Order, Receipt, payment
from kasaga import App, Saga, SagaContext, saga
from kasaga.engine.codec import decode, encode
from kasaga.engine.decide import Definitions, Run, decide
from kasaga.engine.model import COMMAND, SLEEP, Event, Fired, Record, Replied, Started
from kasaga_wire.codec import Schemas

ROUNDS = 7
SAGAS = 400
LONG = 10_000


@saga("long")
async def long(ctx: SagaContext, order: Order) -> None:
    for _ in range(LONG):
        await ctx.sleep(1)


APP = App("bench", sagas=[payment, long], participants=PARTICIPANTS)
DEFS: Definitions = APP.definitions(Schemas(), max_payload=900_000)


def start_of(declared: Saga[Order, Receipt] | Saga[Order, None]) -> Started:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    return Started("order-4711", declared.name, 1, declared.input.encode(ORDER), trace, "", "", "/bench")


def answers() -> list[Event]:
    found: list[Event] = [start_of(payment)]
    for path, type_ in enumerate(("inventory.reserve", "payments.charge", "shipping.schedule"), 1):
        participant, _, name = type_.partition(".")
        result = APP.contracts[participant].commands[name].result
        made: object = ANSWERS[type_]
        found.append(Replied(str(path), COMMAND, 1, "done", result.encode(made)))
    return found


EVENTS = answers()


def play(run_id: str, events: list[Event], *, encoded: bool = True) -> tuple[Run, list[bytes]]:
    run, bodies, row = Run(run_id), list[bytes](), 1
    for at, event in enumerate(events, 1):
        record = decide(DEFS, run, event, at=at * 1000, row=row)
        assert isinstance(record, Record)
        row = run.state.row
        if encoded:
            bodies.append(encode(record))
    return run, bodies


def best(measure: Callable[[], int]) -> float:
    """Microseconds of CPU for one of what `measure` counts, in its best round."""
    found: list[float] = []
    for _ in range(ROUNDS):
        gc.collect()
        began = time.thread_time()
        count = measure()
        found.append((time.thread_time() - began) / count * 1e6)
    return min(found)


def live(*, encoded: bool) -> int:
    for number in range(SAGAS):
        play(f"run-{number}", EVENTS, encoded=encoded)
    return SAGAS * len(EVENTS)


def replayed() -> int:
    """Bring the payment back at its last await: fold, start, two steps."""
    _, bodies = play("run", EVENTS[:3])
    began = [decode(seq, body) for seq, body in enumerate(bodies, 1)]
    for _ in range(SAGAS):
        run = Run("run", began)
        run.live(DEFS)
        run.evict()
    return SAGAS * 3


def decoded() -> int:
    _, bodies = play("run", EVENTS)
    for _ in range(SAGAS):
        for seq, body in enumerate(bodies, 1):
            decode(seq, body)
    return SAGAS * len(bodies)


def memory() -> tuple[float, float]:
    """Bytes of a saga that waits for its second answer: with its coroutine, and evicted."""
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    runs = [play(f"run-{number}", EVENTS[:2], encoded=False)[0] for number in range(2000)]
    gc.collect()
    with_code = (tracemalloc.get_traced_memory()[0] - before) / len(runs)
    for run in runs:
        run.evict()
    gc.collect()
    without = (tracemalloc.get_traced_memory()[0] - before) / len(runs)
    tracemalloc.stop()
    return with_code, without


def flatness() -> list[float]:
    """Microseconds a step, in the first, the middle and the last thousand steps of a long saga."""
    run, row, found = Run("long"), 1, list[float]()
    decide(DEFS, run, start_of(long), at=1, row=row)
    row = run.state.row
    for first in range(0, LONG, 1000):
        began = time.thread_time()
        for number in range(first + 1, first + 1001):
            decide(DEFS, run, Fired(str(number), SLEEP), at=number * 2_000_000, row=row)
            row = run.state.row
        found.append((time.thread_time() - began) * 1000)
    assert run.state.state == "COMPLETED"
    return found


def main() -> None:
    print(f"event, live, with encoding      {best(lambda: live(encoded=True)):7.1f} µs")
    print(f"event, live, without encoding   {best(lambda: live(encoded=False)):7.1f} µs")
    print(f"step, folded and replayed       {best(replayed):7.1f} µs")
    print(f"history row, decoded            {best(decoded):7.1f} µs")
    steps = flatness()
    print(f"step of {LONG:,}: the first      {steps[0]:7.1f} µs, the last {steps[-1]:.1f} µs")
    with_code, without = memory()
    print(f"live saga in memory             {with_code:7.0f} bytes, evicted {without:.0f}")
    _, bodies = play("run", EVENTS)
    print(f"history of a payment            {sum(map(len, bodies)):7d} bytes in {len(bodies)} rows")
    if "--profile" in sys.argv:
        profile = cProfile.Profile()
        profile.runcall(live, encoded=True)
        pstats.Stats(profile).sort_stats("tottime").print_stats(35)


if __name__ == "__main__":
    main()
