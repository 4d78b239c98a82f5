"""What `kasaga check` looks for: a code that stays the same for ever, how bad it is, and what to do.

Each rule has a section in orchestrator/errors.md; a test holds that.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """How bad a finding is: errors fail the check, warnings do with --strict."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


@dataclass(frozen=True, slots=True)
class Rule:
    """One thing that is looked for."""

    code: str
    name: str
    severity: Severity
    remedy: str


@dataclass(frozen=True, slots=True)
class Finding:
    """One place where a rule is broken. Lines and columns count from 1."""

    code: str
    name: str
    severity: Severity
    file: str
    line: int
    column: int
    message: str
    remedy: str
    saga: str
    """`name/version` of the first saga that reaches the place; empty where it isn't about one."""


_E, _W, _I = Severity.ERROR, Severity.WARNING, Severity.INFO

CLOCK = Rule("KSG-601", "ClockRead", _E, "Use ctx.now: it is recorded, and the same in each replay.")
CHANCE = Rule(
    "KSG-602", "Chance", _E, "Use ctx.uuid() or ctx.random; make secrets in `await ctx.run(function)`."
)
ENVIRONMENT = Rule(
    "KSG-603",
    "EnvironmentRead",
    _E,
    "Read it in `await ctx.run(function)`, whose result is kept, or pass it in the saga's input.",
)
IO = Rule(
    "KSG-604",
    "InputOutput",
    _E,
    "Do it in `await ctx.run(function)`, whose result is kept, or let a participant do it.",
)
CONCURRENCY = Rule(
    "KSG-605",
    "Concurrency",
    _E,
    "A saga awaits only what its context gives it: `await ctx.sleep(seconds)` to wait, "
    "`await ctx.gather(…)` for steps side by side, `await ctx.run(function)` for work off the loop.",
)
UNORDERED = Rule("KSG-606", "UnorderedIteration", _E, "Iterate over sorted(…), or keep a list or a dict.")
IDENTITY = Rule(
    "KSG-607",
    "ProcessIdentity",
    _E,
    "Use a value of the data, such as an id, or hashlib for a hash that lasts; ctx.uuid() for a new id.",
)
SHARED = Rule(
    "KSG-608",
    "SharedState",
    _W,
    "Keep it in a local variable: a replay does it a second time, and other processes don't see it.",
)
NO_COMPENSATION = Rule(
    "KSG-610",
    "NoCompensation",
    _W,
    "Declare a @compensation for it, or make it the saga's last step; if there is nothing to undo, say so: "
    "`# kasaga: ignore[KSG-610] it only reads`.",
)
NO_WAY_BACK = Rule(
    "KSG-622",
    "NoWayBack",
    _E,
    "Declare a @compensation for it, or make it the last step before ctx.pivot, or one that comes after it; "
    "if there is nothing to undo, say so: `# kasaga: ignore[KSG-622] it only reads`.",
)
SCOPE_MISUSED = Rule(
    "KSG-623",
    "ScopeMisused",
    _E,
    "Write `async with ctx.scope():` around the steps that belong together, and ctx.pivot outside of it.",
)
UNKNOWN_SIGNAL = Rule(
    "KSG-624",
    "UnknownSignal",
    _E,
    "Declare it: @saga(signals={…}), with its type or its Event; or mend the name.",
)
UNLISTED_CHILD = Rule("KSG-625", "UnlistedChild", _E, "Add it to App(sagas=[…]).")
UNLISTED_EVENT = Rule("KSG-626", "UnlistedEvent", _E, "List it: @saga(awaits=[…]).")
UNLISTED = Rule("KSG-611", "UnlistedParticipant", _E, "Add it to App(participants=[…]).")
CLASH = Rule(
    "KSG-612",
    "ContractClash",
    _E,
    "Declare the contract once and import it, or give the other one a name of its own.",
)
NO_COMMAND = Rule(
    "KSG-613",
    "NoSuchCommand",
    _E,
    "Name a @command of the contract. Compensations are sent by the engine: raise SagaFailed to undo.",
)
NOT_AWAITED = Rule(
    "KSG-614", "NotAwaited", _E, "Put `await` in front of it: a step is sent when it is awaited."
)
SWALLOWS_OUTCOME = Rule(
    "KSG-615",
    "SwallowsOutcome",
    _W,
    "Catch what you mean: StepRefused, StepTimeout, StepFailed, StepError; or end the handler with `raise`.",
)
SWALLOWS_INTERRUPT = Rule(
    "KSG-616",
    "SwallowsInterrupt",
    _E,
    "Catch StepError instead, or end the handler with a bare `raise`: cancelling and eviction must pass.",
)
STEP_IN_FINALLY = Rule(
    "KSG-617",
    "StepInFinally",
    _W,
    "Let compensations undo steps; `finally` is for local clean-up, and isn't waited for when the saga is "
    "cancelled.",
)
NO_DEADLINE = Rule(
    "KSG-618",
    "NoDeadline",
    _I,
    "Give it one if it may not wait for ever: @saga(…, timeout=timedelta(days=1)) undoes it then.",
)
NO_SOURCE = Rule("KSG-619", "NoSource", _W, "Keep sagas in .py files that are there when they are checked.")
BAD_IGNORE = Rule(
    "KSG-620",
    "BadIgnore",
    _E,
    "Write `# kasaga: ignore[KSG-601] why it is all right here`, with a code of `kasaga check`.",
)
UNUSED_IGNORE = Rule("KSG-621", "UnusedIgnore", _W, "Remove the comment.")

RULES: dict[str, Rule] = {
    rule.code: rule
    for rule in (
        CLOCK,
        CHANCE,
        ENVIRONMENT,
        IO,
        CONCURRENCY,
        UNORDERED,
        IDENTITY,
        SHARED,
        NO_COMPENSATION,
        NO_WAY_BACK,
        SCOPE_MISUSED,
        UNKNOWN_SIGNAL,
        UNLISTED,
        UNLISTED_CHILD,
        UNLISTED_EVENT,
        CLASH,
        NO_COMMAND,
        NOT_AWAITED,
        SWALLOWS_OUTCOME,
        SWALLOWS_INTERRUPT,
        STEP_IN_FINALLY,
        NO_DEADLINE,
        NO_SOURCE,
        BAD_IGNORE,
        UNUSED_IGNORE,
    )
}
