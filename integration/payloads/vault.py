"""A town whose payloads are sealed, and what lies in its topics and tables."""

from __future__ import annotations

import base64
import uuid
from signal import SIGTERM, Signals

import psycopg
from psycopg import sql

from cli.town import PATIENCE, STOP_SECONDS, Town
from eventually import eventually
from kasaga.client import Client
from kasaga_wire.kafka import Admin, Consumer, EndOfPartition, Record
from kasaga_wire.sealing import KEYS, sealer_from
from kasaga_wire.topics import Topics

OLD, NEW = (f"k{number}={base64.b64encode(bytes([number]) * 32).decode()}" for number in (1, 2))
SECRET = "tulip-4711"


class Vault(Town):
    """A town whose payloads are sealed."""

    shop = "payloads.sealed_shop"

    def begin_with(self, keys: str) -> None:
        self.environment[KEYS] = keys
        self.begin()

    def client(self, name: str = "test", keys: str = "") -> Client:
        sealer = sealer_from(keys or self.environment[KEYS])
        return Client(self.namespace, self.kafka, topic_prefix=self.prefix, name=name, sealer=sealer)

    def again(self, *, orchestrator: str = "", service: str = "", signal: Signals = SIGTERM) -> None:
        """Let processes begin anew with these keys."""
        for place, keys in ((0, orchestrator), (1, service)):
            if keys:
                self.running[place].stop(signal, STOP_SECONDS)
                named = {**self.environment, KEYS: keys}
                if place:
                    arguments = ["-m", self.shop]
                    named["KASAGA_DATABASE_URL"] = self.own
                else:
                    arguments = ["-m", "kasaga", "orchestrator", f"{self.shop}:app"]
                name = ("orchestrator", "service")[place]
                self.running[place] = self.process(name, arguments, named)

    def records(self) -> list[Record]:
        """All that lies in the town's topics."""
        admin = Admin(self.kafka)
        own = Topics(self.namespace, self.prefix)
        names = [own.sagas, own.replies, own.control, own.answers, own.commands("goods")]
        names += [own.orchestrator_dead_letters, own.dead_letters("goods")]
        places = [
            (name, number) for name, count in admin.partitions(names).items() for number in range(count)
        ]
        admin.close()
        consumer = Consumer(self.kafka, group=f"look-{uuid.uuid4().hex}")
        consumer.assign(dict.fromkeys(places, 0))
        found: list[Record] = []
        ended: set[tuple[str, int]] = set()
        while len(ended) < len(places):
            for each in consumer.consume(500, 1.0):
                if isinstance(each, Record):
                    found.append(each)
                elif isinstance(each, EndOfPartition):
                    ended.add((each.topic, each.partition))
        consumer.close()
        return found

    def state(self, saga_id: str = "a-1") -> tuple[str, str, str]:
        """A saga's state, with the code and the remedy of its reason."""
        with psycopg.connect(self.database) as connection:
            asked = "SELECT state, code, remedy FROM kasaga.saga WHERE saga_id = %s"
            row = connection.execute(asked, (saga_id,)).fetchone()
        assert row is not None, self.logs()
        return row[0], row[1], row[2]

    def becomes(self, state: str, saga_id: str = "a-1", code: str = "") -> str:
        """Wait until a saga is in a state, with a code; gives the remedy."""

        def is_so() -> tuple[str, str, str]:
            said = self.state(saga_id)
            assert said[0] == state, f"{said}\n{self.logs()}"
            assert code in ("", said[1]), said
            return said

        return eventually(is_so, timeout=PATIENCE, interval=0.2)[2]

    def tables(self) -> str:
        """All that the orchestrator's tables and the inbox hold; bytes as hexadecimal digits."""
        made: list[str] = []
        for url, schema in ((self.database, "kasaga"), (self.own, "kasaga_inbox")):
            with psycopg.connect(url) as connection:
                asked = "SELECT tablename FROM pg_tables WHERE schemaname = %s"
                for (name,) in connection.execute(asked, (schema,)).fetchall():
                    table = sql.SQL("SELECT t::text FROM {} t").format(sql.Identifier(schema, name))
                    made += [f"{name} {row[0]}" for row in connection.execute(table).fetchall()]
        return "\n".join(made)
