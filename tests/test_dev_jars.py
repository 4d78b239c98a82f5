"""Kafka's jars: pinned, and never trusted without their sum."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from kasaga.dev import jars
from kasaga.dev.process import ServerError

CONTENT = b"not really a jar"


@pytest.fixture
def pinned(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> jars.Jar:
    """A world with one jar, an empty home, and no tool that could fetch anything."""
    jar = jars.Jar("org.example", "thing", "1.0", hashlib.sha256(CONTENT).hexdigest())
    monkeypatch.setattr(jars, "pinned_jars", lambda: [jar])
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("KASAGA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", "/nonexistent")

    def no_module(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.setattr("importlib.import_module", no_module)
    return jar


def put_into_maven(jar: jars.Jar, content: bytes, tmp_path: Path) -> None:
    at = tmp_path / "home" / ".m2" / "repository" / jar.repository_path
    at.parent.mkdir(parents=True)
    at.write_bytes(content)


def test_every_jar_is_pinned_by_coordinates_and_sum() -> None:
    pinned = jars.pinned_jars()

    assert len(pinned) == 46  # Kafka's 45, and the bridge from slf4j to log4j
    assert all(len(jar.sha256) == 64 for jar in pinned)
    assert len({jar.file_name for jar in pinned}) == len(pinned)
    assert [jar.version for jar in pinned if jar.artifact == "kafka_2.13"] == [jars.KAFKA_VERSION]


def test_what_the_machines_own_maven_has_is_used(pinned: jars.Jar, tmp_path: Path) -> None:
    put_into_maven(pinned, CONTENT, tmp_path)
    told: list[str] = []

    class_path = jars.kafka_class_path(told.append)

    assert [Path(each).read_bytes() for each in class_path.split(os.pathsep)] == [CONTENT]
    assert told == []


def test_a_wrong_sum_is_an_error_that_names_the_file(pinned: jars.Jar, tmp_path: Path) -> None:
    put_into_maven(pinned, CONTENT[:-1], tmp_path)

    with pytest.raises(ServerError, match=r"thing-1\.0\.jar has the sum .* was expected"):
        jars.kafka_class_path(print)


def test_a_jar_that_nothing_can_fetch_is_an_error_with_both_reasons(pinned: jars.Jar) -> None:
    with pytest.raises(
        ServerError, match=r"jgo: No module named 'jgo\.maven' maven: there is no mvn here"
    ) as raised:
        jars.kafka_class_path(print)

    assert "kasaga[dev]" in raised.value.remedy
    assert pinned.file_name in raised.value.message


def test_without_any_java_the_error_says_how_to_get_one(
    pinned: jars.Jar, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("JAVA_HOME", raising=False)

    with pytest.raises(ServerError, match=r"no Java 17 or newer"):
        jars.find_java()
