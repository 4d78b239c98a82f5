"""Every error has a code of its own, a remedy, and a section in orchestrator/errors.md."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import kasaga.engine.decide  # every error of the engine is loaded by it
import kasaga.errors
import kasaga_wire.errors
from kasaga.errors import SagaCodeError, StillWaiting
from kasaga_wire.errors import KasagaError

PAGE = Path(__file__).parents[2] / "orchestrator" / "errors.md"

SECTIONS = dict(re.findall(r"^## (KSG-\d{3}) (\w+)$", PAGE.read_text(), re.MULTILINE))


def below(kind: type[KasagaError]) -> list[type[KasagaError]]:
    return [kind, *(deeper for each in kind.__subclasses__() for deeper in below(each))]


def ours() -> list[type[KasagaError]]:
    """Errors of the wire, of sagas and of the engine; other rooms test their own."""
    modules = (kasaga_wire.errors.__name__, kasaga.errors.__name__)
    return [
        each
        for each in below(KasagaError)
        if each.__module__ in modules or "kasaga.engine" in each.__module__
    ]


def test_every_error_has_its_section() -> None:
    assert {each.code: each.__name__ for each in ours()}.items() <= SECTIONS.items()


def test_every_code_belongs_to_one_error() -> None:
    codes = Counter(each.code for each in ours())
    assert [code for code, times in codes.items() if times > 1] == []


def test_the_sections_are_in_order_and_none_is_twice() -> None:
    headings = re.findall(r"^## (KSG-\d{3})", PAGE.read_text(), re.MULTILINE)
    assert headings == sorted(set(headings))


def test_what_makes_a_saga_stuck_has_a_remedy() -> None:
    for each in (*below(SagaCodeError), *below(StillWaiting)[1:]):
        if each.__module__ == kasaga.errors.__name__:
            assert each.default_remedy, each
            assert each("x").remedy == each.default_remedy


def test_the_errors_module_draws_its_tree() -> None:
    drawn = kasaga.errors.__doc__ or ""
    for each in below(KasagaError):
        if each.__module__ == kasaga.errors.__name__:
            assert re.search(rf"[─ ]{each.__name__}\b", drawn), each.__name__


def test_the_engine_is_loaded() -> None:
    assert kasaga.engine.decide
