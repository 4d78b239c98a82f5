"""Payloads that are objects, and the claims to them."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import pytest

from kasaga_wire.claims import Claims, claimed, claims_from, claims_from_env, fetch, folder_of, is_claim
from kasaga_wire.errors import ObjectsInvalid, ObjectsUnavailable, ObjectUnreadable
from kasaga_wire.objects import Objects
from kasaga_wire.sealing import PLAIN, Sealer, is_sealed

RUN = "01934f3e-7a5c-7cc0-8c3f-0123456789ab"
LARGE = b"chair " * 1000


@pytest.fixture(params=["file", "memory"])
def claims(request: pytest.FixtureRequest, tmp_path: Path) -> Claims:
    url = f"file://{tmp_path}/objects" if request.param == "file" else f"memory://{uuid4().hex}"
    return Claims(Objects(url), 1000)


def test_a_large_payload_is_an_object_and_comes_back(claims: Claims) -> None:
    assert claims.covers(LARGE)
    claim = claims.put(RUN, LARGE)
    assert is_claim(claim)
    assert is_sealed(claim)
    assert len(claim) < 100
    assert claimed(claim) == (f"{RUN}/{claim[12:44].hex()}", len(LARGE))
    assert fetch(claims, f"{RUN}.1", claim) == LARGE
    assert not claims.covers(claim)
    assert not claims.covers(b"x" * 1000)
    assert not claims.covers(None)


def test_to_write_twice_is_to_write_once_and_a_run_goes_as_a_whole(claims: Claims) -> None:
    claim = claims.put(RUN, LARGE)
    assert claims.put(RUN, LARGE) == claim
    other = claims.put("other", LARGE)
    claims.put(RUN, LARGE * 2)
    assert claims.clear(RUN) == 2
    assert claims.clear(RUN) == 0
    assert claims.get("other", other) == LARGE
    with pytest.raises(ObjectUnreadable, match="isn't there") as found:
        claims.get(RUN, claim)
    assert found.value.lasting


@pytest.mark.parametrize("bad", [LARGE[:-1], LARGE + b"!", b"?" + LARGE[1:], b""])
def test_what_was_changed_is_not_taken(tmp_path: Path, bad: bytes) -> None:
    claims = Claims(Objects(f"file://{tmp_path}"), 10)
    claim = claims.put(RUN, LARGE)
    (tmp_path / claimed(claim)[0]).write_bytes(bad)
    with pytest.raises(ObjectUnreadable, match="was changed"):
        claims.get(RUN, claim)


def test_nobody_is_shown_the_objects_of_another_run(claims: Claims) -> None:
    claim = claims.put(RUN, LARGE)
    with pytest.raises(ObjectUnreadable, match="belongs to"):
        fetch(claims, "another.1", claim)
    with pytest.raises(ObjectUnreadable, match="names no run"):
        folder_of("../secret.1")


def test_a_claim_of_more_than_there_may_be_is_not_read(claims: Claims) -> None:
    claim = bytearray(claims.put(RUN, LARGE))
    claim[4] = 1
    with pytest.raises(ObjectUnreadable, match="the most"):
        claims.get(RUN, bytes(claim))


@pytest.mark.parametrize("end", range(4, 45))
def test_a_claim_that_is_cut_off_is_refused(claims: Claims, end: int) -> None:
    with pytest.raises(ObjectUnreadable, match="cut off"):
        claims.get(RUN, claims.put(RUN, LARGE)[:end])


def test_what_is_sealed_is_claimed_and_opened_when_it_was_fetched(claims: Claims) -> None:
    sealer = Sealer({"k1": b"1" * 32}, compress_bytes=10)
    sealed = sealer.seal(b"here", LARGE)
    claim = claims.put(RUN, sealed)
    assert sealer.seal(b"here", claim) == claim
    assert sealer.open(b"here", claims.get(RUN, claim)) == LARGE
    for each in (sealer, PLAIN):
        with pytest.raises(ObjectUnreadable):
            each.open(b"here", claim)


def test_a_store_that_does_not_answer_may_answer_later(tmp_path: Path) -> None:
    claims = Claims(Objects(f"file://{tmp_path}/objects"), 10)
    claim = claims.put(RUN, LARGE)
    (tmp_path / "objects").rename(tmp_path / "away")
    (tmp_path / "objects").write_text("a file")
    with pytest.raises(ObjectUnreadable) as found:
        claims.get(RUN, claim)
    with pytest.raises(ObjectsUnavailable):
        claims.put(RUN, LARGE)
    assert not found.value.lasting


def test_settings(tmp_path: Path) -> None:
    assert claims_from_env({}) is None
    made = claims_from_env(
        {"KASAGA_PAYLOAD_STORE_URL": f"file://{tmp_path}", "KASAGA_PAYLOAD_STORE_BYTES": "7"}
    )
    assert made is not None
    assert made.covers(b"x" * 8)
    assert not made.covers(b"x" * 7)
    with pytest.raises(ObjectsInvalid, match="KASAGA_PAYLOAD_STORE_BYTES"):
        claims_from(f"file://{tmp_path}", "", "many")
    with pytest.raises(ObjectsInvalid, match="KASAGA_PAYLOAD_STORE_URL"):
        claims_from("nowhere")
    with pytest.raises(ObjectsInvalid, match="_FILE"):
        claims_from_env({"KASAGA_PAYLOAD_STORE_URL_FILE": str(tmp_path / "none")})
    with pytest.raises(ObjectUnreadable, match="KASAGA_PAYLOAD_STORE_URL"):
        fetch(None, f"{RUN}.1", b"")
