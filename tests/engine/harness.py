"""Drives one saga through the engine by hand: no Kafka, no store, and a clock that a test moves.

After every event the harness checks what must hold whatever the saga does: the live state is the
fold of the encoded records, the open rows are those that the state names, and so on. With
`always_replay` the coroutine is thrown away after each event as well and rebuilt from history.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from json import loads
from typing import Any

from kasaga import App, Saga
from kasaga.engine import lifecycle
from kasaga.engine.codec import decode, encode
from kasaga.engine.decide import Definitions, Ignored, Run, decide
from kasaga.engine.driver import Guard, unguarded
from kasaga.engine.kinship import Report
from kasaga.engine.mail import Mail
from kasaga.engine.model import (
    COMMAND,
    DEADLINE,
    DONE,
    LOCAL,
    SIGNAL,
    UNDO_FORMS,
    UPDATE,
    Asked,
    CodeArrived,
    Decision,
    Emit,
    Event,
    Faulted,
    Fence,
    Fired,
    Ran,
    Record,
    Replied,
    RunLocal,
    Send,
    Signalled,
    Started,
    Tell,
    Undeliverable,
    Updated,
)
from kasaga.engine.requests import LocalCall
from kasaga.engine.signals import ask
from kasaga.engine.state import State, Step, fold
from kasaga.errors import NotApplicable
from kasaga.messages import message_codec
from kasaga_wire.codec import Schemas
from kasaga_wire.contracts import CommandSpec

BEGIN = 1_700_000_000_000_000
"""When every play begins: microseconds since 1970."""

SECOND = 1_000_000

NO_VALUE = object()


class Play:
    """One run of one saga."""

    replaying = False
    """Whether plays replay after each event where a test doesn't say; conftest.py runs each both ways."""

    def __init__(
        self,
        app: App,
        name: str,
        answers: dict[str, Any],
        *,
        version: int = 1,
        always_replay: bool | None = None,
        max_payload: int = 900_000,
        run_id: str = "run",
        guard: Guard = unguarded,
    ) -> None:
        self.app = app
        self.name, self.version = name, version
        self.answers = answers
        self.schemas = Schemas()
        self.max_payload = max_payload
        self.defs: Definitions = app.definitions(self.schemas, max_payload=max_payload)
        self.guard = guard
        self.always_replay = self.replaying if always_replay is None else always_replay
        self.run = Run(run_id)
        self.bodies: list[bytes] = []
        self._read: list[Record] = []
        self.now = BEGIN
        self.next_row = 1
        self.rows: dict[int, Decision] = {}
        """Open rows, those of records that are only told left out."""
        self.told: list[Tell] = []
        self.fenced: list[str] = []
        """Steps that were fenced when the saga was terminated."""
        self.sent: list[Send | RunLocal] = []
        """Every attempt that was ever sent."""
        self.last: Record | Ignored | NotApplicable | None = None

    # --- what is known ---

    @property
    def state(self) -> State:
        return self.run.state

    @property
    def records(self) -> list[Record]:
        """The history as it is read back."""
        known = len(self._read)
        self._read += [decode(seq, body) for seq, body in enumerate(self.bodies[known:], known + 1)]
        return self._read

    @property
    def decisions(self) -> tuple[Decision, ...]:
        """What the last event led to."""
        assert isinstance(self.last, Record), self.last
        return self.last.decisions

    @property
    def kinds(self) -> list[type]:
        """The kinds of what the last event led to."""
        return [type(decision) for decision in self.decisions]

    def step(self, path: str | int) -> Step:
        return self.state.steps[str(path)]

    def payload_of(self, path: str | int) -> Any:
        """The result of a command that is done."""
        step = self.step(path)
        return self.spec(step.type).result.decode(step.result, self.schemas)

    def decided(self, kind: type[Any]) -> list[Any]:
        """All decisions of a kind in the last record."""
        return [decision for decision in self.decisions if isinstance(decision, kind)]

    def ever(self, kind: type[Any]) -> list[Any]:
        """All decisions of a kind in the whole history."""
        return [
            decision for record in self.records for decision in record.decisions if isinstance(decision, kind)
        ]

    @property
    def undone(self) -> list[str]:
        """Steps in the order in which their undos or voids were first sent."""
        return [each.step for each in self.sent if each.form in UNDO_FORMS and each.attempt == 1]

    # --- events ---

    def event(self, event: Event) -> Record | Ignored | NotApplicable:
        """Let something happen, and check all that must hold afterwards."""
        before = len(self.bodies)
        self.last = decide(self.defs, self.run, event, at=self.now, row=self.next_row, guard=self.guard)
        if isinstance(self.last, Record):
            self.commit([self.last])
            if self.always_replay:
                self.evict()
        assert len(self.bodies) == before + isinstance(self.last, Record)
        return self.last

    def commit(self, records: Sequence[Record]) -> None:
        """Keep records as the store would. The state's rows are those of the last one."""
        for record in records:
            self.bodies.append(encode(record))
            assert self.records[-1] == record
            assert record.row == self.next_row
            state = fold(self.state.run_id, self.records)
            self._keep_rows(state, record)
            self._check_rows(state)
        check(self.state, fold(self.state.run_id, self.records))
        check_later(self.state, fold(self.state.run_id, self.records[self.state.base - 1 :]))

    def _keep_rows(self, state: State, record: Record) -> None:
        for row, decision in state.opens:
            assert row >= self.next_row
            assert row not in self.rows
            if isinstance(decision, Emit | Report):
                continue
            if isinstance(decision, Tell):
                self.told.append(decision)
            elif isinstance(decision, Fence):
                self.fenced.append(decision.step)
            else:
                self.rows[row] = decision
        for row in state.closes:
            del self.rows[row]
        self.next_row = state.row
        self.sent += [
            decision
            for decision in record.decisions
            if isinstance(decision, Send | RunLocal) and decision in [opened for _, opened in state.opens]
        ]

    def _check_rows(self, state: State) -> None:
        named = {row for step in state.order for row in (step.row, step.undo_row)} | {
            state.deadline_row,
            state.await_row,
        }
        assert set(self.rows) == named - {0}
        if state.final:
            assert not self.rows

    def start(
        self, value: Any, *, reply_to: str = "", saga_id: str = "s-1"
    ) -> Record | Ignored | NotApplicable:
        declared: Saga[Any, Any] | None = self.app.sagas.get((self.name, self.version))
        data = declared.input.encode(value) if declared is not None else b""
        return self.event(Started(saga_id, self.name, self.version, data, "", "", reply_to, "/test"))

    def spec(self, type_: str) -> CommandSpec:
        participant, _, name = type_.partition(".")
        return self.app.contracts[participant].commands[name]

    def done(
        self, path: str | int, value: Any = NO_VALUE, *, attempt: int = 0
    ) -> Record | Ignored | NotApplicable:
        """The step's participant did it, or the function of a ctx.run returned."""
        step = self.step(path)
        if step.kind == LOCAL:
            waiting = self.run.live(self.defs).requests[step.path]
            assert isinstance(waiting, LocalCall)
            return self.event(
                Ran(step.path, LOCAL, attempt or step.attempt, True, waiting.result.encode(value))
            )
        made = self.answers[step.type] if value is NO_VALUE else value
        payload = self.spec(step.type).result.encode(made)
        return self.event(Replied(step.path, COMMAND, attempt or step.attempt, DONE, payload))

    def answer(
        self,
        path: str | int,
        outcome: str,
        *,
        form: str = "",
        attempt: int = 0,
        error_type: str = "",
        error: str = "",
        retryable: bool = True,
    ) -> Record | Ignored | NotApplicable:
        """Any answer without a result: to the undo or void that is out, otherwise to the command."""
        step = self.step(path)
        form = form or (step.undo_form if step.undo_open else COMMAND)
        current = step.attempt if form == COMMAND else step.undo_attempt
        attempt = attempt or current
        event = Replied(step.path, form, attempt, outcome, b"", error_type, error, "", retryable)
        return self.event(event)

    def refused(self, path: str | int, error: str = "no") -> Record | Ignored | NotApplicable:
        return self.answer(path, "refused", error_type="OutOfStock", error=error)

    def failed(self, path: str | int, error: str = "down", **more: Any) -> Record | Ignored | NotApplicable:
        return self.answer(path, "failed", error_type=more.pop("error_type", "Broken"), error=error, **more)

    def undo(self, path: str | int, outcome: str = "undone") -> Record | Ignored | NotApplicable:
        return self.answer(path, outcome)

    def fire(self, path: str | int = "", form: str = "") -> Record | Ignored | NotApplicable:
        """The clock reaches the due time of a step, of its undo, or (no path) of the saga's deadline."""
        if not path:
            self.now = max(self.now, self.state.deadline_due)
            return self.event(Fired("", DEADLINE))
        step = self.step(path)
        form = form or (step.undo_form if step.undo_open else step.kind)
        self.now = max(self.now, step.undo_due if form in UNDO_FORMS else step.due_at)
        return self.event(Fired(step.path, form))

    def ran(self, path: str | int, error_type: str = "", error: str = "", form: str = LOCAL) -> Any:
        """A function of ctx.run raised; or its undo returned (no error) or raised."""
        step = self.step(path)
        attempt = step.attempt if form == LOCAL else step.undo_attempt
        return self.event(Ran(step.path, form, attempt, not error_type, b"", error_type, error))

    def undeliverable(self, path: str | int, error: str = "no such topic") -> Any:
        step = self.step(path)
        form = step.undo_form if step.undo_open else COMMAND
        attempt = step.undo_attempt if step.undo_open else step.attempt
        return self.event(Undeliverable(step.path, form, attempt, error))

    def ask(
        self,
        action: str,
        *,
        reason: str = "why",
        step: str = "",
        value: str = "",
        action_id: str = "",
        reply_to: str = "",
    ) -> Record | Ignored | NotApplicable:
        action_id = action_id or f"a{len(self.bodies)}"
        return self.event(Asked(action_id, action, "anna", reason, step, value, reply_to))

    def signal(
        self, name: str, value: Any = None, *, key: str = "", json: str = ""
    ) -> Record | Ignored | NotApplicable:
        """Somebody sends a signal; its key is new if none is given."""
        codec = message_codec(None if value is None else value.__class__, "signal", name)
        self.schemas.add(codec.schema)
        payload = json.encode() if json else codec.encode(value)
        return self.event(Signalled(key or f"k{len(self.bodies)}", name, payload, "anna", bool(json)))

    def update(
        self, name: str, value: Any = None, *, key: str = "", json: str = ""
    ) -> Record | Ignored | NotApplicable:
        """Somebody sends an update."""
        codec = message_codec(value.__class__, "update", name)
        self.schemas.add(codec.schema)
        payload = json.encode() if json else codec.encode(value)
        return self.event(Updated(key or f"k{len(self.bodies)}", name, payload, "anna", bool(json)))

    def query(self, name: str) -> Any:
        """Somebody asks something; the history stays as it is."""
        before, rows = len(self.bodies), self.next_row
        answer = loads(ask(self.defs, self.run, name, self.guard))
        assert (len(self.bodies), self.next_row) == (before, rows)
        check(self.state, fold(self.state.run_id, self.records))
        return answer

    def new_code(self, app: App, fingerprint: str = "new") -> Record | Ignored | NotApplicable:
        """Another image takes the shard over."""
        self.load(app, fingerprint)
        return self.event(CodeArrived(fingerprint))

    def fault(self, code: str = "KSG-210", reason: str = "refused") -> Record | Ignored | NotApplicable:
        return self.event(Faulted(code, reason, "mend it"))

    # --- coming and going ---

    def load(self, app: App, fingerprint: str = "") -> None:
        """The same history, under other code, in a new process."""
        self.app = app
        self.defs = app.definitions(self.schemas, max_payload=self.max_payload)
        if fingerprint:
            self.defs = self.defs._replace(fingerprint=fingerprint)
        self.crash()

    def crash(self) -> None:
        """The process dies: nothing but the committed records is left."""
        self.run.evict()  # a crash runs nothing at all, but the coroutine mustn't be left to the collector
        self.run = Run(self.state.run_id, self.records[self.state.base - 1 :])

    def evict(self) -> None:
        """The coroutine is closed, the state stays in memory."""
        self.run.evict()

    def until(self, act: Callable[[], Any], state: str, most: int = 1000) -> None:
        """Act until the saga is in a state."""
        for _ in range(most):
            if self.state.state == state:
                return
            act()
        raise AssertionError(f"still {self.state.state} after {most}")


