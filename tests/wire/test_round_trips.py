"""Laws for all models and all values: what is encoded is what is decoded, by whichever way it is read."""

from __future__ import annotations

import contextlib
import enum
import io
import json
from typing import Any, cast

import fastavro
import pydantic
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kasaga_wire.codec import Codec, Schemas, codec_for, to_json
from kasaga_wire.errors import ContractError, DecodeError, UnknownSchema
from kasaga_wire.reading import Resolver
from kasaga_wire.schema import PREFIX_BYTES, names_of
from wire.samples import kinds, whole_models

# Each example compiles models: fewer of them, and nobody waits.
patient = settings(suppress_health_check=[HealthCheck.too_slow], deadline=None, max_examples=40)


def codec(annotation: Any) -> Codec[Any]:
    return codec_for(annotation, name="shop")


def known(*codecs: Codec[Any]) -> Schemas:
    schemas = Schemas()
    for each in codecs:
        schemas.add(each.schema)
    return schemas


@patient
@given(st.data())
def test_decoding_gives_what_was_encoded(data: st.DataObject) -> None:
    kind = data.draw(kinds | whole_models)
    value = data.draw(kind.values)
    made = codec(kind.annotation)
    decoded = made.decode(made.encode(value), Schemas())
    assert decoded == value
    assert type(decoded) is type(value)


@patient
@given(st.data())
def test_the_two_readers_agree(data: st.DataObject) -> None:
    kind = data.draw(whole_models)
    made = codec(kind.annotation)
    payload = made.encode(data.draw(kind.values))
    names = names_of(made.schema.json)
    fast = made.read(payload, Schemas())
    assert Resolver(names).compile()(payload, PREFIX_BYTES, 0) == (fast, len(payload))
    resolved, _ = Resolver(names, names_of(made.schema.json + " ")).compile()(payload, PREFIX_BYTES, 0)
    assert resolved == fast


@patient
@given(st.data())
def test_fastavro_reads_the_published_schema_the_same_way(data: st.DataObject) -> None:
    kind = data.draw(whole_models)
    made = codec(kind.annotation)
    value = data.draw(kind.values)
    payload = made.encode(value)
    published = fastavro.parse_schema(json.loads(made.schema.json))
    fast: Any = fastavro
    theirs: dict[str, Any] = fast.schemaless_reader(io.BytesIO(payload[PREFIX_BYTES:]), published, None)
    mine = dict(vars(cast(pydantic.BaseModel, value)))
    for name, each in mine.items():
        if not isinstance(each, (list, tuple, dict, pydantic.BaseModel)):
            assert theirs[name] == (each.value if isinstance(each, enum.Enum) else each)


@patient
@given(st.data())
def test_people_can_read_everything(data: st.DataObject) -> None:
    kind = data.draw(kinds)
    made = codec(kind.annotation)
    json.dumps(to_json(made.encode(data.draw(kind.values)), known(made)), allow_nan=False)


@patient
@given(st.data())
def test_broken_bytes_are_decode_errors_and_nothing_else(data: st.DataObject) -> None:
    kind = data.draw(kinds | whole_models)
    made = codec(kind.annotation)
    payload = bytearray(made.encode(data.draw(kind.values)))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(payload)))
        payload[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
    with contextlib.suppress(DecodeError, UnknownSchema):
        made.decode(bytes(payload), known(made))
    with contextlib.suppress(DecodeError, UnknownSchema):
        to_json(bytes(payload), known(made))


@patient
@given(st.data())
def test_bytes_that_are_cut_off_or_too_long_are_refused(data: st.DataObject) -> None:
    kind = data.draw(whole_models)
    made = codec(kind.annotation)
    payload = made.encode(data.draw(kind.values))
    cut = data.draw(st.integers(0, len(payload) - 1))
    for wrong in (payload[:cut], payload + data.draw(st.binary(min_size=1, max_size=3))):
        with pytest.raises(DecodeError):
            made.decode(wrong, Schemas())


@patient
@given(st.data())
def test_the_schema_does_not_depend_on_the_order_of_union_members(data: st.DataObject) -> None:
    one, other = data.draw(kinds), data.draw(kinds)
    try:
        forth = codec(dict[str, one.annotation | other.annotation | None])  # type: ignore[name-defined]
    except ContractError:  # they look alike
        return
    back = codec(dict[str, other.annotation | one.annotation | None])  # type: ignore[name-defined]
    assert forth.schema == back.schema
