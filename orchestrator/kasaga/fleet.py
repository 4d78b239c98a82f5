"""Which sagas the processes that live have, and so which version of a saga is started.

Station: fed by `Ownership` with each heartbeat's answer, asked by `Decider` at each start without a version,
and by the HTTP API.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping


def listed(sagas: Iterable[tuple[str, int]]) -> list[str]:
    """Say which sagas a process has, as the store keeps it."""
    return sorted(f"{name}/{version}" for name, version in sagas)


def newest(name: str, own: frozenset[str], others: Iterable[frozenset[str]]) -> int:
    """Return the version of a saga to start: the newest that all processes have.

    Where they have none in common, the newest of this process, which can run it; else the newest of any:
    the saga waits for that one. 0: nobody has one.
    """
    versions, theirs = _versions(name, own), [_versions(name, has) for has in others]
    common = versions.intersection(*theirs)
    return max(common or versions or frozenset[int]().union(*theirs), default=0)


def _versions(name: str, has: frozenset[str]) -> frozenset[int]:
    split = (each.rpartition("/") for each in has)
    return frozenset(int(version) for of, _, version in split if of == name and version.isdecimal())


class Fleet:
    """What one process knows of all; the loop's thread alone uses it."""

    def __init__(self, sagas: Iterable[tuple[str, int]]) -> None:
        self.own = listed(sagas)
        self._has = frozenset(self.own)
        self._others: dict[str, frozenset[str]] = {}
        self._newest: dict[str, int] = {}

    def learn(self, others: Mapping[str, frozenset[str]]) -> None:
        """Take in what the other processes that live have."""
        if others != self._others:
            self._others = dict(others)
            self._newest.clear()

    def newest(self, name: str) -> int:
        """Return the version of a saga to start, 0 where nobody has one."""
        found = self._newest.get(name)
        if found is None:
            found = newest(name, self._has, self._others.values())
            if found:
                self._newest[name] = found
        return found
