"""Whatever bytes come from outside: a documented error or none, in bounded time and memory.

The corpus is run first, as it is; then what hypothesis makes of it. `make fuzz` goes on for longer.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fuzz import __main__ as fuzzing
from fuzz.parts import Parts, changed, known, read, write
from fuzz.targets import MOST_MEMORY, MOST_SECONDS, TARGETS, Broken, check

MEGABYTE = 1024 * 1024

EXAMPLES = [(name, example) for name in TARGETS for example in known(name)]


def test_every_target_has_examples() -> None:
    assert {name for name, _ in EXAMPLES} == set(TARGETS)


@pytest.mark.parametrize(("name", "example"), EXAMPLES)
def test_the_corpus(name: str, example: str) -> None:
    check(TARGETS[name], known(name)[example])


@pytest.mark.parametrize("name", TARGETS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(rng=st.randoms(use_true_random=False))
def test_whatever_is_made_of_the_corpus(name: str, rng: random.Random) -> None:
    examples = list(known(name).values())
    check(TARGETS[name], changed(rng, rng.choice(examples), examples))


# --- what it would find ---


def test_memory_is_bounded() -> None:
    with pytest.raises(Broken, match="bytes of memory"):
        check(lambda parts: bytearray(MOST_MEMORY + MEGABYTE), (b"",))
    check(lambda parts: bytearray(MEGABYTE), (b"",))


def test_time_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    moments = iter([0.0, MOST_SECONDS + 1])
    monkeypatch.setattr("fuzz.targets.time.thread_time", lambda: next(moments))
    with pytest.raises(Broken, match="s for one example"):
        check(lambda parts: None, (b"",))


def test_what_breaks_is_told_once_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def breaks(parts: Parts) -> None:
        raise ValueError(f"{len(parts)} parts")

    write(tmp_path / "corpus" / "breaks", (b"a", b"\xff"), "one")
    monkeypatch.setattr("fuzz.parts.CORPUS", tmp_path / "corpus")
    monkeypatch.setattr(fuzzing, "CORPUS", tmp_path / "corpus")
    monkeypatch.setattr(fuzzing, "KEPT", tmp_path / "kept")
    monkeypatch.setattr(fuzzing, "TARGETS", {"breaks": breaks})
    fuzzer = fuzzing.Fuzzer(seed=1)
    for _ in range(5):
        fuzzer.turn()
    (found,) = fuzzer.found
    assert set(known("breaks")) == {"one", found.stem}
    assert "breaks: ValueError" in capsys.readouterr().out


def test_examples_are_read_as_they_were_written(tmp_path: Path) -> None:
    parts = (b"", b"\n'\\\0\xff", "é".encode())
    assert read(write(tmp_path, parts)) == parts
