"""Histories written by hand, so that what is shown of them doesn't hang on the engine's own tests.

Each tale is one saga's records; `put` keeps it in a store as the loop would.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from uuid import UUID

from pydantic import BaseModel

from kasaga.engine.codec import encode
from kasaga.engine.model import (
    COMMAND,
    DONE,
    REFUSED,
    UNDO,
    Asked,
    Clear,
    Decision,
    Event,
    Faulted,
    Fired,
    Move,
    Policy,
    Record,
    Replied,
    Resume,
    Return,
    Send,
    Settle,
    Sleep,
    Started,
)
from kasaga.engine.renewals import Continue
from kasaga.engine.state import State, fold
from kasaga.store.base import (
    Batch,
    HistoryRow,
    Offsets,
    OutboxRow,
    RowKind,
    SagaRow,
    SagaState,
    SagaWrite,
    ShardWrite,
    Store,
)
from kasaga_wire.codec import Codec, Schemas, codec_for

BEGIN = datetime(2026, 1, 2, 10, 0, tzinfo=UTC)
SECOND = 1_000_000
RUN = "0198c0de-0000-7000-8000-{:012d}"
POLICY = Policy(60 * SECOND, 3600 * SECOND, SECOND, 2.0, 60 * SECOND, 10)


class Order(BaseModel):
    id: str
    lines: int


class Stock(BaseModel):
    shelf: str


ORDERS: Codec[Order] = codec_for(Order, name="payment.input")
STOCKS: Codec[Stock] = codec_for(Stock, name="inventory.reserve.result")
SCHEMAS = Schemas()
SCHEMAS.add(ORDERS.schema)
SCHEMAS.add(STOCKS.schema)
ORDER = ORDERS.encode(Order(id="o-1", lines=2))
STOCK = STOCKS.encode(Stock(shelf="A7"))


class Tale:
    """One saga, told record by record."""

    def __init__(
        self,
        number: int = 1,
        *,
        saga_id: str = "",
        shard: int = 3,
        policy: Policy = POLICY,
        attributes: bytes = b"",
    ) -> None:
        self.policy = policy
        self.run_id = RUN.format(number)
        self.saga_id = saga_id or f"o-{number}"
        self.shard = shard
        self.at = BEGIN + timedelta(seconds=number - 1)
        self.records: list[Record] = []
        self._row = 100 * number
        about = self.saga_id, "payment", 1, ORDER, "", "", "", "/kasaga/clients/shop"
        self.then(0, Started(*about, attributes=attributes))

    def then(self, seconds: float, event: Event, *decisions: Decision) -> Tale:
        """Let something happen so many seconds later."""
        self.at += timedelta(seconds=seconds)
        if isinstance(event, Started):
            decisions = (
                Move("RUNNING"),
                Resume(""),
                self.send("1", "inventory.reserve", "inventory.release"),
            )
        taking = sum(isinstance(each, Send | Sleep) for each in decisions)
        self.records.append(Record(len(self.records) + 1, self.micros, self._row, event, decisions))
        self._row += taking
        return self

    @property
    def micros(self) -> int:
        return round(self.at.timestamp() * SECOND)

    def send(self, step: str, type_: str, undo: str, *, attempt: int = 1, after: float = 0) -> Send:
        send_at = self.micros + round(after * SECOND) if after else 0
        due = (send_at or self.micros) + POLICY.timeout
        first = attempt == 1
        return Send(
            step,
            COMMAND,
            attempt,
            type_,
            type_.partition(".")[0],
            due,
            send_at,
            self.saga_id.encode(),
            ORDER if first else b"",
            self.policy if first else None,
            self.policy if first else None,
            undo if first else "",
        )

    def undo(self, step: str, type_: str, *, attempt: int = 1, after: float = 0) -> Send:
        send_at = self.micros + round(after * SECOND) if after else 0
        due = (send_at or self.micros) + POLICY.timeout
        return Send(step, UNDO, attempt, type_, type_.partition(".")[0], due, send_at, b"k")

    # --- what happens in many tales

    def reserved(self) -> Tale:
        """Step 1 is done, step 2 goes out."""
        self.at += timedelta(seconds=0.012)
        return self.then(
            0,
            Replied("1", COMMAND, 1, DONE, STOCK),
            Settle("1", DONE),
            Resume("1"),
            self.send("2", "payments.charge", "payments.refund"),
        )

    def charge_failed(self) -> Tale:
        """The first attempt of step 2 fails; the next is a second away."""
        self.at += timedelta(seconds=0.1)
        event = Replied("2", COMMAND, 1, "failed", b"", "DeadlockDetected", "try again")
        return self.then(0, event, self.send("2", "payments.charge", "payments.refund", attempt=2, after=1))

    def charge_refused(self, attempt: int = 1, *, after: float = 0.003) -> Tale:
        """Step 2 is refused; the undoing of step 1 begins."""
        self.at += timedelta(seconds=after)
        reason = "the card is blocked"
        return self.then(
            0,
            Replied("2", COMMAND, attempt, REFUSED, b"", "CardBlocked", "the card is blocked", "", False),
            Settle("2", REFUSED),
            Resume("2"),
            Move("COMPENSATING", "KSG-253", reason, "", "2"),
            self.undo("1", "inventory.release"),
        )

    def released(self) -> Tale:
        """The undo of step 1 is answered, the saga ends."""
        return self.then(
            0.015,
            Replied("1", UNDO, 1, "undone", b""),
            Clear("1", "undone"),
            Move("COMPENSATED", "KSG-253", "the card is blocked", "", "2"),
        )

    def release_fails(self) -> Tale:
        """The undo of step 1 fails twice, and the saga is STUCK while it goes on."""
        event = Replied("1", UNDO, 1, "failed", b"", "OperationalError", "no disk")
        self.at += timedelta(seconds=1)
        self.then(0, event, self.undo("1", "inventory.release", attempt=2, after=2))
        self.at += timedelta(seconds=3)
        reason = "release has failed 2 times: no disk"
        remedy = "Mend the participant: the next retry goes through by itself"
        return self.then(
            0,
            event._replace(attempt=2),
            self.undo("1", "inventory.release", attempt=3, after=4),
            Move("STUCK", "KSG-220", reason, remedy, "1"),
        )

    def completed(self) -> Tale:
        """Step 2 is done, and the code returns."""
        return self.then(
            0.02,
            Replied("2", COMMAND, 1, DONE, STOCK),
            Settle("2", DONE),
            Resume("2"),
            Return(STOCK),
            Move("COMPLETED"),
        )

    def parked(self) -> Tale:
        """The code of the saga has a bug."""
        reason = "TypeError at sagas.py:12"
        return self.then(
            0.5,
            Faulted("KSG-207", reason, "Mend the line and deploy", "abc"),
            Move("STUCK", "KSG-207", reason, "Mend the line and deploy", "", True, "abc"),
        )

    def asks(self, action: str, reason: str, *decisions: Decision, seconds: float = 60) -> Tale:
        """An operator does something."""
        return self.then(
            seconds, Asked(f"a-{len(self.records)}", action, "anna", reason, "", "", ""), *decisions
        )

    def timed_out(self) -> Tale:
        """No answer to step 2 in time; it is sent again at once."""
        self.at += timedelta(seconds=60)
        return self.then(
            0, Fired("2", COMMAND), self.send("2", "payments.charge", "payments.refund", attempt=2)
        )

    def sleeps(self, seconds: float) -> Tale:
        """The code sleeps after step 1."""
        self.at += timedelta(seconds=0.012)
        due = self.micros + round(seconds * SECOND)
        event = Replied("1", COMMAND, 1, DONE, STOCK)
        return self.then(0, event, Settle("1", DONE), Resume("1"), Sleep("2", due))

    def renewed(self) -> Tale:
        """Its run ends after step 2, and in the next one it asks for a third step."""
        began = round(BEGIN.timestamp() * SECOND)
        renewed = Continue(ORDER, 1, 2, self.saga_id, "payment", began, "", "", b"", 2, 0)
        self.then(1, Replied("2", COMMAND, 1, DONE, b""), Settle("2", DONE), Resume("2"), renewed)
        return self.then(
            0, Asked("a", "watch", "anna", "", "", "", ""), self.send("3", "shipping.schedule", "")
        )

    # --- what the store has of it

    @property
    def state(self) -> State:
        return fold(self.run_id, self.records)

    @property
    def row(self) -> SagaRow:
        state = self.state
        ended = self.at if state.final else None
        return SagaRow(
            self.shard,
            UUID(self.run_id),
            self.saga_id,
            "payment",
            1,
            SagaState(state.state),
            hashlib.sha256(ORDER).digest(),
            BEGIN + timedelta(seconds=int(self.run_id[-12:]) - 1),
            self.at,
            ended,
            state.stuck_step or state.undo_step,
            state.code,
            state.reason,
            state.remedy,
            state.with_exceptions,
            "",
            state.returned if state.final else None,
            base=state.base,
        )

    @property
    def open_rows(self) -> list[OutboxRow]:
        found: list[OutboxRow] = []
        for step in self.state.order:
            for seq, name, participant in (
                (step.row, step.path, step.participant),
                (step.undo_row, f"{step.path}~undo", step.participant),
            ):
                if seq:
                    topic = f"test.{participant}.commands"
                    row = OutboxRow(
                        self.shard, seq, RowKind.COMMAND, UUID(self.run_id), name, topic, None, b"k", [], b"",
                        1, None, None,
                    )  # fmt: skip
                    found.append(row)
        return found


def put(store: Store, *tales: Tale, owner: str = "host-1") -> None:
    """Keep the tales as the loop would have, and leave their shards owned."""
    store.put_schemas({schema.hash: schema.json for schema in (ORDERS.schema, STOCKS.schema)})
    store.heartbeat(owner, [], ttl=3600)
    writes: dict[int, list[SagaWrite]] = {}
    for tale in tales:
        history = [
            HistoryRow(
                record.seq,
                BEGIN + timedelta(microseconds=record.at - round(BEGIN.timestamp() * SECOND)),
                type(record.event).__name__,
                getattr(record.event, "step", ""),
                encode(record),
            )
            for record in tale.records
        ]
        write = SagaWrite(tale.shard, UUID(tale.run_id), history, tale.row, True, tale.open_rows)
        write.attributes = dict(tale.state.attributes or {})
        writes.setdefault(tale.shard, []).append(write)
    for shard, sagas in writes.items():
        claimed = store.claim(shard, owner, ttl=3600)
        assert claimed is not None
        fence = ShardWrite(shard, claimed.token, claimed.commit_seq + 1, Offsets(), 0, 1_000_000, BEGIN, None)
        store.commit(Batch([fence], sagas), lambda saga, why, tries: saga)
