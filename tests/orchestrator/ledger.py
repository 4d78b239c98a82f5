"""The audit: what must be true of every saga when everything has ended, whatever went wrong on the way."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from uuid import UUID

from kasaga.engine.model import COMMAND, Record, Send, Settle
from kasaga.engine.state import State, fold
from kasaga.store.base import OutboxRow, SagaRow, SagaState
from kasaga_wire.envelope import CommandEnvelope
from kasaga_wire.kafka import Record as KafkaRecord
from kasaga_wire.records import Answer
from orchestrator.desk import Desk


@dataclass
class Books:
    """All there is to look at."""

    sagas: list[SagaRow]
    histories: Mapping[UUID, list[Record]]
    outbox: list[OutboxRow]
    commands: list[KafkaRecord]
    """Every record of the participants' topics."""
    answers: list[Answer]
    desk: Desk
    asked: Mapping[str, str] = field(default_factory=dict[str, str])
    """Run ids of the starts that want an answer, by saga id."""


def audit(books: Books, *, stuck: frozenset[str] = frozenset(), ended: bool = True) -> None:
    """Raise AssertionError unless every saga is all done or all undone, but for those that may be stuck."""
    wire = _wire(books)
    effects = defaultdict[str, list[str]](list)
    for each in books.desk.executed:
        effects[each.run_id].append(each.path)
    told = _told(books)
    for row in books.sagas:
        state = _history(books, row)
        if row.state is SagaState.STUCK and row.saga_id in stuck:
            continue
        assert row.state in (SagaState.COMPLETED, SagaState.COMPENSATED), (row, state.reason)
        assert row.saga_id not in stuck, f"{row.saga_id} should be stuck, it is {row.state}"
        _effects(books, row, state, effects[str(row.run_id)])
        _sent(books, row, wire[str(row.run_id)])
        if books.asked.get(row.saga_id) == str(row.run_id):
            assert row.state in told[str(row.run_id)], f"nobody was told of the end of {row.saga_id}"
    ids = Counter(row.saga_id for row in books.sagas)
    assert set(ids) >= set(books.asked), f"lost: {sorted(set(books.asked) - set(ids))}"
    assert not [each for each, count in ids.items() if count > 1]
    strangers = set(wire) - {str(row.run_id) for row in books.sagas}
    assert not strangers, f"commands of runs that were never committed: {strangers}"
    if ended:
        open_rows = [row for row in books.outbox if not _of_stuck(books, row, stuck)]
        assert not open_rows, f"the outbox isn't empty: {open_rows[:3]}"


def _of_stuck(books: Books, row: OutboxRow, stuck: frozenset[str]) -> bool:
    return any(saga.run_id == row.run_id and saga.saga_id in stuck for saga in books.sagas)


def _history(books: Books, row: SagaRow) -> State:
    """One row follows the other, nothing is settled twice or tried again after it was."""
    records = books.histories[row.run_id]
    assert [record.seq for record in records] == list(range(1, len(records) + 1))
    state = fold(str(row.run_id), records)
    assert state.state == row.state, (state.state, row)
    assert state.saga_id == row.saga_id
    settled: set[str] = set()
    for record in records:
        for decision in record.decisions:
            if isinstance(decision, Settle):
                assert decision.step not in settled, f"step {decision.step} was settled twice"
                settled.add(decision.step)
            elif isinstance(decision, Send) and decision.form == COMMAND:
                assert decision.step not in settled, f"step {decision.step} was tried again when settled"
    return state


def _effects(books: Books, row: SagaRow, state: State, effects: list[str]) -> None:
    """What was executed and stands, agrees with the end."""
    for path, times in Counter(effects).items():
        assert times == 1, f"{row.run_id}.{path} was executed {times} times"
    stands = {path for path in effects if "~" not in path and f"{path}~undo" not in effects}
    done = {
        step.path
        for step in state.order
        if step.kind == COMMAND and not step.child and step.outcome == "done" and step.undo_how != "undone"
    }
    wanted = done if row.state is SagaState.COMPLETED else set[str]()
    assert stands == wanted, f"{row.saga_id} is {row.state}, {stands} stands, {wanted} should"
    for step in state.order:
        if step.kind == COMMAND and not step.child and step.outcome == "unknown":
            known = books.desk.rows.get(f"{row.run_id}.{step.path}")
            assert known is not None, f"{row.run_id}.{step.path} may happen yet"
    undone = [path.partition("~")[0] for path in effects if path.endswith("~undo")]
    if row.state is SagaState.COMPENSATED:
        place = {step.path: number for number, step in enumerate(state.order)}
        early = {step.path for step in state.order if step.outcome == "unknown" or step.left}
        in_order = [place[path] for path in undone if path not in early]
        assert in_order == sorted(in_order, reverse=True), f"{row.saga_id} was undone in the order {undone}"


def _wire(books: Books) -> dict[str, list[tuple[str, int, bytes]]]:
    """By run: name and attempt of every record that Kafka has, and its payload."""
    found: dict[str, list[tuple[str, int, bytes]]] = defaultdict(list)
    for record in books.commands:
        envelope = CommandEnvelope.parse(record.headers)
        run_id, _, name = envelope.command_id.partition(".")
        found[run_id].append((name, envelope.attempt, record.value or b""))
    return found


def _sent(books: Books, row: SagaRow, wire: list[tuple[str, int, bytes]]) -> None:
    """Nothing was sent that wasn't committed; all attempts of a step carry the same bytes."""
    committed = {
        (decision.step if decision.form == COMMAND else f"{decision.step}~{decision.form}", decision.attempt)
        for record in books.histories[row.run_id]
        for decision in record.decisions
        if isinstance(decision, Send)
    }
    assert {(name, attempt) for name, attempt, _ in wire} <= committed, row.saga_id
    payloads: dict[str, set[bytes]] = defaultdict(set)
    for name, _, payload in wire:
        payloads[name].add(payload)
    assert all(len(each) == 1 for each in payloads.values()), f"{row.saga_id}: payloads differ by attempt"


def _told(books: Books) -> dict[str, set[str]]:
    """By what was asked: what was answered."""
    told: dict[str, set[str]] = defaultdict(set)
    for answer in books.answers:
        told[answer.about].add(answer.what)
    return told
