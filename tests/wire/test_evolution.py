"""Reading what was written with another schema: older, newer, or a stranger's."""

from __future__ import annotations

import enum
import io
import json
from datetime import UTC, datetime, time
from decimal import Decimal
from operator import attrgetter
from types import GenericAlias
from typing import Annotated, Any, Literal
from uuid import UUID

import fastavro
import pydantic
import pytest
from pydantic import AliasChoices, AwareDatetime, BaseModel, Field

from kasaga_wire.codec import Schema, Schemas, codec_for, to_json
from kasaga_wire.errors import DecodeError, SchemaMismatch, UnknownSchema

Money = Annotated[Decimal, Field(max_digits=6, decimal_places=2)]


class Color(enum.StrEnum):
    RED = "red"
    GREEN = "green"


def model(name: str, **fields: Any) -> Any:
    return pydantic.create_model(name, **fields)


def list_of(item: Any) -> Any:
    return GenericAlias(list, item)


def dict_of(item: Any) -> Any:
    return GenericAlias(dict, (str, item))


def read(writer: type[BaseModel], value: BaseModel, reader: type[BaseModel]) -> Any:
    """Write with one model, read with another of the same name."""
    written = codec_for(writer, name="shop")
    schemas = Schemas()
    schemas.add(written.schema.json)
    return codec_for(reader, name="shop").decode(written.encode(value), schemas)


def stranger(schema: Any, datum: Any) -> tuple[bytes, Schemas]:
    """What somebody wrote who has fastavro and no Kasaga."""
    text = json.dumps(schema)
    schemas = Schemas()
    published = schemas.add(text)
    out = io.BytesIO()
    fast: Any = fastavro
    fast.schemaless_writer(out, fast.parse_schema(json.loads(text)), datum)
    return published.prefix + out.getvalue(), schemas


def read_stranger(fields: list[Any], datum: Any, reader: type[BaseModel]) -> Any:
    payload, schemas = stranger({"type": "record", "name": reader.__name__, "fields": fields}, datum)
    return codec_for(reader, name="shop").decode(payload, schemas)


Old: Any = model("Order", id=(str, ...), amount=(int, ...))


def test_a_new_field_with_a_default_is_filled_in() -> None:
    new = model(
        "Order",
        id=(str, ...),
        note=(str | None, None),
        tags=(list[str], Field(default_factory=list)),
        price=(Money, Decimal("1.50")),
        raw=(bytes, b"\xff\x00"),
        when=(AwareDatetime, datetime(2026, 1, 1, tzinfo=UTC)),
        at=(time, time(1, 2)),
        key=(UUID, UUID(int=7)),
        color=(Color, Color.GREEN),
        ratio=(float, 1),
        limit=(int | None, 5),
        data=(bytes | str, b"\xff"),
        inner=(dict[str, int], {"a": 1}),
        amount=(int, ...),
    )
    got = read(Old, Old(id="o", amount=5), new)
    assert got == new(id="o", amount=5)
    assert got.when == datetime(2026, 1, 1, tzinfo=UTC)
    assert got.data == b"\xff"


def test_a_default_may_be_a_model_in_a_union() -> None:
    one, two = model("One", x=(int, ...), y=(int, 3)), model("Two", x=(int, ...))
    new = model(
        "Order",
        id=(str, ...),
        amount=(int, ...),
        pay=(one | two | None, two(x=1)),
        more=(list_of(one), [one(x=5)]),
    )
    got = read(Old, Old(id="o", amount=5), new)
    assert type(got.pay) is two
    assert got.more == [one(x=5)]


def test_a_default_is_not_shared_between_records() -> None:
    new = model("Order", id=(str, ...), amount=(int, ...), tags=(list[str], []))
    first = read(Old, Old(id="o", amount=5), new)
    first.tags.append("mine")
    assert read(Old, Old(id="o", amount=5), new).tags == []


def test_a_new_field_without_a_default_is_refused() -> None:
    new = model("Order", id=(str, ...), amount=(int, ...), note=(str, ...))
    with pytest.raises(
        SchemaMismatch, match=r"shop\.Order\.note was not written and has no default"
    ) as caught:
        read(Old, Old(id="o", amount=5), new)
    assert caught.value.code == "KSG-113"
    assert "default" in caught.value.remedy


