"""`helm test`: the API is ready, refuses a caller without the token, and answers one that has it."""

from __future__ import annotations

import json
import os
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

PATIENCE_SECONDS = 60.0
ANSWER_SECONDS = 15.0
LOOK_SECONDS = 1.0

NOBODY = "/api/v1/sagas/asked.by.helm.test"
"""A saga that nobody has started: its absence is an answer, and one that only the database can give."""


def ask(url: str, host: str, token: str = "") -> tuple[int, str]:
    """The status and the body of an answer; 0 and the reason where there is none."""
    request = urllib.request.Request(url)
    if host:
        request.add_header("Host", host)
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=ANSWER_SECONDS) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
    except OSError as error:
        return 0, str(error)


def kind_of(body: str) -> str:
    """The code of a problem document."""
    try:
        return str(json.loads(body).get("code", ""))
    except (ValueError, AttributeError):
        return ""


def problems(base: str, host: str, token: str) -> list[str]:
    """What isn't as it should be."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while (told := ask(f"{base}/ready", host))[0] != 200 and time.monotonic() < deadline:
        time.sleep(LOOK_SECONDS)
    found = [f"/ready answers {told[0]}: {told[1]}"] if told[0] != 200 else []
    status, body = ask(base + NOBODY, host)
    if status != 401:
        found.append(f"a caller without a token gets {status}: {body}")
    status, body = ask(base + NOBODY, host, token)
    if status != 404 or not kind_of(body).startswith("KSG-"):
        found.append(f"a caller with the token, who asks for a saga that isn't there, gets {status}: {body}")
    return found


def main() -> int:
    """Ask, and say what was found."""
    token = Path(os.environ["TOKEN_FILE"]).read_text().strip()
    found = problems(os.environ["URL"], os.environ["HOST"], token)
    sys.stdout.write("\n".join(found or ["the API is ready, and asks for its token"]) + "\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
