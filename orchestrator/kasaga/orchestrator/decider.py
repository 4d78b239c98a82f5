"""Decides a batch: loads the sagas that it needs, and lets one thing after the other happen to them.

Called by the loop; calls the engine. All it decides goes into the `Work`; nothing here is written
or sent.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from uuid import UUID

from kasaga_wire.errors import EnvelopeError
from kasaga_wire.logs import here
from kasaga_wire.records import Answer

from ..engine.codec import HistoryUnreadable, decode
from ..engine.decide import Definitions, Ignored, Run, decide, over_limit, query, record_parked, record_unread
from ..engine.kinship import Recalled
from ..engine.lifecycle import FINAL
from ..engine.model import MESSAGES, Asked, Event, Faulted, Started
from ..engine.model import Record as Decided
from ..engine.state import STEP_EVENTS
from ..errors import EngineBug, NoReceiver, NotApplicable, QueryFailed, SagaCodeError, SagaOver, StartRefused
from ..fleet import Fleet
from ..saga import App
from ..store.base import SagaRow, SagaWrite, Store
from . import about, answers, suspects
from .early import is_over, items, may_be_old, no_room, row_of
from .family import Family, wants_history
from .intake import HEARD, Dead, Input, Intake, Item, Misplaced, shard_of
from .metrics import Metrics
from .rows import Addresses, add_record
from .runs import Runs
from .shards import Shard
from .source import move_past
from .unread import Glance, Unread, glance, left_out, lock
from .watchdog import Watchdog
from .work import Happened, Key, Parked, Work

log = logging.getLogger("kasaga.orchestrator")


class Decider:
    """Of one process; the loop's thread alone uses it."""

    def __init__(
        self,
        app: App,
        *,
        fleet: Fleet,
        defs: Definitions,
        where: Addresses,
        shards: Mapping[int, Shard],
        store: Store,
        runs: Runs,
        watchdog: Watchdog,
        metrics: Metrics,
    ) -> None:
        self._app, self._fleet = app, fleet
        self._defs, self._where, self._shards = defs._replace(fleet=fleet.newest), where, shards
        self._store, self._runs, self._watchdog, self._metrics = store, runs, watchdog, metrics
        self._ended: dict[str, Run] = {}
        """Of the batch, by saga id: sagas that have ended, and are asked or sent something all the same."""
        self.intake = Intake.of(where, defs.schemas, answers.MAX_START_AGE_MS)
        runs.reopen = self.intake.reopened
        self._family = Family(app, runs, where)
        self._unread: dict[Key, Glance] = {}
        """Of the batch: sagas that have a row, haven't ended, and whose history can't be read."""

    def decide(self, work: Work, found: Sequence[Input], now: int) -> list[Input]:
        """Decide everything, in order. StoreUnavailable leaves the work half done: drop it and its runs.

        Returns what must wait for the next batch: a run id that somebody has used in two shards stands in
        a batch once, and what comes after such an item in its shard waits with it.
        """
        rows = self._prepare(found)
        here.describe = about.saga
        later: list[Input] = []
        waiting: set[int] = set()
        try:
            for item in found:
                shard = shard_of(item)
                if shard in waiting or (isinstance(item, Item) and work.elsewhere(item.run_id, shard)):
                    waiting.add(shard)
                    later.append(item)
                elif isinstance(item, Item):
                    self._decide(work, item, rows, now)
                else:
                    self._set_aside(work, item, now)
        finally:
            here.subject = None
        return later

    def run_id_of(self, item: Input) -> str:
        """Say which run an item is for, and load it. Empty: none."""
        if not isinstance(item, Item):
            return ""
        self._prepare([item])
        return item.run_id or self._runs.id_of(item.saga_id) or ""

    def places(self, shard: int, run_id: str, event: Event | None) -> Iterator[str]:
        """Say from which line a loaded saga goes on; where that takes its code to run, say nothing at first.

        Write the first answer down before asking for the second: to rebuild a coroutine is to run its code.
        `event` is what is about to happen to it, None for a function of ctx.run.
        """
        run = self._runs.get(shard, run_id)
        known = suspects.goes_on_from(self._app, self._defs, run, event)
        yield known
        if run is None or known or not suspects.wakes(run.state, event):
            return
        self._watchdog.stepping = here.subject = run.state
        try:
            driver = run.live(self._defs, self._watchdog.guard)
        except SagaCodeError:
            return  # to decide is to meet it again, and to park the saga with it
        except Exception:
            log.exception("a bug in the engine: nobody knows where a suspect stands")
            return
        finally:
            here.subject = None
        yield suspects.line(driver)

    def _prepare(self, found: Iterable[Input]) -> dict[str, SagaRow]:
        """Load what the batch needs, in at most two queries; return the saga rows that were looked up."""
        ask: list[tuple[int, str]] = []
        load: list[tuple[int, str]] = []
        for item in found:
            if not isinstance(item, Item) or item.shard not in self._shards:
                continue
            if isinstance(item.event, Started) or not item.run_id:
                if self._runs.id_of(item.saga_id) is None:
                    ask.append((item.shard, item.saga_id))
            elif self._runs.get(item.shard, item.run_id) is None:
                load.append((item.shard, item.run_id))
        rows = self._store.find(ask) if ask else {}
        load += [(row.shard, str(row.run_id)) for row in rows.values() if row.state not in FINAL]
        self._ended = self._load_ended(found, rows) if rows else {}
        self._unread = self.load(load)
        return rows

    def _load_ended(self, found: Iterable[Input], rows: Mapping[str, SagaRow]) -> dict[str, Run]:
        """Fold sagas that have ended and are asked something, or sent what they may have been sent before."""
        asked = {item.saga_id for item in found if isinstance(item, Item) and wants_history(item.event)}
        ended = [rows[saga_id] for saga_id in asked & rows.keys() if rows[saga_id].state in FINAL]
        histories = self._store.load([(row.shard, row.run_id) for row in ended]) if ended else {}
        made: dict[str, Run] = {}
        for row in ended:
            try:
                records = [decode(entry.seq, entry.body) for entry in histories.get(row.run_id, [])]
                if records:
                    made[row.saga_id] = Run(str(row.run_id), records)
            except HistoryUnreadable as error:
                extra = {"saga_id": row.saga_id, "run_id": str(row.run_id), "error": error.message}
                log.error("the history of an ended saga can't be read", extra=extra)
        return made

    def load(self, wanted: Iterable[Key]) -> dict[Key, Glance]:
        """Bring runs into memory; return those that have a row, haven't ended, and can't be read."""
        unread = self._runs.load(wanted)
        return self._glance(unread) if unread else {}

    def _glance(self, unread: Mapping[Key, Unread]) -> dict[Key, Glance]:
        rows = self._store.find_runs([(shard, UUID(run_id)) for shard, run_id in unread])
        found = ((key, rows.get(UUID(key[1]))) for key in unread)
        return {
            key: glance(row, unread[key], self._where.topics)
            for key, row in found
            if row is not None and row.state not in FINAL
        }

    def _decide(self, work: Work, item: Item, rows: dict[str, SagaRow], now: int) -> None:
        """Let one thing happen to one saga."""
        shard = self._shards.get(item.shard)
        if shard is None:
            return
        if item.source is not None:
            move_past(self._where.topics, work.touch(shard), item.source)
        if isinstance(item.event, Started):
            run, event = self._starting(work, shard, item, item.event, rows, now)
        else:
            run_id = item.run_id or self._runs.id_of(item.saga_id) or _run_id(rows.get(item.saga_id))
            run, event = self._runs.get(item.shard, run_id) if run_id else None, item.event
            lock(work, item, run, now, self._defs.fingerprint)
            if self._set_apart(work, shard, item, run_id, run, now):
                return
        run = run or self._ended.get(item.saga_id)
        if isinstance(event, Recalled):
            found = self._family.recalled(work, shard, item, event, run, rows.get(item.saga_id), now)
            if not isinstance(found, tuple):
                return
            run, event = found
        if run is None or event is None:
            self._absent(work, shard, item, event, rows.get(item.saga_id), now)
        elif isinstance(event, Asked) and event.action == "query":
            self._query(work, shard, run, event, now)
        else:
            self._step(work, shard, run, event, now, item)
            self._deliver(work, shard, item, rows, now)

    def _set_apart(
        self, work: Work, shard: Shard, item: Item, run_id: str, run: Run | None, now: int
    ) -> bool:
        """Keep what comes for a saga that can't be stepped, undecided; says whether it is one."""
        unread = self._unread.get((item.shard, run_id)) if run is None else None
        if run_id and (item.shard, run_id) in work.faults:
            self._park(work, shard, run_id, item.event, now)
        elif unread is not None:
            try:
                self._record_unread(work, shard, unread, item, now)
            except Exception:
                log.exception("a bug in the engine: what came for a damaged saga is lost")
        else:
            return False
        if item.kept is not None:
            work.deliver(shard, item.kept)
        return True

    def _absent(
        self, work: Work, shard: Shard, item: Item, event: Event | None, row: SagaRow | None, now: int
    ) -> None:
        """Something came for a saga that has ended long ago, or that nobody knows."""
        if item.ask is not None:
            self._nobody(work, shard, item, item.ask, row, now)
        elif isinstance(item.event, Asked):
            self._answer(work, shard, answers.to_absent(item, item.event, row), item.event, now)
        elif event is not None:
            self._metrics.ignored("unknown saga")

    def _deliver(self, work: Work, shard: Shard, item: Item, rows: dict[str, SagaRow], now: int) -> None:
        """Give a saga that has just begun the signals that came before it did; see early.py."""
        if item.kept is not None:
            work.deliver(shard, item.kept)
        elif shard.kept and isinstance(item.event, Started):
            for signal in items(self.intake, shard.kept.get(item.saga_id, [])):
                if signal.kept is not None and (item.shard, signal.kept.seq) not in work.delivered:
                    self._decide(work, signal, rows, now)

    def _step(self, work: Work, shard: Shard, run: Run, event: Event, now: int, item: Item) -> None:
        shard.quiet += 1
        run_id = run.state.run_id
        self._watchdog.stepping = here.subject = run.state
        if self._convicted(work, shard, run, event, now):
            return
        try:
            out = decide(self._defs, run, event, at=now, row=shard.next_row, guard=self._watchdog.guard)
            if isinstance(out, Decided):
                work.add(shard, run, out)
        except Exception as error:
            log.exception("a bug in the engine: the saga is parked")
            fault = Faulted(EngineBug.code, f"{type(error).__name__}: {error}", EngineBug.default_remedy)
            work.faults[shard.number, run_id] = fault
            self._park(work, shard, run_id, event, now)
            return
        if isinstance(event, MESSAGES):
            self._tell_sender(work, shard, item, run, out, now)
        elif isinstance(event, Recalled):
            self._family.decided(work, shard, run, event, out, now)
        elif isinstance(out, Decided):
            if isinstance(event, Started):
                self._runs.started(run)
            if isinstance(event, Asked) and event.action == "watch":
                self._answer(work, shard, answers.running(run.state, event), event, now, run)
        elif isinstance(out, Ignored):
            self._metrics.ignored(out.why)
            if isinstance(event, Asked):
                self._answer(work, shard, answers.running(run.state, event), event, now, run)
        elif isinstance(event, Asked):
            watched = event.action == "watch" and run.state.final
            body = (
                answers.ended(run.state, event.action_id)
                if watched
                else answers.refused(run.state, event, out)
            )
            self._answer(work, shard, body, event, now, run)

    def _query(self, work: Work, shard: Shard, run: Run, ask: Asked, now: int) -> None:
        """Answer from the saga's code; nothing is recorded but that the question was read."""
        self._watchdog.stepping = here.subject = run.state
        try:
            result = query(self._defs, run, ask.step, self._watchdog.guard)
        except NotApplicable as error:
            self._answer(work, shard, answers.refused(run.state, ask, error), ask, now, run)
        except Exception as error:
            log.exception("a bug in the engine: a query isn't answered")
            bug = QueryFailed(f"a bug in Kasaga: {type(error).__name__}: {error}")
            self._answer(work, shard, answers.refused(run.state, ask, bug), ask, now, run)
        else:
            self._answer(work, shard, answers.answered(run.state, ask, result), ask, now, run)

    def _tell_sender(
        self, work: Work, shard: Shard, item: Item, run: Run, out: Decided | Ignored | NotApplicable, now: int
    ) -> None:
        """Say what became of a signal or an update: to its sender, else what is refused is a dead letter."""
        if isinstance(out, Ignored):
            self._metrics.ignored(out.why)
        ask, event = item.ask, item.event
        if ask is None or not isinstance(event, MESSAGES):
            return
        if isinstance(out, NotApplicable):
            self._refuse(work, shard, item, ask, answers.refused(run.state, ask, out), out, now, run)
        else:
            self._answer(work, shard, answers.received(run.state, event, ask), ask, now, run)

    def _refuse(
        self,
        work: Work,
        shard: Shard,
        item: Item,
        ask: Asked,
        body: Answer,
        why: NotApplicable,
        now: int,
        run: Run | None = None,
    ) -> None:
        self._metrics.message_refused(ask.action)
        if ask.reply_to:
            self._answer(work, shard, body, ask, now, run)
        elif item.keep_for is not None and isinstance(why, NoReceiver | SagaOver):
            self._metrics.ignored("event without a saga")
        elif item.source is not None:
            self._set_aside(work, Dead(item.order, item.source, why), now)

    def _nobody(
        self, work: Work, shard: Shard, item: Item, ask: Asked, row: SagaRow | None, now: int
    ) -> None:
        """A signal or an update for a saga that has ended long ago, or hasn't begun, or never will."""
        body = answers.to_absent(item, ask, row)
        keep = item.keep or item.kept is not None or may_be_old(shard, item)
        if body.what == "unknown" and keep and self._keep(work, shard, item, ask, now):
            return
        if item.kept is not None:
            work.deliver(shard, item.kept)
        if body.what == "unknown":
            full = no_room(shard, item.saga_id) if item.kept is None and item.keep_for else None
            why: NotApplicable = full or NoReceiver(f"there is no saga {item.saga_id}")
        else:
            why = SagaOver(body.reason or "the saga has ended")
            body.error, body.remedy = why.code, why.remedy
        self._refuse(work, shard, item, ask, body, why, now)

    def _keep(self, work: Work, shard: Shard, item: Item, ask: Asked, now: int) -> bool:
        """Let a signal wait for its saga to begin; False: there is no room, or it has waited long enough."""
        record = item.source
        if item.kept is not None:
            return not is_over(item.kept, now)
        if record is None or no_room(shard, item.saga_id) is not None:
            return False
        work.add_loose(shard, lambda seq: row_of(item, record, seq, shard.number, now))
        if item.keep:
            body = Answer(saga_id=item.saga_id, run_id="", about=ask.action_id, what="kept")
            self._answer(work, shard, body, ask, now)
        return True

    def _convicted(self, work: Work, shard: Shard, run: Run, event: Event, now: int) -> bool:
        """Park a saga that kills its processes as it is, unrun, if this is one and it isn't parked yet."""
        convicted = shard.convicted
        if convicted is None or str(convicted.run_id) != run.state.run_id or shard.number in work.convicted:
            return False
        work.convicted.add(shard.number)
        work.touch(shard)
        events = [] if isinstance(event, Faulted) else [event]
        fault = suspects.killed(convicted)
        for record in record_parked(self._defs, run, events, fault, at=now, row=shard.next_row):
            work.add(shard, run, record)
        self._runs.started(run)
        return True

    def _starting(
        self, work: Work, shard: Shard, item: Item, event: Started, rows: dict[str, SagaRow], now: int
    ) -> tuple[Run | None, Event | None]:
        """Begin a saga, unless its id is taken: then a duplicate is told so, or watches the one there is."""
        known = self._runs.id_of(item.saga_id)
        run = self._runs.get(item.shard, known) if known else None
        row = rows.get(item.saga_id)
        if not self._family.begins(work, shard, item, event, run.state if run is not None else row, now):
            self._metrics.ignored("duplicate start")
            return None, None
        if run is None and row is None:
            if (
                self._runs.get(item.shard, item.run_id) is not None
                or (item.shard, item.run_id) in work.writes
            ):
                self._clash(work, shard, item, now)
                return None, None
            run = Run(item.run_id)
            self._runs.add(item.shard, run)
            version = event.version or self._fleet.newest(event.name)
            return run, event._replace(version=version)
        answer = answers.to_second_start(item, event, run.state if run else None, row)
        if answer is None:
            self._metrics.ignored("duplicate start")
            return None, None
        ask = answers.watch_of(item, event)
        if answer.what == "rejected" and event.source.startswith(HEARD) and item.source is not None:
            refused = StartRefused(answer.reason or "its id is taken")
            self._set_aside(work, Dead(item.order, item.source, refused), now)
        self._answer(work, shard, answer, ask, now, run)
        return (
            (run, ask) if run is not None and answer.what == "duplicate" and event.reply_to else (None, None)
        )

    def _clash(self, work: Work, shard: Shard, item: Item, now: int) -> None:
        """A start with the run id of another saga: whoever made it must not reach that one."""
        if item.source is not None:
            error = EnvelopeError("ce_id", f"{item.run_id} is another saga's run id, or this one is parked")
            self._set_aside(work, Dead(item.order, item.source, error), now)

    def _park(self, work: Work, shard: Shard, run_id: str, event: Event, now: int) -> None:
        """Write down what came for a saga that can't be stepped in this batch, and why."""
        key = (shard.number, run_id)
        events = work.events.setdefault(key, [])
        events.append(event)
        work.park(shard, run_id, self.parked(shard, run_id, events, work.faults[key], now))

    def _record_unread(self, work: Work, shard: Shard, found: Glance, item: Item, now: int) -> None:
        """Park a saga whose history can't be read, and keep behind it what has come."""
        run, event = found.run, item.event
        here.subject = run.state
        watching = isinstance(event, Asked) and event.action == "watch"
        if not run.state.parked or not (watching or isinstance(event, STEP_EVENTS)):
            extra = {**about.saga(run.state), "shard": shard.number, "error": found.error.message}
            log.error("a history can't be read", extra=extra)
        full = over_limit(run.state, event, self._defs.max_payload) if item.ask is not None else None
        events = [] if full is not None else [event]
        for record in record_unread(self._defs, run, events, found.fault, at=now, row=shard.next_row):
            work.add(shard, run, record)
        if item.ask is not None:
            self._tell_sender(work, shard, item, run, full or Ignored("kept unread"), now)
        if isinstance(event, Asked):
            why = NotApplicable(found.error.message, remedy=found.error.remedy)
            body = answers.running(run.state, event) if watching else answers.refused(run.state, event, why)
            self._answer(work, shard, body, event, now, run)

    def _answer(
        self, work: Work, shard: Shard, body: Answer, ask: Asked, now: int, run: Run | None = None
    ) -> None:
        if ask.reply_to:
            state = run.state if run is not None else None
            work.add_loose(
                shard, lambda seq: answers.row(body, ask, state, seq, shard.number, now, self._where)
            )

    def _set_aside(self, work: Work, item: Misplaced | Dead, now: int) -> None:
        """Forward a record that is in the wrong partition; dead-letter one that nobody can read."""
        here.subject = None
        shard = self._shards.get(item.record.partition)
        if shard is None:
            return
        move_past(self._where.topics, work.touch(shard), item.record)
        if isinstance(item, Dead):
            log.warning(
                "dead letter",
                extra={
                    **about.headers(item.record.headers),
                    "topic": item.record.topic,
                    "offset": item.record.offset,
                    "error": str(item.error),
                },
            )
            self._metrics.dead_letter()
            work.add_loose(shard, lambda seq: answers.dead_letter(item, seq, shard.number, now, self._where))
        else:
            work.add_loose(shard, lambda seq: answers.forward(item, seq, shard.number))

    def parked(self, shard: Shard, run_id: str, events: Sequence[Event], fault: Faulted, now: int) -> Parked:
        """Return the rows that park a saga as it was before `events`, with these undecided."""
        self._runs.drop(shard.number, run_id)
        rows = self._store.load([(shard.number, UUID(run_id))]).get(UUID(run_id), [])
        parked = Parked(SagaWrite(shard.number, UUID(run_id)), [])
        try:
            run = Run(run_id, [decode(row.seq, row.body) for row in rows])
            if not left_out(run.state, events):
                records = record_parked(self._defs, run, events, fault, at=now, row=shard.next_row)
                self._take(parked, shard, run, records)
            return parked
        except HistoryUnreadable as error:
            unread = Unread(rows, error)
        except Exception as error:
            log.exception(
                "a saga can't be parked: its history is taken for damaged", extra={"run_id": run_id}
            )
            said = f"nothing can be decided from it: {type(error).__name__}: {error}"
            unread = Unread(rows, HistoryUnreadable(said))
        parked = Parked(SagaWrite(shard.number, UUID(run_id)), [])
        for found in self._glance({(shard.number, run_id): unread}).values():
            behind = record_unread(self._defs, found.run, events, found.fault, at=now, row=shard.next_row)
            self._take(parked, shard, found.run, behind)
        return parked

    def _take(self, parked: Parked, shard: Shard, run: Run, records: Iterable[Decided]) -> None:
        for record in records:
            add_record(parked.write, run.state, record, self._where, self._defs.fingerprint)
            parked.records.append(Happened(shard.number, run, record, run.state.ended, run.state.known_steps))
            shard.next_row = run.state.row


def _run_id(row: SagaRow | None) -> str:
    return str(row.run_id) if row is not None else ""