def test_a_field_that_is_gone_is_skipped() -> None:
    wide = model(
        "Order",
        id=(str, ...),
        lines=(list_of(dict_of(Old | None)), ...),
        price=(Money, ...),
        color=(Color, ...),
        amount=(int, ...),
    )
    value = wide(
        id="o", lines=[{"a": Old(id="x", amount=1), "b": None}], price=Decimal("1"), color="red", amount=5
    )
    with pytest.raises(Exception, match="two different types"):  # Order within Order
        codec_for(wide, name="shop")
    inner = model("Line", n=(int, ...))
    wide = model(
        "Order",
        id=(str, ...),
        lines=(list_of(dict_of(inner | None)), ...),
        color=(Color, ...),
        amount=(int, ...),
    )
    value = wide(id="o", lines=[{"a": inner(n=1), "b": None}], color="red", amount=5)
    assert read(wide, value, Old) == Old(id="o", amount=5)


def test_fields_are_matched_by_name_and_not_by_place() -> None:
    turned = model("Order", amount=(int, ...), id=(str, ...))
    assert read(Old, Old(id="o", amount=5), turned) == turned(id="o", amount=5)


def test_a_renamed_field_reads_its_former_name() -> None:
    new = model(
        "Order", order_id=(str, Field(validation_alias=AliasChoices("order_id", "id"))), amount=(int, ...)
    )
    got = read(Old, Old(id="o", amount=5), new)
    assert (got.order_id, got.amount) == ("o", 5)


def test_a_field_may_become_optional_and_a_null_cannot_become_required() -> None:
    new = model("Order", id=(str | None, ...), amount=(int, ...))
    assert read(Old, Old(id="o", amount=5), new).id == "o"
    assert read(new, new(id="o", amount=5), Old) == Old(id="o", amount=5)
    with pytest.raises(SchemaMismatch, match="null is written where string is read"):
        read(new, new(id=None, amount=5), Old)


def test_a_union_may_grow() -> None:
    a, b, c = (model(name, x=(int, ...)) for name in "ABC")
    two, three = model("Order", p=(a | b, ...)), model("Order", p=(c | b | a | None, ...))
    assert type(read(two, two(p=b(x=1)), three).p) is b
    assert type(read(three, three(p=b(x=1)), two).p) is b
    bare = model("Order", p=(b, ...))
    assert type(read(bare, bare(p=b(x=1)), three).p) is b
    with pytest.raises(SchemaMismatch):
        read(three, three(p=c(x=1)), two)


def test_an_enum_may_grow_where_its_readers_are_first() -> None:
    few, more = model("Order", c=(Literal["a"], ...)), model("Order", c=(Literal["a", "b"], ...))
    assert read(few, few(c="a"), more).c == "a"
    assert read(more, more(c="a"), few).c == "a"
    with pytest.raises(DecodeError, match=r"'b' is no symbol of shop\.Order_c") as caught:
        read(more, more(c="b"), few)
    assert "readers before writers" in caught.value.remedy


def test_numbers_widen_without_loss_only() -> None:
    wide = model("Order", id=(str, ...), amount=(float, ...))
    assert read(Old, Old(id="o", amount=2**53), wide).amount == 2.0**53
    with pytest.raises(DecodeError, match="no float equals"):
        read(Old, Old(id="o", amount=2**53 + 1), wide)
    with pytest.raises(SchemaMismatch, match=r"shop\.Order\.amount: double is written where long is read"):
        read(wide, wide(id="o", amount=1), Old)


def test_text_and_bytes_change_into_each_other() -> None:
    raw = model("Order", id=(bytes, ...), amount=(int, ...))
    assert read(Old, Old(id="ö", amount=1), raw).id == "ö".encode()
    assert read(raw, raw(id="ö".encode(), amount=1), Old).id == "ö"
    with pytest.raises(DecodeError, match="isn't UTF-8"):
        read(raw, raw(id=b"\xff", amount=1), Old)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (AwareDatetime, int),
        (int, AwareDatetime),
        (time, AwareDatetime),
        (Money, bytes),
        (Money, Annotated[Decimal, Field(max_digits=6, decimal_places=3)]),
        (str, int),
        (list[int], dict[str, int]),
        (list[str], list[int]),
        (Color, str),
        (int, bool),
        (Old, int),
    ],
)
def test_what_would_be_misread_is_a_mismatch(one: Any, other: Any) -> None:
    schemas = Schemas()
    written = (
        codec_for(model("Order", x=(one, ...)), name="shop")
        if one is not Old
        else codec_for(Old, name="shop")
    )
    schemas.add(written.schema.json)
    reader = codec_for(model("Order", x=(other, ...)), name="shop")
    with pytest.raises(SchemaMismatch):
        reader.decode(written.schema.prefix + b"\0" * 20, schemas)


