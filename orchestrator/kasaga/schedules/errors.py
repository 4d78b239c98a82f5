"""What can be wrong about schedules."""

from __future__ import annotations

from kasaga_wire.errors import ContractError, KasagaError


class ScheduleInvalid(ContractError):
    """A schedule, or a rule of when it is due, can't work as it is declared."""

    code = "KSG-280"
    default_remedy = "Declare it as the message says."


class UnknownSchedule(KasagaError):
    """There is no schedule of this name in the namespace."""

    code = "KSG-281"
    default_remedy = (
        "`kasaga schedule list` names them; a new one is there when an orchestrator has begun with it."
    )


class BackfillRefused(KasagaError):
    """What is asked for can't be begun: a time of the future, none that is due, or too much at once."""

    code = "KSG-282"
    default_remedy = "Ask for a shorter time, or again when what waits has begun."
