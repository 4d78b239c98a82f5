"""The pages: what each address shows.

    routes(behind, door, status_of) -> routes of the API's application        `kasaga.api.app`

Station: the outermost piece. Each page reads the store in one of the process's reading threads, makes its
view model there, and renders a template. Actions go to the saga's owner as records, by the same client that
the API uses. Nothing here writes a saga.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any, Protocol, TypeVar
from urllib.parse import parse_qs, quote

from starlette.convertors import Convertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from kasaga_wire.errors import KasagaError
from kasaga_wire.redaction import redact

from ..client import UnknownSaga
from ..lookup import find, look, read_records, stored_decoder
from ..store.base import Store
from ..timeline import timeline
from ..wording import sentence
from . import session
from .acts import REASON_NEEDED, BadForm, Form, Owner, carry_out
from .listing import PAGE, listing, saga_address, wanted
from .overview import Overview
from .overview import read as read_overview
from .render import HEADERS, renderer
from .story import Action, actions, pretty, story

ALL_RUNS = "all"
"""In an address: the history of a saga's earlier runs, too."""

log = logging.getLogger("kasaga.ui")

T = TypeVar("T")

EVERY_SECONDS = 2.0
"""How often a live page asks again, and for how long the overview's figures are kept."""

SHARE = 10
"""A page is asked for again after so many times as long as it took: at most a tenth of a thread's time."""

LONGEST_EVERY = 30.0

UNEXPECTED = "KSG-599"


class Behind(Owner, Protocol):
    """What the pages need of the process that serves them: `kasaga.api.backend.Backend` is one."""

    @property
    def now(self) -> Callable[[], datetime]:
        """The clock."""
        ...

    async def read(self, ask: Callable[[Store], T]) -> T:
        """Ask the store in a thread; raises StoreError."""
        ...

    async def namespace(self) -> str:
        """The namespace; raises StoreError while it isn't known."""
        ...


class Door(Protocol):
    """Who may come in: `kasaga.api.access.Access` is one."""

    @property
    def open(self) -> bool:
        """No token is asked for."""
        ...

    def allows(self, token: str) -> bool:
        """Whether a token is the right one."""
        ...

    def key(self, purpose: str) -> bytes:
        """A key that only the token gives."""
        ...


Handler = Callable[["Pages", Request], Awaitable[Response]]


class _AnyPage(Convertor[str]):
    """All paths but those of programs, whose errors are not pages."""

    regex = "(?!(api|live|ready|ui)(/|$)).*"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("page", _AnyPage())


def routes(behind: Behind, door: Door, status_of: Callable[[KasagaError], int]) -> list[Route]:
    """Return the pages' routes; `status_of` says with which status an error is answered."""
    pages = Pages(behind, door, status_of)

    def route(path: str, handler: Handler, *methods: str, guarded: bool = True) -> Route:
        endpoint = functools.partial(pages.serve, handler, guarded=guarded)
        return Route(path, endpoint, methods=list(methods or ("GET",)), include_in_schema=False)

    return [
        route("/", Pages.overview),
        route("/sagas", Pages.sagas),
        route("/sagas/{saga_id:saga}", Pages.saga),
        route("/saga", Pages.saga),
        route("/payload", Pages.payload),
        route("/act", Pages.confirm),
        route("/act", Pages.act, "POST"),
        route("/login", Pages.login, guarded=False),
        route("/login", Pages.enter, "POST", guarded=False),
        route("/logout", Pages.leave, "POST", guarded=False),
        route("/ui/static/{name:path}", Pages.file, guarded=False),
        route("/{path:page}", Pages.nothing, guarded=False),
    ]


