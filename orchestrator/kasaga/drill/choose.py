"""Which sagas are drilled, and the undo that each of their steps would get, as the engine would make it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from kasaga_wire.codec import Schemas, schema_id
from kasaga_wire.contracts import Contract
from kasaga_wire.errors import KasagaError

from ..audit.walk import ended
from ..engine.model import COMMAND, DONE
from ..engine.state import Step, fold
from ..errors import HistoryUnreadable, UnknownContract
from ..gate.choose import Choice, finished
from ..lookup import read_records
from ..store.audit import Ends
from ..store.base import SagaRow, SagaState, Store

REASON = "a drill: would this compensation work?"


@dataclass(frozen=True, slots=True)
class Undo:
    """One compensation to be tried. `fault`: why it can't even be sent; nothing else is of use then."""

    saga_id: str
    saga: str
    version: int
    participant: str
    type: str
    undoes: str
    """The type of the command that it undoes."""
    command_id: str
    """Of that command, in the saga that it was done for."""
    sent: datetime
    key: bytes
    payload: bytes = b""
    fault: KasagaError | None = None


def newest(
    store: Store, definitions: frozenset[tuple[str, int]], sample: int, now: datetime
) -> Iterator[SagaRow]:
    """So many COMPLETED sagas of each definition, of different ages."""
    for row in finished(store, Choice(0, sample, definitions), now):
        if row.state is SagaState.COMPLETED:
            yield row


def within(
    ends: Ends,
    store: Store,
    definitions: frozenset[tuple[str, int]],
    bounds: tuple[datetime, datetime],
    sample: int,
) -> Iterator[SagaRow]:
    """The same, of those that ended in a time."""
    taken = dict.fromkeys(definitions, 0)
    shards = {lease.shard: bounds for lease in store.shards()}
    for _, found in ended(ends, shards):
        for row in found:
            about = (row.name, row.version)
            if row.state is SagaState.COMPLETED and taken.get(about, sample) < sample:
                taken[about] += 1
                yield row
        if all(count >= sample for count in taken.values()):
            return


def undos(
    store: Store, rows: Iterable[SagaRow], contracts: Mapping[str, Contract], schemas: Schemas
) -> Iterator[Undo]:
    """The undo of each step of these sagas that is done and has a compensation."""
    for row in rows:
        try:
            state = fold(str(row.run_id), read_records(store, row))
        except HistoryUnreadable:
            continue  # an audit tells of it
        for step in state.order:
            if step.kind != COMMAND or step.child:
                continue  # what a child has done is undone by its own steps' compensations
            if step.outcome == DONE and step.compensation and not step.undo_form:
                yield _undo(row, step, contracts, schemas)


def _undo(row: SagaRow, step: Step, contracts: Mapping[str, Contract], schemas: Schemas) -> Undo:
    payload, fault = b"", None
    try:
        payload = _payload(step, contracts, schemas)
    except KasagaError as error:
        fault = error
    return Undo(
        saga_id=row.saga_id,
        saga=row.name,
        version=row.version,
        participant=step.participant,
        type=step.compensation,
        undoes=step.type,
        command_id=f"{row.run_id}.{step.path}",
        sent=row.started_at,
        key=step.key or row.saga_id.encode(),
        payload=payload,
        fault=fault,
    )


def _payload(step: Step, contracts: Mapping[str, Contract], schemas: Schemas) -> bytes:
    contract = contracts.get(step.participant)
    name = step.compensation.removeprefix(f"{step.participant}.")
    spec = contract.compensations.get(name) if contract else None
    if spec is None:
        raise UnknownContract(
            f"{step.type} is undone by {step.compensation}, which no contract of the App has"
        )
    of_input, of_result = (schemas.require(schema_id(each)) for each in (step.payload, step.result))
    return spec.payload.encode(step.payload, of_input, step.result, of_result, REASON, None)
