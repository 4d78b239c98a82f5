"""What a run of the simulator tells, as the model understands it: one list of tellings for each saga.

Station: given the lines of `tests/simulator/trace.py`, called by `follow.py`. Here is no rule of the
protocol, only names: which row of the model a command's id is, which of its processes a claim or a delivery
is. Whether what happens may happen, the model says.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

CLAIM, COMMIT, PRODUCED, TAKEN, ENDED, REPLIED, TOUCHED, FENCED, AGAIN, GONE, LAST = range(1, 12)
START, LOG, TIMER, CONTROL = range(1, 5)
ANY = 255
STEPS, ATTEMPTS, OWNERS, PARTICIPANTS = 4, 6, 8, 6
"""What follow.pml has room for."""

OUTCOMES = {"done": 1, "refused": 2, "failed": 3, "undone": 4, "nothing": 5, "voided": 6, "executed": 7}
PHASES = {"RUNNING": 1, "COMPENSATING": 2, "CANCELLING": 2, "COMPLETED": 3, "COMPENSATED": 4}
VOID = 100
"""Added to a row's attempt where it is a void, so that the model knows whether there is a compensation."""


class Beyond(Exception):
    """The saga does what the model has left out; the message says what."""


@dataclass(slots=True)
class Telling:
    """One thing that happens, as follow.pml reads it; `who` is a token or a delivery until it is numbered."""

    kind: int
    who: object
    what: int = 0
    with_: int = 0
    phase: int = ANY
    rows: tuple[int, ...] = (ANY,) * (2 * STEPS)


@dataclass(slots=True, eq=False)
class Delivery:
    """A record in a participant's hands, from its claim to its reply."""

    row: int
    answered: bool = False


@dataclass(slots=True, eq=False)
class Saga:
    """One saga, as far as it was told."""

    run: str
    shard: int
    tellings: list[Telling] = field(default_factory=list[Telling])
    beyond: str = ""
    open: dict[int, int] = field(default_factory=dict[int, int])
    seqs: dict[int, int] = field(default_factory=dict[int, int])
    produced: set[tuple[object, int]] = field(default_factory=set[tuple[object, int]])
    committed: list[tuple[str, str, Delivery]] = field(default_factory=list[tuple[str, str, Delivery]])

    def numbered(self) -> list[Telling]:
        """The tellings with the model's process numbers. Raises Beyond."""
        if self.beyond:
            raise Beyond(self.beyond)
        last = max(at for at, each in enumerate(self.tellings) if each.kind not in (CLAIM, TOUCHED, FENCED))
        kept = self.tellings[: last + 1]
        told: list[Telling] = []
        owners: dict[object, int] = {}
        free = list(range(OWNERS, OWNERS + PARTICIPANTS))
        at: dict[object, int] = {}
        for each in kept:
            if isinstance(each.who, Delivery):
                if each.who not in at:
                    if not free:
                        raise Beyond("more deliveries at once than the model has participants")
                    at[each.who] = free.pop(0)
                number = at[each.who]
                if each.kind in (REPLIED, GONE):
                    free.append(number)
                    free.sort()
            else:
                number = owners.setdefault(each.who, len(owners))
                if number >= OWNERS:
                    raise Beyond("more owners than the model has")
            told.append(replace(each, who=number))
        return told


def row_of(name: str) -> int:
    """The model's row of a command id, or of a step's name in the outbox. Raises Beyond."""
    step, _, form = name.rpartition(".")[2].partition("~")
    if not step.isdigit() or int(step) > STEPS:
        raise Beyond(f"step {name}")
    return 2 * (int(step) - 1) + (1 if form else 0)


def record(row: int, attempt: int) -> int:
    """The model's number of a row's attempt. Raises Beyond."""
    if not 0 < attempt <= ATTEMPTS:
        raise Beyond(f"attempt {attempt}")
    return row * ATTEMPTS + attempt - 1


def outcome_of(word: str) -> int:
    """The model's number of an outcome. Raises Beyond."""
    if word not in OUTCOMES:
        raise Beyond(f"outcome {word}")
    return OUTCOMES[word]


