-- How far audits have come, so that the next one goes on there.
CREATE TABLE kasaga.audit_position (
    until timestamptz NOT NULL,
    shard integer NOT NULL,
    name text COLLATE "C" NOT NULL,
    PRIMARY KEY (name, shard)
);

CREATE TABLE kasaga.audit_open (
    found_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    shard integer NOT NULL,
    run_id uuid NOT NULL,
    name text COLLATE "C" NOT NULL,
    PRIMARY KEY (name, run_id, shard)
);
