-- The schema as it is today, for reading: what each table, index and function is for. Applied are the files in
-- migrations/, which may never be edited afterwards; a test holds that they add up to this and the
-- functions in functions.sql.

CREATE SCHEMA kasaga;

-- What was applied, so that a file that was edited afterwards is noticed.
CREATE TABLE kasaga.migration (
    name text PRIMARY KEY, sha256 bytea NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- The tables. Every key of a table that grows with the sagas holds the shard, so that a distributed Postgres
-- can spread them by it. Column order is by alignment: wide fixed columns first, bytes of variable length last.

-- The one row that says what this database belongs to; `migrate` refuses another name or count.
CREATE TABLE kasaga.namespace (
    single boolean PRIMARY KEY DEFAULT true CHECK (single),
    name text NOT NULL, shards integer NOT NULL CHECK (shards > 0)
);

-- Who is alive, by the database's clock. A handful of rows.
CREATE TABLE kasaga.process (
    name text PRIMARY KEY,
    alive_until timestamptz NOT NULL,
    -- The sagas that it has, each as name/version, sorted. NULL: it is of an older release, which doesn't say.
    sagas text[]
);

-- Who owns a shard. The fence locks this row and compares the token; only claims, heartbeats and releases write
-- it, so that its versions stay few while somebody's pg_dump holds an old snapshot.
CREATE TABLE kasaga.shard (
    shard integer PRIMARY KEY,
    deaths integer NOT NULL DEFAULT 0,
    epoch bigint NOT NULL DEFAULT 0,
    lease_until timestamptz,
    lease_seconds double precision NOT NULL DEFAULT 0,
    token uuid, owner text
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
    -- In suspect mode: the saga about to be stepped, and the line that it goes on from. The next commit takes it back.
    suspect uuid,
    suspect_at text NOT NULL DEFAULT '',
    -- What was decided before this is exported as spans; what wasn't, a dead owner's heir looks for. NULL: no traces.
    traced timestamptz,
    PRIMARY KEY (shard, commit_seq)
) WITH (autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_scale_factor = 0);

-- The sagas that were marked when an owner of their shard died, and how often each was. At most one row a death; those
-- of a shard go when it is released or pardoned.
CREATE TABLE kasaga.suspect (
    shard integer NOT NULL,
    deaths integer NOT NULL,
    run_id uuid NOT NULL,
    place text NOT NULL,
    PRIMARY KEY (shard, run_id)
);

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
    -- The first row of history that its run needs; those before it are of runs that have ended.
    base integer NOT NULL DEFAULT 1,
    -- Run ids are UUIDv7: this is also the order of the list, newest first.
    PRIMARY KEY (run_id, shard),
    -- One saga per id. A shard follows from the id, hence the id first: it finds and searches prefixes as well.
    UNIQUE (saga_id, shard)
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.02);

-- The stuck, paused, cancelling and compensating: few, always looked for, and a shard's new owner asks for the
-- parked ones. Rows enter and leave only when something goes wrong.
CREATE INDEX saga_attention ON kasaga.saga (run_id, shard) WHERE attention;

-- Of those that have gone on as new runs: what retention deletes of a saga that lives on.
CREATE INDEX saga_continued ON kasaga.saga (run_id, shard) WHERE base > 1;

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

-- The way to what was decided since a time, for the heir of an owner that died with spans. A range of pages knows its
-- latest time, and that is when something was last written to it, whatever was deleted before: few ranges to read. It
-- costs an insert next to nothing, where a tree on time would cost as much again as the key.
CREATE INDEX history_at ON kasaga.history USING brin (at) WITH (autosummarize = on);

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

-- Sleeping rows by when they are due: an owner reads those that come next, and has no others in memory.
CREATE INDEX outbox_timer ON kasaga.outbox (shard, due_at, seq)
    WHERE kind = 3 AND run_id IS NOT NULL AND due_at IS NOT NULL;

-- Waits for events by what they await: an event's name and a key.
CREATE INDEX outbox_awaited ON kasaga.outbox (key) WHERE kind = 3 AND key IS NOT NULL AND run_id IS NOT NULL;

-- Search attributes: a row for each value, in bytes that sort as the values do (terms.py): name, NUL, kind, value. The
-- name is in the term, so that the planner's statistics know how many sagas have a value, and one index serves
-- equality, ranges and prefixes of all of them. Sagas without attributes have no row here, and their own row knows
-- nothing of it. Found by its term, newest first; by its saga, to be shown, changed and deleted.
CREATE TABLE kasaga.attribute (
    shard integer NOT NULL, run_id uuid NOT NULL, term bytea NOT NULL,
    PRIMARY KEY (term, run_id, shard)
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.02);
CREATE INDEX attribute_run ON kasaga.attribute (run_id, shard);

