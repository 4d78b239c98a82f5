"""A saga's history as people tell it: one line for each step, undo, change of state and action.

    timeline(records) -> entries -> as_text(entries), or as_json(entries) of timeline_data.py

Pure. Stands between the engine's records and whatever shows them: `kasaga history`, the demo, a page.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from .engine import lifecycle
from .engine.attributes import SetAttributes
from .engine.deferrals import Deferred
from .engine.keylocks import LOCK, Lock
from .engine.kinship import Recalled
from .engine.model import (
    COMMAND,
    CUT_OFF,
    DEADLINE,
    DONE,
    LEFT,
    LOCAL,
    LOST,
    MESSAGES,
    MISSED,
    REFUSED,
    SCOPE,
    SCOPED,
    SIGNAL,
    SLEEP,
    UNDONE,
    UNKNOWN,
    VOID,
    Accept,
    Alarm,
    Answered,
    Asked,
    Clear,
    CodeArrived,
    Decision,
    Drop,
    Emit,
    Enter,
    Event,
    Fence,
    Fired,
    Hold,
    Leave,
    Listen,
    Move,
    Pivot,
    Postpone,
    Ran,
    Record,
    Release,
    Replied,
    Return,
    RunLocal,
    Send,
    Settle,
    Sleep,
    Started,
    Take,
    Undeliverable,
)
from .engine.renewals import Continue, Swell
from .engine.renewing import beginning
from .engine.resets import Reset
from .engine.versions import Adopt, Patch
from .timeline_attributes import LONG, OTHER_MARKS, RUN, marked, named
from .timeline_data import Decode, payload_lines
from .timeline_entries import (
    PATCH,
    RECEIVED,
    UPDATE,
    Attempt,
    Entry,
    Received,
    attempt_lines,
    error_text,
    heartbeats,
    withdraw,
)
from .wording import PLAIN, STATE_MEANING, Paint, length, moment, offset, printable

START, STATE, ACTION, CODE, PIVOT, EMIT = "start", "state", "action", "code", "pivot", "emit"
"""Kinds of entries beside the engine's forms (command, undo, void, sleep, local, signal) and what came."""

UNDOING = ("undo", "void")
MARKS = {START: "▶", STATE: "■", ACTION: "@", CODE: "@", PIVOT: "◆", EMIT: "→"} | OTHER_MARKS
SAID = {
    PIVOT: "passed: nothing before it is undone any more",
    EMIT: "published",
    PATCH: "on the new branch",
    RUN: "begins here: what was done before is final",
}
ENDED_WELL = "ended well"
GOOD = frozenset({DONE, UNDONE, ENDED_WELL, "voided", "nothing"})
BAD = frozenset({"refused", UNKNOWN, "failed", "executed"})


def timeline(records: Iterable[Record]) -> list[Entry]:
    """Tell a history, oldest first; one that begins with a later run from there on."""
    story = _Story()
    for record in records:
        begins = beginning(record) if record.seq > 1 and not story.entries else None
        if begins is None:
            story.take(record)
        else:
            story.begin_later(begins)
    return story.entries


