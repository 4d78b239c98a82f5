"""`kasaga check` as it is run: what it prints, how it ends, and Apps that can't be made at all."""

from __future__ import annotations

import importlib
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from check.shops import package, shop
from kasaga import App, Saga, SagaContext, saga
from kasaga.check import RULES, check_app
from kasaga.cli import run
from kasaga.cli.session import Session

PAGE = Path(__file__).parents[2] / "orchestrator" / "errors.md"

CONTRACTS = shop("fine")["contracts"]

SAGAS = """\
from __future__ import annotations
import time
from kasaga import App, Saga, SagaContext, saga
from .contracts import Inventory, Mail, Order, Payments, Receipt

@saga("payment", timeout=60)
async def payment(ctx: SagaContext, order: Order) -> Receipt:
{body}

app = App("shop", sagas=[payment], participants=[Inventory, Payments, Mail])
"""


class Checked:
    def __init__(self, capsys: pytest.CaptureFixture[str], folder: Path) -> None:
        self._capsys = capsys
        self._folder = folder
        self._count = 0

    def __call__(self, body: str, *options: str, contracts: str = CONTRACTS, sagas: str = SAGAS) -> int:
        """Check a saga with this body."""
        self._count += 1
        name = f"checked_{self._count}"
        text = sagas.format(body="\n".join(f"    {line}" for line in body.splitlines()))
        with package(self._folder, name, {"contracts": contracts, "sagas": text}):
            self._capsys.readouterr()
            status = run(["check", f"{name}.sagas:app", *options], Session(environment={}))
        said = self._capsys.readouterr()
        self.out, self.err = said.out.replace(name, "shop"), said.err.replace(name, "shop")
        return status


@pytest.fixture
def checked(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Checked:
    return Checked(capsys, tmp_path)


def test_what_people_read(checked: Checked) -> None:
    body = "charge = await ctx.use(Payments).charge(order)\nawait ctx.sleep(time.time())\nreturn charge"
    assert checked(body) == 1
    assert (
        checked.out
        == """\
shop/sagas.py:8: warning KSG-610 NoCompensation: payments.charge has no compensation, and ctx.sleep \
in line 9 comes after it: if the saga is undone then, this stays done. (saga payment/1)
    Declare a @compensation for it, or make it the saga's last step; if there is nothing to undo, say so: \
`# kasaga: ignore[KSG-610] it only reads`.
shop/sagas.py:9: error KSG-601 ClockRead: time.time() reads the clock. (saga payment/1)
    Use ctx.now: it is recorded, and the same in each replay.
1 saga of shop: 1 error and 1 warning
"""
    )


def test_what_programs_read(checked: Checked) -> None:
    assert checked("return Receipt(id=str(time.time()))", "-o", "json") == 1
    document = json.loads(checked.out)
    assert document.pop("findings") == [
        {
            "code": "KSG-601",
            "name": "ClockRead",
            "severity": "error",
            "file": "shop/sagas.py",
            "line": 8,
            "column": 27,
            "message": "time.time() reads the clock",
            "remedy": RULES["KSG-601"].remedy,
            "saga": "payment/1",
        }
    ]
    assert document == {"ok": False, "errors": 1, "warnings": 0, "infos": 0}


WARNED = "await ctx.use(Payments).charge(order)\nawait ctx.sleep(1)\nreturn Receipt(id='')"


def test_warnings_fail_only_a_strict_check(checked: Checked) -> None:
    assert checked(WARNED) == 0
    assert checked(WARNED, "--strict") == 1
    assert checked("return Receipt(id='')", "--strict") == 0
    assert checked.out == "1 saga of shop: nothing found\n"


def test_infos_fail_nothing(checked: Checked) -> None:
    assert checked("return Receipt(id='')", "--strict", sagas=SAGAS.replace(", timeout=60", "")) == 0
    assert "info KSG-618 NoDeadline" in checked.out


@pytest.mark.parametrize(
    ("before", "after", "line", "says"),
    [
        (
            "    total: int = 0",
            "    total: object = None",
            24,
            "error KSG-102 UnsupportedType: Inventory.reserve.order",
        ),
        (
            "reserved: Receipt | None",
            "reserved: Order | None",
            26,
            "error KSG-101 ContractError: Inventory.release",
        ),
        (
            "@compensation(reserve)",
            "@compensation(Order)",
            26,
            "KSG-101 ContractError: Inventory.release undoes",
        ),
        (
            "-> Receipt: ...",
            "-> 'Nothing': ...",
            24,
            "error KSG-101 ContractError: Inventory.reserve: name 'Nothing'",
        ),
        (
            '@participant("mail")',
            '@participant("payments")',
            1,
            "KSG-101 ContractError: participant 'payments'",
        ),
    ],
)
def test_an_app_that_can_not_be_made(checked: Checked, before: str, after: str, line: int, says: str) -> None:
    assert before in CONTRACTS
    contracts = CONTRACTS.replace(before, after)
    assert checked("return Receipt(id='')", contracts=contracts) == 1
    assert says in checked.out
    found = re.search(rf"shop/(\w+)\.py:(\d+): .*{re.escape(says)}", checked.out)
    assert found
    assert (found[1] == "sagas") == (line == 1)
    assert line in (1, int(found[2]))
    assert checked.out.splitlines()[-1].startswith("the App can't be made: ")
    assert checked.err == ""


def test_a_saga_whose_input_can_not_be_avro(checked: Checked) -> None:
    text = SAGAS.replace("order: Order)", "order: set[str])")
    assert checked("return Receipt(id='')", sagas=text) == 1
    assert "shop/sagas.py:7: error KSG-102 UnsupportedType: payment.order" in checked.out


def test_schemas_that_can_not_be_published_together(
    checked: Checked, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kasaga_wire.codec import Schemas
    from kasaga_wire.errors import SchemaCollision

    def collide(self: Schemas, schema: object) -> None:
        raise SchemaCollision("two different schemas have the id 7")

    monkeypatch.setattr(Schemas, "add", collide)
    assert checked("return Receipt(id='')") == 1
    assert "shop/sagas.py:7: error KSG-104 SchemaCollision: two different schemas" in checked.out


def test_a_module_that_can_not_be_imported(checked: Checked) -> None:
    assert checked("return Receipt(id='')", sagas="import nowhere_to_be_found") == 1
    assert checked.err.startswith("kasaga: KSG-521: shop.sagas can't be imported: ModuleNotFoundError")
    assert checked.out == ""


def test_a_saga_without_a_source(tmp_path: Path) -> None:
    names: dict[str, object] = {"SagaContext": SagaContext, "__name__": "nowhere"}
    # As a REPL or a template would make it.
    exec("async def blank(ctx: SagaContext, text: str) -> str: return text", names)  # noqa: S102
    made: Any = names["blank"]
    declared: Saga[str, str] = saga("blank", timeout=60)(made)
    found = check_app(App("shop", sagas=[declared]))
    assert [each.code for each in found] == ["KSG-619"]


def test_what_is_installed_is_not_read(tmp_path: Path) -> None:
    """A helper of a library is the library's; the check names what it is, or says nothing."""
    library = tmp_path / "site-packages" / "somebodys_library"
    library.mkdir(parents=True)
    (library / "__init__.py").write_text("import time\ndef tick(): return time.time()\n")
    files = {"contracts": CONTRACTS, "sagas": SAGAS.format(body="    return Receipt(id=str(tick()))")}
    files["sagas"] = files["sagas"].replace("import time", "from somebodys_library import tick", 1)
    with package(tmp_path, "with_library", files), pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(library.parent), *sys.path])
        assert check_app(importlib.import_module("with_library.sagas").app) == []


