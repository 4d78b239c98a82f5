"""Fires schedules: plans what is due, decides what becomes of it, and sends the starts.

Station: a thread of each process whose App has schedules; it works while the process owns shard 0, and every
write checks that shard's token. A firing is written down as `sending` before its start is sent, and as `sent`
when Kafka has it. Who dies in between leaves it `sending`: the next owner sends the same start again, with
the same ids, which is a duplicate and nothing else. So two owners at a time do no harm either. The same goes
for cancels: their id is made of the two sagas' ids.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID, uuid5

from kasaga_wire.crashpoints import crash_point
from kasaga_wire.envelope import ControlEnvelope, Headers, StartEnvelope
from kasaga_wire.errors import KasagaError
from kasaga_wire.kafka import partition_for
from kasaga_wire.records import Control, control_codec
from kasaga_wire.sealing import PLAIN, record_place

from ..schedules.declare import Schedule
from ..schedules.errors import ScheduleInvalid
from ..schedules.plan import planned, verdict
from ..store.base import FINAL_STATES, SagaState, Store, StoreUnavailable
from ..store.scheduling import Cause, Firing, FiringState, ScheduleRow
from .listener import Producer
from .metrics import Metrics
from .rows import Addresses

log = logging.getLogger("kasaga.orchestrator")

ROUND_SECONDS = 0.5
FLUSH_SECONDS = 10.0
"""Seconds for Kafka's acknowledgement; what has none is sent again in the next round."""
DECLARE_ROUNDS = 120
"""The App's schedules are declared again so often: an old image may have had the last word."""
UNSEEN = timedelta(minutes=10)
"""For so long a saga that was sent and isn't there counts as one whose start lies unread."""
MAX_CANCELLED = 10_000
_RUNS = UUID("6a1f1c0e-5c0b-5d6e-8a53-0d6a2f7c9b11")


class Out(NamedTuple):
    """A start that is on its way."""

    row: ScheduleRow
    firing: Firing


