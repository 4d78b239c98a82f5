"""The decisions that one event leads to, and those of them that both doing and undoing make.

Used by turn.py, which does, and undo.py, which undoes.
"""

from __future__ import annotations

from kasaga_wire.errors import KasagaError
from kasaga_wire.nodes import clean_text

from . import kinship, lifecycle
from .driver import Guard
from .model import COMMAND, LOCAL, Decision, Move, RunLocal, Send, Tell
from .run import Definitions, Run
from .stand import paused_since
from .state import MAX_REASON, Step
from .versions import Await


class Decisions:
    """Made one by one; each is in the state at once."""

    __slots__ = ("at", "decisions", "defs", "guard", "run", "state")

    def __init__(self, defs: Definitions, run: Run, at: int, guard: Guard) -> None:
        self.defs = defs
        self.run = run
        self.state = run.state
        self.at = at
        self.guard = guard
        self.decisions: list[Decision] = []

    def add(self, decision: Decision) -> None:
        """Decide something."""
        self.decisions.append(decision)
        self.state.apply(decision)

    def resend(self, step: Step) -> None:
        """Send a command once more because an operator wants it, whatever its policy says."""
        self.send_again(step, self.at, 0)

    def close_at(self, step: Step) -> int:
        """When all attempts of a step are over, or 0; the time of a pause doesn't count."""
        policy = step.policy
        if policy is None or not policy.schedule_to_close:
            return 0
        return step.first_at + policy.schedule_to_close + paused_since(self.state, step.first_at)

    def send_again(self, step: Step, send_at: int, end: int) -> None:
        """Let the next attempt of a step go out at `send_at`; `end`: when all of them are over, or 0."""
        self.send_attempt(step, step.attempt + 1, send_at, end)

    def send_attempt(self, step: Step, attempt: int, send_at: int, end: int) -> None:
        """Let one attempt of a step go out, as `send_again`."""
        assert step.policy is not None
        delayed = send_at if send_at > self.at else 0
        if step.kind == LOCAL:
            self.add(RunLocal(step.path, LOCAL, attempt, step.type, delayed))
        else:
            due = send_at + step.policy.timeout
            due = min(due, end) if end else due
            self.add(Send(step.path, COMMAND, attempt, step.type, step.participant, due, delayed, step.key))

    def block(self, step: Step, error: KasagaError, *, halted: bool = False, fingerprint: str = "") -> None:
        """The saga waits for somebody at one step; what doesn't hang on that step goes on."""
        self.become_stuck(stuck_by(error, step=step.path, halted=halted, fingerprint=fingerprint))

    def become_stuck(self, move: Move) -> None:
        """Become STUCK, and tell everybody who wants to know, unless they know."""
        state = self.state
        if move.parked:
            self.run.evict()
        known = state.state == lifecycle.STUCK and (state.reason, state.stuck_step) == (
            move.reason,
            move.step,
        )
        self.add(move)
        if not known:
            self.tell(lifecycle.STUCK)

    def lacks_version(self) -> bool:
        """Whether the saga's code is what is missing here. Version 0: nobody has any of its name."""
        state = self.state
        return state.version > 0 and (state.name, state.version) not in self.defs.sagas

    def wait_for_version(self, error: KasagaError) -> None:
        """Wait for a process that has the saga's version. They are being replaced."""
        self.run.evict()
        state = self.state
        if not state.await_row:
            self.add(Move(state.phase, error.code, error.message, error.remedy, "", True))
            self.add(Await(state.name, state.version))

    def tell(self, state: str) -> None:
        """Tell the watchers and, if it is wanted, the events topic."""
        for watcher in self.state.watchers:
            self.add(Tell(watcher.reply_to, state, watcher.about))
        self.publish(state)
        if self.state.parent is not None:
            kinship.told(self, state)

    def publish(self, state: str) -> None:
        """Put a change of state on the events topic, if it is wanted there."""
        if state in self.defs.events:
            self.add(Tell("", state))


def stuck_by(
    error: KasagaError, *, step: str = "", parked: bool = False, halted: bool = False, fingerprint: str = ""
) -> Move:
    """The move that an error leads to."""
    reason = clean_text(error.message, MAX_REASON)
    return Move(lifecycle.STUCK, error.code, reason, error.remedy, step, parked, fingerprint, halted)