-- Locks: for each key a queue of sagas, by `place`; the first holds it. Places are given under an advisory lock of the key.
-- Nothing is written when a key passes on: it follows from the rows. Keys are those of all shards, so none holds the shard.
CREATE TABLE kasaga.lock (
    place bigint NOT NULL GENERATED ALWAYS AS IDENTITY,
    run_id uuid NOT NULL, shard integer NOT NULL, key text COLLATE "C" NOT NULL,
    PRIMARY KEY (run_id, key)
) WITH (autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0.02);
CREATE UNIQUE INDEX lock_queue ON kasaga.lock (key, place);

-- Records whose events sagas may await by a key, `name`: an event's name and the key. Kept for who awaits one later.
CREATE TABLE kasaga.heard (
    id bigint GENERATED ALWAYS AS IDENTITY, until timestamptz NOT NULL, event text COLLATE "C" NOT NULL, name bytea NOT NULL,
    position text COLLATE "C" NOT NULL, source text COLLATE "C" NOT NULL, payload bytea NOT NULL, PRIMARY KEY (name, position)
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.02);
CREATE INDEX heard_event ON kasaga.heard (event, id);
CREATE INDEX heard_until ON kasaga.heard (until);

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
    -- NULL: deleted by a release before this column.
    deleted_at timestamptz DEFAULT clock_timestamp(),
    PRIMARY KEY (saga_id, shard)
);

-- The rows to forget, oldest first; the first index is for those without a `deleted_at`.
CREATE INDEX ended_at ON kasaga.ended (ended_at);
CREATE INDEX ended_deleted ON kasaga.ended (deleted_at);

-- For how long finished sagas of a name are kept, in seconds, where their definition says so; infinity: for ever. By
-- name: what a release that has taken a saga out of its App had said of it stays true of its sagas.
CREATE TABLE kasaga.retention (
    seconds double precision NOT NULL CHECK (seconds > 0),
    name text COLLATE "C" NOT NULL,
    PRIMARY KEY (name)
);

-- How the archive is doing that finished sagas go to before they are deleted: one row, once there is an archive. What was
-- written so far, and since when the last thing that was to be written wasn't, with its error.
CREATE TABLE kasaga.archive (
    single boolean NOT NULL DEFAULT true CHECK (single),
    sagas bigint NOT NULL DEFAULT 0,
    objects bigint NOT NULL DEFAULT 0,
    bytes bigint NOT NULL DEFAULT 0,
    archived_at timestamptz,
    failing_since timestamptz,
    place text NOT NULL,
    error text NOT NULL DEFAULT '',
    PRIMARY KEY (single)
);

-- Schedules: how far each is planned, and its recent firings.
CREATE TABLE kasaga.schedule (
    position timestamptz NOT NULL DEFAULT clock_timestamp(),
    declared boolean NOT NULL DEFAULT true,
    paused boolean NOT NULL DEFAULT false,
    name text COLLATE "C" NOT NULL,
    definition text NOT NULL,
    acted_by text NOT NULL DEFAULT '',
    PRIMARY KEY (name)
);

CREATE TABLE kasaga.firing (
    due timestamptz NOT NULL,
    at timestamptz NOT NULL,
    schedule text COLLATE "C" NOT NULL,
    cause text NOT NULL,
    state text NOT NULL,
    saga_id text NOT NULL,
    reason text NOT NULL,
    PRIMARY KEY (schedule, due)
);

-- Schemas by the full SHA-256 of their canonical form.
CREATE TABLE kasaga.schema (
    hash bytea PRIMARY KEY,
    json text NOT NULL
);

-- The sagas that can be started, as the image that was started last announces them: for whoever starts one without
-- the author's code. `input` and `result` are hashes of schemas, `form` is the input as a JSON Schema.
CREATE TABLE kasaga.definition (
    announced_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    version integer NOT NULL,
    name text COLLATE "C" NOT NULL,
    input bytea NOT NULL,
    result bytea NOT NULL,
    form text NOT NULL,
    PRIMARY KEY (name, version)
);

-- How far the audits of a name have come: whatever ended before it, in this shard, was compared. One row a shard.
CREATE TABLE kasaga.audit_position (
    until timestamptz NOT NULL,
    shard integer NOT NULL,
    name text COLLATE "C" NOT NULL,
    PRIMARY KEY (name, shard)
);

-- The sagas that an audit has found something wrong with: looked at again by each, until they are well or purged.
CREATE TABLE kasaga.audit_open (
    found_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    shard integer NOT NULL,
    run_id uuid NOT NULL,
    name text COLLATE "C" NOT NULL,
    PRIMARY KEY (name, run_id, shard)
);

-- Large payloads are compressed by lz4 where the server has it: a fifth of the CPU of its default, and no more bytes.
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_settings WHERE name = 'default_toast_compression' AND 'lz4' = ANY (enumvals)) THEN
        ALTER TABLE kasaga.history ALTER body SET COMPRESSION lz4;
        ALTER TABLE kasaga.outbox ALTER payload SET COMPRESSION lz4;
        ALTER TABLE kasaga.saga ALTER result SET COMPRESSION lz4;
    END IF;
END $$;
