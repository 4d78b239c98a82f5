-- Retention, in slices. Nothing here locks what the loops write: a finished saga is written by nobody.

-- slice: uuid timestamptz int4
-- The next sagas by run id that may have ended before $2: UUIDv7 begins with the milliseconds since 1970, so ids
-- made between then and tomorrow are skipped. Those above are of another version and are looked at in any case.
WITH bounds AS (
    SELECT (lpad(to_hex(floor(extract(epoch FROM $2) * 1000)::bigint), 12, '0') || repeat('f', 20))::uuid AS young,
        (lpad(to_hex(floor(extract(epoch FROM clock_timestamp() + interval '1 day') * 1000)::bigint), 12, '0')
            || repeat('f', 20))::uuid AS beyond
)
SELECT s.run_id, s.shard, s.state IN ('COMPLETED', 'COMPENSATED', 'TERMINATED') AND s.ended_at < $2
FROM kasaga.saga s, bounds b
WHERE s.run_id > $1 AND (s.run_id <= b.young OR s.run_id > b.beyond)
ORDER BY s.run_id LIMIT $3

-- forget_history: int4[] uuid[] int4
-- At most $3 rows: one saga's history can be long.
DELETE FROM kasaga.history
WHERE ctid = ANY (ARRAY(
    SELECT h.place FROM unnest($1, $2) AS u (shard, run_id), LATERAL (
        SELECT ctid AS place FROM kasaga.history WHERE shard = u.shard AND run_id = u.run_id OFFSET 0
    ) AS h
    LIMIT $3))

-- forget_sagas: int4[] uuid[]
WITH gone AS (
    DELETE FROM kasaga.saga s
    USING unnest($1, $2) AS u (shard, run_id)
    WHERE s.run_id = u.run_id AND s.shard = u.shard
    RETURNING s.*
)
INSERT INTO kasaga.ended AS e (shard, run_id, saga_id, name, version, state, input_hash, started_at, ended_at,
                               with_exceptions)
SELECT shard, run_id, saga_id, name, version, state, input_hash, started_at, ended_at, with_exceptions FROM gone
ON CONFLICT (saga_id, shard) DO UPDATE
SET run_id = excluded.run_id, name = excluded.name, version = excluded.version, state = excluded.state,
    input_hash = excluded.input_hash, started_at = excluded.started_at, ended_at = excluded.ended_at,
    with_exceptions = excluded.with_exceptions

-- forget_attributes: int4[] uuid[]
-- Before the sagas: what a process that dies in between leaves is a saga that can't be found by them any more.
DELETE FROM kasaga.attribute
WHERE ctid = ANY (ARRAY(
    SELECT a.place FROM unnest($1, $2) AS u (shard, run_id), LATERAL (
        SELECT ctid AS place FROM kasaga.attribute WHERE run_id = u.run_id AND shard = u.shard OFFSET 0
    ) AS a))

-- forget_ended: timestamptz int4
DELETE FROM kasaga.ended e
USING (SELECT saga_id, shard FROM kasaga.ended WHERE ended_at < $1 ORDER BY ended_at LIMIT $2) AS old
WHERE e.saga_id = old.saga_id AND e.shard = old.shard

-- clock:
SELECT clock_timestamp()