def slots(kind: type) -> tuple[str, ...]:
    """The attributes of a class's instances; a compiled class lists them under a name of its own."""
    names: tuple[str, ...] = vars(kind).get("__mypyc_attrs__") or vars(kind)["__slots__"]
    return names


NOT_FOLDED = ("undo_cursor", "lost", "size")
"""The first two are shortened as short cuts; the shell counts the third."""


def dump(state: State) -> dict[str, Any]:
    """Everything that a state holds, to compare it."""
    made = {name: getattr(state, name) for name in slots(State) if name not in NOT_FOLDED}
    for name in ("unfed", "fed"):
        made[name] = [step.path for step in made[name]]
    made["blocked"] = list(made["blocked"])
    made["order"] = [{name: getattr(step, name) for name in slots(Step)} for step in made["order"]]
    made["steps"] = list(made["steps"])
    made["before"] = list(made["before"] or ())
    made["mail"] = dump_mail(state.mail)
    return made


def dump_mail(mail: Mail | None) -> Any:
    """The same of what was sent to the saga."""
    if mail is None:
        return None
    made: dict[str, Any] = {name: getattr(mail, name) for name in slots(Mail)}
    made["listening"] = {name: list(steps) for name, steps in mail.listening.items()}
    made["updates"] = {
        key: {name: getattr(step, name) for name in slots(Step)} for key, step in mail.updates.items()
    }
    return made