class Scheduler:
    """A thread that fires while `token` gives shard 0's token: None where another process owns it."""

    def __init__(
        self,
        store: Store,
        schedules: Mapping[str, Schedule[Any]],
        where: Addresses,
        *,
        token: Callable[[], UUID | None],
        producer: Callable[[], Producer],
        metrics: Metrics,
        interval: float = ROUND_SECONDS,
    ) -> None:
        self._store, self._schedules, self._where = store, schedules, where
        self._token, self._make, self._metrics = token, producer, metrics
        self._interval = interval
        self._producer: Producer | None = None
        self._cancelled: set[str] = set()
        """Ids of cancels that Kafka has; some are forgotten, and sent again with the same id."""
        self._declared: tuple[UUID, int] | None = None
        """By which owner, and in how many rounds again."""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="kasaga-scheduler", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self) -> None:
        """End the thread; what is on its way is sent again by the next owner."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()
        if self._producer is not None:
            self._producer.close(0)

    def _run(self) -> None:
        while not self._stop.wait(self._interval):
            try:
                self.round()
            except (StoreUnavailable, KasagaError) as error:
                log.warning("schedules wait", extra={"error": str(error)})
            except Exception:
                # The thread lives: what breaks a round may be gone tomorrow, and nobody would begin it anew.
                log.exception("schedules wait")

    def round(self) -> None:
        """Plan, decide and send all that is to be now. Raises StoreUnavailable."""
        token = self._token()
        if token is None or not self._declare(token):
            return
        now, rows = self._store.schedules()
        outs: list[Out] = []
        for row in rows:
            schedule = self._schedules.get(row.name)
            if schedule is not None and row.declared:
                outs += self._see_to(token, schedule, row, now)
        self._send(token, outs)

    def _declare(self, token: UUID) -> bool:
        if self._declared is not None and self._declared[0] == token and self._declared[1] > 0:
            self._declared = token, self._declared[1] - 1
            return True
        definitions = {name: each.definition() for name, each in self._schedules.items()}
        held = self._store.declare_schedules(token, definitions)
        self._declared = (token, DECLARE_ROUNDS) if held else None
        return held

    def _see_to(self, token: UUID, schedule: Schedule[Any], row: ScheduleRow, now: datetime) -> list[Out]:
        """Plan and decide one schedule; returns what is to be sent."""
        plan = planned(schedule, row, now)
        if plan is not None:
            if not self._store.plan_schedule(token, row.name, row.position, plan.position, plan.firings):
                return []  # somebody else was first, or has paused it: the next round reads it anew
            known = {each.due for each in row.firings}
            row.firings += [each for each in plan.firings if each.due not in known]
            row.firings.sort(key=lambda each: each.due)
            for each in plan.firings:
                if each.state is FiringState.MISSED:
                    self._metrics.fired(row.name, each.state.value)
                    extra = {"schedule": row.name, "due": each.due.isoformat(), "why": each.reason}
                    log.warning("due times of a schedule are missed", extra=extra)
            crash_point("scheduler.after_plan")
        outs: list[Out] = []
        for firing in row.firings:
            if firing.state is FiringState.WAITING and firing.at <= now:
                found = verdict(schedule, row, firing, lambda: self._running(row, now))
                if found is None and schedule.overlap == "cancel" and firing.cause is Cause.DUE:
                    self._cancel(self._running(row, now), row, firing)
                if found is None or not self._move(token, row, firing, *found):
                    continue
                crash_point("scheduler.after_decision")
            if firing.state is FiringState.SENDING:
                outs.append(Out(row, firing))
        return outs

    def _move(self, token: UUID, row: ScheduleRow, firing: Firing, to: FiringState, reason: str = "") -> bool:
        if not self._store.move_firing(token, row.name, firing.due, firing.state, to, reason):
            return False
        firing.state, firing.reason = to, reason
        if to is not FiringState.SENDING:
            self._metrics.fired(row.name, to.value)
        return True

    def _running(self, row: ScheduleRow, now: datetime) -> str:
        """The id of a saga of this schedule that hasn't ended, or may not have been read yet."""
        for each in reversed(row.firings):
            if each.state is FiringState.SENDING:
                return each.saga_id
            if each.state is FiringState.SENT:
                saga = self._store.saga(each.saga_id)
                if saga is None and now - each.at < UNSEEN:
                    return each.saga_id
                if saga is not None and saga.state not in FINAL_STATES:
                    return each.saga_id
        return ""

    # --- sending

    def _cancel(self, saga_id: str, row: ScheduleRow, firing: Firing) -> None:
        """Ask a saga's owner to cancel it for the next one, until Kafka has that.

        An owner that refuses (the saga is past its pivot) isn't asked again: the next one waits for the end.
        """
        saga = self._store.saga(saga_id) if saga_id else None
        action = str(uuid5(_RUNS, f"{saga_id} for {firing.saga_id}"))
        if saga is None or saga.state not in (SagaState.RUNNING, SagaState.PAUSED):
            return
        if action in self._cancelled:
            return
        by = f"schedule:{row.name}"
        headers = ControlEnvelope(
            id=action, source=by, action="cancel", time=datetime.now(UTC), saga_id=saga_id
        ).to_headers()
        body = Control(action="cancel", by=by, reason=f"{firing.saga_id} is due")

        def on_ack(error: Exception | None) -> None:
            if error is None:
                if len(self._cancelled) >= MAX_CANCELLED:
                    self._cancelled.clear()
                self._cancelled.add(action)

        self._produce(self._where.topics.control, saga_id, control_codec.encode(body), headers, on_ack)
        crash_point("scheduler.after_cancel")

    def _send(self, token: UUID, outs: list[Out]) -> None:
        if not outs and self._producer is None:
            return
        producer = self._sender()
        acked: list[Out] = []
        for out in outs:
            try:
                payload = self._schedules[out.row.name].encoded(out.firing.due)
            except ScheduleInvalid as error:
                log.error("a schedule's input can't be made", extra={"error": str(error)})
                self._move(
                    token, out.row, out.firing, FiringState.FAILED, f"{error.code}: {error.message}"[:500]
                )
                continue
            self._start(out, payload, acked)
        left = producer.flush(FLUSH_SECONDS)
        crash_point("scheduler.after_produce")
        for out in acked:
            self._move(token, out.row, out.firing, FiringState.SENT)
        if left:  # another one, so that nothing old comes behind what is sent again
            producer.close(0)
            self._producer = None

    def _start(self, out: Out, payload: bytes, acked: list[Out]) -> None:
        schedule, firing = self._schedules[out.row.name], out.firing
        headers = StartEnvelope(
            run_id=str(uuid5(_RUNS, firing.saga_id)),
            source=f"schedule:{schedule.name}",
            time=datetime.now(UTC),
            saga_id=firing.saga_id,
            saga=schedule.saga.name,
        ).to_headers()

        def on_ack(error: Exception | None) -> None:
            if error is None:
                acked.append(out)
            else:
                extra = {"schedule": schedule.name, "error": str(error)}
                log.warning("Kafka doesn't take a scheduled start", extra=extra)

        self._produce(self._where.topics.sagas, firing.saga_id, payload, headers, on_ack)

    def _produce(
        self,
        topic: str,
        saga_id: str,
        payload: bytes,
        headers: Headers,
        on_ack: Callable[[Exception | None], None],
    ) -> None:
        """Hand a record about a saga over, to the partition of its shard."""
        if self._where.sealer is not PLAIN:
            payload = self._where.sealer.seal(record_place(headers), payload)
        key = saga_id.encode()
        partition = partition_for(key, self._where.shards)
        self._sender().produce(topic, partition, key, payload, headers, on_ack)

    def _sender(self) -> Producer:
        producer = self._producer
        if producer is not None and producer.fatal is not None:
            producer.close(0)
            producer = None
        if producer is None:
            producer = self._make()
            self._producer = producer
        return producer
