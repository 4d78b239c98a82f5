"""schemathesis against a served API: what its document promises, for whatever is sent.

Used on a store in memory (`test_api_fuzz.py`) and on real servers (`integration/api`).
"""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

import httpx
import schemathesis
from hypothesis import HealthCheck, Phase, assume, given, settings
from schemathesis import GenerationMode
from schemathesis import checks as known_checks

from kasaga_wire.nodes import is_object

MOST_SECONDS = 0.05
"""A request that may wait for an end does so for this long, whatever was drawn."""

MODES = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)


def operations(base: str) -> dict[str, Any]:
    """The operations of the document that is served, by their ids.

    Without its security: the token is sent with everything, and who has none is tried elsewhere.
    """
    document = httpx.get(f"{base}/api/v1/openapi.json").json()
    del document["components"]["securitySchemes"]
    for path in document["paths"].values():
        for operation in path.values():
            del operation["security"]
    schema: Any = schemathesis.openapi.from_dict(document)
    found = [result.ok() for result in schema.get_all_operations()]
    return {each.definition.raw["operationId"]: each for each in found}


def attack(
    operation: Any,
    base: str,
    mode: GenerationMode,
    *,
    examples: int,
    headers: dict[str, str],
    start: dict[str, Any],
) -> list[int]:
    """Send so many requests of one operation and check each answer; returns the statuses.

    `start`: the name and input of a saga that can be started, for starts that are to be accepted.
    """
    known: Any = known_checks
    known.load_all_checks()
    checks = known.CHECKS.get_all()
    statuses: list[int] = []

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def run(case: Any) -> None:
        tame(case, mode, start)
        answer = case.call_and_validate(base_url=base, headers=headers, checks=checks)
        statuses.append(answer.status_code)

    run()
    return statuses


def tame(case: Any, mode: GenerationMode, start: dict[str, Any]) -> None:
    """Keep what is drawn from waiting long, and give what must be accepted what no document can say."""
    query: Any = case.query
    body: Any = case.body
    if isinstance(query.get("wait"), int | float) and case.path.endswith(("/sagas", "/result")):
        query["wait"] = min(query["wait"], MOST_SECONDS)
    if "/{name}" in case.path and mode is not GenerationMode.NEGATIVE:
        query["wait"] = 1.0  # nobody answers there, and less may not be asked for
    if mode is GenerationMode.NEGATIVE:
        # What isn't sent at all breaks no rule.
        assume(not any(value in (None, [], {}) for value in query.values()))
        return
    for each in (case.path_parameters, body):
        if is_object(each):
            assume(unquote(str(each.get("saga_id", "x"))).isprintable())
    if is_object(body) and "input" in body:
        body.pop("version", None)
        body.update(start)
    query.pop("cursor", None)
    for each in (query, body.get("filter") if is_object(body) else None):
        if is_object(each) and each.get("where"):
            each["where"] = "state = RUNNING or attr.customer = 'c-7'"  # no document can say a language
    if is_object(body) and body.get("attributes"):
        body["attributes"] = {"customer": "c-7", "amount": 1, "due": {"time": "2026-11-23T10:00:00Z"}}
