"""The scripts of `helm test` say what is wrong: asked here of servers that are wrong in each way."""

from __future__ import annotations

import json
import threading
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

from helm.chart import CHART

Answers = Mapping[tuple[str, bool], tuple[int, str]]
"""By the path, and whether the token was shown."""

TOKEN = "the-right-token-of-this-test"
PROBLEM = json.dumps({"code": "KSG-400", "title": "there is no saga"})
NOBODY = "/api/v1/sagas/asked.by.helm.test"
WELL: Answers = {
    ("/ready", False): (200, "{}"),
    (NOBODY, False): (401, "{}"),
    (NOBODY, True): (404, PROBLEM),
}


def script(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """One of the chart's scripts, with less patience than there."""
    spec = spec_from_file_location(name, CHART / "files" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "PATIENCE_SECONDS", 0.2)
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.01)
    return module


@contextmanager
def server(answers: Answers) -> Generator[int]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            shown = self.headers.get("Authorization") == f"Bearer {TOKEN}"
            status, body = answers.get((self.path, shown), (500, "unasked for"))
            if self.headers.get("Host") not in ("sagas.example.com", f"127.0.0.1:{made.server_port}"):
                status, body = 421, "misdirected"
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    made = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=made.serve_forever)
    thread.start()
    try:
        yield made.server_port
    finally:
        made.shutdown()
        made.server_close()
        thread.join()


def ask_api(
    answers: Answers, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[int, str]:
    (folder / "token").write_text(f"{TOKEN}\n")
    with server(answers) as port:
        monkeypatch.setenv("URL", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("HOST", "sagas.example.com")
        monkeypatch.setenv("TOKEN_FILE", str(folder / "token"))
        status = script("ask_api", monkeypatch).main()
    return status, capsys.readouterr().out


def test_a_good_api(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ask_api(WELL, tmp_path, monkeypatch, capsys) == (0, "the API is ready, and asks for its token\n")


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({("/ready", False): (503, '{"reason": "no Kafka"}')}, '/ready answers 503: {"reason": "no Kafka"}'),
        ({(NOBODY, False): (404, PROBLEM)}, "a caller without a token gets 404"),
        (
            {(NOBODY, True): (401, "{}")},
            "a caller with the token, who asks for a saga that isn't there, gets 401",
        ),
        ({(NOBODY, True): (404, "<html>")}, "a caller with the token"),
        ({(NOBODY, True): (404, "[1]")}, "a caller with the token"),
    ],
)
def test_a_bad_api(
    wrong: Answers,
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    status, said = ask_api({**WELL, **wrong}, tmp_path, monkeypatch, capsys)
    assert status == 1
    assert said.startswith(says)
    assert TOKEN not in said


@pytest.mark.parametrize(
    ("page", "status", "says"),
    [
        ("kasaga_shards_owned 16.0\n", 0, "16 of 16 shards have an owner: 127.0.0.1 owns 16\n"),
        ("kasaga_shards_owned 9.0\n", 1, "9 of 16 shards have an owner: 127.0.0.1 owns 9\n"),
        ("kasaga_shards_owned 17.0\n", 1, "17 of 16 shards have an owner: 127.0.0.1 owns 17\n"),
        ("kasaga_shards_owned_by_nobody 16.0\n", 1, "0 of 16 shards have an owner: 127.0.0.1 owns 0\n"),
    ],
)
def test_shards_have_owners(
    page: str, status: int, says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with server({("/metrics", False): (200, page)}) as port:
        monkeypatch.setenv("SERVICE", "127.0.0.1")
        monkeypatch.setenv("PORT", str(port))
        monkeypatch.setenv("SHARDS", "16")
        assert script("ask_orchestrators", monkeypatch).main() == status
    assert capsys.readouterr().out == says


def test_orchestrators_that_do_not_answer(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with server({}) as port:
        pass
    monkeypatch.setenv("SERVICE", "127.0.0.1")
    monkeypatch.setenv("PORT", str(port))
    monkeypatch.setenv("SHARDS", "16")
    assert script("ask_orchestrators", monkeypatch).main() == 1
    assert "0 of 16 shards have an owner: 127.0.0.1 doesn't answer" in capsys.readouterr().out


def test_a_service_without_a_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SERVICE", "no.such.name.invalid")
    monkeypatch.setenv("PORT", "9090")
    monkeypatch.setenv("SHARDS", "16")
    assert script("ask_orchestrators", monkeypatch).main() == 1
    assert "no.such.name.invalid: " in capsys.readouterr().out
