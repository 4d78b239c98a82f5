"""Sealed payloads: the layout that other languages go by, what opens where, and what never does."""

from __future__ import annotations

import base64
import zlib

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from kasaga_wire.errors import CannotOpen, DecodeError, PayloadKeysInvalid
from kasaga_wire.redaction import redact
from kasaga_wire.sealing import (
    COMPRESS,
    KEYS,
    PLAIN,
    Sealer,
    is_sealed,
    key_of,
    place,
    read_keys,
    record_place,
    sealer_from_env,
)

ONE, TWO = bytes(range(32)), bytes(range(32, 64))
HERE = place("command", "0198-run.1")


def text_of(key: bytes) -> str:
    return base64.b64encode(key).decode()


@given(st.binary(min_size=1), st.integers(0, 64), st.booleans())
def test_what_is_sealed_opens_in_its_place_and_in_no_other(data: bytes, least: int, keyed: bool) -> None:
    sealer = Sealer({"k1": ONE} if keyed else None, compress_bytes=least)
    if data[:2] == b"\xc1K":
        return
    sealed = sealer.seal(HERE, data)
    assert sealer.open(HERE, sealed) == data
    assert not keyed or is_sealed(sealed)
    if keyed:
        with pytest.raises(CannotOpen):
            sealer.open(place("command", "0198-run.2"), sealed)
        with pytest.raises(CannotOpen):
            sealer.open(place("reply", "0198-run.1"), sealed)


@given(st.binary())
def test_no_bytes_of_a_stranger_do_more_than_be_refused(data: bytes) -> None:
    for frame in (data, b"\xc1K" + data, b"\xc1K\x02\x02k1" + data, b"\xc1K\x01\x00" + data):
        try:
            Sealer({"k1": ONE}).open(HERE, frame, most=1000)
        except (CannotOpen, DecodeError):
            continue


@given(st.binary(min_size=1, max_size=60), st.data())
def test_a_changed_byte_is_noticed(data: bytes, draw: st.DataObject) -> None:
    sealer = Sealer({"k1": ONE})
    sealed = bytearray(sealer.seal(HERE, data))
    sealed[draw.draw(st.integers(2, len(sealed) - 1))] ^= draw.draw(st.integers(1, 255))
    with pytest.raises((CannotOpen, DecodeError)):
        sealer.open(HERE, bytes(sealed))


def test_the_layout_is_what_the_specification_says() -> None:
    """Made by hand here: whoever writes it in another language makes the same."""
    assert HERE == b"7:command10:0198-run.1"
    head = b"\xc1K\x03\x02k1"
    nonce = b"n" * 12
    frame = head + nonce + AESGCM(ONE).encrypt(nonce, zlib.compress(b"\0" * 100), head + HERE)
    assert Sealer({"k2": TWO, "k1": ONE}).open(HERE, frame) == b"\0" * 100
    assert key_of(frame) == "k1"


def test_a_vector() -> None:
    sealed = bytes.fromhex("c14b02026b316e6e6e6e6e6e6e6e6e6e6e6e" + VECTOR)
    assert Sealer({"k1": ONE}).open(HERE, sealed) == b"\x00\x00\x00\x00\x01tulip"


VECTOR = "a75b1769b428c293025cce79e4764dd66171f4613a2908ff9621"


def test_records_are_bound_to_what_they_say_they_are() -> None:
    signal = [("ce_type", b"kasaga.control.signal"), ("ce_subject", b"a"), ("ce_id", b"7")]
    named = [*signal, ("ce_kasagasignal", b"approved")]
    assert record_place(named) == b"6:record21:kasaga.control.signal1:a1:78:approved"
    assert record_place(signal) != record_place(named)
    command = [("ce_type", b"goods.take"), ("ce_subject", b"a"), ("ce_kasagacommand", b"r.1")]
    attempts = [record_place([*command, ("ce_id", b"r.1.%d" % number)]) for number in (1, 2)]
    assert attempts == [place("command", "r.1")] * 2
    reply = [("ce_type", b"kasaga.reply"), ("ce_kasagacommand", b"r.1")]
    assert record_place(reply) == place("reply", "r.1")
    child = [*command, ("ce_kasagachild", b"run await 1 parent"), ("ce_id", b"r.1.1")]
    assert record_place(child) == place("record", "goods.take", "a", "r.1.1", "")


