"""Participants with inboxes, a Kafka that duplicates, drops and reorders, and sagas drawn at random.

`World` stands between a Play and its participants. It keeps the effects, so that a test can hold
what the engine says against what was really done.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from engine.harness import SECOND, Play
from engine.shop import ANSWERS, ORDER, PARTICIPANTS, Inventory, Mail, Order, Payments, Shipping
from kasaga import App, RetryPolicy, Saga, SagaContext, SagaFailed, StepError, TimedOut, saga
from kasaga.engine.model import (
    COMMAND,
    DEADLINE,
    LOCAL,
    SLEEP,
    UNDO,
    UNDO_FORMS,
    VOID,
    Asked,
    CodeArrived,
    Deadline,
    Decision,
    Event,
    Fired,
    Ran,
    Replied,
    RunLocal,
    Send,
    Sleep,
    Undeliverable,
)
from kasaga_wire.codec import codec_for

FEW = RetryPolicy(maximum_attempts=3, initial_interval=0.5, maximum_interval=2)
UNDO_FEW = RetryPolicy(maximum_attempts=2, initial_interval=0.5, maximum_interval=2)


class Act(NamedTuple):
    """One line of a random saga; `catch` says what to do where the step doesn't end well."""

    what: str
    """inventory, payments, shipping, mail, nap, read, write, fail or bug."""
    catch: tuple[Act, ...] | None = None
    branches: tuple[tuple[Act, ...], ...] = ()
    """Of gather, keep (a gather that goes on), race, any (a race that skips failures), limit (a block
    with a time-out), scope, nest (a scope in which they are spawned), spawn."""


def read() -> int:
    return 7


def write() -> int:
    return 7


def unwrite(result: int | None) -> None:
    """Takes back what `write` did."""


def saga_of(acts: Sequence[Act], *, mended: bool) -> Saga[Order, str]:
    """A saga that does what the acts say; the bugs in it are gone once it is mended."""

    @saga("random", timeout=600)
    async def random_saga(ctx: SagaContext, order: Order) -> str:
        await _do(ctx, order, acts, mended=mended)
        return "done"

    return random_saga


async def _do(ctx: SagaContext, order: Order, acts: Sequence[Act], *, mended: bool) -> None:
    for act in acts:
        try:
            await _act(ctx, order, act, mended=mended)
        except (StepError, TimedOut):
            if act.catch is None:
                raise
            await _do(ctx, order, act.catch, mended=mended)


async def _branches(ctx: SagaContext, order: Order, act: Act, *, mended: bool) -> None:
    branches = [_do(ctx, order, each, mended=mended) for each in act.branches]
    match act.what:
        case "gather":
            await ctx.gather(*branches)
        case "keep":
            await ctx.gather(*branches, return_exceptions=True)
        case "race":
            await ctx.race(*branches)
        case "any":
            await ctx.race(*branches, skip_failures=True)
        case "limit":
            async with ctx.timeout(4):
                await branches[0]
        case "scope":
            async with ctx.scope():
                await branches[0]
        case "nest":
            async with ctx.scope("nest"):
                for branch in branches[1:]:
                    ctx.spawn(branch)
                await branches[0]
        case _:
            for branch in branches:
                ctx.spawn(branch)


async def _act(ctx: SagaContext, order: Order, act: Act, *, mended: bool) -> None:
    options: dict[str, Any] = {"retry": FEW, "undo_retry": UNDO_FEW, "timeout": 5}
    if act.branches:
        await _branches(ctx, order, act, mended=mended)
        return
    match act.what:
        case "inventory":
            await ctx.use(Inventory, **options).reserve(order)
        case "payments":
            await ctx.use(Payments, **options).charge(order)
        case "shipping":
            await ctx.use(Shipping, **options).schedule(order)
        case "mail":
            await ctx.use(Mail, **options).send(order)
        case "nap":
            await ctx.sleep(3)
        case "read":
            await ctx.run(read, retry=FEW)
        case "write":
            await ctx.run(write, undo=unwrite, retry=FEW, undo_retry=UNDO_FEW)
        case "fail":
            raise SagaFailed("the author says no")
        case "bug":
            if not mended:
                raise ValueError("a bug")
        case _:
            raise AssertionError(act)


def app_for(acts: Sequence[Act], *, mended: bool) -> App:
    return App("shop", sagas=[saga_of(acts, mended=mended)], participants=PARTICIPANTS)


class Copy(NamedTuple):
    """A command on its way."""

    step: str
    form: str
    attempt: int


