"""Objects in folders and stores: whole or not there, and no secret of theirs is ever shown."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from uuid import uuid4

import pytest
from fsspec import AbstractFileSystem

from kasaga_wire.errors import ObjectsInvalid, ObjectsUnavailable
from kasaga_wire.objects import PART, Objects
from kasaga_wire.redaction import redact


@pytest.fixture(params=["file", "memory"])
def objects(request: pytest.FixtureRequest, tmp_path: Path) -> Objects:
    url = f"file://{tmp_path}/deep/down" if request.param == "file" else f"memory://{uuid4().hex}/down/"
    return Objects(url)


def test_what_is_written_is_there(objects: Objects) -> None:
    assert objects.names() == []
    assert objects.read("2026/a.gz") is None
    assert not objects.delete("2026/a.gz")
    objects.write("2026/a.gz", b"one")
    objects.write("2026/b.gz", b"")
    objects.write("2026/a.gz", b"another")
    objects.write("top", b"3")
    assert objects.names() == ["2026", "top"]
    assert objects.names("2026") == ["a.gz", "b.gz"]
    assert objects.names("2027") == []
    assert (objects.read("2026/a.gz"), objects.read("2026/b.gz")) == (b"another", b"")
    assert objects.delete("2026/a.gz")
    assert objects.names("2026") == ["b.gz"]


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    objects = Objects(f"file://{tmp_path}")
    objects.write("a", b"old")

    def full(number: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ObjectsUnavailable, match=r"file://.*/a can't be written: OSError.*No space left"):
        objects.write("a", b"new and longer")
    assert objects.read("a") == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_what_a_killed_writer_left_isnt_listed(tmp_path: Path) -> None:
    (tmp_path / f"{PART}77").write_bytes(b"hal")
    assert Objects(f"file://{tmp_path}").names() == []


def test_a_store_that_keeps_less_than_it_was_given_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    objects = Objects(f"memory://{uuid4().hex}")
    objects.write("a", b"x")
    system: AbstractFileSystem = objects._system()[0]  # pyright: ignore[reportPrivateUsage]

    def info(self: object, path: str) -> dict[str, int]:
        return {"size": 1}

    monkeypatch.setattr(type(system), "info", info)
    with pytest.raises(ObjectsUnavailable, match="1 bytes are there, and not 3"):
        objects.write("a", b"xyz")


@pytest.mark.parametrize("error", [PermissionError("denied"), RuntimeError("their own"), TimeoutError()])
def test_whatever_a_stores_library_raises(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    objects = Objects(f"memory://{uuid4().hex}")
    system: AbstractFileSystem = objects._system()[0]  # pyright: ignore[reportPrivateUsage]

    def fail(*_: object, **__: object) -> None:
        raise error

    for name in ("pipe_file", "cat_file", "ls", "rm_file"):
        monkeypatch.setattr(type(system), name, fail)
    with pytest.raises(ObjectsUnavailable, match="a can't be written"):
        objects.write("a", b"")
    with pytest.raises(ObjectsUnavailable, match="a can't be read"):
        objects.read("a")
    with pytest.raises(ObjectsUnavailable, match="can't be listed"):
        objects.names()
    with pytest.raises(ObjectsUnavailable, match="a can't be deleted"):
        objects.delete("a")


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("/var/archive", "no URL with a scheme"),
        ("file://var/archive", "no absolute path"),
        ("nope://a", "Protocol not known: nope"),
        ("s3://bucket", "Install s3fs"),
        ("ftp://anna:hunter22@host/a", "has a password"),
        ("http://host/a?sig=hunter22", "a query"),
        ("", "no URL"),
    ],
)
def test_what_is_no_address(url: str, says: str) -> None:
    with pytest.raises(ObjectsInvalid, match="KASAGA_X") as caught:
        Objects(url, setting="KASAGA_X")
    assert says in caught.value.message
    assert "hunter22" not in str(caught.value)
    assert caught.value.remedy


@pytest.mark.parametrize("options", ["{", "[]", "hunter22", '"hunter22"'])
def test_options_that_are_no_object_are_not_repeated(options: str) -> None:
    with pytest.raises(ObjectsInvalid, match="no JSON object") as caught:
        Objects("memory://a", options)
    assert "hunter22" not in str(caught.value)


def test_options_are_never_shown(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    Objects(
        "memory://a", '{"secret": "hunter22!", "client_kwargs": {"x": "deep-secret"}, "region": "earth-1"}'
    )
    assert redact("hunter22! deep-secret earth-1") == "*** *** earth-1"
    assert "hunter22" not in caplog.text


def test_without_the_library_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(ObjectsInvalid, match=r"Install kasaga\[archive\]"):
        Objects("memory://a")
