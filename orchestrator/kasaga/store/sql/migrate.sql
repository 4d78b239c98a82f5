-- What the migrator does beside the migrations themselves.

-- lock: int8
SELECT pg_advisory_xact_lock($1)

-- make_schema:
CREATE SCHEMA IF NOT EXISTS kasaga

-- make_list:
CREATE TABLE IF NOT EXISTS kasaga.migration (
    name text PRIMARY KEY,
    sha256 bytea NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
)

-- applied:
SELECT name, sha256 FROM kasaga.migration

-- note: text bytea
INSERT INTO kasaga.migration (name, sha256) VALUES ($1, $2)

-- add_namespace: text int4
INSERT INTO kasaga.namespace (name, shards) VALUES ($1, $2) ON CONFLICT DO NOTHING

-- add_shards: int4
INSERT INTO kasaga.shard (shard) SELECT generate_series(0, $1 - 1) ON CONFLICT DO NOTHING

-- add_positions:
INSERT INTO kasaga.position (shard, commit_seq)
SELECT s.shard, 0 FROM kasaga.shard s WHERE NOT EXISTS (SELECT FROM kasaga.position p WHERE p.shard = s.shard)
