"""`kasaga dev`: from nothing to a saga's result, after a change of code, and again in the same folder."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Generator
from itertools import count
from pathlib import Path
from signal import SIGINT, SIGKILL
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from eventually import eventually

SHOP = Path(__file__).with_name("real_shop.py")
PATIENCE = 120.0


class Laptop:
    """A folder with an App and its service in one module, and a terminal."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.module = folder / "laptop_shop.py"
        self.module.write_text(SHOP.read_text())
        # As on a laptop where nothing is set; coverage and the like may stay.
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("KASAGA_D")},
            "BROKEN": str(folder / "broken"),
        }
        self.environment.pop("KASAGA_KAFKA_BOOTSTRAP_SERVERS", None)
        self.running: subprocess.Popen[bytes] | None = None
        self.said = folder / "said.log"

    def dev(self, *options: str) -> None:
        command = [
            sys.executable,
            "-m",
            "kasaga",
            "dev",
            "laptop_shop:app",
            "--with",
            "laptop_shop",
            *options,
        ]
        with self.said.open("wb") as said:
            self.running = subprocess.Popen(
                command,
                stdout=said,
                stderr=said,
                stdin=subprocess.DEVNULL,
                cwd=self.folder,
                env=self.environment,
            )
        eventually(self._announced, timeout=PATIENCE)

    def _announced(self) -> bool:
        assert self.running is not None
        if self.running.poll() is not None:
            raise RuntimeError(self.said.read_text())
        return "Metrics " in self.said.read_text()

    def ctrl_c(self) -> int:
        assert self.running is not None
        running, self.running = self.running, None
        running.send_signal(SIGINT)
        return running.wait(PATIENCE)

    def killed(self) -> None:
        assert self.running is not None
        self.running.kill()
        self.running.wait()
        self.running = None

    def server(self, name: str) -> int:
        """The process id of a server of the running dev, as noted with the lock on its data."""
        return int((self.folder / ".kasaga" / name / "lock").read_text())

    def kasaga(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "kasaga", *arguments],
            check=False,
            capture_output=True,
            text=True,
            cwd=self.folder,
            env=self.environment,
            timeout=PATIENCE,
        )

    def buys(self, order: str) -> dict[str, str]:
        said = self.kasaga(
            *("start", "laptop_shop:app", "purchase", "--wait", "--timeout", "60"),
            *("--id", order, "--input", json.dumps({"id": order})),
        )
        assert said.returncode == 0, f"{said.stderr}\n{self.said.read_text()}"
        receipt: dict[str, str] = json.loads(said.stdout)
        return receipt


def ask(url: str, body: object = None) -> int:
    """The status of an answer; 0 where nobody answers."""
    data = None if body is None else json.dumps(body).encode()
    try:
        with urlopen(Request(url, data, {"Content-Type": "application/json"}), timeout=40) as answer:
            status: int = answer.status
            return status
    except HTTPError as error:
        return error.code
    except OSError:
        return 0


@pytest.fixture
def laptop() -> Generator[Laptop]:
    # Postgres may run as another user, who can't enter pytest's own directories.
    folder = Path(tempfile.mkdtemp(prefix="kasaga-dev-"))
    folder.chmod(0o711)
    made = Laptop(folder)
    try:
        yield made
    finally:
        if made.running is not None:
            made.running.kill()
            made.running.wait()
        shutil.rmtree(folder, ignore_errors=True)


