# What integration/bench/peers uses of dbos 3.4: it has types, and is installed for the peers alone.
from collections.abc import Callable
from typing import ParamSpec, TypedDict, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

class DBOSConfig(TypedDict, total=False):
    name: str
    system_database_url: str
    executor_id: str
    application_version: str
    log_level: str
    sys_db_pool_size: int
    max_executor_threads: int

class DBOS:
    def __init__(self, *, config: DBOSConfig) -> None: ...
    @classmethod
    def launch(cls) -> None: ...
    @classmethod
    def workflow(cls) -> Callable[[Callable[P, R]], Callable[P, R]]: ...
    @classmethod
    def step(cls) -> Callable[[Callable[P, R]], Callable[P, R]]: ...
