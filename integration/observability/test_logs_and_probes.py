"""Real processes in good and bad times: what their logs say, and what their probes answer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from signal import SIGKILL
from typing import Any

from eventually import eventually
from fix_proxy import TcpProxy
from kasaga.dev.servers import KafkaServer, PostgresServer
from kasaga.orchestrator.traceids import hashed_trace_id, span_id
from observability.watch import PATIENCE, Watch

PASSWORD, ENCODED = "pä55/w0rd", "p%C3%A455%2Fw0rd"


def about_sagas(watch: Watch, *names: str) -> Iterator[dict[str, Any]]:
    return (line for name in names for line in watch.lines(name) if "saga_id" in line or "run_id" in line)


def said(watch: Watch, name: str, message: str) -> list[dict[str, Any]]:
    return [line for line in watch.lines(name) if line["message"] == message]


def has_spoken(watch: Watch, name: str) -> bool:
    return watch.running[name].ended() is not None or watch.text(name).count("\n") > 1


# --- logs


def test_every_line_is_json_and_those_about_a_saga_name_it_its_run_and_its_trace(watch: Watch) -> None:
    watch.orchestrator()
    watch.service()
    watch.broken.touch()
    runs = {saga_id: watch.start(saga_id, wish) for saga_id, wish in (("o-1", "retry"), ("o-2", "refuse"))}
    assert watch.wait("o-1") == "shelf of o-1"
    eventually(lambda: said(watch, "one", "saga stuck"), timeout=PATIENCE)
    for line in (*watch.lines("one"), *watch.lines("service")):
        assert {"time", "level", "logger", "message"} <= line.keys()
    found = list(about_sagas(watch, "one", "service"))
    for line in found:
        assert line["run_id"] == runs[line["saga_id"]], line
        assert line["trace_id"] == hashed_trace_id(line["run_id"]), line
    authors = {line["message"]: line for line in found if line["logger"] == "shop"}
    assert authors.keys() == {
        "the saga has its goods",
        "the function looks up a shelf",
        "the handler takes goods",
    }
    assert authors["the handler takes goods"]["command"] == "goods.take"
    looked_up = authors["the function looks up a shelf"]
    assert looked_up["span_id"] == span_id(f"{looked_up['run_id']}.2.1")


def test_passwords_appear_nowhere_whatever_goes_wrong(
    watch: Watch, postgres: PostgresServer, postgres_proxy: TcpProxy
) -> None:
    """Postgres trusts everybody here and Kafka asks for none: both take a password without a word."""
    database = postgres.url(watch.database.rpartition("/")[2], port=postgres_proxy.port)
    secrets = {
        "KASAGA_DATABASE_URL": database.replace("postgres@", f"postgres:{ENCODED}@"),
        "KASAGA_KAFKA_SASL_PASSWORD": PASSWORD,
        "KASAGA_LOG_LEVEL": "debug",
    }
    first = watch.orchestrator(**secrets)
    postgres_proxy.stop()
    eventually(lambda: said(watch, "one", "postgres is away"), timeout=PATIENCE)
    first.stop(SIGKILL, PATIENCE)
    odd = f"postgresql://postgres:{ENCODED}@127.0.0.1:port/db"
    for number, url in enumerate((odd, f"host=127.0.0.1 port=x password='{PASSWORD}'", database)):
        name = f"bad-{number}"
        process = watch.start_only(name, **{**secrets, "KASAGA_DATABASE_URL": url})
        eventually(partial(has_spoken, watch, name))
        process.stop(SIGKILL, PATIENCE)
        assert watch.text(name)
    for name in watch.running:
        text = watch.text(name)
        text += "".join(str(json.loads(line)) for line in text.splitlines() if line.startswith("{"))
        for secret in (PASSWORD, ENCODED, "w0rd"):
            assert secret not in text


# --- probes


def test_without_postgres_the_process_is_not_ready_and_not_dead(
    watch: Watch, postgres: PostgresServer, postgres_proxy: TcpProxy
) -> None:
    database = postgres.url(watch.database.rpartition("/")[2], port=postgres_proxy.port)
    process = watch.orchestrator(KASAGA_DATABASE_URL=database)
    postgres_proxy.stop()
    eventually(lambda: watch.probe("one", "/ready")[0] == 503, timeout=PATIENCE)
    assert json.loads(watch.probe("one", "/ready")[1])["store"] is False
    assert watch.probe("one", "/live")[0] == 200
    postgres_proxy.start()
    eventually(lambda: watch.probe("one", "/ready")[0] == 200, timeout=PATIENCE)
    assert process.ended() is None


def test_without_kafka_the_process_is_not_ready_and_not_dead(
    watch: Watch, kafka: KafkaServer, kafka_proxy: TcpProxy
) -> None:
    process = watch.orchestrator(
        KASAGA_KAFKA_BOOTSTRAP_SERVERS=kafka.proxied_bootstrap, KASAGA_BROKERS_LOST_SECONDS="3"
    )
    kafka_proxy.stop()
    eventually(lambda: watch.probe("one", "/ready")[0] == 503, timeout=PATIENCE)
    assert watch.probe("one", "/live")[0] == 200
    eventually(lambda: said(watch, "one", "no broker answers: giving the shards up"), timeout=PATIENCE)
    kafka_proxy.start()
    eventually(lambda: watch.probe("one", "/ready")[0] == 200, timeout=PATIENCE)
    assert process.ended() is None


def test_before_its_servers_are_there_the_process_is_alive_and_not_ready(
    watch: Watch, postgres: PostgresServer, postgres_proxy: TcpProxy
) -> None:
    database = postgres.url(watch.database.rpartition("/")[2], port=postgres_proxy.port)
    postgres_proxy.stop()
    watch.start_only("one", KASAGA_DATABASE_URL=database)
    eventually(lambda: said(watch, "one", "probes and metrics"), timeout=PATIENCE)
    status, body = watch.probe("one", "/ready")
    assert (status, json.loads(body)["reason"]) == (503, "starting")
    assert watch.probe("one", "/live")[0] == 200
    postgres_proxy.start()
    eventually(lambda: watch.probe("one", "/ready")[0] == 200, timeout=PATIENCE)


def test_a_loop_that_hangs_is_not_live(watch: Watch) -> None:
    """A saga's code that sleeps in C can't be broken off; here the watchdog is told to let it."""
    process = watch.orchestrator(KASAGA_HANG_SECONDS="2", KASAGA_SAGA_KILL_SECONDS="600")
    watch.service()
    assert watch.probe("one", "/live")[0] == 200
    run_id = watch.start("o-1", "hang")
    eventually(lambda: watch.probe("one", "/live")[0] == 503, timeout=PATIENCE)
    assert json.loads(watch.probe("one", "/live")[1])["quiet_seconds"] >= 2
    (line,) = eventually(lambda: said(watch, "one", "a saga blocks the loop and can't be interrupted")) or []
    assert (line["saga_id"], line["run_id"], line["trace_id"]) == ("o-1", run_id, hashed_trace_id(run_id))
    assert "watched_shop.py" in line["line"]
    process.stop(SIGKILL, PATIENCE)


def test_metrics_tell_of_a_sagas_life(watch: Watch) -> None:
    watch.orchestrator()
    watch.service()
    watch.start("o-1", "refuse")
    assert watch.wait("o-1") == "SagaCompensated"

    def told(*samples: str) -> bool:
        text = watch.probe("one", "/metrics")[1]
        missing = [sample for sample in samples if f"\n{sample}\n" not in text]
        assert not missing, (missing, text)
        return True

    eventually(
        lambda: told(
            'kasaga_sagas_started_total{saga="purchase"} 1.0',
            'kasaga_saga_moves_total{saga="purchase",state="COMPENSATED"} 1.0',
            'kasaga_steps_settled_total{outcome="refused",type="goods.pay"} 1.0',
            'kasaga_undos_total{how="undone"} 1.0',
            "kasaga_shards_owned 4.0",
            "kasaga_outbox_unacknowledged 0.0",
            'kasaga_input_lag_records{topic="replies"} 0.0',
            "kasaga_sagas_waiting 0.0",
            "kasaga_stuck_oldest_seconds 0.0",
        ),
        timeout=PATIENCE,
    )
    status, _ = watch.probe("one", "/elsewhere")
    assert status == 404
