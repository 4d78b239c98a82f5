"""What the decisions of some sagas become as rows, in words, for the golden file beside it.

After a change that is meant: `python tests/orchestrator/rows_story.py > tests/orchestrator/golden_rows.txt`
with `tests` on PYTHONPATH, and read the difference. Rows of older releases lie in databases.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from uuid import UUID

from kasaga.engine.decide import Run, decide
from kasaga.engine.model import Asked, Event, Fired, Ran, Record, Replied, Started
from kasaga.orchestrator.clock import to_micros
from kasaga.orchestrator.rows import Addresses, add_record
from kasaga.store.base import OutboxRow, SagaRow, SagaWrite
from kasaga_wire.codec import Schemas
from kasaga_wire.records import NULL_PAYLOAD
from kasaga_wire.topics import Topics
from orchestrator.trips import Ticket, Trip, make_app

BEGIN = 1_900_000_000_000_000
RUN_ID = "01890000-0000-7000-8000-000000000001"
TRACE = f"00-{'ab' * 16}-{'cd' * 8}-01"
SECOND = 1_000_000


def stories() -> Iterator[tuple[str, list[tuple[int, Event]]]]:
    """(saga, events with their times in seconds)."""
    done = make_app("trips").contracts["hotel"].commands["book"].result.encode(Ticket(ref="t-1"))
    nothing = make_app("trips").contracts["post"].commands["send"].result.encode(None)

    def reply(
        step: str, outcome: str, payload: bytes = b"", form: str = "command", attempt: int = 1
    ) -> Event:
        error = "" if outcome in ("done", "undone", "voided") else "it says no"
        return Replied(step, form, attempt, outcome, payload, "Refused" if error else "", error)

    yield (
        "trip",
        [
            (1, reply("1", "done", done)),
            (2, Fired("2", "command")),
            (4, Fired("2", "command")),
            (5, reply("2", "failed", attempt=2)),
            (6, reply("2", "done", done, attempt=1)),
            (7, reply("3", "done", nothing)),
        ],
    )
    yield (
        "trip",
        [
            (1, reply("1", "done", done)),
            (2, reply("2", "done", done)),
            (3, reply("3", "refused")),
            (4, reply("2", "failed", form="undo")),
            (5, reply("2", "undone", NULL_PAYLOAD, "undo", 2)),
            (6, reply("1", "undone", NULL_PAYLOAD, "undo")),
        ],
    )
    yield (
        "stubborn",
        [
            (1, Fired("1", "command")),
            (2, reply("2", "done", done)),
            (3, reply("1", "undone", NULL_PAYLOAD, "undo")),
        ],
    )
    yield (
        "nap",
        [
            (1, reply("1", "done", done)),
            (2, Asked("action-1", "watch", "me", "", "", "", "trips.answers/2")),
            (900, Fired("", "deadline")),
            (901, reply("1", "undone", NULL_PAYLOAD, "undo")),
        ],
    )
    yield (
        "local",
        [
            (1, reply("1", "done", done)),
            (2, Ran("2", "local", 1, False, b"", "OSError", "not now")),
            (3, Asked("action-2", "cancel", "me", "enough", "", "", "trips.answers/0")),
            (4, Ran("2", "undo", 1, True, b"")),
            (5, reply("1", "undone", NULL_PAYLOAD, "undo")),
        ],
    )


def tell() -> Iterator[str]:
    """The golden file's lines."""
    app = make_app("trips")
    where = Addresses(Topics("trips", "test."), "/kasaga/trips", 16)
    for saga, events in stories():
        defs = app.definitions(Schemas(), max_payload=900_000)
        run, row = Run(RUN_ID), 1
        value = app.sagas[saga, 1].input.encode(Trip(id="o-1"))
        start = Started("o-1", saga, 1, value, TRACE, "vendor=1", "trips.answers/1", "/c")
        yield f"=== {saga}"
        for seconds, event in [(0, start), *events]:
            at = BEGIN + seconds * SECOND
            decided = decide(defs, run, event, at=at, row=row)
            if not isinstance(decided, Record):
                yield f"+{seconds} {type(event).__name__}: {decided}"
                continue
            write = SagaWrite(3, run_id=UUID(RUN_ID))
            add_record(write, run.state, decided, where, "code")
            row = run.state.row
            yield f"+{seconds} {type(event).__name__}"
            for each in write.history:
                yield f"  history {each.seq} {each.kind} {each.step or '-'}"
            if write.saga is not None:
                yield f"  saga{' new' if write.new else ''} {saga_line(write.saga)}"
            for opened in write.opens:
                yield from (f"  {line}" for line in row_lines(opened))
            if write.closes:
                yield f"  closes {write.closes}"


def saga_line(row: SagaRow) -> str:
    ended = "-" if row.ended_at is None else f"+{(to_micros(row.ended_at) - BEGIN) / SECOND:g}"
    said = " ".join(filter(None, (row.code, row.step, row.reason)))
    return f"{row.saga_id} {row.name}/{row.version} {row.state} ended {ended} {said}".rstrip()


def row_lines(row: OutboxRow) -> Iterator[str]:
    times = [
        f"{name} +{(to_micros(moment) - BEGIN) / SECOND:g}"
        for name, moment in (("send", row.send_at), ("due", row.due_at))
        if moment is not None
    ]
    where = f"{row.topic}/{'?' if row.partition is None else row.partition}" if row.topic else "-"
    key = (row.key or b"-").decode()
    yield (
        f"opens {row.seq} {row.kind.name} {row.step or '-'} {where} key {key} attempt {row.attempt} "
        f"{' '.join(times)} payload {sha(row.payload or b'')}"
    ).replace("  ", " ")
    for name, value in row.headers:
        yield f"  {name}: {value.decode()}"


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:10] if data else "-"


if __name__ == "__main__":
    sys.stdout.write("\n".join(tell()) + "\n")
