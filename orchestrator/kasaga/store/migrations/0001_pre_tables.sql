-- The tables; schema.sql says what each is for.

CREATE TABLE kasaga.namespace (
    single boolean PRIMARY KEY DEFAULT true CHECK (single),
    name text NOT NULL,
    shards integer NOT NULL CHECK (shards > 0)
);

CREATE TABLE kasaga.process (
    name text PRIMARY KEY,
    alive_until timestamptz NOT NULL
);

CREATE TABLE kasaga.shard (
    shard integer PRIMARY KEY,
    deaths integer NOT NULL DEFAULT 0,
    epoch bigint NOT NULL DEFAULT 0,
    lease_until timestamptz,
    lease_seconds double precision NOT NULL DEFAULT 0,
    token uuid,
    owner text
) WITH (fillfactor = 10, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0);

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
    PRIMARY KEY (run_id, shard),
    UNIQUE (saga_id, shard)
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.02);

CREATE INDEX saga_attention ON kasaga.saga (run_id, shard) WHERE attention;

CREATE TABLE kasaga.history (
    at timestamptz NOT NULL,
    shard integer NOT NULL,
    seq integer NOT NULL,
    run_id uuid NOT NULL,
    kind text NOT NULL,
    step text NOT NULL,
    body bytea NOT NULL,
    PRIMARY KEY (shard, run_id, seq)
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.05);

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
    headers bytea NOT NULL,
    payload bytea,
    PRIMARY KEY (shard, seq)
) WITH (autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_scale_factor = 0.02,
        autovacuum_analyze_threshold = 5000, autovacuum_analyze_scale_factor = 0.02);

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

CREATE INDEX ended_at ON kasaga.ended (ended_at);

CREATE TABLE kasaga.schema (
    hash bytea PRIMARY KEY,
    json text NOT NULL
);
