"""Declaring sagas and an App: what can't work is refused at once and by name."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.shop import PARTICIPANTS, Inventory, Order, payment
from kasaga import App, SagaContext, saga
from kasaga_wire.codec import Schemas
from kasaga_wire.errors import ContractError


@pytest.fixture(autouse=True)
def replaying() -> None:
    """Nothing is played here."""


async def good(ctx: SagaContext, order: Order) -> None:
    """Does nothing."""


async def too_few(ctx: SagaContext) -> None:
    """Lacks the argument."""


async def too_many(ctx: SagaContext, order: Order, more: Order) -> None:
    """Has one too many."""


def no_coroutine(ctx: SagaContext, order: Order) -> None:
    """Isn't async."""


@pytest.mark.parametrize(
    ("name", "version", "timeout", "function", "says"),
    [
        ("", 1, None, good, "saga name ''"),
        ("a b", 1, None, good, "saga name 'a b'"),
        ("ä", 1, None, good, "saga name 'ä'"),
        ("x" * 64, 1, None, good, "use up to 63"),
        ("x", 0, None, good, "version is 0"),
        ("x", 1, 0, good, "timeout is 0"),
        ("x", 1, None, too_few, "must take the context and one argument"),
        ("x", 1, None, too_many, "must take the context and one argument"),
        ("x", 1, None, no_coroutine, "must be an async def"),
    ],
)
def test_what_is_no_saga(name: str, version: int, timeout: float | None, function: Any, says: str) -> None:
    with pytest.raises(ContractError) as caught:
        saga(name, version=version, timeout=timeout)(function)
    assert says in caught.value.message


@pytest.mark.parametrize(
    ("annotations", "says"),
    [
        ({}, "'order' has no annotation"),
        ({"order": "Order"}, "'return' has no annotation"),
        ({"order": "Nowhere", "return": "None"}, "name 'Nowhere' is not defined"),
    ],
)
def test_annotations_are_needed_when_they_are_used(annotations: dict[str, Any], says: str) -> None:
    async def bare(ctx: SagaContext, order: Order) -> None:
        """Loses its annotations below."""

    bare.__annotations__ = annotations
    declared = saga("x")(bare)
    with pytest.raises(ContractError, match=says):
        assert declared.input


def test_models_may_be_local_to_the_function_around() -> None:
    class Local(Order):
        note: str = ""

    @saga("local")
    async def local(ctx: SagaContext, order: Local) -> Local:
        return order

    assert local.input.decode(local.input.encode(Local(id="1", note="n")), Schemas()).note == "n"


def test_an_app_lists_everything_once() -> None:
    with pytest.raises(ContractError, match="saga 'payment' version 1 is listed twice"):
        App("shop", sagas=[payment, payment])
    with pytest.raises(ContractError, match="participant 'inventory' is listed twice"):
        App("shop", sagas=[], participants=[Inventory, Inventory])
    with pytest.raises(ContractError):
        App("shop", sagas=[], participants=[Order])


def test_the_latest_version() -> None:
    second = saga("payment", version=2)(good)
    app = App("shop", sagas=[second, payment])
    assert (app.latest("payment"), app.latest("other")) == (2, 0)


def test_every_schema_is_there_to_be_published() -> None:
    schemas = Schemas()
    App("shop", sagas=[payment], participants=PARTICIPANTS).definitions(schemas, max_payload=1)
    known = {schema.id for schema in schemas}
    assert {payment.input.schema.id, payment.result.schema.id} <= known
    assert len(known) > 10


def load(path: Path, name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


SOURCE = """
from engine.shop import Order, Receipt
from kasaga import App, SagaContext, saga

@saga("written")
async def written(ctx: SagaContext, order: Order) -> None:
    pass

app = App("shop", sagas=[written])
"""


def test_the_fingerprint_changes_with_the_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fingerprint(**files: str) -> str:
        for name, text in files.items():
            path = tmp_path / f"{name}.py"
            path.write_text(text)
            monkeypatch.setitem(sys.modules, f"app_{name}", load(path, f"app_{name}"))
        found: Callable[[], str] = load(tmp_path / "sagas.py", "app_sagas").app.fingerprint
        assert found() == found()
        return found()

    first = fingerprint(sagas=SOURCE, helper="")
    assert first == fingerprint(sagas=SOURCE)
    assert first != fingerprint(helper="# changed")
    assert first == fingerprint(helper="")
    assert first != fingerprint(sagas=SOURCE + "# changed")
