-- What the loop and people read. LATERAL and OFFSET 0 keep the order: for each thing asked, one look-up by key. `IS NOT
-- DISTINCT FROM` is an `=` that only filters: it keeps the planner from another index of the same table.

-- namespace:
SELECT name, shards FROM kasaga.namespace

-- migrations:
SELECT name FROM kasaga.migration

-- open_rows: int4
SELECT shard, seq, kind, run_id, step, topic, partition, key, headers, payload, attempt, send_at, due_at
FROM kasaga.outbox WHERE shard = $1 ORDER BY seq

-- waits: int4 uuid
SELECT shard, seq, kind, run_id, step, topic, partition, key, headers, payload, attempt, send_at, due_at
FROM kasaga.outbox WHERE shard = $1 AND run_id = $2 ORDER BY seq

-- find: int4[] text[]
SELECT s.* FROM unnest($1, $2) AS u (shard, saga_id), LATERAL (
    SELECT shard, run_id, saga_id, name, version, state, input_hash, started_at, updated_at, ended_at, step, code,
        reason, remedy, with_exceptions, parked_code, result
    FROM kasaga.saga WHERE saga_id = u.saga_id COLLATE "C" AND shard IS NOT DISTINCT FROM u.shard OFFSET 0
) AS s

-- find_ended: int4[] text[]
SELECT e.* FROM unnest($1, $2) AS u (shard, saga_id), LATERAL (
    SELECT shard, run_id, saga_id, name, version, state, input_hash, started_at, ended_at AS updated_at, ended_at,
        '', '', '', '', with_exceptions, '', NULL::bytea
    FROM kasaga.ended WHERE saga_id = u.saga_id COLLATE "C" AND shard = u.shard OFFSET 0
) AS e

-- load: int4[] uuid[]
SELECT h.* FROM unnest($1, $2) AS u (shard, run_id), LATERAL (
    SELECT run_id, seq, at, kind, step, body
    FROM kasaga.history WHERE shard = u.shard AND run_id = u.run_id ORDER BY seq OFFSET 0
) AS h

-- parked: int4 text
SELECT run_id FROM kasaga.saga
WHERE attention AND shard = $1 AND state = 'STUCK' AND parked_code <> '' AND parked_code <> $2
ORDER BY run_id

-- put_schemas: bytea[] text[]
INSERT INTO kasaga.schema (hash, json) SELECT * FROM unnest($1, $2) ON CONFLICT (hash) DO NOTHING

-- schemas:
SELECT hash, json FROM kasaga.schema

-- list: text[] bool text text text text timestamptz timestamptz uuid int4
-- $2 says that all wanted states are in the partial index.
SELECT shard, run_id, saga_id, name, version, state, input_hash, started_at, updated_at, ended_at, step, code,
    reason, remedy, with_exceptions, parked_code, result
FROM kasaga.saga
WHERE ($1 IS NULL OR state = ANY ($1)) AND (NOT $2 OR attention)
    AND ($3 = '' OR name = $3) AND ($4 = '' OR saga_id = $4)
    AND ($5 = '' OR starts_with(saga_id, $5)) AND ($6 = '' OR code = $6)
    AND ($7 IS NULL OR started_at > $7) AND ($8 IS NULL OR started_at < $8)
    AND ($9 IS NULL OR run_id < $9)
ORDER BY run_id DESC LIMIT $10

-- count: text[] bool text text text text timestamptz timestamptz
SELECT state, count(*) FROM kasaga.saga
WHERE ($1 IS NULL OR state = ANY ($1)) AND (NOT $2 OR attention)
    AND ($3 = '' OR name = $3) AND ($4 = '' OR saga_id = $4)
    AND ($5 = '' OR starts_with(saga_id, $5)) AND ($6 = '' OR code = $6)
    AND ($7 IS NULL OR started_at > $7) AND ($8 IS NULL OR started_at < $8)
GROUP BY state

-- attention: int4[]
SELECT name, state, count(*), extract(epoch FROM clock_timestamp() - min(updated_at))::float8
FROM kasaga.saga WHERE attention AND shard = ANY ($1) GROUP BY name, state

-- saga: text
SELECT shard, run_id, saga_id, name, version, state, input_hash, started_at, updated_at, ended_at, step, code,
    reason, remedy, with_exceptions, parked_code, result
FROM kasaga.saga WHERE saga_id = $1

-- saga_ended: text
SELECT shard, run_id, saga_id, name, version, state, input_hash, started_at, ended_at, ended_at, '', '', '', '',
    with_exceptions, '', NULL::bytea
FROM kasaga.ended WHERE saga_id = $1

-- history: int4 uuid int4 int4
SELECT seq, at, kind, step, body FROM kasaga.history
WHERE shard = $1 AND run_id = $2 AND seq > $3 ORDER BY seq LIMIT $4

-- shards:
SELECT shard, owner, owner IS NOT NULL AND lease_until <= clock_timestamp() FROM kasaga.shard ORDER BY shard
