-- The tables. Every key of a table that grows with the sagas holds the shard, so that a distributed Postgres
-- can spread them by it. Column order is by alignment: wide fixed columns first, bytes of variable length last.

-- The one row that says what this database belongs to; `migrate` refuses another name or count.
CREATE TABLE kasaga.namespace (
    single boolean PRIMARY KEY DEFAULT true CHECK (single),
    name text NOT NULL,
    shards integer NOT NULL CHECK (shards > 0)
);

-- Who is alive, by the database's clock. A handful of rows.
CREATE TABLE kasaga.process (
    name text PRIMARY KEY,
    alive_until timestamptz NOT NULL
);

-- Who owns a shard. The fence locks this row and compares the token; only claims, heartbeats and releases write
-- it, so that its versions stay few while somebody's pg_dump holds an old snapshot.
CREATE TABLE kasaga.shard (
    shard integer PRIMARY KEY,
    deaths integer NOT NULL DEFAULT 0,
    epoch bigint NOT NULL DEFAULT 0,
    lease_until timestamptz,
    lease_seconds double precision NOT NULL DEFAULT 0,
    token uuid,
    owner text
) WITH (fillfactor = 10, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0);

-- How far a shard has come: one live row a shard. Each commit inserts the next and deletes the one before, both
-- by their full key. Updating one row in place instead makes every commit walk all versions that the oldest
-- snapshot still protects: 0.13 ms became 0.74 after 40 s of a long transaction, this stayed at 0.2.
CREATE TABLE kasaga.position (
    shard integer NOT NULL,
    commit_seq bigint NOT NULL,
    sagas_offset bigint,
    replies_offset bigint,
    control_offset bigint,
    acked_seq bigint NOT NULL DEFAULT 0,
    next_seq bigint NOT NULL DEFAULT 1,
    now timestamptz,
    suspect uuid,
    PRIMARY KEY (shard, commit_seq)
) WITH (autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_scale_factor = 0);

-- The summary of a saga: inserted at its start, updated at a change of state. `attention` is in the index, `state`
-- is not: RUNNING to COMPLETED changes no indexed column, so that the update stays in its page (HOT) and writes no
-- index. The free fifth of a page is the room for that. saga_id sorts by bytes: prefixes are ranges of the index.
CREATE TABLE kasaga.saga (
    started_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    ended_at timestamptz,
    shard integer NOT NULL,
    version integer NOT NULL,
    run_id uuid NOT NULL,
    with_exceptions boolean NOT NULL,
    attention boolean NOT NULL GENERATED ALWAYS AS (state NOT IN ('RUNNING', 'COMPLETED', 'COMPENSATED')) STORED,
    state text NOT NULL,
    saga_id text COLLATE "C" NOT NULL,
    name text NOT NULL,
    input_hash bytea NOT NULL,
    step text NOT NULL,
    code text NOT NULL,
    reason text NOT NULL,
    remedy text NOT NULL,
    parked_code text NOT NULL,
    result bytea,
    -- Run ids are UUIDv7: this is also the order of the list, newest first.
    PRIMARY KEY (run_id, shard),
    -- One saga per id. A shard follows from the id, hence the id first: it finds and searches prefixes as well.
    UNIQUE (saga_id, shard)
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.02);

-- The stuck, paused, cancelling and compensating: few, always looked for, and a shard's new owner asks for the
-- parked ones. Rows enter and leave only when something goes wrong.
CREATE INDEX saga_attention ON kasaga.saga (run_id, shard) WHERE attention;

-- The truth: one row a decision, only ever added and, after retention, deleted by saga.
CREATE TABLE kasaga.history (
    at timestamptz NOT NULL,
    shard integer NOT NULL,
    seq integer NOT NULL,
    run_id uuid NOT NULL,
    kind text NOT NULL,
    step text NOT NULL,
    body bytea NOT NULL,
    -- A whole history is one range. A second writer of the same decision collides here: no ON CONFLICT, ever.
    PRIMARY KEY (shard, run_id, seq)
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.05);

-- What a shard's owner still has to do or waits for; see RowKind. Only the key: rows are inserted and deleted by
-- it, and a take-over reads one range. "What does this saga wait for" reads the shard's range: a person waits.
CREATE TABLE kasaga.outbox (
    seq bigint NOT NULL,
    send_at timestamptz,
    due_at timestamptz,
    shard integer NOT NULL,
    attempt integer NOT NULL,
    partition integer,
    kind smallint NOT NULL,
    run_id uuid,
    step text NOT NULL,
    topic text NOT NULL,
    key bytea,
    headers bytea NOT NULL, -- msgpack: [[name, value], ...]
    payload bytea,
    PRIMARY KEY (shard, seq)
) WITH (autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_scale_factor = 0.02,
        autovacuum_analyze_threshold = 5000, autovacuum_analyze_scale_factor = 0.02);

-- What is remembered of a purged saga, so that a late duplicate of its start isn't run again.
CREATE TABLE kasaga.ended (
    started_at timestamptz NOT NULL,
    ended_at timestamptz NOT NULL,
    shard integer NOT NULL,
    version integer NOT NULL,
    run_id uuid NOT NULL,
    with_exceptions boolean NOT NULL,
    state text NOT NULL,
    saga_id text COLLATE "C" NOT NULL,
    name text NOT NULL,
    input_hash bytea NOT NULL,
    PRIMARY KEY (saga_id, shard)
);

-- The rows to forget, oldest first.
CREATE INDEX ended_at ON kasaga.ended (ended_at);

-- Schemas by the full SHA-256 of their canonical form.
CREATE TABLE kasaga.schema (
    hash bytea PRIMARY KEY,
    json text NOT NULL
);