class Reader:
    """Reads one run's lines, in order."""

    def __init__(self) -> None:
        self.sagas: dict[str, Saga] = {}
        self._token: dict[int, str] = {}
        """Of each shard, as last claimed."""
        self._held: dict[tuple[str, int], str] = {}
        """The token that a process has claimed a shard with last."""
        self._seq: dict[tuple[str, int], int] = {}
        self._records: dict[str, dict[str, Any]] = {}
        self._replies: dict[int, list[tuple[int, str]]] = {}
        """Of each shard: offset and name of each reply in its log that is not behind the shard's offset."""
        self._claims: dict[str, list[tuple[frozenset[str], dict[str, Telling]]]] = {}
        self._delivered: dict[str, Delivery] = {}
        """By reply record."""

    def read(self, line: str) -> None:
        """Take one line in."""
        event = json.loads(line)
        known = getattr(self, f"_{event['what']}", None)
        if known is not None:
            known(event)

    def _of(self, id_: str) -> Saga | None:
        return self.sagas.get(id_.partition(".")[0])

    def _in(self, shard: int) -> Iterator[Saga]:
        return (saga for saga in self.sagas.values() if saga.shard == shard)

    # --- owners

    def _claim(self, event: Mapping[str, Any]) -> None:
        shard, token = event["shard"], event["token"]
        self._token[shard] = self._held[event["by"], shard] = token
        for saga in self._in(shard):
            saga.tellings.append(Telling(CLAIM, token))

    def _commit(self, event: Mapping[str, Any]) -> None:
        entries = {entry["run"]: entry for entry in event["sagas"]}
        for entry in event["sagas"]:
            if entry["run"] not in self.sagas:
                saga = self.sagas[entry["run"]] = Saga(entry["run"], entry["shard"])
                saga.tellings.append(Telling(CLAIM, self._token[entry["shard"]]))
        for each in event["shards"]:
            if self._seq.get((each["token"], each["shard"]), -1) >= each["seq"]:
                continue  # sent again: it was committed
            self._seq[each["token"], each["shard"]] = each["seq"]
            log = self._replies.get(each["shard"], [])
            read = [name for offset, name in log if offset < each["offsets"]["replies"]]
            self._replies[each["shard"]] = log[len(read) :]
            for saga in self._in(each["shard"]):
                mine = [self._records[name] for name in read if self._of(self._records[name]["id"]) is saga]
                _guarded(saga, partial(_committed, saga, each["token"], entries.get(saga.run), mine))

    def _fenced(self, event: Mapping[str, Any]) -> None:
        for shard, token in event["shards"]:
            if (
                shard in event["lost"] and token != self._token[shard]
            ):  # else: the same batch, sent again and late
                for saga in self._in(shard):
                    if any(each.kind == CLAIM and each.who == token for each in saga.tellings):
                        saga.tellings.append(Telling(FENCED, token))

    # --- Kafka

    def _produce(self, event: Mapping[str, Any]) -> None:
        self._records[event["record"]] = dict(event)
        saga = self._of(event["id"])
        if saga is None:
            return
        if event["kind"] in ("command", "undo", "void"):
            _guarded(saga, partial(self._relayed, saga, event))
        elif event["kind"] == "reply":
            _guarded(saga, partial(self._answering, saga, event))
        elif event["kind"] == "child":
            saga.beyond = saga.beyond or "a child saga"

    def _relayed(self, saga: Saga, event: Mapping[str, Any]) -> None:
        what = record(row_of(event["id"]), event["attempt"])
        token = self._held[event["by"], saga.shard]
        if not any(each.kind == CLAIM and each.who == token for each in saga.tellings):
            # It claimed the shard before the saga began, and read its rows when another one owned them.
            raise Beyond("an owner that reads what is open long after its claim")
        again = (token, what) in saga.produced
        saga.produced.add((token, what))
        saga.tellings.append(Telling(AGAIN if again else PRODUCED, token, what))

    def _answering(self, saga: Saga, event: Mapping[str, Any]) -> None:
        """A participant hands a reply over: to what it has committed, else to what it finds, or a failure."""
        row, outcome = row_of(event["id"]), outcome_of(event["outcome"])
        mine = [each for each in saga.committed if each[:2] == (event["by"], event["id"])]
        if mine and event["outcome"] != "failed":
            saga.committed.remove(mine[0])
            delivery = mine[0][2]
        else:
            delivery = Delivery(row)
            saga.tellings.append(Telling(TAKEN, delivery, row))
            if event["outcome"] == "failed":
                saga.tellings.append(Telling(ENDED, delivery, row, outcome))
        self._delivered[event["record"]] = delivery

    def _land(self, event: Mapping[str, Any]) -> None:
        about = self._records.get(event["record"])
        if about is None or about["kind"] != "reply":
            return
        self._replies.setdefault(event["partition"], []).append((event["offset"], event["record"]))
        saga = self._of(about["id"])
        if saga is not None:
            _guarded(saga, partial(self._replied, saga, about))

    def _replied(self, saga: Saga, about: Mapping[str, Any]) -> None:
        row, outcome = row_of(about["id"]), outcome_of(about["outcome"])
        delivery = self._delivered[about["record"]]
        if delivery.answered:
            if about["outcome"] == "failed":
                raise Beyond("a failure that is in the log twice")
            delivery = Delivery(row)
            saga.tellings.append(Telling(TAKEN, delivery, row))
        delivery.answered = True
        saga.tellings.append(Telling(REPLIED, delivery, record(row, about["attempt"]), outcome))

    # --- inboxes

    def _inbox_claim(self, event: Mapping[str, Any]) -> None:
        places: dict[str, Telling] = {}
        for id_ in event["claimed"]:
            saga = self._of(id_)
            if saga is not None:
                places[id_] = Telling(0, None)  # filled in when it is committed
                saga.tellings.append(places[id_])
        self._claims.setdefault(event["by"], []).append((frozenset(event["claimed"]), places))

    def _inbox_commit(self, event: Mapping[str, Any]) -> None:
        for id_, word in event["rows"].items():
            saga = self._of(id_)
            if saga is not None:
                _guarded(saga, partial(self._stored, saga, event["by"], id_, word))

    def _stored(self, saga: Saga, by: str, id_: str, word: str) -> None:
        row, outcome = row_of(id_), outcome_of(word)
        places = next(places for claimed, places in reversed(self._claims[by]) if id_ in claimed)
        delivery, place = Delivery(row), places[id_]
        place.kind, place.who, place.what = TAKEN, delivery, row
        saga.tellings.append(Telling(ENDED, delivery, row, outcome))
        saga.committed.append((by, id_, delivery))


