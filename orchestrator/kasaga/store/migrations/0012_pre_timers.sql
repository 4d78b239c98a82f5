-- Sleeping rows by when they are due: an owner reads those that come next, and has no others in memory.

CREATE INDEX outbox_timer ON kasaga.outbox (shard, due_at, seq)
    WHERE kind = 3 AND run_id IS NOT NULL AND due_at IS NOT NULL;
