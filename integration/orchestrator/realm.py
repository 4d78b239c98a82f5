"""A namespace on the run's servers: orchestrators as processes, participants by raw wire, and the books.

The participants (`orchestrator.desk`) run in a thread here, so that a test can say how each command goes
and what was executed is known exactly. Tests share a realm where they can; each has sagas of its own.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import uuid
from collections import defaultdict
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import psycopg

from eventually import eventually
from kasaga import App
from kasaga.dev.servers import KafkaServer, PostgresServer
from kasaga.engine.codec import decode
from kasaga.messages import message_codec
from kasaga.store.base import FINAL_STATES, SagaFilter, SagaRow, SagaState
from kasaga.store.migrate import migrate
from kasaga.store.postgres import PostgresStore
from kasaga_wire.codec import Schemas
from kasaga_wire.envelope import CommandEnvelope, ControlEnvelope, ReplyTo, StartEnvelope
from kasaga_wire.errors import DeliveryError
from kasaga_wire.kafka import Consumer, KafkaSettings, Producer, Record, partition_for
from kasaga_wire.messages import MessageEnvelope
from kasaga_wire.records import Answer, Control, answer_codec, control_codec
from kasaga_wire.topics import Topics
from orchestrator.desk import Desk, Mood
from orchestrator.ledger import Books, audit
from orchestrator.trips import Trip, make_app

ROOT = Path(__file__).resolve().parents[2]
SHARDS = 4
LEASE_SECONDS = 1.0
HEARTBEAT_SECONDS = 0.2
DEATH_SECONDS = 30.0
COMMAND_PARTITIONS = 4


class Owner:
    """One orchestrator process."""

    def __init__(self, environment: Mapping[str, str], log: Path, name: str) -> None:
        self.name = name
        self.log = log
        with log.open("ab") as file:
            self._process = subprocess.Popen(
                [sys.executable, str(Path(__file__).with_name("owner_main.py"))],
                env=dict(environment),
                stdout=file,
                stderr=file,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    @property
    def frozen(self) -> bool:
        return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"

    def said(self, text: str) -> bool:
        return text in self.log.read_text()

    def wait_until_killed(self) -> None:
        """Waits for the crash point; anything else that ends it is an error."""
        code = self._process.wait(DEATH_SECONDS)
        assert code == -signal.SIGKILL, f"{self.name} ended with {code}: {self.tail()}"

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def kill(self) -> None:
        self.send(signal.SIGKILL)
        self._process.wait(DEATH_SECONDS)

    def stop(self) -> None:
        """Gracefully; anything but success is an error."""
        self.send(signal.SIGTERM)
        code = self._process.wait(DEATH_SECONDS)
        assert code == 0, f"{self.name} ended with {code}: {self.tail()}"

    def end(self) -> None:
        """Whatever state it is in."""
        if self.alive:
            self._process.kill()
            self._process.wait(DEATH_SECONDS)

    def tail(self) -> str:
        return self.log.read_text(errors="replace")[-6000:]


class Realm:
    """Give it a name of its own; `close` ends everything in it."""

    def __init__(
        self,
        kafka: KafkaServer,
        postgres: PostgresServer,
        directory: Path,
        make: Callable[[str], App] = make_app,
    ) -> None:
        self.namespace = f"r{uuid.uuid4().hex[:10]}"
        self.kafka, self.postgres = kafka, postgres
        self.database = postgres.create_database(self.namespace)
        migrate(self.database, namespace=self.namespace, shards=SHARDS)
        self.store = PostgresStore(self.database)
        self.app = make(self.namespace)
        self.topics = Topics(self.namespace, f"{self.namespace}.")
        self.settings = KafkaSettings(kafka.bootstrap)
        self.desk = Desk(self.app.contracts)
        self.asked: dict[str, str] = {}
        self.owners: list[Owner] = []
        self.commands: list[Record] = []
        self.told: dict[str, list[Answer]] = defaultdict(list)
        """Answers by what was asked."""
        self.events: list[Record] = []
        self.dead_letters: list[Record] = []
        self._directory = directory
        self._producer = Producer(self.settings)
        self._failed: list[DeliveryError] = []
        self._participants: _Participants | None = None

    # --- processes

    def owner(self, **environment: str) -> Owner:
        """Begin an orchestrator, and wait until it owns a shard."""
        owner = self.begin(**environment)
        eventually(lambda: self.owned(owner) or not owner.alive)
        assert owner.alive, owner.tail()
        return owner

    def begin(self, **environment: str) -> Owner:
        """Begin an orchestrator."""
        number = len(self.owners)
        path = os.pathsep.join(
            str(ROOT / each) for each in ("orchestrator", "schemas", "tests", "integration", self._directory)
        )
        owner = Owner(
            {
                **os.environ,
                "PYTHONPATH": path,
                "PYTHONHASHSEED": "0",
                "TRIPS_NAMESPACE": self.namespace,
                "KASAGA_DATABASE_URL": self.database,
                "KASAGA_KAFKA_BOOTSTRAP_SERVERS": self.kafka.bootstrap,
                "KASAGA_TOPIC_PREFIX": f"{self.namespace}.",
                "KASAGA_PROCESS": f"owner-{number}",
                "KASAGA_LEASE_SECONDS": str(LEASE_SECONDS),
                "KASAGA_HEARTBEAT_SECONDS": str(HEARTBEAT_SECONDS),
                "KASAGA_SAGA_STEP_SECONDS": "0.5",
                **environment,
            },
            self._directory / f"{self.namespace}-{number}.log",
            f"owner-{number}",
        )
        self.owners.append(owner)
        return owner

    def wait_until_busy(self, owners: Iterable[Owner]) -> None:
        """Wait until each of these owns a shard, or has died of it."""
        for owner in owners:
            eventually(partial(self._busy, owner))

    def _busy(self, owner: Owner) -> bool:
        return bool(self.owned(owner)) or not owner.alive

    def owned(self, owner: Owner) -> list[int]:
        """The shards that a process holds by now."""
        return [lease.shard for lease in self.store.shards() if lease.owner == owner.name]

    @contextmanager
    def participants(self) -> Generator[None]:
        """Participants and listeners at work; the topics must be there."""
        self._participants = participants = _Participants(self)
        try:
            yield
        finally:
            participants.close()

    # --- sagas

    def start(self, saga: str, saga_id: str, note: str = "", **about: Any) -> str:
        """Put a start into Kafka; returns the run id."""
        run_id = str(about.get("run_id") or uuid.uuid4())
        ask = about.get("ask", True)
        envelope = StartEnvelope(
            run_id=run_id,
            source="/kasaga/clients/test",
            time=datetime.now(UTC) - about.get("age", timedelta(0)),
            saga_id=saga_id,
            saga=saga,
            saga_version=about.get("version"),
            reply_to=ReplyTo(self.topics.answers, 0) if ask else None,
            attributes=about.get("attributes", b""),
        )
        value = about.get("value")
        if value is None:
            known = self.app.sagas.get((saga, 1), self.app.sagas["trip", 1])
            value = known.input.encode(Trip(id=saga_id, note=note))
        self.produce(self.topics.sagas, saga_id, value, envelope.to_headers())
        if ask:
            self.asked.setdefault(saga_id, run_id)
        return run_id

    def control(self, action: str, saga_id: str, **about: Any) -> str:
        """Put a control record into Kafka; returns its id."""
        action_id = str(uuid.uuid4())
        envelope = ControlEnvelope(
            id=action_id,
            source="/kasaga/clients/test",
            action=action,
            time=datetime.now(UTC),
            saga_id=saga_id,
            reply_to=ReplyTo(self.topics.answers, 0),
        )
        body = Control(action=action, by="test", **{"reason": "a test", **about})
        self.produce(self.topics.control, saga_id, control_codec.encode(body), envelope.to_headers())
        return action_id

    def signal(self, saga_id: str, name: str, value: Any = None, *, key: str) -> None:
        """Put a signal into Kafka, of a type that an owner has announced; nobody is told what came of it."""
        codec = message_codec(None if value is None else value.__class__, "signal", name)
        now = datetime.now(UTC)
        envelope = MessageEnvelope(
            kind="signal", key=key, name=name, source="/kasaga/clients/test", time=now, saga_id=saga_id
        )
        self.produce(self.topics.control, saga_id, codec.encode(value), envelope.to_headers())

    def produce(
        self,
        topic: str,
        saga_id: str,
        value: bytes | None,
        headers: Iterable[tuple[str, bytes | None]],
        partition: int | None = None,
    ) -> None:
        key = saga_id.encode()
        where = partition_for(key, SHARDS) if partition is None else partition
        self._producer.produce(topic, where, key, value, list(headers), self._acknowledged)

    def flush(self) -> None:
        """Wait until all starts and actions are in Kafka."""
        assert self._producer.flush(30) == 0
        assert not self._failed

    def _acknowledged(self, error: DeliveryError | None) -> None:
        if error is not None:
            self._failed.append(error)

    def sagas(self, prefix: str) -> list[SagaRow]:
        return self.store.list_sagas(SagaFilter(saga_id_prefix=prefix), limit=10_000)

    def saga(self, saga_id: str) -> SagaRow:
        row = self.store.saga(saga_id)
        assert row is not None, f"there is no saga {saga_id}"
        return row

    def answers_to(self, about: str) -> list[Answer]:
        return list(self.told.get(about, ()))

    def attempts(self, prefix: str) -> list[int]:
        """Of each record of a command, undo or void."""
        found = [CommandEnvelope.parse(record.headers) for record in list(self.commands)]
        return [each.attempt for each in found if each.saga_id.startswith(prefix)]

    # --- the end

    def wait_until_over(
        self, prefix: str, count: int, *, stuck: frozenset[str] = frozenset(), timeout: float = 60
    ) -> None:
        """Wait until so many sagas have ended, those that may be stuck are, and nothing is left to send."""
        self.flush()

        def over() -> bool:
            rows = self.sagas(prefix)
            assert len(rows) == count, f"{len(rows)} of {count} sagas"
            late = [
                (row.saga_id, str(row.state), row.reason)
                for row in rows
                if row.state not in FINAL_STATES
                and not (row.saga_id in stuck and row.state is SagaState.STUCK)
            ]
            assert not late, f"not over: {late[:5]}"
            runs = {row.run_id for row in rows if row.saga_id not in stuck}
            left = [row for row in self._outbox() if row[0] in runs or row[0] is None]
            assert not left, f"still to send: {left[:5]}"
            return True

        try:
            eventually(over, timeout=timeout, interval=0.05)
        except AssertionError as error:
            tails = "\n".join(f"--- {owner.name}\n{owner.tail()}" for owner in self.owners[-3:])
            raise AssertionError(f"{error}\n{tails}") from None

    def _outbox(self) -> list[tuple[uuid.UUID | None, int, str, str]]:
        with psycopg.connect(self.database) as connection:
            return connection.execute("SELECT run_id, kind, step, topic FROM kasaga.outbox").fetchall()

    def audit(self, prefix: str, *, stuck: frozenset[str] = frozenset()) -> list[SagaRow]:
        """Check the books of the sagas with this prefix; returns their rows."""
        rows = self.sagas(prefix)
        runs = {str(row.run_id) for row in rows}
        histories = {
            row.run_id: [decode(each.seq, each.body) for each in self.store.history(row)] for row in rows
        }
        asked = {saga_id: run for saga_id, run in self.asked.items() if saga_id.startswith(prefix)}
        eventually(lambda: self.told.keys() >= set(asked.values()))
        about = set(asked.values())
        commands = [
            record
            for record in list(self.commands)
            if CommandEnvelope.parse(record.headers).command_id.partition(".")[0] in runs
        ]
        answers = [answer for run in about for answer in self.answers_to(run)]
        desk = replace(self.desk, executed=[each for each in list(self.desk.executed) if each.run_id in runs])
        books = Books(rows, histories, [], commands, answers, desk, asked)
        audit(books, stuck=stuck, ended=False)
        return rows

    def run(self, prefix: str, sagas: Iterable[tuple[str, str]], **about: Any) -> None:
        """Start some sagas: (saga, what to add to the prefix)."""
        for saga, name in sagas:
            self.start(saga, f"{prefix}{name}", **about)
        self.flush()

    def close(self) -> None:
        for owner in self.owners:
            owner.end()
        self.store.close()
        self._producer.close()
        self.postgres.drop_database(self.namespace)


class _Participants:
    """A thread that serves all commands, and keeps what else comes."""

    def __init__(self, realm: Realm) -> None:
        self._realm = realm
        self._stop = threading.Event()
        self.error: BaseException | None = None
        topics = realm.topics
        places = {(topics.answers, 0): 0, (topics.orchestrator_dead_letters, 0): 0}
        places |= {(topics.events, partition): 0 for partition in range(4)}
        for name in realm.app.contracts:
            places |= {(topics.commands(name), partition): 0 for partition in range(COMMAND_PARTITIONS)}
        self._commands = {topics.commands(name) for name in realm.app.contracts}
        self._consumer = Consumer(realm.settings, group=f"{realm.namespace}.test")
        self._consumer.assign(places)
        self._producer = Producer(realm.settings)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                for record in self._consumer.consume(500, 0.05):
                    if isinstance(record, Record):
                        self._take(record)
                self._producer.poll(0)
        except BaseException as error:  # noqa: BLE001 - told by close, in the test's thread
            self.error = error

    def _take(self, record: Record) -> None:
        realm = self._realm
        if record.topic in self._commands:
            realm.commands.append(record)
            for reply in realm.desk.take(record):
                self._producer.produce(
                    reply.to.topic, reply.to.partition, reply.key, reply.value, reply.headers, _ignore
                )
        elif record.topic == realm.topics.answers:
            answer = answer_codec.decode(record.value or b"", Schemas())
            realm.told[answer.about].append(answer)
        elif record.topic == realm.topics.events:
            realm.events.append(record)
        else:
            realm.dead_letters.append(record)

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self._consumer.close()
        self._producer.close()
        if self.error is not None:
            raise self.error


def _ignore(error: DeliveryError | None) -> None:
    """A reply that is lost is asked for again."""


def refuse_last(envelope: CommandEnvelope) -> str:
    """A mood: the last step of a trip is refused where the saga's id says so."""
    return "refused" if envelope.type == "post.send" and "refused" in envelope.saga_id else "done"


def mood_for(moods: Mapping[str, Mood]) -> Mood:
    """A mood by the beginning of the saga's id: tests that share a realm don't meet."""

    def mood(envelope: CommandEnvelope) -> str:
        for prefix, each in moods.items():
            if envelope.saga_id.startswith(prefix):
                return each(envelope)
        return refuse_last(envelope)

    return mood
