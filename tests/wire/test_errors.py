"""Each error has a code of its own, and the tree at the top of their file is the real one."""

from __future__ import annotations

import inspect
import re

from kasaga_wire import errors
from kasaga_wire.errors import DeliveryError, EnvelopeError, KasagaError, UnknownSchema


def classes() -> list[type[KasagaError]]:
    return [each for _, each in inspect.getmembers(errors, inspect.isclass) if issubclass(each, KasagaError)]


def test_codes_are_unique_and_in_range() -> None:
    codes = [each.code for each in classes()]
    assert len(set(codes)) == len(codes)
    assert all(re.fullmatch(r"KSG-1\d\d", code) for code in codes)


def test_the_tree_in_the_docstring_is_complete() -> None:
    tree = errors.__doc__ or ""
    for each in classes():
        if each.code not in ("KSG-100", "KSG-109", "KSG-139"):
            assert re.search(rf"\b{each.__name__} +{each.code}\b", tree), each


def test_an_error_says_its_code_and_its_remedy() -> None:
    assert str(KasagaError("it broke.", remedy="mend it.")) == "KSG-100: it broke. Remedy: mend it."
    assert str(KasagaError("it broke")) == "KSG-100: it broke."
    assert str(EnvelopeError("ce_id", "missing")) == "KSG-120: header ce_id: missing."
    assert UnknownSchema(7).schema_id == 7
    error = DeliveryError("MSG_SIZE_TOO_LARGE", "too large", permanent=True)
    assert (error.name, error.permanent, error.fatal) == ("MSG_SIZE_TOO_LARGE", True, False)