def test_a_model_of_another_name_is_a_mismatch() -> None:
    bill = model("Bill", id=(str, ...), amount=(int, ...))
    with pytest.raises(SchemaMismatch, match=r"shop\.Bill is written where shop\.Order is read"):
        read(bill, bill(id="o", amount=1), Old)


def test_the_namespace_does_not_matter() -> None:
    written = codec_for(Old, name="elsewhere")
    schemas = Schemas()
    schemas.add(written.schema)
    value = Old(id="o", amount=1)
    assert codec_for(Old, name="shop").decode(written.encode(value), schemas) == value


class Tree(BaseModel):
    value: int
    left: Tree | None = None


class Taller(BaseModel):
    __avro_name__ = "shop.Tree"
    left: Taller | None = None
    value: int
    name: str = "?"


def test_recursive_models_evolve() -> None:
    got = read(Tree, Tree(value=1, left=Tree(value=2)), Taller)
    assert got == Taller(value=1, left=Taller(value=2))


@pytest.mark.parametrize(
    ("written", "datum", "annotation", "expected"),
    [
        (
            {"type": "long", "logicalType": "timestamp-millis"},
            1500,
            AwareDatetime,
            datetime(1970, 1, 1, 0, 0, 1, 500000, UTC),
        ),
        ({"type": "int", "logicalType": "time-millis"}, time(1), time, time(1)),
        ("int", 5, int, 5),
        ("float", 0.5, float, 0.5),
        ({"type": "string", "avro.java.string": "String"}, "x", str, "x"),
        ("string", str(UUID(int=5)), UUID, UUID(int=5)),
        ({"type": "array", "items": "int"}, [1, 2], list[int], [1, 2]),
        (["null", "int"], 5, int | None, 5),
        (["string", "null"], None, str | None, None),
        ({"type": "enum", "name": "Order_x", "symbols": ["b", "a"]}, "a", Literal["a", "b"], "a"),
    ],
)
def test_a_stranger_may_write_what_means_the_same(
    written: Any, datum: Any, annotation: Any, expected: Any
) -> None:
    reader = model("Order", x=(annotation, ...))
    got = read_stranger([{"name": "x", "type": written}], {"x": datum}, reader)
    assert got.x == expected


@pytest.mark.parametrize(
    ("written", "datum", "annotation"),
    [
        ({"type": "long", "logicalType": "local-timestamp-micros"}, 5, AwareDatetime),
        ("long", 5, AwareDatetime),
        ({"type": "fixed", "name": "F", "size": 2}, b"ab", bytes),
        ("string", "not a uuid", UUID),
    ],
)
def test_a_stranger_may_not_leave_the_unit_open(written: Any, datum: Any, annotation: Any) -> None:
    with pytest.raises(DecodeError):
        read_stranger([{"name": "x", "type": written}], {"x": datum}, model("Order", x=(annotation, ...)))


def test_names_of_strangers_may_leave_the_namespace_out() -> None:
    fields = [
        {"name": "a", "type": {"type": "record", "name": "Line", "fields": [{"name": "n", "type": "int"}]}},
        {"name": "b", "type": ["null", "Line"]},
    ]
    payload, schemas = stranger(
        {"type": "record", "name": "Order", "namespace": "com.acme", "fields": fields},
        {"a": {"n": 1}, "b": {"n": 2}},
    )
    line = model("Line", n=(int, ...))
    order = model("Order", a=(line, ...), b=(line | None, ...))
    assert codec_for(order, name="shop").decode(payload, schemas) == order(a=line(n=1), b=line(n=2))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense",
        "{}",
        "[]" * 2,
        '{"type":"record","name":"Order"}',
        '{"type":"record","fields":[]}',
        '{"type":"record","name":"Order","fields":[{"name":"x"}]}',
        '{"type":"record","name":"Order","fields":[{"name":"x","type":"Nowhere"}]}',
        '{"type":"record","name":"Order","fields":5}',
        '{"type":"array"}',
        '{"type":5}',
        "5",
        "null",
        '"Nowhere"',
        "[" * 50_000,
        '{"type":"array","items":' * 3_000 + '"int"' + "}" * 3_000,
    ],
)
def test_a_broken_schema_is_a_decode_error(text: str) -> None:
    schemas = Schemas()
    published = schemas.add(text)
    with pytest.raises(DecodeError):
        codec_for(Old, name="shop").decode(published.prefix + b"\0\0", schemas)
    with pytest.raises(DecodeError):
        to_json(published.prefix + b"\0\0", schemas)


