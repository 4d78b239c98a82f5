# What integration/bench/peers uses of uvloop 0.23: it has types, and is installed for the peers alone.
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

def run(main: Coroutine[Any, Any, T]) -> T: ...
