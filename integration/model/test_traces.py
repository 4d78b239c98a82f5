"""What the simulator does is a run of the model; what it didn't do, and shouldn't, is none."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from model.follow import LEFT_OUT, Follower
from model.spin import set_up
from model.trace import Beyond, Saga, sagas
from simulator.world import Plan, simulate

SEEDS = range(1, 21)
FEWEST = 40
"""Sagas of these seeds that the model can follow; the others sleep, have children, run functions, or are
acted upon."""

Events = list[dict[str, Any]]


@pytest.fixture(scope="module")
def follower() -> Iterator[Follower]:
    set_up(print)
    with Follower() as made:
        yield made


@pytest.fixture(scope="module")
def runs() -> dict[int, list[str]]:
    return {seed: simulate(Plan(seed, off=LEFT_OUT, traced=True)).lines for seed in SEEDS}


def within(found: list[Saga]) -> Iterator[Saga]:
    for saga in found:
        try:
            saga.numbered()
        except Beyond:
            continue
        yield saga


def test_every_saga_of_the_simulator_follows_the_model(
    runs: dict[int, list[str]], follower: Follower
) -> None:
    followed = 0
    for seed, lines in runs.items():
        for saga in within(sagas(lines)):
            tellings = saga.numbered()
            found = follower.follow(tellings)
            assert found.whole, (
                f"seed {seed}, run {saga.run}: {tellings[found.reached]} after {found.reached}"
            )
            followed += 1
    assert followed >= FEWEST


def mutants(events: Events) -> Iterator[tuple[str, str, Events]]:
    """Runs that didn't happen: what was done to them, whose saga it touches, and the events."""
    tokens: dict[int, list[str]] = {}
    stored: set[str] = set()
    for at, event in enumerate(events):
        without = events[:at] + events[at + 1 :]
        if event["what"] == "claim":
            tokens.setdefault(event["shard"], []).append(event["token"])
        elif event["what"] == "commit" and len(event["sagas"]) == 1 and event["sagas"][0]["events"]:
            [entry] = event["sagas"]
            run, shard = entry["run"], entry["shard"]
            if "Started" not in entry["events"]:
                yield "a commit is lost", run, without
                if len(tokens[shard]) > 1 and len(event["shards"]) == 1:
                    old = [{**event["shards"][0], "token": tokens[shard][-2], "seq": 10_000}]
                    yield "a zombie commits", run, [*events[:at], {**event, "shards": old}, *events[at + 1 :]]
            if any(kind == "COMMAND" for _, kind, _, _ in entry["opens"]):
                opens = [each for each in entry["opens"] if each[1] != "COMMAND"]
                bare = {**event, "sagas": [{**entry, "opens": opens}]}
                yield "an outbox row is missing", run, [*events[:at], bare, *events[at + 1 :]]
        elif event["what"] == "inbox_commit" and len(event["rows"]) == 1:
            [(id_, outcome)] = event["rows"].items()
            if outcome == "done":
                yield "a reply without a transaction", id_.partition(".")[0], without
            if outcome == "done" and id_ not in stored:
                again = {"what": "inbox_claim", "by": event["by"], "ids": [id_], "claimed": [id_]}
                twice = [*events[: at + 1], again, event, *events[at + 1 :]]
                yield "a handler's effects twice", id_.partition(".")[0], twice
            stored.add(id_)
        elif event["what"] == "produce" and event["kind"] in ("command", "undo", "void"):
            early = {**event, "attempt": event["attempt"] + 1}
            yield (
                "an attempt that nobody has decided",
                event["id"].partition(".")[0],
                [
                    *events[:at],
                    early,
                    *events[at + 1 :],
                ],
            )


KINDS = {
    "a commit is lost",
    "a zombie commits",
    "an outbox row is missing",
    "a reply without a transaction",
    "a handler's effects twice",
    "an attempt that nobody has decided",
}
OF_EACH_KIND = 4


def test_a_run_that_did_not_happen_is_none_of_the_model(
    runs: dict[int, list[str]], follower: Follower
) -> None:
    tried: dict[str, int] = dict.fromkeys(KINDS, 0)
    for seed, lines in runs.items():
        events: Events = [json.loads(line) for line in lines]
        whole = {saga.run for saga in within(sagas(lines))}
        for kind, run, changed in mutants(events):
            if tried[kind] >= OF_EACH_KIND or run not in whole:
                continue
            [saga] = [each for each in sagas(map(json.dumps, changed)) if each.run == run]
            found = follower.follow(saga.numbered())
            assert not found.whole, f"seed {seed}, run {run}: {kind}, and the model follows"
            tried[kind] += 1
    assert tried == dict.fromkeys(KINDS, OF_EACH_KIND)