def test_an_unknown_id_is_worth_a_retry() -> None:
    codec = codec_for(Old, name="shop")
    schemas = Schemas()
    other = codec_for(model("Order", id=(str, ...), amount=(int, ...), note=(str, "")), name="shop")
    payload = other.encode(other.annotation(id="o", amount=1))
    with pytest.raises(UnknownSchema) as caught:
        codec.decode(payload, schemas)
    assert caught.value.schema_id == other.schema.id
    assert not isinstance(caught.value, DecodeError)
    schemas.add(other.schema)
    assert codec.decode(payload, schemas) == Old(id="o", amount=1)


def test_readers_of_strangers_are_not_kept_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kasaga_wire.codec.MAX_FOREIGN_READERS", 3)
    for number in range(10):
        writer = model("Order", id=(str, ...), amount=(int, ...), **{f"f{number}": (int, 1)})
        assert read(writer, writer(id="o", amount=number), Old) == Old(id="o", amount=number)
    kept: dict[int, Any] = attrgetter("_foreign")(codec_for(Old, name="shop"))
    assert len(kept) <= 3


def test_every_default_is_a_default_in_avro() -> None:
    """fastavro and Java check defaults against the union's first branch; so ours must be written that way."""
    everything = model(
        "All",
        a=(int | None, 5),
        b=(str | int | None, 7),
        c=(str | int | None, None),
        d=(Old | None, Old(id="x", amount=1)),
        e=(bytes, b"\xff\0"),
        f=(Money, Decimal("-1.50")),
        g=(dict_of(list_of(Old)), {"k": [Old(id="y", amount=2)]}),
        h=(Color, Color.RED),
        i=(Literal["a", None], "a"),
        j=(float, 0),
        k=(tuple[int, ...], (1, 2)),
    )
    schema = json.loads(codec_for(everything, name="shop").schema.json)
    fastavro.parse_schema(schema)
    types = {each["name"]: each["type"] for each in schema["fields"]}
    assert types["a"] == ["long", "null"]
    assert types["b"] == ["long", "null", "string"]
    assert types["c"] == ["null", "long", "string"]
    defaults = {each["name"]: each["default"] for each in schema["fields"]}
    assert defaults["d"] == {"id": "x", "amount": 1}
    assert defaults["e"] == "\xff\0"
    assert defaults["j"] == 0.0


def test_the_id_is_31_bits_of_the_texts_hash() -> None:
    schema = Schema.of('"null"')
    assert schema.id == int.from_bytes(schema.hash[:4], "big") & 0x7FFFFFFF
    assert schema.prefix == b"\0" + schema.id.to_bytes(4, "big")


def test_a_schema_cannot_make_a_billion_values_of_no_bytes() -> None:
    inner: Any = {"type": "record", "name": "R0", "fields": [{"name": "n", "type": "null"}]}
    for number in range(1, 40):
        fields = [{"name": "a", "type": inner}, {"name": "b", "type": f"R{number - 1}"}]
        inner = {"type": "record", "name": f"R{number}", "fields": fields}
    fields = [
        {"name": "id", "type": "string"},
        {"name": "amount", "type": "long"},
        {"name": "bomb", "type": inner},
    ]
    schemas = Schemas()
    published = schemas.add(json.dumps({"type": "record", "name": "Order", "fields": fields}))
    payload = published.prefix + b"\x02o\x02"
    for read_it in (codec_for(Old, name="shop").decode, to_json):
        with pytest.raises(SchemaMismatch, match="records without content"):
            read_it(payload, schemas)


def test_a_record_without_content_is_read() -> None:
    fields: list[Any] = [
        {"name": "id", "type": "string"},
        {"name": "amount", "type": "long"},
        {"name": "empty", "type": {"type": "record", "name": "Empty", "fields": []}},
    ]
    assert read_stranger(fields, {"id": "o", "amount": 1, "empty": {}}, Old) == Old(id="o", amount=1)
