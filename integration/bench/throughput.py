"""Scenarios of the payment saga under load: throughput, the compensating path, latency."""

from __future__ import annotations

from functools import partial
from statistics import median

from bench.bed import Bed, Setup
from bench.driver import Measured
from bench.scenarios import Run, scenario

SINGLES = 300
"""Sagas one by one in a round of `latency`."""


@scenario("throughput", "payment sagas per second, with the participants' inbox and without")
def throughput(run: Run) -> None:
    for inbox in (True, False):
        setup = Setup(inbox=inbox)
        with run.bed(setup) as bed:
            bed.load.closed(run.in_flight, run.warm_up)
            found = run.repeat(partial(_metered, bed, run))
        about = {**setup.parameters(), "in_flight": run.in_flight}
        others = median(other for _, other in found)
        run.put("throughput", [each.rate for each, _ in found], "sagas/s", others_cores=others, **about)


@scenario("compensation", "the compensating path (shipping refuses, two compensations) against the happy one")
def compensation(run: Run) -> None:
    setup = Setup()
    with run.bed(setup) as bed:
        bed.load.closed(run.in_flight, run.warm_up)

        def both() -> tuple[float, float]:
            happy = bed.load.closed(run.in_flight, run.seconds)
            undone = bed.load.closed(
                run.in_flight, run.seconds, inputs={"sku": "unshippable"}, expect="COMPENSATED"
            )
            return happy.rate, undone.rate

        found = run.repeat(both)
    about = {**setup.parameters(), "in_flight": run.in_flight}
    run.put("throughput_happy", [happy for happy, _ in found], "sagas/s", **about)
    run.put("throughput_compensated", [undone for _, undone in found], "sagas/s", **about)
    run.put("compensated_share", [undone / happy for happy, undone in found], "share", **about)


@scenario("latency", "start to complete: one in flight, and offered by the clock at half of the maximum")
def latency(run: Run) -> None:
    setup = Setup()
    with run.bed(setup) as bed:
        bed.load.closed(run.in_flight, run.warm_up)
        most = bed.load.closed(run.in_flight, run.seconds).rate
        bed.load.single(SINGLES // 3)
        alone = run.repeat(lambda: bed.load.single(SINGLES))
        half = run.repeat(lambda: bed.load.offered(most / 2, run.seconds))
    for name, found, about in (
        ("latency_1", alone, {"sagas": SINGLES}),
        ("latency_half", half, {"offered": most / 2}),
    ):
        for share in ("p50", "p99"):
            values = [float(getattr(each, f"{share}_ms")) for each in found]
            run.put(f"{name}_{share}", values, "ms", **setup.parameters(), **about)


def _metered(bed: Bed, run: Run) -> tuple[Measured, float]:
    meter = bed.meter()
    found = bed.load.closed(run.in_flight, run.seconds)
    meter.stop()
    return found, meter.others
