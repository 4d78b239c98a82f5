"""Carries commands to participants and replies back, and has the faults strike on the way.

Station: between the network, which tells it of each command produced, and the participants (`services.py`).
Driven by `world.py`, which owns the clock.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from random import Random

from kasaga_wire.children import ChildEnvelope
from kasaga_wire.envelope import CommandEnvelope
from kasaga_wire.kafka import Record

from . import faults
from .faults import Fault, Plan
from .network import Kafka
from .services import (
    Death,
    Died,
    Handled,
    ParticipantError,
    Promise,
    Rejected,
    Virtual,
    failure,
    refusal,
)

SECOND = 1_000_000_000
TRANSIT = SECOND // 1000
"""Nanoseconds that a record is on its way."""
LONGEST_TRANSIT = SECOND // 2
"""The same where it is drawn by chance: long enough for records to overtake each other."""
AWAY = 6 * SECOND
"""Nanoseconds until a participant that died reads its records again: a consumer group's session."""
PAUSE = 7 * SECOND
"""Nanoseconds until a saga that was paused is resumed."""
ATTEMPT = 60 * SECOND
"""Nanoseconds of an attempt whose command names no deadline."""


OF_CHILD = ".0."
"""`2.0.1`: step 1 of the child that is step 2. No saga has a step 0."""


@dataclass(frozen=True, slots=True)
class Handling:
    """What a participant did with one record.

    Attributes:
        at: when, by the virtual clock.
        step: the step's number in the history.
        type: the command's or the compensation's, such as `payments.refund`; `kasaga.void` of a void.
        kind: command, undo or void.
        attempt: counted from 1.
        outcome: what it replied; `died` where it didn't come to that, `dead letter` where it couldn't.
        ran: its handler was called.
        stands: what the handler did is committed.
    """

    at: datetime
    step: str
    type: str
    kind: str
    attempt: int
    outcome: str
    ran: bool
    stands: bool


