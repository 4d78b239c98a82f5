"""Schemas, ids and bytes that have been published stay what they are.

A test here fails when a change of ours changes what lies in other people's topics. To keep a change that
is meant: KASAGA_UPDATE_GOLDEN=1 pytest tests/wire/test_golden.py
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import fastavro
import pytest

from kasaga_wire.codec import Schemas, codec_for, to_json
from kasaga_wire.contracts import contract_of
from kasaga_wire.records import own_schemas
from wire.golden_models import GOLDEN, LARGE, RESERVATION, Inventory

HERE = Path(__file__).parent / "golden"
IDS = "from wire.test_golden import ids; print(ids())"


def kept(name: str, made: Any) -> Any:
    """What is in the file; writes it first when asked to."""
    path = HERE / name
    if os.environ.get("KASAGA_UPDATE_GOLDEN"):
        path.write_text(json.dumps(made, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return json.loads(path.read_text(encoding="utf-8"))


def undo_payload() -> bytes:
    reserve = contract_of(Inventory).commands["reserve"]
    release = contract_of(Inventory).compensations["release"]
    return release.payload.encode(
        reserve.input.encode(LARGE),
        reserve.input.schema,
        reserve.result.encode(RESERVATION),
        reserve.result.schema,
        "no stock",
        "2",
    )


def schemas() -> dict[str, Any]:
    found = {name: codec_for(a, name=namespace).schema for name, (a, namespace, _) in GOLDEN.items()}
    found |= {f"own-{number}": schema for number, schema in enumerate(own_schemas())}
    found["undo"] = contract_of(Inventory).compensations["release"].payload.schema
    return {
        name: {"id": schema.id, "hash": schema.hash.hex(), "schema": schema.json}
        for name, schema in found.items()
    }


def ids() -> dict[str, int]:
    return {name: each["id"] for name, each in schemas().items()}


def test_schemas_stay_what_they_are() -> None:
    made = schemas()
    assert made == kept("schemas.json", made)


def test_payloads_stay_what_they_are() -> None:
    made = {name: codec_for(a, name=ns).encode(value).hex() for name, (a, ns, value) in GOLDEN.items()}
    made["undo"] = undo_payload().hex()
    assert made == kept("payloads.json", made)


def test_kept_payloads_can_be_read() -> None:
    payloads: dict[str, str] = json.loads((HERE / "payloads.json").read_text(encoding="utf-8"))
    for name, (annotation, namespace, value) in GOLDEN.items():
        payload = bytes.fromhex(payloads[name])
        assert codec_for(annotation, name=namespace).decode(payload, Schemas()) == value


def test_what_people_read_stays_what_it_is() -> None:
    known = Schemas()
    known.add(contract_of(Inventory).compensations["release"].payload.schema)
    made = to_json(undo_payload(), known)
    assert made == kept("people.json", made)


def test_fastavro_accepts_every_schema() -> None:
    for each in schemas().values():
        fastavro.parse_schema(json.loads(each["schema"]))


@pytest.mark.parametrize("seed", ["0", "12345"])
def test_ids_are_the_same_in_every_process(seed: str) -> None:
    environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)}
    # Another union of the same members first: typing caches by equality and would hand this order out again.
    first = "from typing import *; Optional[Literal['high', 'low']]; List[Union[str, int]]; "
    made = subprocess.run(
        [sys.executable, "-c", first + IDS], env=environment, capture_output=True, text=True, check=True
    )
    assert made.stdout.strip() == str(ids())
