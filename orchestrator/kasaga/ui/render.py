"""Templates, files and headers of the pages. Everything that is put into a page is escaped.

Station: made once by `pages.routes`.
"""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files
from typing import Any, cast

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from kasaga_wire import __version__

from ..wording import printable, rfc3339, sentence, stamp
from . import listing, session

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
"""No code, no style and no address from anywhere but this process's own files."""

HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",  # stricter ones make browsers hide where a form comes from
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-store",
}

_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}

STATIC = "/ui/static/"
KEPT = "public, max-age=31536000, immutable"
"""A file's address changes with what is in it."""


class Files:
    """The files beside the templates, read once: few and small."""

    def __init__(self) -> None:
        self._files: dict[str, tuple[bytes, str]] = {}
        root = files("kasaga.ui").joinpath("static")
        for folder, prefix in ((root, ""), (root.joinpath("vendor"), "vendor/")):
            for each in folder.iterdir():
                suffix = each.name[each.name.rfind(".") :]
                if each.is_file() and suffix in _TYPES:
                    self._files[prefix + each.name] = (each.read_bytes(), _TYPES[suffix])

    def address(self, name: str) -> str:
        """A file's address, of what it holds now. Raises KeyError."""
        return f"{STATIC}{name}?v={hashlib.sha256(self._files[name][0]).hexdigest()[:12]}"

    def response(self, name: str) -> Response:
        """Serve a file."""
        found = self._files.get(name)
        if found is None:
            return Response("there is no such file\n", 404, HEADERS, "text/plain")
        return Response(found[0], 200, {**HEADERS, "Cache-Control": KEPT}, found[1])


@cache
def renderer() -> Renderer:
    """The one of this process: it holds nothing but what is beside this module."""
    return Renderer()


class Renderer:
    """Makes pages from templates."""

    def __init__(self) -> None:
        self.files = Files()
        self._templates = Environment(
            loader=PackageLoader("kasaga.ui"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        cast("dict[str, Any]", self._templates.globals).update(
            file=self.files.address,
            version=__version__,
            saga_address=listing.saga_address,
            action_address=listing.action_address,
            payload_address=listing.payload_address,
            page_address=listing.page_address,
        )
        self._templates.filters.update(stamp=stamp, rfc3339=rfc3339, as_sentence=_as_sentence, coded=_coded)

    def text(self, request: Request, name: str, **values: Any) -> str:
        """Render a template. Safe in any thread."""
        said = session.heard(request)
        common = {"path": request.url.path, "said": said, "every": None, "namespace": "", "guarded": False}
        return self._templates.get_template(name).render(**{**common, **values})

    def response(self, request: Request, text: str, status: int = 200) -> HTMLResponse:
        """Answer with a page. What an action has said was shown on it, once."""
        response = HTMLResponse(text, status, HEADERS)
        if session.SAID_COOKIE in request.cookies:
            response.delete_cookie(session.SAID_COOKIE, path="/", httponly=True, samesite="strict")
        return response

    def page(self, request: Request, name: str, status: int = 200, /, **values: Any) -> HTMLResponse:
        """Render a template and answer with it."""
        return self.response(request, self.text(request, name, **values), status)


def _as_sentence(text: str) -> str:
    """With a capital in front and a full stop at the end."""
    text = printable(text)
    return sentence(text[:1].upper() + text[1:])


def _coded(text: str) -> Markup:
    """What stands between backticks as code; all of it escaped."""
    parts = text.split("`")
    if len(parts) % 2 == 0:
        return escape(text)
    code, plain = Markup("<code>{}</code>"), Markup("{}")
    return Markup("").join((code if number % 2 else plain).format(part) for number, part in enumerate(parts))
