-- Search attributes: what sagas are found by.
CREATE TABLE kasaga.attribute (
    shard integer NOT NULL,
    run_id uuid NOT NULL,
    term bytea NOT NULL,
    PRIMARY KEY (term, run_id, shard)
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.02);

CREATE INDEX attribute_run ON kasaga.attribute (run_id, shard);