class World:
    """One saga, its participants and everything between them; `twin` replays at each event."""

    def __init__(self, acts: Sequence[Act], moods: Sequence[str]) -> None:
        self.acts = acts
        self.moods = moods
        """How participants take each step: ok, refuse, flaky, never; and its undo: stiff."""
        self.mended = False
        self.live = Play(app_for(acts, mended=False), "random", ANSWERS, always_replay=False)
        self.twin = Play(app_for(acts, mended=False), "random", ANSWERS, always_replay=True)
        self.commands: list[Copy] = []
        self.news: list[Event] = []
        self.inbox: dict[str, str] = {}
        """By step: done, refused or tombstone."""
        self.stored: dict[tuple[str, str], str] = {}
        """By step and form, what an undo or void was answered."""
        self.effects: dict[str, int] = {}
        """By step, how often it was done less how often it was undone."""
        self.executed: dict[str, int] = {}
        self.tries: dict[tuple[str, str], int] = {}
        self.calm = False
        """No more faults: everything is delivered and everybody answers."""
        self.fingerprints = 0

    @property
    def play(self) -> Play:
        return self.live

    # --- the engine ---

    def happens(self, event: Event) -> None:
        """Give an event to both plays and hold one against the other."""
        from engine.harness import dump

        before = dict(self.live.rows)
        for play in (self.live, self.twin):
            play.now = max(self.live.now, self.twin.now)
            play.event(event)
        assert str(self.live.last) == str(self.twin.last)
        assert self.live.bodies[-1:] == self.twin.bodies[-1:]
        assert dump(self.live.state) == dump(self.twin.state)
        for row, decision in self.live.rows.items():
            if row not in before and isinstance(decision, Send | RunLocal):
                self.commands.append(Copy(decision.step, decision.form, decision.attempt))

    def start(self) -> None:
        declared: Saga[Any, Any] = self.live.app.sagas["random", 1]
        from kasaga.engine.model import Started

        self.happens(Started("s-1", "random", 1, declared.input.encode(ORDER), "", "", "", ""))

    def crash(self) -> None:
        self.live.crash()

    def new_code(self) -> None:
        """A release without the bugs."""
        self.mended = True
        self.fingerprints += 1
        for play in (self.live, self.twin):
            play.load(app_for(self.acts, mended=True), f"release {self.fingerprints}")
        self.happens(CodeArrived(f"release {self.fingerprints}"))

    def tick(self) -> None:
        """The clock comes to the next due time, and its timer fires."""
        dues: list[tuple[int, Event]] = []
        for decision in self.live.rows.values():
            due = self.due(decision)
            if due is not None:
                dues.append(due)
        if dues:
            at, event = min(dues, key=lambda due: due[0])
            self.live.now = max(self.live.now, at)
            self.happens(event)

    @staticmethod
    def due(decision: Decision) -> tuple[int, Event] | None:
        match decision:
            case Send(step=step, form=form, due_at=at):
                return at, Fired(step, form)
            case Sleep(step=step, due_at=at):
                return at, Fired(step, SLEEP)
            case Deadline(due_at=at):
                return at, Fired("", DEADLINE)
            case _:
                return None

    def resend(self) -> None:
        """A new owner sends again what is open."""
        for decision in self.live.rows.values():
            if isinstance(decision, Send | RunLocal):
                self.commands.append(Copy(decision.step, decision.form, decision.attempt))

    # --- Kafka ---

    def deliver(self, choice: int, *, keep: bool = False) -> None:
        """One command reaches its participant; `keep` leaves a duplicate of it behind."""
        if self.commands:
            copy = self.commands[choice % len(self.commands)]
            if not keep:
                self.commands.remove(copy)
            answer = self._local(copy) if self._is_local(copy) else self._participant(copy)
            if answer is not None:
                self.news.append(answer)

    def read_news(self, choice: int, *, keep: bool = False) -> None:
        """One answer reaches the engine."""
        if self.news:
            event = self.news[choice % len(self.news)]
            if not keep:
                self.news.remove(event)
            self.happens(event)

    def lose(self, choice: int) -> None:
        """A command or an answer is lost on its way."""
        lost: list[Any] = self.commands if choice % 2 else self.news
        if lost:
            del lost[choice % len(lost)]

    def refuse(self, choice: int) -> None:
        """Kafka refuses a command for good."""
        copies = [copy for copy in self.commands if not self._is_local(copy)]
        if copies:
            copy = copies[choice % len(copies)]
            self.commands.remove(copy)
            self.happens(Undeliverable(copy.step, copy.form, copy.attempt, "no such topic"))

    # --- participants ---

    def _mood(self, step: str) -> str:
        number = sum(map(int, step.split(".")))
        return self.moods[number % len(self.moods)] if self.moods else "ok"

    def _is_local(self, copy: Copy) -> bool:
        return self.live.step(copy.step).kind == LOCAL

    def _fails(self, copy: Copy) -> bool:
        """Whether the participant's code raises this time."""
        mood, key = self._mood(copy.step), (copy.step, copy.form)
        self.tries[key] = self.tries.get(key, 0) + 1
        if self.calm:
            return False
        if copy.form == UNDO:
            return mood == "stiff" or (mood == "flaky" and self.tries[key] < 3)
        return mood == "never" or (mood == "flaky" and self.tries[key] < 2)

    def _participant(self, copy: Copy) -> Replied:
        """What the inbox decides, and the handler does."""
        if copy.form == COMMAND:
            outcome = self._command(copy)
            if outcome == "done":
                result = self.live.spec(self.live.step(copy.step).type).result
                made: Any = ANSWERS[self.live.step(copy.step).type]
                return Replied(copy.step, COMMAND, copy.attempt, "done", result.encode(made))
        else:
            outcome = self._fence(copy)
        error = ("Broken", "down") if outcome in ("failed", "refused", "expired") else ("", "")
        return Replied(copy.step, copy.form, copy.attempt, outcome, b"", *error)

    def _command(self, copy: Copy) -> str:
        row = self.inbox.get(copy.step)
        if row is not None:
            return "refused" if row == "tombstone" else row
        if self._fails(copy):
            return "failed"
        if self._mood(copy.step) == "refuse":
            self.inbox[copy.step] = "refused"
            return "refused"
        self.inbox[copy.step] = "done"
        self._effect(copy.step)
        return "done"

    def _effect(self, step: str) -> None:
        self.effects[step] = self.effects.get(step, 0) + 1
        self.executed[step] = self.executed.get(step, 0) + 1

    def _fence(self, copy: Copy) -> str:
        stored = self.stored.get((copy.step, copy.form))
        if stored is not None:
            return stored
        row = self.inbox.setdefault(copy.step, "tombstone")
        if copy.form == VOID:
            answer = {"done": "executed", "refused": "refused", "tombstone": "voided"}[row]
        elif row != "done":
            answer = "nothing"
        elif self._fails(copy):
            return "failed"
        else:
            answer = "undone"
            self.effects[copy.step] -= 1
        self.stored[copy.step, copy.form] = answer
        return answer

    def _local(self, copy: Copy) -> Ran | None:
        """A function of ctx.run, or its undo: at least once, so its effect is a set, not a count."""
        if self._fails(copy):
            return Ran(copy.step, copy.form, copy.attempt, False, b"", "OSError", "down")
        if copy.form == UNDO:
            self.effects.pop(copy.step, None)
            null = codec_for(None, name="result").encode(None)
            return Ran(copy.step, UNDO, copy.attempt, True, null)
        if self._mood(copy.step) == "refuse":
            return Ran(copy.step, LOCAL, copy.attempt, False, b"", "SagaFailed", "no")
        if self.live.step(copy.step).compensation and not self.live.step(copy.step).outcome:
            self.effects[copy.step] = 1
        return Ran(copy.step, LOCAL, copy.attempt, True, codec_for(int, name="result").encode(7))

    # --- the end ---

    def settle(self) -> None:
        """No more faults: what is open is sent again, everything is answered, timers fire."""
        self.calm = True
        if self.play.state.state == "PAUSED":
            name = f"r{len(self.play.bodies)}"
            self.happens(Asked(name, "resume", "anna", "", "", "", ""))
        for _ in range(400):
            if self.play.state.final or (self.play.state.state == "STUCK" and not self._moving()):
                return
            self.resend()
            while self.commands:
                self.deliver(0)
            while self.news:
                self.read_news(0)
            if self._moving():
                self.tick()
        raise AssertionError(f"does not end: {self.play.state.state} {self.play.state.reason}")

    def _moving(self) -> bool:
        return bool(self.play.rows) and not self.play.state.parked

    def flush(self) -> None:
        """Whatever is still on its way arrives, long after the end."""
        while self.commands:
            self.deliver(0)
        while self.news:
            self.read_news(0)
        self.live.now += 1000 * SECOND

    def close(self) -> None:
        for play in (self.live, self.twin):
            play.run.evict()


__all__ = ["UNDO_FORMS", "Act", "World"]
