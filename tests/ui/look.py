"""Looking at pages without a browser: their elements, and what a strict policy wouldn't let pass."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any, TypeVar

import httpx

from api.desk_api import BASE, Desk, settings

T = TypeVar("T")

TOKEN = "a-long-and-random-token"
OWN = {"Origin": BASE, "Sec-Fetch-Site": "same-origin"}
VOID = {"meta", "link", "input", "img", "br"}


@dataclass
class Element:
    tag: str
    attributes: dict[str, str]
    text: str = ""


@dataclass
class Page(HTMLParser):
    """All elements of a page in order, each with the text that is directly or deeper in it."""

    html: str
    elements: list[Element] = field(default_factory=list[Element])

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._open: list[Element] = []
        self.feed(self.html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, {name: value or "" for name, value in attrs})
        self.elements.append(element)
        if tag not in VOID:
            self._open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(Element(tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop().tag != tag:
            pass

    def handle_data(self, data: str) -> None:
        for element in self._open:
            element.text += data

    def all(self, tag: str = "", **attributes: str) -> list[Element]:
        wanted = {name.replace("_", "-").strip("-"): value for name, value in attributes.items()}
        return [
            each
            for each in self.elements
            if tag in ("", each.tag)
            and all(value in each.attributes.get(name, "").split(" ") for name, value in wanted.items())
        ]

    def one(self, tag: str = "", **attributes: str) -> Element:
        found = self.all(tag, **attributes)
        assert len(found) == 1, f"{len(found)} of {tag} {attributes} in {self.text[:2000]}"
        return found[0]

    @property
    def text(self) -> str:
        return " ".join(self.one("body").text.split())

    def check(self) -> None:
        """Nothing that the policy forbids, nothing from elsewhere, no id twice."""
        for each in self.elements:
            inline = [name for name in each.attributes if name.startswith("on") or name == "style"]
            assert not inline, each
            assert each.tag != "style", each
            assert each.tag != "script" or (each.attributes.get("src") and not each.text), each
            for name in ("src", "href", "action", "data"):
                address = each.attributes.get(name, "/")
                assert address.startswith(("/", "#")), each
                assert not address.startswith("//"), each
        ids = [each.attributes["id"] for each in self.elements if "id" in each.attributes]
        assert len(ids) == len(set(ids)), sorted(ids)
        labelled = {each.attributes.get("for") for each in self.all("label")}
        for each in self.elements:
            kind = each.attributes.get("type", "")
            shown = kind not in ("hidden", "checkbox") and "hidden" not in each.attributes
            if each.tag in ("input", "textarea") and shown:
                assert each.attributes["id"] in labelled, each
        assert len(self.all("h1")) == 1
        assert self.all("title")[0].text


Caller = httpx.AsyncClient


def browse(
    desk: Desk,
    work: Callable[[Caller], Awaitable[T]],
    *,
    token: str = "",
    cookies: dict[str, str] | None = None,
    **given: Any,
) -> T:
    """Let something be done with the pages of a desk."""

    async def act() -> T:
        made = settings(**({"token": token} if token else {}), **given.pop("settings", {}))
        async with desk.serving(made, **given) as caller:
            for name, value in (cookies or {}).items():
                caller.cookies.set(name, value)
            return await work(caller)

    return asyncio.run(act())


def see(desk: Desk, path: str, status: int = 200, **given: Any) -> Page:
    """One page, which keeps to the rules."""

    async def work(caller: Caller) -> Page:
        answer = await caller.get(path)
        assert answer.status_code == status, answer.text[:2000]
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        page = Page(answer.text)
        page.check()
        return page

    return browse(desk, work, **given)