def test_code_that_nobody_would_write(checked: Checked) -> None:
    """Whatever stands in a saga, the check comes to an end without an error of its own."""
    deep = "order." + ".".join("total" for _ in range(60))
    body = (
        f"x = {deep}\na = a2 = b = None\na, (b, *c) = 1, (2, 3)\nself = x\nasync def inner(ctx):\n"
        "    await inner(ctx)\nawait inner(ctx)\nfor a.b in [1]: pass\n"
        "while (n := len('x')) > 3: break\nasync with a: pass\nasync for z in a: continue\n"
        "try: pass\nexcept* ValueError: pass\n"
        "[i async for i in a]\nyielded = lambda q=lambda: 1, *r, **s: (q, r, s)\n"
        "await (await (await a))\ndel x\nctx.use\nctx.use()\nawait ctx.use(Order).x(order)\n"
        "nonlocal_name = print\nawait ctx.run()\nglobal unheard_of\nunheard_of = 1\nreturn Receipt(id='')"
    )
    assert checked(body, "-o", "json") == 0
    assert {each["code"] for each in json.loads(checked.out)["findings"]} <= {"KSG-608"}


def test_objects_that_answer_nobody(checked: Checked) -> None:
    """A proxy outside of its context raises at every question, a module may load its parts late."""
    proxy = (
        "class Proxy:\n    def __getattr__(self, name):\n        raise RuntimeError(name)\n"
        "    def __call__(self): ...\nasked = Proxy()\n"
        "import sys, types\nclass Late(types.ModuleType):\n    def __getattr__(self, name):\n"
        "        raise RuntimeError(name)\nlate = Late('late')\n"
    )
    body = "asked()\nasked.x.y()\nlate.x()\nnext(asked)\nwith asked: pass\nfor x in asked: pass\n"
    sagas = SAGAS.replace("import time\n", f"import time\n{proxy}")
    status = checked(f"{body}return Receipt(id='')", sagas=sagas)
    assert (status, checked.err) == (0, "")
    assert checked.out == "1 saga of shop: nothing found\n"


def test_functions_that_call_each_other_come_to_an_end(checked: Checked) -> None:
    sagas = SAGAS + (
        "async def there(ctx: SagaContext, order: Order) -> None:\n    await back(ctx, order)\n"
        "async def back(ctx: SagaContext, order: Order) -> None:\n"
        "    await ctx.use(Payments).charge(order)\n    await there(ctx, order)\n    time.time()\n"
    )
    assert checked("await there(ctx, order)\nreturn Receipt(id='')", sagas=sagas) == 1
    assert checked.out.count("KSG-601") == 1


def test_every_rule_has_its_section() -> None:
    sections = dict(re.findall(r"^## (KSG-6[0-2]\d) (\w+)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE))
    assert sections == {rule.code: rule.name for rule in RULES.values()}
    assert all(rule.remedy for rule in RULES.values())