def check_mail(state: State) -> None:
    """What must hold of what was sent."""
    mail = state.mail
    if mail is None:
        return
    assert mail.count == sum(map(len, mail.waiting.values()))
    assert mail.size == sum(len(each.payload) for each in chain(*mail.waiting.values()))
    assert all(mail.waiting.values())
    open_waits = {step.path for step in state.order if step.kind == SIGNAL and not step.outcome}
    assert {path for steps in mail.listening.values() for path in steps} == open_waits
    taken = [step.details for step in state.order if step.kind == SIGNAL and step.outcome == DONE]
    assert len(taken) == len(set(taken))
    assert len(mail.ids) >= mail.count + len(taken)
    if state.number == 1:
        assert len(mail.ids) == mail.count + mail.dropped + len(taken)
    if state.state == lifecycle.RUNNING and state.returned is None and not state.parked:
        assert not set(mail.waiting) & set(mail.listening)


def check_later(live: State, folded: State) -> None:
    """A fold that begins with the saga's last run comes to the same; the rows are those of one record."""
    of_the_record = ("before", "opens", "closes", "ended", "first_row", "freed")
    one, other = dump(live), dump(folded)
    for name in of_the_record:
        del one[name], other[name]
    assert one == other
    if live.mail is not None and folded.mail is not None:
        assert list(live.mail.ids) == list(folded.mail.ids)


