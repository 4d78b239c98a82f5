"""What is told in the end: the table of faults, the last line, and files for later. Called by `run.py`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from chaos.faults import Struck
from chaos.watch import Sample


@dataclass(slots=True)
class Outcome:
    """Everything that is known of one run."""

    seed: int
    seconds: float
    struck: list[Struck]
    samples: list[Sample]
    states: Counter[str] = field(default_factory=Counter[str])
    violations: list[str] = field(default_factory=list[str])
    slowest: tuple[float, str] = (0.0, "")
    """The saga that took longest: seconds, id."""
    ends: dict[str, list[int]] = field(default_factory=dict[str, list[int]])
    """Exit statuses of actors that ended by themselves."""
    tries_failed: int = 0

    @property
    def done(self) -> list[Struck]:
        """The faults that were carried out."""
        return [each for each in self.struck if each.struck is not None and not each.failure]


def recovery(each: Struck) -> float | None:
    """Seconds from when nothing was held down any more to when all was calm."""
    if each.mended is None or each.recovered is None:
        return None
    return max(0.0, each.recovered - each.mended)


def table(struck: Sequence[Struck]) -> str:
    """One line a fault."""
    lines = ["    #      at    held   recovery   fault", "  ---  ------  ------  ---------   -----"]
    for each in struck:
        took = recovery(each)
        if each.failure:
            said = "failed"
        elif took is None:
            said = "-"
        else:
            said = f"{took:.1f} s{'*' if each.met else ' '}"
        began = each.fault.at if each.struck is None else each.struck
        held = 0.0 if each.mended is None or each.struck is None else each.mended - each.struck
        lines.append(
            f"  {each.fault.number:3}  {began:6.1f}  {held:4.1f} s  {said:>9}   {each.fault.name}"
            + (f" ({each.failure})" if each.failure else "")
        )
    lines.append("  recovery: from when nothing was held down any more until no more sagas were open than")
    lines.append("  come in one second. *: the next fault came before that, so its time is in it.")
    return "\n".join(lines)


def last_line(outcome: Outcome) -> str:
    """The sentence that says it all."""
    states = outcome.states
    alone = [(took, each) for each in outcome.done if not each.met and (took := recovery(each)) is not None]
    longest = max(alone, key=lambda pair: pair[0], default=None)
    said = f"longest recovery {longest[0]:.1f} s ({longest[1].fault.name})" if longest else "no recovery"
    minutes = f"{outcome.seconds / 60:g} min" if outcome.seconds >= 60 else f"{outcome.seconds:.0f} s"
    return (
        f"chaos: {minutes}, {len(outcome.done)} faults, {states.total():,} sagas: "
        f"{states['COMPLETED']:,} completed, {states['COMPENSATED']:,} compensated, "
        f"{states['STUCK']:,} stuck; {said}; audit: {len(outcome.violations)} violations"
    )


def as_json(outcome: Outcome) -> str:
    """Everything, for machines."""
    faults = [
        {**asdict(each), "name": each.fault.name, "recovery": recovery(each)} for each in outcome.struck
    ]
    told = {
        "seed": outcome.seed,
        "seconds": outcome.seconds,
        "states": dict(outcome.states),
        "violations": outcome.violations,
        "slowest": outcome.slowest,
        "ended_by_themselves": outcome.ends,
        "tries_failed": outcome.tries_failed,
        "faults": faults,
        "samples": [(round(each.at, 2), each.started, each.ended, each.stuck) for each in outcome.samples],
    }
    return json.dumps(told, indent=1)
