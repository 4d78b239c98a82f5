"""What a payment saga costs, counted and not timed: exact numbers, the same on every machine.

Statements, round trips and transactions are counted on the wire between each side and a real Postgres; rows
by Postgres itself; messages and bytes as they reach Kafka's logs, which are in memory. A saga's cost is a
run's that has it, less a run's that hasn't, on fresh databases each; one saga at a time makes batches of one.

Bytes are exact too. Ids and times have one length each: texts of times have all six digits of a second, and
numbers of times nine bytes in Avro and in the history until the year 2262. The saga's id, its run and its
amount are the test's own. Only what Kafka adds to a record, and what it compresses, isn't here.

Where a change makes something dearer on purpose, the new figure goes into the table here, and the commit says
what it buys.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from itertools import count

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from counters.stepped import BATCH, NAMESPACE, Stepped, participant
from counters.tap import Tap
from eventually import eventually
from kasaga.dev.servers import PostgresServer
from kasaga.store.base import SagaState
from kasaga.store.migrate import migrate
from kasaga.store.postgres import PostgresStore
from kasaga.store.settings import StoreSettings
from kasaga_participant.inbox.statements import Limits
from kasaga_participant.store import PostgresStore as PostgresInbox

SHARDS = 4
WARM_UPS = 3
"""Sagas of each kind before anything is counted: both sides are connected and have prepared everything."""
IDLE_SECONDS = 60.0
GOOD, BAD = "book", "unshippable"
END = {GOOD: SagaState.COMPLETED, BAD: SagaState.COMPENSATED}

FEW = 2
"""Sagas of the smaller batch. One alone is another matter: its savepoint travels with its claim."""
REFUSALS = 8
"""After which a handler is expected to refuse: its batches have savepoints from the start."""

Counts = Mapping[str, int]

HAPPY: Counts = {
    "kafka: sagas messages": 1,
    "kafka: sagas bytes": 271,
    "kafka: commands messages": 3,
    "kafka: commands bytes": 1374,
    "kafka: replies messages": 3,
    "kafka: replies bytes": 1192,
    "orchestrator: statements": 18,
    "orchestrator: round trips": 5,
    "orchestrator: transactions": 5,
    "orchestrator: history rows inserted": 4,
    "orchestrator: saga rows inserted": 1,
    "orchestrator: saga rows updated": 1,
    "orchestrator: outbox rows inserted": 3,
    "orchestrator: outbox rows deleted": 3,
    "orchestrator: position rows inserted": 4,
    "orchestrator: position rows deleted": 4,
    "orchestrator: history bytes": 861,
    "participants: statements": 21,
    "participants: round trips": 6,
    "participants: transactions": 3,
    "participants: inbox rows inserted": 3,
    "participants: inbox rows updated": 3,
}
"""A look-up of the saga's id and four commits; of a batch, positions are a shard's and not a saga's."""

COMPENSATING: Counts = {
    "kafka: sagas messages": 1,
    "kafka: sagas bytes": 278,
    "kafka: commands messages": 5,
    "kafka: commands bytes": 2603,
    "kafka: replies messages": 5,
    "kafka: replies bytes": 1994,
    "kafka: events messages": 1,
    "kafka: events bytes": 430,
    "orchestrator: statements": 30,
    "orchestrator: round trips": 8,
    "orchestrator: transactions": 8,
    "orchestrator: history rows inserted": 6,
    "orchestrator: saga rows inserted": 1,
    "orchestrator: saga rows updated": 2,
    "orchestrator: outbox rows inserted": 6,
    "orchestrator: outbox rows deleted": 6,
    "orchestrator: position rows inserted": 7,
    "orchestrator: position rows deleted": 7,
    "orchestrator: history bytes": 1430,
    "participants: statements": 37,
    "participants: round trips": 12,
    "participants: transactions": 5,
    "participants: inbox rows inserted": 5,
    "participants: inbox rows updated": 5,
}
"""Shipping refuses, two steps are undone. The seventh commit is a sweep's: it deletes the event's row."""


class Both:
    """The two sides, each on an empty database and behind a tap of its own."""

    def __init__(self, postgres: PostgresServer, databases: Mapping[str, str]) -> None:
        self.urls = databases
        self._taps = {name: Tap(postgres.port) for name in databases}

    @contextmanager
    def stepped(self, warm_ups: Sequence[str] = (GOOD, BAD) * WARM_UPS) -> Generator[Stepped]:
        """Both sides, warm; they have closed their connections when it ends."""
        for tap in self._taps.values():
            tap.start()
        url, inbox_url = (
            make_conninfo(self.urls[name], port=tap.port, sslmode="disable", gssencmode="disable")
            for name, tap in self._taps.items()
        )
        migrate(url, namespace=NAMESPACE, shards=SHARDS)
        store = PostgresStore(StoreSettings(url))
        limits = Limits(participant().rules.retention, IDLE_SECONDS)
        inbox = PostgresInbox(inbox_url, limits, name="counted", threads=1, prepare=True)
        try:
            with Stepped(store, inbox, shards=SHARDS) as stepped:
                for sku in warm_ups:
                    stepped.start(sku=sku)
                    stepped.finish()
                stepped.sweep()
                yield stepped
        finally:
            store.close()
            for tap in self._taps.values():
                tap.stop()

    def asked(self) -> Counts:
        """What both have asked of Postgres so far."""
        return {
            f"{name}: {what.replace('_', ' ')}": number
            for name, tap in self._taps.items()
            for what, number in asdict(tap.asked).items()
        }

    def kept(self) -> Iterator[tuple[str, int]]:
        """Row writes by table, and bytes of histories. Each session tells its own writes at its end."""
        for name, url in self.urls.items():
            with psycopg.connect(url, autocommit=True) as connection:
                _wait_until_alone(connection)
                told = connection.execute(
                    "SELECT relname, n_tup_ins, n_tup_upd, n_tup_del FROM pg_stat_user_tables"
                )
                for table, *written in told:
                    for what, number in zip(("inserted", "updated", "deleted"), written, strict=True):
                        yield f"{name}: {table} rows {what}", number
                if name == "orchestrator":
                    size = connection.execute("SELECT sum(octet_length(body)) FROM kasaga.history").fetchone()
                    assert size is not None
                    yield f"{name}: history bytes", int(size[0])


