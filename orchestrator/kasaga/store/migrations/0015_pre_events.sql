-- Events that sagas await by a key: records that are kept for who awaits them later, and the waits by what they await.
CREATE TABLE kasaga.heard (
    id bigint GENERATED ALWAYS AS IDENTITY,
    until timestamptz NOT NULL,
    event text COLLATE "C" NOT NULL,
    name bytea NOT NULL,
    position text COLLATE "C" NOT NULL,
    source text COLLATE "C" NOT NULL,
    payload bytea NOT NULL,
    PRIMARY KEY (name, position)
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.02);

CREATE INDEX heard_event ON kasaga.heard (event, id);

CREATE INDEX heard_until ON kasaga.heard (until);

CREATE INDEX outbox_awaited ON kasaga.outbox (key)
    WHERE kind = 3 AND key IS NOT NULL AND run_id IS NOT NULL;