def check(live: State, folded: State) -> None:
    """What must hold of every state after every event."""
    assert dump(live) == dump(folded)
    assert {row for row, _ in live.opens}.isdisjoint(live.closes)
    assert [step.path for step in live.order] == [
        path for path, step in live.steps.items() if step.kind != UPDATE
    ]
    check_mail(live)
    if live.final:
        assert not live.blocked
        assert all(step.outcome for step in live.order)
        assert live.paused is None
    if live.state == lifecycle.TERMINATED:
        assert live.code == "KSG-261"
        assert live.reason.startswith("terminated by ")
    elif live.final:
        assert not live.undos_open
        for step in live.order:
            assert not step.to_undo or (live.state == lifecycle.COMPLETED and step.outcome == DONE)
            assert not step.undo_open
    else:
        beneath = live.state if live.paused is None else live.paused.beneath.state
        stuck = (live.parked and not live.await_row) or bool(live.blocked)
        assert (beneath == lifecycle.STUCK) == stuck
        assert (live.state == lifecycle.PAUSED) == (live.paused is not None)
        assert live.held == (live.parked or live.paused is not None)
        assert live.held or not live.pending
    if live.state == lifecycle.STUCK:
        assert live.code.startswith("KSG-2")
        assert live.reason
        assert live.remedy
    if live.state == lifecycle.COMPENSATED:
        assert live.reason
    assert live.undos_open == sum(step.undo_open for step in live.order)
    assert list(live.blocked) == [path for path in live.blocked if live.steps[path].blocked is not None]
    assert sum(step.blocked is not None for step in live.order) == len(live.blocked)
    if live.state == lifecycle.COMPLETED:
        assert live.returned is not None
        assert all(step.undo_how for step in live.order if step.outcome == "unknown" and step.kind == COMMAND)
