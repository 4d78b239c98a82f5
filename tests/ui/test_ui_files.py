"""The files beside the pages: others' are as they were published, all are served with their types."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import kasaga.ui
from api.desk_api import Desk
from kasaga.ui.render import Files
from ui.look import Caller, browse

STATIC = Path(kasaga.ui.__file__).parent / "static"
TEMPLATES = STATIC.parent / "templates"


def test_files_of_others_are_as_they_were_published() -> None:
    table = (STATIC / "vendor" / "README.md").read_text()
    named = dict(re.findall(r"^\| `([^`]+)` \|.*\| `([0-9a-f]{64})` \|$", table, re.MULTILINE))
    there = {each.name for each in (STATIC / "vendor").iterdir() if each.suffix == ".js"}
    assert named.keys() == there
    for name, digest in named.items():
        assert hashlib.sha256((STATIC / "vendor" / name).read_bytes()).hexdigest() == digest
        assert (STATIC / "vendor" / f"{name.partition('-')[0]}.LICENSE.txt").exists()


def test_pages_name_files_that_are_there_and_nothing_is_left_over() -> None:
    templates = "".join(each.read_text() for each in TEMPLATES.iterdir())
    named = set(re.findall(r"file\('([^']+)'\)", templates))
    files = (each for each in STATIC.rglob("*") if each.suffix in (".js", ".css", ".svg"))
    there = {str(each.relative_to(STATIC)) for each in files}
    assert named == there


def test_files_are_kept_by_browsers_until_they_change() -> None:
    async def work(caller: Caller) -> None:
        kinds = {"pages.css": "text/css", "pages.js": "text/javascript", "icon.svg": "image/svg+xml"}
        for name, kind in kinds.items():
            answer = await caller.get(Files().address(name))
            assert answer.status_code == 200
            assert answer.headers["content-type"].startswith(kind)
            assert "immutable" in answer.headers["cache-control"]
        for name in ("none.css", "../pages.py", "%2e%2e/pages.py", "vendor/README.md", "vendor"):
            assert (await caller.get(f"/ui/static/{name}")).status_code == 404

    browse(Desk(), work)


def test_no_script_makes_code_of_text() -> None:
    for each in STATIC.rglob("*.js"):
        text = each.read_text()
        assert not re.search(r"\beval\(|new Function|document\.write", text)
        assert "vendor" in each.parts or not re.search(r"(inner|outer)HTML\s*=[^=]", text)