def test_from_nothing_to_a_result_and_there_again_next_time(laptop: Laptop) -> None:
    laptop.dev()
    assert laptop.buys("d-1") == {"order": "d-1", "shelf": "shelf of d-1"}
    # What is only a new cluster's first second isn't told as trouble.
    first = laptop.said.read_text()
    assert "NOT_LEADER_FOR_PARTITION" not in first
    assert "Coordinator load in progress" not in first

    # The API and its pages are there as well, and know what can be started.
    pages = re.search(r"Pages +(http://127\.0\.0\.1:\d+)/", laptop.said.read_text())
    assert pages is not None
    eventually(lambda: ask(f"{pages[1]}/ready") == 200, timeout=PATIENCE)
    body = {"saga_id": "d-0", "name": "purchase", "input": {"id": "d-0"}}
    assert ask(f"{pages[1]}/api/v1/sagas?wait=30", body) == 200
    assert ask(f"{pages[1]}/") == 200

    # Code changes: the processes begin anew, and what comes then meets the new code.
    code = laptop.module.read_text()
    laptop.module.write_text(code.replace('f"shelf of {order.id}"', '"new shelf"'))
    eventually(lambda: "code has changed" in laptop.said.read_text(), timeout=PATIENCE)
    ids = (f"d-{number}" for number in count(2))
    eventually(lambda: laptop.buys(next(ids))["shelf"] == "new shelf", timeout=PATIENCE, interval=0.5)

    assert laptop.ctrl_c() == 0
    assert laptop.kasaga("list").stderr.startswith("kasaga: KSG-522")

    laptop.dev("--no-reload")
    listed = [json.loads(line) for line in laptop.kasaga("list", "-o", "json").stdout.splitlines()]
    assert {row["state"] for row in listed} == {"COMPLETED"}
    assert listed[-1]["saga_id"] == "d-1"
    assert "d-0" in {row["saga_id"] for row in listed}
    assert laptop.kasaga("history", "d-1").returncode == 0
    assert laptop.buys("e-1") == {"order": "e-1", "shelf": "new shelf"}
    assert laptop.ctrl_c() == 0


def test_a_second_one_in_the_same_folder_leaves_the_first_and_its_data_alone(laptop: Laptop) -> None:
    laptop.dev("--no-reload")
    assert laptop.running is not None
    servers = [laptop.server(name) for name in ("kafka", "postgres")]
    ports = (laptop.folder / ".kasaga" / "ports.json").read_text()

    for options in ((), ("--fresh",)):
        second = laptop.kasaga("dev", "laptop_shop:app", *options)
        assert second.returncode == 1, second.stdout
        assert second.stderr.startswith("kasaga: KSG-591: `kasaga dev` already runs")
        assert f"(process {laptop.running.pid})" in second.stderr

    assert (laptop.folder / ".kasaga" / "ports.json").read_text() == ports
    assert [laptop.server(name) for name in ("kafka", "postgres")] == servers
    assert laptop.buys("first") == {"order": "first", "shelf": "shelf of first"}

    # Killed with no word to anybody, it leaves no lock: its servers end, and the next one finds their data.
    laptop.killed()
    laptop.dev("--no-reload")
    assert laptop.kasaga("history", "first").returncode == 0
    assert laptop.ctrl_c() == 0

    laptop.dev("--no-reload", "--fresh")
    assert laptop.kasaga("list", "-o", "json").stdout == ""
    assert laptop.ctrl_c() == 0


def test_servers_that_die_come_back_with_their_data_on_their_ports(laptop: Laptop) -> None:
    laptop.dev("--no-reload")
    assert laptop.buys("before") == {"order": "before", "shelf": "shelf of before"}
    ports = (laptop.folder / ".kasaga" / "ports.json").read_text()

    for name in ("Kafka", "Postgres"):
        os.kill(laptop.server(name.lower()), SIGKILL)
        eventually(lambda: f"{name} serves again" in laptop.said.read_text(), timeout=PATIENCE)  # noqa: B023
        told = [line for line in laptop.said.read_text().splitlines() if f"{name} has ended" in line]
        assert len(told) == 1
        assert f"{name.lower()}.log" in told[0]
        assert laptop.buys(f"after {name}")["order"] == f"after {name}"

    assert (laptop.folder / ".kasaga" / "ports.json").read_text() == ports
    assert laptop.kasaga("history", "before").returncode == 0
    assert laptop.ctrl_c() == 0
