"""Kafka's settings come from the environment, and secrets stay secret."""

from __future__ import annotations

from pathlib import Path

import pytest

from kasaga_wire.errors import SettingsError
from kasaga_wire.settings import RESERVED, KafkaSettings

BROKERS = {"KASAGA_KAFKA_BOOTSTRAP_SERVERS": "a:9092,b:9092"}


def test_every_key_of_librdkafka_passes_through(tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("hunter2\n")
    settings = KafkaSettings.from_env(
        environment={
            **BROKERS,
            "KASAGA_KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
            "KASAGA_KAFKA_SASL_PASSWORD_FILE": str(secret),
            "KASAGA_KAFKA_MESSAGE_TIMEOUT_MS": "60000",
            "KASAGA_KAFKA_EMPTY": "",
            "KASAGA_DATABASE_URL": "postgresql://",
        }
    )
    assert settings.bootstrap == "a:9092,b:9092"
    assert settings.options == {
        "security.protocol": "SASL_SSL",
        "sasl.password": "hunter2",
        "message.timeout.ms": "60000",
    }
    assert settings.config(linger_ms=0) == {
        "client.id": "kasaga",
        "reconnect.backoff.max.ms": "1000",
        "topic.metadata.refresh.interval.ms": "5000",
        "bootstrap.servers": "a:9092,b:9092",
        "security.protocol": "SASL_SSL",
        "sasl.password": "hunter2",
        "message.timeout.ms": "60000",
        "linger.ms": 0,
    }


def test_another_prefix_and_the_process_own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTHER_BOOTSTRAP_SERVERS", "c:9092")
    monkeypatch.setenv("OTHER_CLIENT_ID", "me")
    settings = KafkaSettings.from_env("OTHER_")
    assert settings.config()["client.id"] == "me"


@pytest.mark.parametrize(
    "key",
    [
        "sasl.password",
        "ssl.key.password",
        "ssl.keystore.password",
        "ssl.key.pem",
        "sasl.oauthbearer.client.secret",
        "sasl.oauthbearer.config",
    ],
)
def test_secrets_are_not_printed(key: str) -> None:
    settings = KafkaSettings("a:9092", {key: "hunter2", "client.id": "me"})
    for text in (repr(settings), str(settings), f"{settings}"):
        assert "hunter2" not in text
        assert "me" in text


@pytest.mark.parametrize("key", sorted(RESERVED))
def test_what_the_promise_rests_on_is_no_setting(key: str) -> None:
    with pytest.raises(SettingsError, match="the promise rests on it"):
        KafkaSettings("a:9092", {key: "x"})


def test_without_brokers_there_is_nothing() -> None:
    with pytest.raises(SettingsError, match="KASAGA_KAFKA_BOOTSTRAP_SERVERS"):
        KafkaSettings.from_env(environment={})
    with pytest.raises(SettingsError):
        KafkaSettings(" ")


def test_a_file_that_cannot_be_read_is_named_by_its_variable(tmp_path: Path) -> None:
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff")
    for path in (tmp_path / "absent", tmp_path, binary):
        with pytest.raises(SettingsError, match="KASAGA_KAFKA_SASL_PASSWORD_FILE"):
            KafkaSettings.from_env(environment={**BROKERS, "KASAGA_KAFKA_SASL_PASSWORD_FILE": str(path)})


def test_a_value_and_a_file_for_one_key_are_refused(tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("x")
    environment = {
        **BROKERS,
        "KASAGA_KAFKA_SASL_PASSWORD": "y",
        "KASAGA_KAFKA_SASL_PASSWORD_FILE": str(secret),
    }
    with pytest.raises(SettingsError, match="both set"):
        KafkaSettings.from_env(environment=environment)
