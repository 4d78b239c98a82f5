"""schemathesis against the API on real servers, one round: on a store in memory it looks longer."""

from __future__ import annotations

from api.fuzz import MODES, attack, operations
from api.served import serving
from cli.town import Town, town

__all__ = ["town"]

TOKEN = "a-token-for-everybody"
EXAMPLES = 12


def test_every_answer_is_promised_on_real_servers_too(town: Town) -> None:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with serving(town, "fuzzed", KASAGA_API_TOKEN=TOKEN, KASAGA_API_MAX_WAIT_SECONDS="3600") as api:
        base = f"http://127.0.0.1:{api.port}"
        statuses: list[int] = []
        for name, operation in operations(base).items():
            for mode in MODES if name != "list_definitions" else MODES[:1]:
                start = {"name": "purchase", "input": {"id": name, "wish": "refuse"}}
                statuses += attack(operation, base, mode, examples=EXAMPLES, headers=headers, start=start)
        assert {200, 202, 404, 422} <= set(statuses)
        assert max(statuses) < 500
        assert "Traceback" not in api.log()
        assert api.is_ready()
