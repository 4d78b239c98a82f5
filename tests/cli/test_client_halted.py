"""Whoever waits for a saga that is paused, or that somebody ends as it is."""

from __future__ import annotations

import pytest

from cli.fake_owner import FakeOwner
from cli.test_client import ORDER, payment, play
from kasaga.client import Client, ResultTimeout, SagaWasTerminated


def test_a_terminated_saga_says_what_it_leaves_and_a_paused_one_is_waited_for() -> None:
    async def scene(client: Client, owner: FakeOwner) -> None:
        handle = await client.start(payment, ORDER, id="o-1", wait=True)
        owner.end("o-1", "PAUSED", reason="paused by anna")
        with pytest.raises(ResultTimeout):
            await handle.result(timeout=0.05)
        owner.end("o-1", "TERMINATED", reason="terminated by anna: gone; it leaves nothing")
        with pytest.raises(SagaWasTerminated, match="KSG-513: saga o-1 was ended as it was") as caught:
            await handle.result()
        assert caught.value.reason == "terminated by anna: gone; it leaves nothing"
        status = await client.terminate("o-1", reason="why")
        assert status.final

    play(scene)
