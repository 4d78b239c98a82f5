"""The OpenAPI document is kept as a file, for whoever makes a client of it; and the guide says what is so.

To keep a change that is meant: KASAGA_UPDATE_GOLDEN=1 pytest tests/api/test_api_document.py
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pydantic
import pytest

from api.desk_api import Desk
from kasaga.api import guard, models, problems
from kasaga.api.backend import Backend
from kasaga.api.errors import ApiError
from kasaga.api.settings import SHARED, ApiSettings, api_variable
from kasaga.store.base import SagaState
from kasaga_wire.errors import KasagaError

ORCHESTRATOR = Path(__file__).parents[2] / "orchestrator"
KEPT = ORCHESTRATOR / "openapi.json"
GUIDE = (ORCHESTRATOR / "api.md").read_text()


def document() -> dict[str, Any]:
    made: dict[str, Any] = json.loads(json.dumps(Desk().app().openapi()))
    made["info"]["version"] = "1"
    return made


def routes() -> list[tuple[str, str, dict[str, Any]]]:
    paths: dict[str, Any] = document()["paths"]
    return [
        (method, path, operation) for path, methods in paths.items() for method, operation in methods.items()
    ]


def test_the_document_is_the_one_that_is_kept() -> None:
    made = document()
    if os.environ.get("KASAGA_UPDATE_GOLDEN"):
        KEPT.write_text(json.dumps(made, indent=1, ensure_ascii=False) + "\n")
    assert json.loads(KEPT.read_text()) == made


def test_each_operation_says_all_that_a_client_must_know() -> None:
    ids = [operation["operationId"] for _, _, operation in routes()]
    assert len(ids) == len(set(ids)) == 20
    for method, path, operation in routes():
        assert operation["summary"], path
        assert operation["security"] == [{"token": []}]
        responses = operation["responses"]
        assert {"200", "401", "421", "422", "500", "503"} <= responses.keys(), path
        if method == "post":
            assert {"400", "403", "413", "415"} <= responses.keys(), path
        for status, response in responses.items():
            kinds = ["application/json"] if status < "400" else [problems.MEDIA_TYPE]
            assert list(response["content"]) == kinds, (path, status)


def test_nothing_is_changed_but_by_the_method_whose_type_the_guard_looks_at() -> None:
    methods = {method for route in Desk().app().routes for method in getattr(route, "methods", None) or ()}
    assert methods == {"GET", "HEAD", guard.WRITES}


@pytest.mark.parametrize(
    "model", [models.StartRequest, models.SagaResult, models.ActionResult, models.Problem, models.SagaSummary]
)
def test_examples_are_what_they_are_examples_of(model: type[pydantic.BaseModel]) -> None:
    examples = document()["components"]["schemas"][model.__name__]["examples"]
    assert examples
    for example in examples:
        assert set(model.model_validate(example).model_dump()) >= set(example)


def test_a_state_is_one_that_a_saga_has() -> None:
    assert document()["components"]["schemas"]["SagaState"]["enum"] == [state.value for state in SagaState]


# --- the guide


def test_every_setting_is_in_the_guide_with_its_default() -> None:
    written = dict(re.findall(r"^\| `(KASAGA_[A-Z_]+)` \| ([^|]+) \|", GUIDE, re.MULTILINE))
    for name, field in ApiSettings.model_fields.items():
        if name in SHARED or name == "kafka":
            continue
        default = written.pop(api_variable(name))
        if isinstance(field.default, int | float | str) and field.default != "":
            assert default.strip("`") == str(field.default), name
    assert written == {}


def test_every_operation_is_in_the_guide() -> None:
    written = set(re.findall(r"^\| `(GET|POST) (/[^`]*)` \|", GUIDE, re.MULTILINE))
    assert written == {(method.upper(), path.removeprefix("/api/v1")) for method, path, _ in routes()}


def test_every_error_of_the_api_has_a_status() -> None:
    for each in ApiError.__subclasses__():
        if each.__name__ in ("Unguarded", "CannotListen", "InvalidRequest", "NoSuchPath"):
            continue
        assert 400 <= problems.status_of(each("x")) < 600
        assert problems.status_of(each("x")) != 500, each


def test_an_error_that_nobody_thought_of_is_a_fault_of_ours() -> None:
    assert problems.status_of(KasagaError("x")) == 500


def test_the_backend_is_what_the_pages_ask_for() -> None:
    assert {"client", "read", "namespace"} <= set(dir(Backend))
