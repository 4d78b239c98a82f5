"""Answers whose schema the orchestrator hasn't read yet: they wait for it, and nothing overtakes them."""

from __future__ import annotations

import pydantic

from kasaga.store.base import SagaState
from kasaga_wire.codec import codec_for
from kasaga_wire.contracts import Contract
from kasaga_wire.envelope import CommandEnvelope
from orchestrator.test_inputs import calm, go_on, sent
from orchestrator.world import World


class NewTicket(pydantic.BaseModel):
    """Another version of trips.Ticket, which this orchestrator hasn't seen."""

    ref: str
    seat: str | None = None

    __avro_name__ = "hotel.Ticket"


def with_new_schema(world: World) -> str:
    """Have participants answer with a schema of theirs; returns its text."""
    codec = codec_for(NewTicket, name="hotel")

    def result(envelope: CommandEnvelope, contract: Contract) -> bytes | None:
        return codec.encode(NewTicket(ref="x", seat="12a")) if envelope.type == "hotel.book" else None

    world.desk.result = result
    return codec.schema.json


def test_an_answer_waits_for_its_schema() -> None:
    with calm(shards=1) as world:
        node = world.join()
        text = with_new_schema(world)
        world.start("trip", "a")
        go_on(world, node, 5)
        shard = node.loop.shards[0]
        assert shard.held == {"replies": {0}}
        assert world.offsets(0).replies == 0
        world.start("stubborn", "b")
        go_on(world, node, 5)
        assert world.saga("b").state is SagaState.COMPLETED, "what came behind it goes on"
        assert world.offsets(0).replies == 0, "a new owner must read it again"

        world.kafka.append(world.topics.schemas, 0, b"1", text.encode(), ())
        world.settle()

        world.audit()
        assert {each.attempt for each in sent(world)} == {1}
        assert world.offsets(0).replies == world.kafka.logs[world.topics.replies, 0].end


def test_timers_do_not_overtake_an_answer_that_waits_for_its_schema() -> None:
    with calm(shards=1) as world:
        node = world.join()
        text = with_new_schema(world)
        world.start("trip", "a")
        go_on(world, node, 5)
        world.pass_time(3)  # its time-out is over
        go_on(world, node, 5)
        assert {each.attempt for each in sent(world)} == {1}

        world.kafka.append(world.topics.schemas, 0, b"1", text.encode(), ())
        world.settle()

        world.audit()
        assert {each.attempt for each in sent(world)} == {1}


def test_a_schema_that_never_comes_is_asked_for_again_not_waited_for_for_ever() -> None:
    with calm(shards=1) as world:
        node = world.join()
        with_new_schema(world)
        world.start("trip", "a")
        go_on(world, node, 5)
        world.pass_time(11)
        go_on(world, node, 20)
        assert not node.loop.shards[0].held.get("replies")
        world.pass_time(5)
        go_on(world, node, 20)

        assert max(each.attempt for each in sent(world)) > 1
        assert world.saga("a").state is SagaState.RUNNING


def test_a_new_owner_reads_again_what_waits_for_its_schema() -> None:
    with calm(shards=1) as world:
        node = world.join()
        text = with_new_schema(world)
        world.start("trip", "a")
        go_on(world, node, 5)
        world.end(node)
        world.kafka.append(world.topics.schemas, 0, b"1", text.encode(), ())

        world.join()
        world.settle()

        world.audit()
        assert {each.attempt for each in sent(world)} == {1}
