"""Every crash window of a participant: the process dies right there, and another one takes over.

The books are right in the end: each effect is there exactly once, and every command has its answer.
"""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from eventually import eventually
from participant.asker import Asker
from participant.conftest import Effects, ShopStarter
from participant.shop import Order

POINTS = [
    "participant.after_consume",
    "participant.after_claim",
    "participant.after_handler",
    "participant.after_handler:3",
    "participant.before_commit",
    "participant.after_commit",
    "participant.after_produce_before_ack",
    "participant.after_produce_before_ack:4",
    "participant.after_ack_before_offset",
    "participant.after_rollback",
    "participant.fence.after_claim",
    "participant.fence.before_commit",
]


# A static member gets its partitions back at once; others wait until the dead one's session is over, for 6 s.
SAME_MEMBER = {"KASAGA_KAFKA_GROUP_INSTANCE_ID": "shop-0"}


class Books:
    """Commands of all kinds, and what must have come of them."""

    def __init__(self, asker: Asker) -> None:
        self.asker = asker
        self.bought = [asker.new_id() for _ in range(6)]
        self.refused = [asker.new_id() for _ in range(2)]
        self.undone = [asker.new_id() for _ in range(2)]
        self.undone_before = [asker.new_id() for _ in range(2)]
        self.voided = [asker.new_id() for _ in range(2)]

    def send(self) -> None:
        for id_ in self.bought + self.undone:
            self.asker.command(Order(id=id_), id_)
        for id_ in self.refused:
            self.asker.command(Order(id=id_, wish="refuse"), id_)
        for id_ in self.undone:
            self.asker.undo(Order(id=id_), id_, knowledge="done")
        for id_ in self.undone_before:
            self.asker.undo(Order(id=id_), id_)
            self.asker.command(Order(id=id_), id_)
        for id_ in self.voided:
            self.asker.void(id_)
            self.asker.command(Order(id=id_), id_)
        self.asker.flush()

    def check(self, effects: Effects) -> None:
        commands = [*self.bought, *self.refused, *self.undone, *self.undone_before, *self.voided]
        undos = [f"{id_}~undo" for id_ in self.undone + self.undone_before]
        voids = [f"{id_}~void" for id_ in self.voided]
        self.asker.wait(*commands, *undos, *voids)

        assert self.outcomes(self.bought) == {"done"}
        assert self.outcomes(self.refused) == {"refused"}
        assert self.outcomes(self.undone) == {"done"}
        assert self.outcomes([f"{id_}~undo" for id_ in self.undone]) == {"undone"}
        assert self.outcomes([f"{id_}~undo" for id_ in self.undone_before]) == {"nothing"}
        assert self.outcomes(voids) == {"voided"}
        assert self.outcomes(self.undone_before + self.voided) == {"refused"}
        done = [(id_, "buy") for id_ in self.bought + self.undone]
        undone = [(f"{id_}~undo", f"unbuy {sum(id_.encode())}") for id_ in self.undone]
        assert effects.rows() == sorted(done + undone)

    def outcomes(self, ids: list[str]) -> set[str]:
        """Of every reply there is: a duplicate must say the same."""
        return {reply.outcome for id_ in ids for reply in self.asker.replies[id_]}


@pytest.mark.parametrize("point", POINTS)
def test_a_crash_loses_nothing_and_repeats_nothing(
    asker: Asker, start_shop: ShopStarter, effects: Effects, point: str
) -> None:
    books = Books(asker)
    books.send()
    start_shop(KASAGA_CRASH_AT=point, **SAME_MEMBER).wait_until_killed()

    start_shop(**SAME_MEMBER)

    books.check(effects)


@pytest.mark.parametrize(
    "point", ["participant.after_handler", "participant.after_commit", "participant.before_commit:2"]
)
def test_a_crash_in_a_thread_is_as_harmless(
    asker: Asker, start_shop: ShopStarter, effects: Effects, point: str
) -> None:
    books = Books(asker)
    books.send()
    start_shop(KASAGA_CRASH_AT=point, SHOP_SYNC="1", **SAME_MEMBER).wait_until_killed()

    start_shop(SHOP_SYNC="1", **SAME_MEMBER)

    books.check(effects)


def test_crashing_again_and_again_gets_there_in_the_end(
    asker: Asker, start_shop: ShopStarter, effects: Effects
) -> None:
    books = Books(asker)
    books.send()
    for number in (1, 2, 1, 3):
        crash_at = f"participant.after_handler:{number}"
        start_shop(KASAGA_CRASH_AT=crash_at, **SAME_MEMBER).wait_until_killed()

    start_shop(**SAME_MEMBER)

    books.check(effects)


@pytest.mark.parametrize("point", ["after_claim", "before_commit", "after_commit", "fence.before_commit"])
def test_a_zombie_that_wakes_in_the_middle_repeats_nothing(
    asker: Asker, start_shop: ShopStarter, effects: Effects, point: str
) -> None:
    books = Books(asker)
    books.send()
    zombie = start_shop(KASAGA_FREEZE_AT=f"participant.{point}")
    eventually(lambda: state_of(zombie.pid) == "T")

    other = start_shop()
    other.wait_until_serving()
    # What the zombie has claimed is waited for; after its commit nothing needs to be.
    eventually(lambda: effects.waiting() or asker.collect() or asker.count)
    zombie.send(signal.SIGCONT)

    books.check(effects)
    zombie.stop()


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