class _Story:
    """The fold from records to entries."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self._steps: dict[tuple[str, bool], Entry] = {}
        self._received = Received(self.entries, self._steps)
        self._compensations: dict[str, str] = {}
        self._returned = b""
        self._state = ""

    def take(self, record: Record) -> None:
        at = moment(record.at)
        if isinstance(record.event, MESSAGES):
            self._received.came(record.event, at)
        else:
            self._event(record.event, at)
        for decision in record.decisions:
            self._decision(decision, record.event, at)

    def begin_later(self, record: Record) -> None:
        """Tell the part of a record that begins a run: what it answers is of the run before."""
        at = moment(record.at)
        for decision in record.decisions:
            self._decision(decision, record.event, at)
            if isinstance(decision, Continue):
                self._received.kept(decision, at)

    # --- events

    def _event(self, event: Event, at: datetime) -> None:
        match event:
            case Started():
                by = f"its parent {event.parent.saga_id}" if event.parent is not None else event.source
                self.entries.append(Entry(at, START, event.name, by=by, value=event.input))
                self.entries += named(at, event.attributes)
            case Recalled(parent=parent):
                by = f"its parent {parent.saga_id}"
                self.entries.append(Entry(at, ACTION, "undo", reason=parent.reason, by=by))
            case Asked():
                if event.action != "watch":
                    self.entries.append(
                        Entry(
                            at,
                            ACTION,
                            event.action,
                            event.step,
                            reason=event.reason,
                            by=event.by or "somebody",
                        )
                    )
            case CodeArrived():
                self.entries.append(Entry(at, CODE, "new code"))
            case Replied():
                self._answered(event, at, event.outcome, error_text(event.error_type, event.error))
            case Ran():
                self._answered(
                    event, at, DONE if event.ok else "failed", error_text(event.error_type, event.error)
                )
            case Undeliverable():
                self._answered(event, at, "undeliverable", event.error)
            case Deferred():
                self._deferred(event, at)
            case Fired():
                self._fired(event, at)
            case _:
                pass  # what a fault leads to is in the record's decisions

    def _answered(self, event: Replied | Ran | Undeliverable, at: datetime, outcome: str, error: str) -> None:
        entry = self._steps.get((event.step, event.form not in (COMMAND, LOCAL)))
        for attempt in entry.attempts if entry else ():
            if attempt.number == event.attempt and not attempt.outcome:
                attempt.ended, attempt.outcome, attempt.error = at, outcome, error

    def _deferred(self, event: Deferred, at: datetime) -> None:
        entry = self._steps.get((event.step, False))
        if entry is not None:
            entry.deferred_at, entry.heartbeats = entry.deferred_at or at, event.number
            entry.progress = event.progress or entry.progress

    def _fired(self, event: Fired, at: datetime) -> None:
        if event.form in (SLEEP, SIGNAL, DEADLINE):
            return
        entry = self._steps.get((event.step, event.form not in (COMMAND, LOCAL)))
        if entry is not None and entry.attempts and not entry.attempts[-1].outcome:
            entry.attempts[-1].ended, entry.attempts[-1].outcome = at, "no answer"

    # --- decisions

    def _decision(self, decision: Decision, event: Event, at: datetime) -> None:
        match decision:
            case Send():
                self._sent(decision, at)
            case RunLocal():
                if decision.attempt == 1 and decision.form == LOCAL:
                    self._compensations[decision.step] = decision.undo
                self._open(
                    decision.step, decision.form, decision.name, decision.attempt, at, decision.send_at
                )
            case Sleep():
                due = moment(decision.due_at)
                entry = self._add(
                    Entry(at, SLEEP, f"{decision.name or SLEEP} {length(due - at)}", decision.step)
                )
                self._steps[decision.step, False] = entry
            case Enter() | Leave():
                self._scope(decision, at)
            case Settle():
                self._settled(decision, event, at)
            case Clear():
                self._cleared(decision, event, at)
            case Move():
                self._moved(decision, at)
            case Return():
                self._returned = decision.result
            case Listen() | Lock() | Alarm() | Take() | Drop() | Accept() | Answered():
                self._received.decided(decision, at)
            case _:
                self._turned(decision, at)

    def _scope(self, decision: Enter | Leave, at: datetime) -> None:
        if isinstance(decision, Enter):
            name = f"{SCOPE} {decision.name}".rstrip()
            self._steps[decision.step, False] = self._add(Entry(at, SCOPE, name, decision.step))
        elif decision.why == SCOPED:
            self._steps[decision.steps[0], False].reason = decision.reason
        elif decision.why in (CUT_OFF, LOST):
            for entry in (self._steps[path, False] for path in decision.steps):
                if entry.kind == SCOPE and not entry.outcome:
                    entry.reason = "its branch was ended"

    def _sent(self, decision: Send, at: datetime) -> None:
        name = decision.type
        if decision.form == COMMAND:
            self._compensations.setdefault(decision.step, decision.compensation)
            name += f" {decision.key.decode()}" if decision.child else ""
        elif decision.form == VOID:
            original = self._steps.get((decision.step, False))
            name = f"void {original.name}" if original else decision.type
        self._open(
            decision.step, decision.form, name, decision.attempt, at, decision.send_at, decision.payload
        )

    def _open(
        self, step: str, form: str, name: str, attempt: int, at: datetime, send_at: int, payload: bytes = b""
    ) -> None:
        key = (step, form not in (COMMAND, LOCAL))
        entry = self._steps.get(key)
        if entry is None or entry.kind != form:
            entry = self._steps[key] = self._add(Entry(at, form, name, step, value=payload))
        withdraw(entry, at)
        entry.attempts.append(Attempt(attempt, moment(send_at) if send_at else at))

    def _add(self, entry: Entry) -> Entry:
        self.entries.append(entry)
        return entry

    def _settled(self, decision: Settle, event: Event, at: datetime) -> None:
        entry = self._steps[decision.step, False]
        withdraw(entry, at)
        entry.ended, entry.outcome = at, decision.outcome
        entry.result = decision.payload
        entry.reason = error_text(decision.error_type, decision.error) or (
            entry.reason if entry.kind == SCOPE else ""
        )
        if isinstance(event, Replied | Ran) and event.step == decision.step and not decision.error_type:
            entry.result = entry.result or event.payload
            entry.reason = error_text(event.error_type, event.error)
        if isinstance(event, Asked) and event.action == "resolve":
            entry.outcome, entry.by = "resolved", event.by
        if decision.outcome != DONE:
            entry.result = b""  # a refusal's payload is the error, which is told already
        if entry.kind == SCOPE:
            well = decision.outcome == LEFT and not entry.reason
            entry.outcome = UNDONE if decision.outcome == UNDONE else ENDED_WELL if well else "cut off"
        if entry.kind == SIGNAL:
            entry.outcome, entry.reason = ("missed", "") if decision.outcome == MISSED else ("cut off", "")
        if entry.kind == LOCK and decision.outcome not in (DONE, REFUSED):
            entry.outcome, entry.reason = "cut off", ""
        if entry.kind == SLEEP:
            in_time = decision.outcome == LEFT and entry.name.startswith("timeout")
            entry.outcome = "over" if decision.outcome == DONE else "in time" if in_time else "cut off"

    def _cleared(self, decision: Clear, event: Event, at: datetime) -> None:
        entry = self._steps.get((decision.step, True))
        if entry is None:
            name = self._compensations.get(decision.step, "")
            entry = self._steps[decision.step, True] = self._add(Entry(at, "undo", name, decision.step))
        withdraw(entry, at)
        entry.ended, entry.outcome = at, decision.how
        if isinstance(event, Asked) and event.action in ("skip", "resolve"):
            entry.by = event.by

    def _turned(self, decision: Decision, at: datetime) -> None:
        """The saga has passed its pivot, emits, names itself, is paused, goes on, or ends as it is."""
        match decision:
            case Pivot():
                self.entries.append(Entry(at, PIVOT, "pivot"))
            case Emit(topic=topic, type=kind):
                self.entries.append(Entry(at, EMIT, f"{kind} to {topic}", value=decision.payload))
            case SetAttributes() | Adopt() | Patch() | Swell():
                self.entries += marked(decision, at)
            case Continue():
                self._state = lifecycle.RUNNING
                self.entries += marked(decision, at)
            case Hold():
                for entry in self._steps.values():
                    withdraw(entry, at)
                self._add(Entry(at, STATE, lifecycle.PAUSED))
            case Release():
                self._add(Entry(at, STATE, self._state))
            case Reset(step=step, numbers=last):
                self.entries[-1].outcome = f"back to step {step}, and on with {last + 1}"
            case Postpone():
                self.entries[-1].outcome = "when it is resumed"
            case Fence(step=step):
                name = f"void {self._steps[step, False].name}"
                entry = Entry(at, VOID, name, step, ended=at, outcome="sent, and not waited for")
                self._steps[step, True] = self._add(entry)
            case _:
                pass  # Resume, Deadline and Tell tell nothing that a person asks for

    def _moved(self, decision: Move, at: datetime) -> None:
        first, self._state = not self._state, decision.state
        if first and decision.state == lifecycle.RUNNING:
            return  # the start says it
        entry = self._add(
            Entry(at, STATE, decision.state, decision.step, code=decision.code, reason=decision.reason)
        )
        if decision.state == lifecycle.COMPLETED:
            entry.result = self._returned


def attempts_sent(records: Iterable[Record], now: datetime) -> dict[tuple[str, bool], int]:
    """Return how many attempts were sent of each step (its path, False) and of its undo (its path, True).

    An attempt's number may be higher: it counts those, too, that were to be sent later and never were.
    """
    entries = (entry for entry in timeline(records) if entry.kind in (COMMAND, LOCAL, *UNDOING))
    return {
        (entry.step, entry.kind in UNDOING): sum(attempt.at <= now for attempt in entry.attempts)
        for entry in entries
    }


# --- text ---------------------------------------------------------------------------------------------


def as_text(
    entries: Sequence[Entry],
    decode: Decode,
    *,
    now: datetime,
    width: int = 120,
    full: bool = False,
    payloads: bool = True,
    paint: Paint = PLAIN,
) -> list[str]:
    """The entries as lines: when (since the start), mark, step, name, what became of it.

    `full` shows payloads whole and every attempt; otherwise a payload is one line within `width`.
    """
    if not entries:
        return []
    begin, saga_input = entries[0].at, decode(entries[0].value)
    steps = max(len(entry.step) for entry in entries)
    names = max(len(entry.name) for entry in entries)
    lines: list[str] = []
    told = ""
    for entry in entries:
        step = entry.step if entry.kind not in (STATE, ACTION) else ""
        head = f"{offset(entry.at - begin):>9}  {mark(entry)} {step:<{steps}}  "
        summary = printable(summarised(entry, now))
        if entry.kind == STATE:
            summary, told = ("" if summary == told else summary), summary  # the end repeats why it was undone
        name = paint.state(entry.name, names) if entry.kind == STATE else entry.name.ljust(names)
        lines.append((paint("dim", head) + name + "  " + paint(meaning(entry), summary)).rstrip())
        indent = " " * (len(head) + 2)
        if full or len(entry.attempts) > 1:
            lines += [paint("dim", indent + line) for line in attempt_lines(entry, now)]
        if payloads:
            known = saga_input if entry is not entries[0] else None
            lines += payload_lines(entry, decode, indent, width, full=full, known=known)
    return lines


def mark(entry: Entry) -> str:
    """The sign in front of an entry: ▶ start, ■ state, @ action, … open, ✓ good, ✗ not, ↶ undone."""
    if entry.kind in MARKS:
        return MARKS[entry.kind]
    if not entry.outcome:
        return "…"
    if entry.kind in UNDOING:
        return "↶"
    if entry.kind == SCOPE:
        return "✓" if entry.outcome == ENDED_WELL else "↶"
    return "✓" if entry.outcome in ("over", "in time", "resolved", *GOOD) else "✗"


def meaning(entry: Entry) -> str:
    """Which of `Paint.CODES` an entry's outcome has: good, bad, warn, busy, or empty."""
    if entry.kind == STATE:
        return STATE_MEANING.get(entry.name, "") if entry.name == "STUCK" else ""
    if entry.kind in (RECEIVED, UPDATE):
        return "bad" if entry.outcome in ("set aside", "refused") else ""
    if not entry.outcome:
        return "busy" if entry.attempts else "warn" if entry.kind == SCOPE and entry.reason else ""
    return "bad" if entry.outcome in BAD else "good" if entry.outcome in GOOD else "warn"