def _guarded(saga: Saga, tell: Callable[[], None]) -> None:
    """Take something in, unless the saga is beyond the model already, or goes beyond it with this."""
    if not saga.beyond:
        try:
            tell()
        except Beyond as error:
            saga.beyond = str(error)


def _committed(
    saga: Saga, token: str, entry: Mapping[str, Any] | None, replies: list[dict[str, Any]]
) -> None:
    """One transaction of an owner, as one commit of the model for each event that it decided."""
    waiting = [(row_of(each["id"]), outcome_of(each["outcome"])) for each in replies]
    tellings: list[Telling] = []
    for text in entry["events"] if entry is not None else ():
        tellings += _decided(text, token, waiting)
    tellings += [Telling(COMMIT, token, LOG) for _ in waiting]
    if entry is not None:
        if entry["state"] == "STUCK" and not any(
            "undo" in text or "void" in text for text in entry["events"]
        ):
            raise Beyond("parked by its code")
        _outbox(saga, entry)
    if tellings:
        tellings[-1].rows = tuple(saga.open.get(row, 0) for row in range(2 * STEPS))
        tellings[-1].phase = PHASES.get((entry or {}).get("state") or "", ANY)
        saga.tellings += tellings
    elif saga.tellings[-1].kind != TOUCHED or saga.tellings[-1].who != token:
        saga.tellings.append(Telling(TOUCHED, token))


def _decided(text: str, token: str, waiting: list[tuple[int, int]]) -> Iterator[Telling]:
    """One event of a history; a reply is taken from those that wait, behind others that changed nothing."""
    what, *about = text.split()
    if text == "Started child":
        raise Beyond("a child of another saga")
    if what == "Started":
        yield Telling(COMMIT, token, START)
    elif text in ("Asked cancel", "Fired deadline"):
        yield Telling(COMMIT, token, CONTROL)
    elif what == "Fired" and about[1] in ("command", "undo", "void"):
        yield Telling(COMMIT, token, TIMER, _row(about))
    elif what == "Replied":
        wanted = (_row(about), outcome_of(about[2]))
        if wanted not in waiting:
            raise Beyond("a reply that was kept back")
        before = waiting.index(wanted)
        del waiting[: before + 1]
        yield from (Telling(COMMIT, token, LOG) for _ in range(before + 1))
    elif text != "Asked watch":
        raise Beyond(f"event {what} {' '.join(about[1:])}")


def _row(about: list[str]) -> int:
    return row_of(about[0] if about[1] == "command" else f"{about[0]}~{about[1]}")


def _outbox(saga: Saga, entry: Mapping[str, Any]) -> None:
    for seq in entry["closes"]:
        row = saga.seqs.pop(seq, None)
        if row is not None:
            saga.open.pop(row, None)
    for seq, kind, step, attempt in entry["opens"]:
        if kind in ("TIMER", "LOCAL"):
            raise Beyond(f"a {kind.lower()}")
        if kind == "COMMAND":
            row = row_of(step)
            record(row, attempt)
            saga.seqs[seq] = row
            saga.open[row] = attempt + (VOID if step.endswith("~void") else 0)


def sagas(lines: Iterable[str]) -> list[Saga]:
    """The sagas of one run."""
    reader = Reader()
    for line in lines:
        reader.read(line)
    for saga in reader.sagas.values():
        saga.tellings = list(_let_go(saga.tellings))
    return list(reader.sagas.values())


def _let_go(tellings: list[Telling]) -> Iterator[Telling]:
    """The tellings without claims that were rolled back, and with an end of deliveries without an answer."""
    answered = {id(each.who) for each in tellings if each.kind == REPLIED}
    committed = {id(each.who) for each in tellings if each.kind == ENDED}
    for each in tellings:
        if each.kind and (each.kind != TAKEN or id(each.who) in answered | committed):
            yield each
        if each.kind == ENDED and id(each.who) not in answered:
            yield Telling(GONE, each.who)


def written(tellings: Iterable[Telling]) -> str:
    """The lines that follow.pml reads."""
    lines = [
        " ".join(
            str(number) for number in (each.kind, each.who, each.what, each.with_, each.phase, *each.rows)
        )
        for each in tellings
    ]
    return "\n".join([*lines, " ".join(["11", *["0"] * (4 + 2 * STEPS)])]) + "\n"
