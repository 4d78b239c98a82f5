"""What must be true of one saga at the end: of its history, its letters, and what was done for it.

Station: called by the book (book.py), for each saga.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from kasaga.engine.codec import decode
from kasaga.engine.lifecycle import UNDOING
from kasaga.engine.model import (
    COMMAND,
    DONE,
    LOCAL,
    SCOPED,
    TAKES_ROW,
    UNDO,
    UNKNOWN,
    Clear,
    Move,
    Pivot,
    Replied,
    Send,
    Settle,
    Tell,
)
from kasaga.engine.relevance import KNOWLEDGE
from kasaga.engine.renewals import Continue
from kasaga.engine.state import State, Step, extend, fold
from kasaga.store.base import FINAL_STATES, SagaRow, SagaState
from kasaga_wire.envelope import CommandEnvelope
from simulator import halted, labels, news, scopes

if TYPE_CHECKING:
    from simulator.book import Book
    from simulator.postgres import Effect
    from simulator.world import World


class Audit:
    """Of one saga."""

    def __init__(self, book: Book, world: World, row: SagaRow) -> None:
        self._book, self._world, self._row = book, world, row
        self.records = [decode(each.seq, each.body) for each in world.store.history(row)]
        self.state: State = fold(str(row.run_id), self.records)
        self.returned = row.result
        self.excused = book.changed(row.run_id, self.records) or book.forgot(row.run_id)
        """What was done can't agree with the history: one of them was lost."""

    def say(self, text: str) -> None:
        kind = self._world.people.kinds.get(self._row.saga_id, "?")
        self._book.say(f"{self._row.saga_id} ({kind}): {text}")

    def history(self) -> None:
        """One row follows the other; nothing is settled twice, or tried again after it was."""
        row, records, state = self._row, self.records, self.state
        if [record.seq for record in records] != list(range(1, len(records) + 1)):
            self.say("its history has gaps")
        if state.state != row.state:
            self.say(f"its row says {row.state}, its history {state.state}")
        settled: set[str] = set()
        for record in records:
            for decision in record.decisions:
                if isinstance(decision, Settle):
                    if decision.step in settled:
                        self.say(f"step {decision.step} was settled twice")
                    settled.add(decision.step)
                elif isinstance(decision, Send) and decision.form == COMMAND and decision.step in settled:
                    self.say(f"step {decision.step} was sent again after its outcome was known")
        place = {step.path: index for index, step in enumerate(state.order)}
        done = {step.path for step in state.order if step.outcome == DONE and step.left != SCOPED}
        undone = [
            decision.step
            for record in records
            for decision in record.decisions
            if isinstance(decision, Clear) and decision.step in done
        ]
        if undone != sorted(undone, key=lambda path: -place[path]):
            self.say(f"its steps were undone in the order {', '.join(undone)}")
        for wrong in scopes.undone_in_order(records, state):
            self.say(wrong)

    def runs(self, effects: list[Effect]) -> None:
        """What a run has done that has ended is final; runs follow each other, and end with nothing open."""
        state, past = State(str(self._row.run_id)), dict[str, Step]()
        number = 1
        for record in self.records:
            extend(state, record)
            ended = state.before or {}
            past |= ended
            for step in ended.values():
                if not step.outcome or step.undo_open or (step.to_undo and step.left):
                    self.say(f"a run has ended with step {step.path} open")
            for decision in record.decisions:
                if isinstance(decision, Continue):
                    number += 1
                    if decision.number != number:
                        self.say(f"run {decision.number} follows run {number - 1}")
        if self._row.base != state.base:
            self.say(f"its row says that its run begins at {self._row.base}, its history {state.base}")
        if self.excused:
            return
        names = {effect.command_id.partition(".")[2] for effect in effects}
        for path, step in past.items():
            if step.kind != COMMAND or step.undo_how or step.outcome != DONE:
                continue
            if path not in names or f"{path}~undo" in names:
                self.say(f"step {path} was done by a run that has ended, and doesn't stand")

    def pivot(self) -> None:
        """Nothing that was done before the pivot is undone after it; the saga ends done or is STUCK."""
        done: set[str] = set()
        passed: int | None = None
        for record in self.records:
            for decision in record.decisions:
                if isinstance(decision, Settle) and decision.outcome == DONE and passed is None:
                    done.add(decision.step)
                elif isinstance(decision, Pivot):
                    passed = record.seq
                elif passed is None:
                    continue
                elif isinstance(decision, Send) and decision.form == UNDO and decision.step in done:
                    self.say(f"step {decision.step} was undone though row {passed} passed the pivot")
                elif isinstance(decision, Move) and decision.state in UNDOING:
                    self.say(f"it is {decision.state} though row {passed} passed the pivot")

    def ends(self) -> None:
        """It has ended, or is STUCK with a reason and a remedy."""
        row, state = self._row, self.state
        if row.state is SagaState.STUCK:
            if not (row.code and row.reason and row.remedy):
                self.say("it is STUCK without a reason and a remedy")
            return
        if row.state not in FINAL_STATES:
            if not self._world.people.leaves(row):
                self.say(f"it is {row.state} at the end")
            return
        for step in state.order:
            if step.kind not in (COMMAND, LOCAL):
                continue
            if row.state is SagaState.TERMINATED:
                continue  # it says what it leaves
            if step.outcome == UNKNOWN and step.kind == COMMAND and not step.undo_how:
                self.say(
                    f"it is {row.state}, and {step.type} (step {step.path}) is unknown and was never cleared"
                )
            compensated = row.state is SagaState.COMPENSATED
            if compensated and step.outcome == DONE and step.compensation and not step.undo_how:
                self.say(f"it is COMPENSATED, and {step.type} (step {step.path}) was never undone")

    def attempts(self) -> None:
        """How an attempt went counts for the current one alone."""
        state = State(str(self._row.run_id))
        for record in self.records:
            event = record.event
            step = state.steps.get(event.step) if isinstance(event, Replied) else None
            late = step is not None and step.child and isinstance(event, Replied) and event.form != COMMAND
            if late:
                step = None  # a child says how its undoing goes, whatever was sent since
            if isinstance(event, Replied) and step is not None and event.outcome not in KNOWLEDGE[event.form]:
                current = step.attempt if event.form == COMMAND else step.undo_attempt
                decided = any(
                    isinstance(each, Send | Settle) and each.step == event.step for each in record.decisions
                )
                if decided and event.attempt != current:
                    self.say(f"attempt {event.attempt} of step {event.step} counted in place of {current}")
            extend(state, record)

    def letters(self) -> None:
        """Each signal that was accepted is there, and was taken once at most, in order."""
        letters, row = self._world.people.letters, self._row
        for wrong in letters.wrong(row.saga_id, str(row.state), self.records, excused=self.excused):
            self.say(wrong)

    def labels(self) -> None:
        """What it can be searched by is what its history says, and what its code has set."""
        for wrong in labels.wrong(self._row, self.records):
            self.say(wrong)

    def told(self, told: set[str]) -> None:
        """Whoever was to be told of something was told of it."""
        run_id = self._row.run_id
        for record in self.records:
            rows = [each for each in record.decisions if type(each) in TAKES_ROW]
            for number, decision in enumerate(rows):
                if not isinstance(decision, Tell):
                    continue
                event = f"{run_id}.{record.seq + 1}.{record.row + number}"
                if (f"{decision.about}.{decision.what.lower()}" if decision.to else event) not in told:
                    self.say(f"nobody was told of {decision.what} (row {record.seq} of its history)")
        for wrong in news.wrong(run_id, self.records, told, excused=self.excused):
            self.say(wrong)

    def wire(self, sent: list[CommandEnvelope]) -> None:
        """Nothing was sent that wasn't committed."""
        lost = [decode(seq, body) for seq, body in self._book.lost_rows.get(self._row.run_id, [])]
        committed = {
            (
                decision.step if decision.form == COMMAND else f"{decision.step}~{decision.form}",
                decision.attempt,
            )
            for record in [*self.records, *lost]
            for decision in record.decisions
            if isinstance(decision, Send)
        }
        committed |= halted.fences([*self.records, *lost])
        for envelope in sent:
            name = envelope.command_id.partition(".")[2]
            if (name, envelope.attempt) not in committed:
                self.say(f"attempt {envelope.attempt} of {name} was sent, and isn't in the history")

    def effects(self, effects: list[Effect]) -> None:
        """Each took effect once; what stands at the end agrees with how the saga ended."""
        row, state = self._row, self.state
        times = Counter((effect.command_id, effect.type) for effect in effects)
        for (id_, type_), count in times.items():
            if count > 1 and id_ not in self._book.purged:
                self.say(f"{type_} (step {id_.partition('.')[2]}) took effect {count} times")
        if self.excused or row.state not in FINAL_STATES:
            return
        done = {id_.partition(".")[2] for id_, _ in times}
        stands = {name for name in done if "~" not in name and f"{name}~undo" not in done}
        for wrong in halted.unsaid(state, stands):
            self.say(wrong)
        for step in state.order:
            if step.kind != COMMAND or step.child or step.undo_how in ("skipped", "resolved"):
                continue
            here = step.path in stands
            kept = step.outcome == DONE and not (step.left == SCOPED and step.compensation)
            by_hand = (
                step.outcome == DONE and step.error_type == "" and halted.resolved(self.records, step.path)
            )
            if row.state is SagaState.COMPLETED and here != kept and not by_hand:
                what = "stands" if here else "doesn't stand"
                self.say(f"it is COMPLETED, and {step.type} (step {step.path}), {step.outcome}, {what}")
            if row.state is SagaState.COMPENSATED and here and (step.compensation or step.outcome != DONE):
                self.say(f"it is COMPENSATED, and {step.type} (step {step.path}) stands")
        named = {effect.command_id.partition(".")[2]: effect for effect in effects}
        for wrong in scopes.none_stands(self.records, state, named):
            self.say(wrong)
        self._order(effects)

    def _order(self, effects: list[Effect]) -> None:
        """Undos took effect in reverse; those of unknown steps, and skipped ones, may at any time."""
        place = {step.path: index for index, step in enumerate(self.state.order)}
        by_hand = ("skipped", "resolved")
        known = {
            step.path
            for step in self.state.order
            if step.outcome == DONE and step.undo_how not in by_hand and step.left != SCOPED
        }
        undone = [
            effect.command_id.partition(".")[2].partition("~")[0]
            for effect in sorted(effects, key=lambda effect: effect.at)
            if effect.command_id.endswith("~undo")
        ]
        undone = [path for path in undone if path in known]
        if undone != sorted(undone, key=lambda path: -place[path]):
            self.say(f"its participants undid the steps in the order {', '.join(undone)}")
