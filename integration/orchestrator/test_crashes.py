"""A real process dies at each named point of its way, under load; another goes on, and the books agree."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import count

import pytest

from kasaga.engine.codec import decode
from kasaga.engine.model import DONE, LEFT, UNDONE, Pivot
from kasaga.engine.state import fold
from kasaga.store.base import SagaRow, SagaState
from kasaga_wire.kafka import partition_for
from orchestrator.realm import SHARDS, Realm

LOAD = [
    *(("trip", f"trip-{number}") for number in range(12)),
    *(("trip", f"refused-{number}") for number in range(6)),
    *(("failing", f"failing-{number}") for number in range(6)),
    *(("nap", f"nap-{number}") for number in range(4)),
    *(("empty", f"empty-{number}") for number in range(4)),
]

# Each passage of each point is tried by tests/orchestrator/test_crash_windows.py; here, one of them is real.
# Two processes die in each test: that takes no longer than one.
AT_WORK = (
    ("orchestrator.after_read:3", "orchestrator.after_commit:3"),
    ("orchestrator.before_commit:4", "orchestrator.at_ack:15"),
    ("store.sent.fence:5", "orchestrator.after_produce:4"),
)


def die_under_load(
    realm: Realm, prefix: str, points: Iterable[str], sagas: Sequence[tuple[str, str]]
) -> list[SagaRow]:
    """Let a process die at each point with sagas at work; others finish them. Returns the audited rows."""
    doomed = [realm.begin(KASAGA_CRASH_AT=point) for point in points]
    realm.wait_until_busy(doomed)
    realm.run(prefix, sagas)
    for each in doomed:
        each.wait_until_killed()

    realm.wait_until_over(prefix, len(sagas))
    return realm.audit(prefix)


@pytest.mark.parametrize("points", AT_WORK, ids=" and ".join)
def test_processes_that_die_at_work_lose_and_double_nothing(
    peopled: Realm, prefix: str, points: tuple[str, str]
) -> None:
    rows = die_under_load(peopled, prefix, points, LOAD)
    assert {row.state for row in rows} == {SagaState.COMPLETED, SagaState.COMPENSATED}


def test_processes_that_die_while_they_take_over_lose_nothing(peopled: Realm, prefix: str) -> None:
    """They claim shards with sagas in the middle of their way."""
    naps = [("nap", str(number)) for number in range(12)]
    peopled.run(prefix, naps)
    points = ("orchestrator.after_claim", "orchestrator.after_resend")
    for each in [peopled.begin(KASAGA_CRASH_AT=point) for point in points]:
        each.wait_until_killed()
    peopled.run(prefix, [("trip", "after")])

    peopled.wait_until_over(prefix, len(naps) + 1)
    peopled.audit(prefix)


def test_processes_that_die_while_they_hand_over_lose_nothing(peopled: Realm, prefix: str) -> None:
    points = ("orchestrator.before_release", "orchestrator.after_release")
    doomed = [peopled.begin(KASAGA_CRASH_AT=point) for point in points]
    peopled.wait_until_busy(doomed)
    peopled.run(prefix, LOAD)
    for each in doomed:
        each.send(signal.SIGTERM)

    for each in doomed:
        each.wait_until_killed()

    peopled.wait_until_over(prefix, len(LOAD))
    peopled.audit(prefix)


def test_a_process_that_dies_in_the_middle_of_compensations(peopled: Realm, prefix: str) -> None:
    """All that happens are undos by the time of its death."""
    sagas = [("failing", str(number)) for number in range(30)]
    doomed = peopled.owner(KASAGA_CRASH_AT="orchestrator.before_commit:6")
    peopled.run(prefix, sagas)
    doomed.wait_until_killed()

    peopled.wait_until_over(prefix, len(sagas))
    rows = peopled.audit(prefix)
    assert {row.state for row in rows} == {SagaState.COMPENSATED}


def test_a_process_that_dies_in_a_function_of_ctx_run(peopled: Realm, prefix: str) -> None:
    """At least once: the next owner runs it again."""
    sagas = [("local", str(number)) for number in range(12)]
    doomed = peopled.owner(KASAGA_CRASH_AT="trips.count:2")
    peopled.run(prefix, sagas)
    doomed.wait_until_killed()

    peopled.wait_until_over(prefix, len(sagas))
    rows = peopled.audit(prefix)
    assert {row.state for row in rows} == {SagaState.COMPLETED}


def test_processes_that_die_while_branches_are_in_flight_lose_and_double_nothing(
    peopled: Realm, prefix: str
) -> None:
    """Gathers, races, blocks with a time-out, spawned branches; half of the sagas are undone at their end."""
    sagas = [("tour", f"tour-{number}") for number in range(8)]
    sagas += [("tour", f"refused-{number}") for number in range(8)]
    points = ("orchestrator.before_commit:5", "orchestrator.after_commit:7")
    rows = die_under_load(peopled, prefix, points, sagas)
    assert Counter(row.state for row in rows) == {SagaState.COMPLETED: 8, SagaState.COMPENSATED: 8}


def test_processes_that_die_with_children_at_work_leave_them_as_their_parents_end(
    peopled: Realm, prefix: str
) -> None:
    """Three children each, in shards of their own; half of the parents are refused when these have ended."""
    journeys = [("journey", f"{kind}-{number}") for kind in ("well", "refused") for number in range(8)]
    points = ("orchestrator.before_commit:6", "orchestrator.after_commit:9", "orchestrator.after_produce:7")
    doomed = [peopled.begin(KASAGA_CRASH_AT=point) for point in points]
    peopled.wait_until_busy(doomed)
    peopled.run(prefix, journeys)
    for each in doomed:
        each.wait_until_killed()
    peopled.wait_until_over(prefix, 4 * len(journeys))
    ends = Counter(("refused" in row.saga_id, row.state) for row in peopled.audit(prefix))
    assert ends == {(False, SagaState.COMPLETED): 32, (True, SagaState.COMPENSATED): 32}


def test_processes_that_die_around_a_pivot_undo_nothing_that_is_behind_it(
    peopled: Realm, prefix: str
) -> None:
    """Half of the sagas are refused before it; the others only go forward, whatever is asked of them."""
    sagas = [("sold", f"sold-{number}") for number in range(8)]
    sagas += [("sold", f"refused-{number}") for number in range(8)]
    points = ("orchestrator.before_commit:4", "orchestrator.after_commit:8")
    rows = die_under_load(peopled, prefix, points, sagas)
    assert Counter(row.state for row in rows) == {SagaState.COMPLETED: 8, SagaState.COMPENSATED: 8}
    for row in rows:
        history = [decode(each.seq, each.body) for each in peopled.store.history(row)]
        passed = any(isinstance(each, Pivot) for record in history for each in record.decisions)
        assert passed == (row.state is SagaState.COMPLETED)


def test_processes_that_die_around_scopes_undo_what_was_done_in_them_and_nothing_else(
    peopled: Realm, prefix: str
) -> None:
    """Half of the sagas are refused in their scope; then another way is gone, when all of it is undone."""
    sagas = [("choosy", f"well-{number}") for number in range(8)]
    sagas += [("choosy", f"refused-{number}") for number in range(8)]
    points = ("orchestrator.before_commit:5", "orchestrator.after_commit:6")
    rows = die_under_load(peopled, prefix, points, sagas)
    assert {row.state for row in rows} == {SagaState.COMPLETED}
    for row in rows:
        state = fold(str(row.run_id), [decode(each.seq, each.body) for each in peopled.store.history(row)])
        standing = {step.path for step in state.order if step.outcome == DONE and not step.undo_how}
        refused = "refused" in row.saga_id
        assert standing == ({"1", "7"} if refused else {"1", "4.1", "4.2", "5.1", "6"})
        assert state.steps["2"].outcome == (UNDONE if refused else LEFT)


def test_a_thousand_steps_at_once_outlive_the_process_that_sent_them(peopled: Realm, prefix: str) -> None:
    doomed = peopled.owner(KASAGA_CRASH_AT="orchestrator.after_produce:400")
    for number in range(6):  # each shard has one, whichever are the doomed one's
        ids = (f"{prefix}{'refused-' * (number % 2)}{number}-{each}" for each in count())
        saga_id = next(each for each in ids if partition_for(each.encode(), SHARDS) == number % SHARDS)
        peopled.start("crowd", saga_id, note="1000")
    peopled.flush()
    doomed.wait_until_killed()

    peopled.wait_until_over(prefix, 6, timeout=120)
    rows = peopled.audit(prefix)
    assert Counter(row.state for row in rows) == {SagaState.COMPLETED: 3, SagaState.COMPENSATED: 3}


def test_offsets_in_kafka_are_for_people_only(peopled: Realm, prefix: str) -> None:
    points = ("orchestrator.before_offsets", "orchestrator.after_offsets")
    die_under_load(peopled, prefix, points, LOAD)