@given(st.lists(st.text(max_size=5), max_size=4), st.lists(st.text(max_size=5), max_size=4))
def test_two_places_are_never_alike(one: list[str], other: list[str]) -> None:
    assert (place("record", *one) == place("record", *other)) == (one == other)


def test_keys_are_rotated_by_order() -> None:
    old, both, turned = Sealer({"k1": ONE}), Sealer({"k1": ONE, "k2": TWO}), Sealer({"k2": TWO, "k1": ONE})
    for writer in (old, both, turned):
        for reader in (both, turned):
            assert reader.open(HERE, writer.seal(HERE, b"x")) == b"x"
    assert [key_of(each.seal(HERE, b"x")) for each in (old, both, turned)] == ["k1", "k1", "k2"]


def test_the_missing_key_is_named_with_the_remedy() -> None:
    sealed = Sealer({"k2": TWO}).seal(HERE, b"x")
    for sealer in (PLAIN, Sealer({"k1": ONE})):
        with pytest.raises(CannotOpen, match="key k2") as raised:
            sealer.open(HERE, sealed)
        assert "give this process key k2" in raised.value.remedy
    with pytest.raises(CannotOpen, match="another key under that id"):
        Sealer({"k2": ONE}).open(HERE, sealed)


def test_a_bomb_is_stopped_before_it_has_grown() -> None:
    bomb = b"\xc1K\x01\x00" + zlib.compress(b"\0" * 50_000_000)
    assert len(bomb) < 60_000
    with pytest.raises(DecodeError, match="more than 1000 bytes"):
        PLAIN.open(HERE, bomb, most=1000)


def test_without_keys_nothing_changes() -> None:
    data = b"\0\0\0\0\1x"
    assert PLAIN.seal(HERE, data) is data
    assert PLAIN.open(HERE, data) is data
    assert not PLAIN.active


def test_what_is_small_or_does_not_shrink_is_not_compressed() -> None:
    sealer = Sealer(compress_bytes=100)
    assert sealer.seal(HERE, b"\0" * 100) == b"\0" * 100
    assert len(sealer.seal(HERE, b"\0" * 101)) < 30


@pytest.mark.parametrize(
    "text",
    [
        "k1",
        "k1=",
        "=AAAA",
        "k1=AAAA",
        "k1=!!!!",
        "k/1=" + text_of(ONE),
        f"k1={text_of(ONE)},k1={text_of(TWO)}",
    ],
)
def test_keys_that_cannot_be_used_are_refused_without_being_shown(text: str) -> None:
    with pytest.raises(PayloadKeysInvalid) as raised:
        sealer_from_env({KEYS: text})
    assert text_of(ONE) not in str(raised.value)


def test_keys_come_from_a_variable_or_a_file_and_are_never_shown(tmp_path: object) -> None:
    given = f"k2={text_of(TWO)}, k1={text_of(ONE)}\n"
    sealer = sealer_from_env({KEYS: given, COMPRESS: "50"})
    assert sealer.key_ids == ("k2", "k1")
    assert text_of(ONE) not in repr(sealer)
    assert text_of(ONE) not in redact(f"somebody prints {text_of(ONE)}")
    assert read_keys(given) == {"k2": TWO, "k1": ONE}
    with pytest.raises(PayloadKeysInvalid, match=COMPRESS):
        sealer_from_env({COMPRESS: "much"})
    with pytest.raises(PayloadKeysInvalid, match="can't be read"):
        sealer_from_env({f"{KEYS}_FILE": f"{tmp_path}/none"})