def _wait_until_alone(connection: psycopg.Connection[tuple[int]]) -> None:
    others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
    eventually(lambda: connection.execute(others).fetchone() == (1,))


def kind_of(topic: str) -> str:
    """What a topic is for."""
    return topic.rpartition(".")[2]


def produced(stepped: Stepped) -> Iterator[tuple[str, int]]:
    """Messages and bytes by what they are, the client's too."""
    for what, counter in (("messages", stepped.messages), ("bytes", stepped.sizes)):
        totals: Counter[str] = Counter()
        for topic, number in counter.items():
            totals[kind_of(topic)] += number
        yield from ((f"kafka: {kind} {what}", number) for kind, number in totals.items())


@pytest.fixture
def both(postgres: PostgresServer, namespace: str) -> Generator[Callable[[], Both]]:
    """Makes both sides on new databases."""
    made: list[str] = []
    numbers = count()

    def make() -> Both:
        names = {side: f"{namespace}_{next(numbers)}" for side in ("orchestrator", "participants")}
        made.extend(names.values())
        return Both(postgres, {side: postgres.create_database(name) for side, name in names.items()})

    yield make
    for name in made:
        postgres.drop_database(name)


def whole_run(sides: Both, skus: Sequence[str]) -> Counter[str]:
    """All that a run has cost in which these sagas came one after the other."""
    with sides.stepped() as stepped:
        started: list[str] = []
        for sku in skus:
            started.append(stepped.start(sku=sku))
            stepped.finish()
            stepped.sweep()
        asked, messages = sides.asked(), dict(produced(stepped))
        assert [stepped.state(saga_id) for saga_id in started] == [END[sku] for sku in skus]
    return Counter({**asked, **messages, **dict(sides.kept())})


def changes(expected: Counts, found: Counts) -> list[str]:
    """What has become dearer, and what cheaper, in a sentence each."""
    said: list[str] = []
    for name in sorted(expected.keys() | found.keys()):
        was, now = expected.get(name, 0), found.get(name, 0)
        if now != was:
            said.append(f"{'DEARER' if now > was else 'cheaper'}: {name}: {was} -> {now}")
    return sorted(said)


@pytest.mark.parametrize(("sku", "expected"), [(GOOD, HAPPY), (BAD, COMPENSATING)], ids=["happy", "undone"])
def test_a_saga_alone_costs_exactly_this(both: Callable[[], Both], sku: str, expected: Counts) -> None:
    without = whole_run(both(), [])
    with_it = whole_run(both(), [sku])
    found = {name: number - without[name] for name, number in with_it.items() if number != without[name]}
    said = changes(expected, found)
    assert not said, "\n".join(["what a saga costs has changed:", *said])


def phases(sides: Both, sku: str, sagas: int) -> list[tuple[str, Counts]]:
    """What each batch asks of Postgres where all of so many sagas are in the same one."""
    found: list[tuple[str, Counts]] = []

    def step(side: str, act: Callable[[], object]) -> None:
        before = sides.asked()
        act()
        after = sides.asked()
        asked = {what: number - before[what] for what, number in after.items() if what.startswith(side)}
        found.append((f"batch {len(found) // 2 + 1}", asked))

    with sides.stepped(warm_ups=(sku,) * REFUSALS) as stepped:
        started = [stepped.start(sku=sku) for _ in range(sagas)]
        while stepped.is_behind():
            step("orchestrator", stepped.turn)
            assert not stepped.is_behind(), "a turn takes all that is there"
            step("participants", stepped.serve)
        assert {stepped.state(saga_id) for saga_id in started} == {END[sku]}
    return found


@pytest.mark.parametrize("sku", [GOOD, BAD], ids=["happy", "undone"])
def test_what_a_batch_asks_does_not_grow_with_its_sagas(
    both: Callable[[], Both], sku: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # How long handlers take must not say how many commands share a transaction here.
    monkeypatch.setattr("kasaga_participant.dispatch.BATCH_SECONDS", float("inf"))
    few, many = phases(both(), sku, FEW), phases(both(), sku, BATCH)
    assert [name for name, _ in many] == [name for name, _ in few]
    grown = [
        f"{name} of {BATCH} sagas instead of {FEW}: {said}"
        for (name, of_few), (_, of_many) in zip(few, many, strict=True)
        for said in changes(of_few, of_many)
    ]
    assert not grown, "\n".join(grown)
