"""A process that owns shard 3 and commits without a pause; run by `test_store_fence.py`, which freezes it."""

from __future__ import annotations

import sys

from kasaga.store.base import LostShards, SagaWrite, StoreUnavailable
from kasaga.store.postgres import PostgresStore
from store.samples import Owner, history_row, refuse_all, run_id, saga_row


def main() -> None:
    owner = Owner(PostgresStore(sys.argv[1]), "busy").claim(3)
    saga = saga_row(3, 1)
    while True:
        number = owner.rows[3].commit_seq
        write = SagaWrite(3, run_id(1), [history_row(number)], saga, new=number == 0)
        batch = owner.batch(write)
        while True:
            try:
                owner.store.commit(batch, refuse_all)
                break
            except StoreUnavailable:
                continue
            except LostShards as lost:
                print("lost", sorted(lost.shards), flush=True)
                owner.store.close()
                return
        owner.done(batch)
        print("committed", number, flush=True)


if __name__ == "__main__":
    main()