def summarised(entry: Entry, now: datetime) -> str:
    """What became of an entry, in one line."""
    if entry.kind == STATE:
        return f"{entry.code}: {entry.reason}" if entry.code else entry.reason
    if entry.kind == ACTION:
        when = f" ({entry.outcome})" if entry.outcome else ""
        return f"by {entry.by}{when}" + (f": {entry.reason}" if entry.reason else "")
    if entry.kind == START:
        return f"started by {entry.by}" if entry.by else "started"
    if entry.kind == CODE:
        return "arrived, so the saga is tried again"
    if entry.kind in (RECEIVED, UPDATE):
        code = f" ({entry.code})" if entry.code else ""
        return f"by {entry.by}, {entry.outcome or 'not taken yet'}{code}" + (
            f": {entry.reason}" if entry.reason else ""
        )
    if entry.kind in SAID or entry.kind == LONG:
        return SAID.get(entry.kind, entry.reason)
    if entry.ended is None:
        return _so_far(entry, now)
    words = {
        UNKNOWN: "outcome unknown",
        "over": "over",
        "nothing": "nothing to undo",
        "executed": "had happened, and nothing undoes it",
        "missed": "none came in time",
        "lost": "nothing to undo (its participant's database went back in time)",
    }
    text = words.get(entry.outcome, entry.outcome)
    if entry.by:
        text += f" by {entry.by}"
    elif entry.kind not in (SLEEP, SIGNAL, SCOPE, LOCK) and entry.attempts:
        text += f" {'after' if entry.outcome == UNKNOWN else 'in'} {length(entry.ended - entry.at)}"
    if len(entry.attempts) > 1:
        text += f", {len(entry.attempts)} attempts"
    text += f", deferred{heartbeats(entry)}" if entry.deferred_at is not None else ""
    return f"{text}: {entry.reason}" if entry.reason else text


def _so_far(entry: Entry, now: datetime) -> str:
    if not entry.attempts:
        return f"is being undone: {entry.reason}" if entry.kind == SCOPE and entry.reason else "goes on"
    last = entry.attempts[-1]
    begun = "begun" if entry.kind == LOCAL else "sent"
    number = f"attempt {last.number}, {begun}" if last.number > 1 else begun
    if last.outcome:
        return f"attempt {last.number}: {last.outcome}" + (f": {last.error}" if last.error else "")
    if entry.deferred_at is not None:
        return f"{number} {length(now - last.at)} ago, answered later{heartbeats(entry)}"
    if last.at > now:
        return f"attempt {last.number} in {length(last.at - now)}"
    return f"{number} {length(now - last.at)} ago"