class Courier:
    """Of one run."""

    def __init__(
        self,
        network: Kafka,
        services: Mapping[str, Virtual],
        plan: Plan,
        *,
        nanos: Callable[[], int],
        now: Callable[[], datetime],
        ask: Callable[[str], None],
        dice: Random | None,
        promises: Mapping[str, Promise],
    ) -> None:
        """`ask` asks for an action on the saga; `dice` draws how long records are on the way.

        `promises`: what the commands are answered with that are deferred, by their ids.
        """
        self._promises = promises
        self._kept: set[str] = set()
        """Commands whose answers are on their way."""
        self._network, self._services, self._plan = network, services, plan
        self._nanos, self._now, self._ask, self._dice = nanos, now, ask, dice
        self._mail: list[tuple[int, int, Callable[[], object]]] = []
        self._posted = 0
        self._prefixes: dict[str, str] = {}
        self._away: dict[str, int] = {}
        """Until when a participant is dead."""
        self._died: set[str] = set()
        self._held_commands: dict[str, list[tuple[Record, CommandEnvelope]]] = defaultdict(list)
        self._held_replies: dict[str, list[Handled]] = defaultdict(list)
        self.struck: set[Fault] = set()
        """The faults that there was occasion for."""
        self.steps: dict[str, str] = {}
        """The type of each step by its number."""
        self.handled: list[Handling] = []
        self.restart = False
        """The orchestrator is to restart now."""

    # --- time

    @property
    def next_at(self) -> int | None:
        """When the next record arrives, in nanoseconds."""
        return self._mail[0][0] if self._mail else None

    def deliver(self) -> None:
        """Hand over what has arrived by now."""
        while self._mail and self._mail[0][0] <= self._nanos():
            heapq.heappop(self._mail)[2]()

    def release(self) -> bool:
        """Let everything go that was held back; say whether there was anything."""
        held = bool(self._held_commands or self._held_replies)
        for path in list(self._held_replies):
            self._let_replies_go(path)
        for path in list(self._held_commands):
            self._let_commands_go(path)
        return held

    def _post(self, after: int, deed: Callable[[], object]) -> None:
        self._posted += 1
        heapq.heappush(self._mail, (self._nanos() + after, self._posted, deed))

    def _transit(self) -> int:
        return TRANSIT if self._dice is None else self._dice.randint(TRANSIT, LONGEST_TRANSIT)

    # --- children

    def begins(self, envelope: ChildEnvelope) -> None:
        """A child is asked to begin: the number of its parent's step stands before those of its own."""
        run_id, _, path = envelope.command_id.partition(".")
        self._prefixes[envelope.run_id] = f"{self.prefix(run_id)}{path}{OF_CHILD}"

    def prefix(self, run_id: str) -> str:
        """What the numbers of a run's steps begin with here: nothing, if it is no child's."""
        return self._prefixes.get(run_id, "")

    def _step(self, envelope: CommandEnvelope) -> tuple[str, str]:
        """The number of the step in the history, and its command's type."""
        run_id, _, rest = envelope.command_id.partition(".")
        path = self.prefix(run_id) + rest.partition("~")[0]
        return path, envelope.type if envelope.undoes is None else envelope.undoes.type

    # --- commands

    def sent(self, record: Record) -> None:
        """A command, an undo or a void was produced."""
        envelope = CommandEnvelope.parse(record.headers)
        path, type_ = self._step(envelope)
        if envelope.kind != "command":
            self._let_replies_go(path)
            self._carry(record, envelope)
            if envelope.kind == "undo" and self._strikes(faults.UNDO_DUPLICATED, path, type_):
                self._carry(record, envelope, 4 * TRANSIT)
            return
        first = path not in self.steps
        self.steps[path] = type_
        if first and self._strikes(faults.RESTART, path, type_):
            self.restart = True
        if first and self._strikes(faults.CANCELLED, path, type_):
            self._ask("cancel")
        if first and self._strikes(faults.PAUSED, path, type_):
            self._ask("pause")
            self._post(PAUSE, lambda: self._ask("resume"))
        if first and self._strikes(faults.TERMINATED, path, type_):
            self._ask("terminate")
        if self._strikes(faults.TIMEOUT_NOT_HAPPENED, path, type_):
            return
        if self._strikes(faults.LATE_COMMAND, path, type_):
            self._held_commands[path].append((record, envelope))
            return
        self._carry(record, envelope)
        if self._strikes(faults.DUPLICATED, path, type_):
            self._carry(record, envelope, 4 * TRANSIT)

    def _carry(self, record: Record, envelope: CommandEnvelope, after: int = 0) -> None:
        self._post(after + self._transit(), lambda: self._handle(record, envelope))

    def _strikes(self, kind: str, path: str, type_: str) -> bool:
        if kind not in self._plan.kinds(path, type_):
            return False
        self.struck.add(Fault(kind, path))
        return True

    def _handle(self, record: Record, envelope: CommandEnvelope) -> None:
        path = self._step(envelope)[0]
        contract = record.topic.removesuffix(".commands")
        if (until := self._away.get(contract, 0)) > self._nanos():
            self._post(until - self._nanos(), lambda: self._handle(record, envelope))
            return
        raises, dies = self._meddle(envelope, path)
        try:
            handled = self._services[contract].take(contract, record, raises=raises, dies=dies)
        except Died as died:
            self._note(envelope, path, "died", ran=died.ran, stands=died.committed and died.ran)
            self._away[contract] = self._nanos() + AWAY
            self._post(AWAY, lambda: self._handle(record, envelope))
            return
        except Rejected:
            self._note(envelope, path, "dead letter", ran=False, stands=False)
            return
        failed = handled.outcome in ("failed", "refused")
        self._note(envelope, path, handled.outcome, ran=handled.ran, stands=handled.ran and not failed)
        self._answer(handled, path)
        promise = self._promises.get(envelope.command_id)
        if handled.outcome == "deferred" and promise is not None and envelope.command_id not in self._kept:
            self._kept.add(envelope.command_id)
            self._keep(handled, path, promise)

    def _keep(self, handled: Handled, path: str, promise: Promise) -> None:
        """Answer a deferred command when its time has come, with heartbeats until then."""
        later, beat = promise.later, promise.later.heartbeat
        for number in range(1, int(2 * later.after / beat) if beat else 0):
            at = int(number * (beat or 0) * SECOND / 2)
            self._post(at, partial(self._late, handled, path, promise, progress=str(number)))
        self._post(int(later.after * SECOND), partial(self._late, handled, path, promise))

    def _late(self, handled: Handled, path: str, promise: Promise, progress: str | None = None) -> None:
        """Give a heartbeat, or without progress the answer."""
        contract = handled.envelope.type.partition(".")[0]
        result = promise.result if progress is None else None
        try:
            replies = self._services[contract].late(handled, promise.token, result=result, progress=progress)
        except ParticipantError:
            return  # the saga has given it up, or it was answered by now
        for reply in replies:
            self._answer(reply, path)

    def _meddle(self, envelope: CommandEnvelope, path: str) -> tuple[Exception | None, Death | None]:
        """What the handler raises, and where the participant dies."""
        type_, command = self._step(envelope)[1], envelope.kind == "command"
        if command and self._strikes(faults.REFUSED, path, type_):
            return refusal(), None
        if command and self._strikes(faults.FAILED, path, type_):
            return failure(), None
        if envelope.kind == "undo" and self._strikes(faults.UNDO_FAILS, path, type_):
            return failure(), None
        if envelope.command_id in self._died or envelope.kind == "void":
            return None, None
        before = faults.CRASH_BEFORE_COMMIT if command else faults.UNDO_CRASHES
        death: Death | None = None
        if self._strikes(before, path, type_):
            death = Death.BEFORE_COMMIT
        elif command and self._strikes(faults.CRASH_AFTER_COMMIT, path, type_):
            death = Death.AFTER_COMMIT
        if death is not None:
            self._died.add(envelope.command_id)
        return None, death

    def _note(self, envelope: CommandEnvelope, path: str, outcome: str, *, ran: bool, stands: bool) -> None:
        self.handled.append(
            Handling(self._now(), path, envelope.type, envelope.kind, envelope.attempt, outcome, ran, stands)
        )

    # --- replies

    def _answer(self, handled: Handled, path: str) -> None:
        envelope = handled.envelope
        type_ = self._step(envelope)[1]
        if envelope.kind != "command":
            self._reply(handled)
            self._let_commands_go(path, 4 * TRANSIT)
        elif self._strikes(faults.TIMEOUT_HAPPENED, path, type_):
            pass
        elif self._strikes(faults.LATE_REPLY, path, type_):
            self._held_replies[path].append(handled)
        elif self._strikes(faults.SLOW_REPLY, path, type_):
            due = envelope.deadline
            left = ATTEMPT if due is None else int((due - self._now()).total_seconds() * SECOND)
            self._reply(handled, max(left, 0) + SECOND)
        else:
            self._reply(handled)
            if self._strikes(faults.DUPLICATED, path, type_):
                self._reply(handled, 2 * TRANSIT)

    def _reply(self, handled: Handled, after: int = 0) -> None:
        to = handled.reply_to
        if to is not None:
            deed = self._network.append
            at = after + self._transit()
            self._post(
                at, lambda: deed(to.topic, to.partition, handled.key, handled.payload, handled.headers)
            )

    def _let_replies_go(self, path: str) -> None:
        for handled in self._held_replies.pop(path, ()):
            self._reply(handled)

    def _let_commands_go(self, path: str, after: int = 0) -> None:
        for record, envelope in self._held_commands.pop(path, ()):
            self._carry(record, envelope, after)
