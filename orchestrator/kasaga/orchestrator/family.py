"""What comes from a parent for its child: which run it happens to, or what is answered at once.

Called by the decider, of one process; in the loop's thread alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..engine.decide import Ignored, Run
from ..engine.kinship import Parent, Recalled
from ..engine.model import COMMAND, MESSAGES, Asked, Event, Record, Started
from ..engine.state import State
from ..errors import NotApplicable
from ..saga import App
from ..store.base import OutboxRow, SagaRow
from . import children
from .intake import Item
from .rows import Addresses, seal
from .runs import Runs
from .shards import Shard

if TYPE_CHECKING:
    from .work import Work


class Family:
    """Of one decider."""

    def __init__(self, app: App, runs: Runs, where: Addresses) -> None:
        self._app, self._runs, self._where = app, runs, where

    def answer(
        self, work: Work, shard: Shard, parent: Parent, form: str, said: children.Said, now: int
    ) -> None:
        """Answer a parent without recording anything."""
        source, sealer = self._where.source, self._where.sealer

        def made(seq: int) -> OutboxRow:
            return seal(children.loose_row(said, parent, form, seq, shard.number, now, source), sealer)

        work.add_loose(shard, made)

    def begins(
        self, work: Work, shard: Shard, item: Item, event: Started, known: State | SagaRow | None, now: int
    ) -> bool:
        """Say whether a saga may begin as far as its parent is concerned, who is told if not."""
        if event.parent is None:
            return True
        said = children.to_start(event, item.run_id, known)
        if said is not None:
            self.answer(work, shard, event.parent, COMMAND, said, now)
        return said is None

    def recalled(
        self,
        work: Work,
        shard: Shard,
        item: Item,
        event: Recalled,
        run: Run | None,
        row: SagaRow | None,
        now: int,
    ) -> tuple[Run, Event] | None:
        """A parent undoes the step that is this saga: say what happens to which run. None: nothing does."""
        said = children.to_recall(event, run.state if run is not None else row, now)
        if said is not None:
            self.answer(work, shard, event.parent, event.form, said, now)
            return None
        if run is not None:
            return run, event
        taken = self._runs.get(item.shard, event.run_id) is not None
        if taken or (item.shard, event.run_id) in work.writes:
            why = f"{event.run_id} is the run of another saga"
            self.answer(work, shard, event.parent, event.form, children.failed(why), now)
            return None
        run = Run(event.run_id)
        self._runs.add(item.shard, run)
        made = children.fence(event, item.saga_id)
        return run, made._replace(version=made.version or self._app.latest(made.name))

    def decided(
        self,
        work: Work,
        shard: Shard,
        run: Run,
        event: Recalled,
        out: Record | Ignored | NotApplicable,
        now: int,
    ) -> None:
        """Go on with what the engine says of a parent's undo."""
        if isinstance(out, NotApplicable):
            self.answer(work, shard, event.parent, event.form, children.failed(out.message), now)
        elif isinstance(out, Record):
            self._runs.add(shard.number, run)  # it may have ended well long ago


def wants_history(event: Event) -> bool:
    """Say whether something is of interest for a saga that has ended, too."""
    return isinstance(event, (*MESSAGES, Recalled)) or (isinstance(event, Asked) and event.action == "query")
