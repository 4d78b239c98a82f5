"""The list of sagas: what its address chooses, and the addresses of its other pages.

Pure. Called by `pages`. All of a choice is in the address, so that it can be kept and sent to somebody.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from urllib.parse import quote, urlencode
from uuid import UUID

from starlette.datastructures import QueryParams

from ..errors import BadQuery
from ..search import Condition, parse
from ..search.language import MAX_CHARACTERS
from ..store.base import SagaFilter, SagaRow, SagaState
from ..wording import STATE_MEANING, when
from .story import Item, item

PAGE = 50
"""Sagas on one page."""

TEXT = 256
"""Characters of one field: no saga's id is longer."""

FIELDS = ("name", "prefix", "code", "after", "before", "where")

KNOWN = ("state", *FIELDS, "below")
"""What the list's address may say. Anything else would look like a filter, and choose every saga."""

LONGEST = {"where": MAX_CHARACTERS + 1}
"""Of other fields; one more than can be, so that it is told and not cut."""

SHOWN = 40
"""Characters shown of what can't be."""


@dataclass(slots=True)
class Choice:
    """One state to choose."""

    name: str
    tone: str
    chosen: bool


@dataclass(slots=True)
class Wanted:
    """What an address chooses. Fields are kept as they were typed; `problems` says which can't be."""

    states: list[SagaState] = field(default_factory=list[SagaState])
    texts: dict[str, str] = field(default_factory=lambda: dict.fromkeys(FIELDS, ""))
    below: UUID | None = None
    """The run id above this page: the last one of the page before."""
    problems: dict[str, str] = field(default_factory=dict[str, str])

    @property
    def filtered(self) -> bool:
        """Whether anything is chosen at all."""
        return bool(self.states) or any(self.texts.values())

    def where(self, now: datetime) -> SagaFilter:
        """What the store is asked; call it once: it notes problems."""
        texts = self.texts
        return SagaFilter(
            states=tuple(self.states),
            name=texts["name"],
            saga_id_prefix=texts["prefix"],
            code=texts["code"].upper(),
            started_after=self._time("after", now),
            started_before=self._time("before", now),
            where=self._query(now),
        )

    def _query(self, now: datetime) -> Condition | None:
        if not self.texts["where"]:
            return None
        try:
            return parse(self.texts["where"], now)
        except BadQuery as error:
            self.problems["where"] = error.message + (f". {error.remedy}" if error.remedy else "")
            return None

    def _time(self, name: str, now: datetime) -> datetime | None:
        if not self.texts[name]:
            return None
        try:
            return when(self.texts[name], now)
        except ValueError as error:
            self.problems[name] = str(error)
            return None

    def address(self, below: UUID | None = None) -> str:
        """The address of a page of this choice; of the first one by default."""
        query = [("state", state.value) for state in self.states]
        query += [(name, text) for name, text in self.texts.items() if text]
        if below is not None:
            query.append(("below", str(below)))
        return f"/sagas?{urlencode(query)}" if query else "/sagas"


def wanted(query: QueryParams) -> Wanted:
    """Read an address."""
    made = Wanted()
    strange = next((name for name in query if name not in KNOWN), None)
    if strange is not None:
        made.problems["address"] = f"there is no filter {strange[:SHOWN]!r}: there are {', '.join(KNOWN)}"
    for given in query.getlist("state")[: len(SagaState)]:
        try:
            state = SagaState(given.upper())
        except ValueError:
            known = ", ".join(each.value for each in SagaState)
            made.problems["state"] = f"there is no state {given[:SHOWN]!r}: there are {known}"
            continue
        if state not in made.states:
            made.states.append(state)
    made.texts = {name: query.get(name, "").strip()[: LONGEST.get(name, TEXT)] for name in FIELDS}
    if query.get("below"):
        try:
            made.below = UUID(query["below"])
        except ValueError:
            made.problems["below"] = "the address names no page: this is the first one"
    return made


@dataclass(slots=True)
class Listing:
    """All of the list's page."""

    now: datetime
    wanted: Wanted
    choices: list[Choice]
    items: list[Item]
    older: str
    """The address of the next page, or empty."""
    newest: str
    """The address of the first page, on any other one."""


def listing(chosen: Wanted, rows: Sequence[SagaRow], now: datetime) -> Listing:
    """Put the list's page together; of `rows` there is one more than a page has, if there are more."""
    shown = rows[:PAGE]
    return Listing(
        now,
        chosen,
        [Choice(each.value, STATE_MEANING.get(each.value, ""), each in chosen.states) for each in SagaState],
        [item(row, now) for row in shown],
        chosen.address(shown[-1].run_id) if len(rows) > PAGE else "",
        chosen.address() if chosen.below else "",
    )


def saga_address(saga_id: str) -> str:
    """Where a saga's page is: `/sagas/order-42`; a browser would leave the dots out of a path."""
    if saga_id in (".", ".."):
        return f"/saga?{urlencode({'id': saga_id})}"
    return f"/sagas/{quote(saga_id, safe='')}"


def action_address(saga_id: str, action: str, step: str) -> str:
    """Where an action is confirmed."""
    query = {"saga": saga_id, "action": action} | ({"step": step} if step else {})
    return f"/act?{urlencode(query)}"


def payload_address(saga_id: str, entry: int, part: str, runs: str = "") -> str:
    """Where the whole of a payload is."""
    query = {"saga": saga_id, "entry": entry, "part": part} | ({"runs": runs} if runs else {})
    return f"/payload?{urlencode(query)}"


def page_address(saga_id: str, page: int, runs: str = "") -> str:
    """Where a further page of a saga's history is; `runs`: `all` for that of its earlier runs as well."""
    address = saga_address(saga_id)
    query = ({"runs": runs} if runs else {}) | ({"page": page} if page > 1 else {})
    if not query:
        return address
    return f"{address}{'&' if '?' in address else '?'}{urlencode(query)}#history"