class Pages:
    """All pages of one process."""

    def __init__(self, behind: Behind, door: Door, status_of: Callable[[KasagaError], int]) -> None:
        self._behind, self._door, self._status_of = behind, door, status_of
        self._key = b"" if door.open else door.key("pages")
        self._renderer = renderer()
        self._namespace = ""
        self._overview = Kept(lambda: behind.read(read_overview), EVERY_SECONDS * 0.9)

    # --- around every page

    async def serve(self, handler: Handler, request: Request, *, guarded: bool) -> Response:
        """Let a page be made for who may see it; whatever goes wrong is a page too."""
        try:
            if guarded and not self._admits(request):
                return self._turn_away(request)
            return await handler(self, request)
        except KasagaError as error:
            status = self._status_of(error)
            if status >= 500:
                log.warning("page not made: %s", error.message, extra={"code": error.code})
            # What is away comes back, and a start that was sent a moment ago is read in the next.
            again = status == 503 or isinstance(error, UnknownSaga)
            return self._wrong(request, status, error.code, error.message, error.remedy, again=again)
        except HTTPException:
            if "text/html" not in request.headers.get("accept", ""):
                raise  # a program is told by the API, in its way
            return self._wrong(request, 404, "", "there is no such page", "Begin at the overview")
        except Exception:
            log.exception("a page failed")
            text = "This page failed in a way that it doesn't know"
            return self._wrong(request, 500, UNEXPECTED, text, "Report it with what the log says")

    def _admits(self, request: Request) -> bool:
        if self._door.open:
            return True
        return session.holds(self._key, request.cookies.get(session.SESSION_COOKIE, ""), time.time())

    def _turn_away(self, request: Request) -> Response:
        """To the way in; back to this page from there."""
        if session.is_bounced(request):
            return self._renderer.page(request, "bounce.html")
        if request.method != "GET":
            return RedirectResponse("/login", 303, HEADERS)
        query = f"?{request.url.query}" if request.url.query else ""
        here = request.scope.get("raw_path", b"/").decode("latin-1") + query
        return RedirectResponse(f"/login?next={quote(here, safe='')}", 303, HEADERS)

    def _wrong(
        self, request: Request, status: int, code: str, what: str, remedy: str, *, again: bool = False
    ) -> Response:
        """A page that says what is wrong, and asks `again` for what may mend itself."""
        response = self._renderer.page(
            request,
            "error.html",
            status,
            namespace=self._namespace,
            guarded=not self._door.open and self._admits(request),
            status=status,
            code=code,
            what=redact(what),
            remedy=redact(remedy),
            every=EVERY_SECONDS if again and request.method == "GET" else None,
        )
        if status == 503:
            response.headers["Retry-After"] = str(round(EVERY_SECONDS))
        return response

    async def _common(self) -> dict[str, Any]:
        self._namespace = await self._behind.namespace()
        return {"namespace": self._namespace, "guarded": not self._door.open}

    # --- looking

    async def overview(self, request: Request) -> Response:
        """How it goes: rates, what is in flight, what is stuck, who works."""
        found: Overview = await self._overview.get()
        return self._renderer.page(
            request, "overview.html", **await self._common(), view=found, every=EVERY_SECONDS
        )

    async def sagas(self, request: Request) -> Response:
        """The list, newest first."""
        now = self._behind.now()
        chosen = wanted(request.query_params)
        where = chosen.where(now)
        if chosen.problems:
            view, status = listing(chosen, [], now), 422
        else:
            rows = await self._behind.read(
                lambda store: store.list_sagas(where, after=chosen.below, limit=PAGE + 1)
            )
            view, status = listing(chosen, rows, now), 200
        return self._renderer.page(request, "list.html", status, **await self._common(), view=view)

    async def saga(self, request: Request) -> Response:
        """One saga: where it stands, why, what happened, what can be done."""
        saga_id = request.path_params.get("saga_id") or request.query_params.get("id", "")
        number = request.query_params.get("page", "1")
        page = int(number) if number.isascii() and number.isdigit() and len(number) < 6 else 1
        runs = ALL_RUNS if request.query_params.get("runs") == ALL_RUNS else ""
        now = self._behind.now()
        common = await self._common()

        def ask(store: Store) -> str:
            began = time.monotonic()
            told, records = look(store, saga_id, now)
            entries = timeline(read_records(store, told.row) if runs and records else records)
            view = story(told, entries, stored_decoder(store), page=page, runs=runs)
            every = None if view.final else _every(time.monotonic() - began)
            return self._renderer.text(request, "saga.html", **common, view=view, every=every)

        return self._renderer.response(request, await self._behind.read(ask))

    async def payload(self, request: Request) -> Response:
        """The whole of one payload, as text."""
        query = request.query_params
        saga_id, part, number = query.get("saga", ""), query.get("part", ""), query.get("entry", "")

        def ask(store: Store) -> str | None:
            row = find(store, saga_id)
            entries = timeline(
                read_records(store, row, since=0 if query.get("runs") == ALL_RUNS else row.base)
            )
            if not (number.isascii() and number.isdigit() and int(number[:9]) < len(entries)):
                return None
            entry = entries[int(number)]
            data = {"in": entry.value, "out": entry.result}.get(part, b"")
            return pretty(data, stored_decoder(store)) if data else None

        text = await self._behind.read(ask)
        if text is None:
            raise UnknownSaga("there is no such payload", remedy="Go back to the saga's page")
        return Response(text + "\n", 200, HEADERS, "text/plain; charset=utf-8")

    # --- acting

    async def confirm(self, request: Request) -> Response:
        """Ask for the reason, and whether it is meant. Scripts show this form over the saga's page."""
        query = request.query_params
        form = Form(query.get("saga", ""), query.get("action", ""), query.get("step", ""))
        return await self._form(request, form, "")

    async def act(self, request: Request) -> Response:
        """Carry an action out; its answer is shown by the saga's page."""
        form = Form()
        try:
            form = Form.read(await request.body())
            said = await carry_out(self._behind, form, form.check())
        except BadForm as problem:
            return await self._form(request, form, str(problem))
        except UnknownSaga:
            raise
        except KasagaError as error:  # what was typed isn't lost with it
            log.warning("action not sent: %s", error.message, extra={"code": error.code})
            text = f"{error.code}: {sentence(error.message)} {sentence(error.remedy) if error.remedy else ''}"
            return await self._form(request, form, redact(text), self._status_of(error))
        log.info(
            "an action was asked for",
            extra={"saga_id": form.saga_id, "action": form.action, "by": form.by, "answer": said.tone},
        )
        response = RedirectResponse(saga_address(form.saga_id), 303, HEADERS)
        session.say(request, response, said)
        session.keep_name(request, response, form.by)
        return response

    async def _form(self, request: Request, form: Form, problem: str, status: int = 422) -> Response:
        now = self._behind.now()

        def ask(store: Store) -> tuple[str, Action | None]:
            told, _ = look(store, form.saga_id, now)
            fitting = (each for each in actions(told) if (each.name, each.step) == (form.action, form.step))
            return told.row.state.value, next(fitting, None)

        state, action = await self._behind.read(ask)
        form.by = form.by or session.name_of(request)
        return self._renderer.page(
            request,
            "act.html",
            status if problem else 200 if action else 409,
            **await self._common(),
            form=form,
            action=action,
            state=state,
            problem=problem,
            needed=form.action in REASON_NEEDED,
        )

    # --- the way in

    async def login(self, request: Request) -> Response:
        """Ask for the token."""
        there = session.local_path(request.query_params.get("next", "/"))
        if self._admits(request):
            return RedirectResponse(there, 303, HEADERS)
        return self._renderer.page(request, "login.html", there=there, wrong=False)

    async def enter(self, request: Request) -> Response:
        """Take the token, and give a session for it."""
        fields = parse_qs((await request.body()).decode("utf-8", "replace"), max_num_fields=5)
        there = session.local_path(fields.get("next", ["/"])[0])
        if not self._door.allows(fields.get("token", [""])[0].strip()):
            return self._renderer.page(request, "login.html", 401, there=there, wrong=True)
        response = RedirectResponse(there, 303, HEADERS)
        if not self._door.open:
            cookie = session.signed(self._key, time.time())
            session.set_cookie(request, response, session.SESSION_COOKIE, cookie, session.SESSION_SECONDS)
        return response

    async def leave(self, request: Request) -> Response:
        """End the session."""
        response = RedirectResponse("/login", 303, HEADERS)
        response.delete_cookie(session.SESSION_COOKIE, path="/", httponly=True, samesite="strict")
        return response

    async def nothing(self, request: Request) -> Response:
        """Any other address."""
        raise HTTPException(404)

    async def file(self, request: Request) -> Response:
        """A style, a script, a picture."""
        return self._renderer.files.response(request.path_params["name"])


def _every(took: float) -> float:
    """How often a page is asked for again that took so many seconds to make."""
    return round(min(max(EVERY_SECONDS, took * SHARE), LONGEST_EVERY), 1)


class Kept:
    """An answer that many ask for and that is good for some seconds: however many wait, it is made once."""

    def __init__(self, make: Callable[[], Awaitable[Overview]], seconds: float) -> None:
        self._make, self._seconds = make, seconds
        self._making: asyncio.Task[Overview] | None = None
        self._until = 0.0

    async def get(self) -> Overview:
        """Return it; raises what making it raises, to all who have waited for it."""
        making = self._making
        if making is None or (making.done() and time.monotonic() >= self._until):
            making = self._making = asyncio.create_task(self._run(), name="kasaga-ui-overview")
        # Who goes away doesn't take it from the others.
        return await asyncio.shield(making)

    async def _run(self) -> Overview:
        self._until = 0.0  # a failure isn't kept
        began = time.monotonic()
        answer = await self._make()
        took = time.monotonic() - began
        self._until = time.monotonic() + max(self._seconds, took * SHARE)
        return answer
