-- Retention, in slices. No commit waits for it: what has ended is written by nobody, but for a child that its parent
-- takes back, and then it isn't deleted.

-- finished: uuid timestamptz text[] bool int4
-- The next sagas by run id, and whether they ended before $2 and are of the names $3 ($4: of none of these). UUIDv7
-- begins with the milliseconds since 1970, so ids made between $2 and tomorrow are skipped. Those above are of another
-- version and are looked at in any case.
WITH bounds AS (
    SELECT (lpad(to_hex(floor(extract(epoch FROM $2) * 1000)::bigint), 12, '0') || repeat('f', 20))::uuid AS young,
        (lpad(to_hex(floor(extract(epoch FROM clock_timestamp() + interval '1 day') * 1000)::bigint), 12, '0')
            || repeat('f', 20))::uuid AS beyond
)
SELECT s.run_id, s.shard, s.state IN ('COMPLETED', 'COMPENSATED', 'TERMINATED') AND s.ended_at < $2
    AND (s.name = ANY ($3)) <> $4
FROM kasaga.saga s, bounds b
WHERE s.run_id > $1 AND (s.run_id <= b.young OR s.run_id > b.beyond)
ORDER BY s.run_id LIMIT $5

-- finished_rows: int4[] uuid[]
SELECT s.*, (SELECT array_agg(a.term) FROM kasaga.attribute a
             WHERE a.run_id = s.run_id AND a.shard IS NOT DISTINCT FROM s.shard)
FROM unnest($1, $2) AS u (shard, run_id), LATERAL (
    SELECT shard, run_id, saga_id, name, version, state, input_hash, started_at, updated_at, ended_at, step, code,
        reason, remedy, with_exceptions, parked_code, result, base
    FROM kasaga.saga WHERE run_id = u.run_id AND shard IS NOT DISTINCT FROM u.shard OFFSET 0
) AS s

-- beginnings: int4[] uuid[]
SELECT h.* FROM unnest($1, $2) AS u (shard, run_id), LATERAL (
    SELECT run_id, seq, at, kind, step, body
    FROM kasaga.history WHERE shard = u.shard AND run_id = u.run_id ORDER BY seq LIMIT 1
) AS h

-- delete: int4[] uuid[] timestamptz[]
-- One statement, so that no history is ever without its saga, nor a saga without a part of its history. $3 is when each
-- ended: who was taken back meanwhile has ended at no time, or later. The lock on the row is what tells: a commit that
-- takes it back at this moment is waited for, and its row is then not the one at this place any more.
WITH gone AS (
    DELETE FROM kasaga.saga s
    USING (
        SELECT n.ended_at, (
            SELECT o.ctid FROM kasaga.saga o WHERE o.run_id = n.run_id AND o.shard IS NOT DISTINCT FROM n.shard
        ) AS place
        FROM unnest($1, $2, $3) AS n (shard, run_id, ended_at)
        OFFSET 0
    ) AS u
    WHERE s.ctid = u.place AND s.ended_at IS NOT DISTINCT FROM u.ended_at
    RETURNING s.*
), histories AS (
    DELETE FROM kasaga.history
    WHERE ctid = ANY (ARRAY(
        SELECT h.place FROM gone g, LATERAL (
            SELECT ctid AS place FROM kasaga.history WHERE shard = g.shard AND run_id = g.run_id OFFSET 0
        ) AS h))
), attributes AS (
    DELETE FROM kasaga.attribute
    WHERE ctid = ANY (ARRAY(
        SELECT a.place FROM gone g, LATERAL (
            SELECT ctid AS place FROM kasaga.attribute WHERE run_id = g.run_id AND shard = g.shard OFFSET 0
        ) AS a))
)
INSERT INTO kasaga.ended AS e (shard, run_id, saga_id, name, version, state, input_hash, started_at, ended_at,
                               with_exceptions, deleted_at)
SELECT shard, run_id, saga_id, name, version, state, input_hash, started_at, ended_at, with_exceptions,
    clock_timestamp() FROM gone
ON CONFLICT (saga_id, shard) DO UPDATE
SET run_id = excluded.run_id, name = excluded.name, version = excluded.version, state = excluded.state,
    input_hash = excluded.input_hash, started_at = excluded.started_at, ended_at = excluded.ended_at,
    with_exceptions = excluded.with_exceptions, deleted_at = excluded.deleted_at

-- ended_runs: uuid text[] bool int4 timestamptz
-- Sagas that have gone on as new runs, by run id, and of each the row with which its first run begins that had not ended
-- before $5: all before it are whole runs. NULL: none has ended so long ago.
SELECT s.run_id, s.shard, (
    SELECT max(h.seq) FROM kasaga.history h
    WHERE h.shard = s.shard AND h.run_id = s.run_id AND h.seq <= s.base AND h.kind = 'Continue' AND h.at < $5
) AS first, (SELECT min(h.seq) FROM kasaga.history h WHERE h.shard = s.shard AND h.run_id = s.run_id) AS oldest
FROM kasaga.saga s
WHERE s.base > 1 AND s.run_id > $1 AND (s.name = ANY ($2)) <> $3
ORDER BY s.run_id LIMIT $4

-- cut: int4 uuid int4
DELETE FROM kasaga.history WHERE shard = $1 AND run_id = $2 AND seq < $3

-- kept: int4 uuid int4 int4 int4
SELECT seq, at, kind, step, body FROM kasaga.history
WHERE shard = $1 AND run_id = $2 AND seq > $3 AND seq < $4 ORDER BY seq LIMIT $5

-- archived: text int8 int8
INSERT INTO kasaga.archive AS a (place, sagas, objects, bytes, archived_at) VALUES ($1, $2, 1, $3, clock_timestamp())
ON CONFLICT (single) DO UPDATE
SET place = excluded.place, sagas = a.sagas + excluded.sagas, objects = a.objects + 1, bytes = a.bytes + excluded.bytes,
    archived_at = excluded.archived_at, failing_since = NULL, error = ''

-- archive_failed: text text
INSERT INTO kasaga.archive AS a (place, error, failing_since) VALUES ($1, $2, clock_timestamp())
ON CONFLICT (single) DO UPDATE
SET place = excluded.place, error = excluded.error, failing_since = coalesce(a.failing_since, excluded.failing_since)

-- archive_state:
SELECT place, sagas, objects, bytes, archived_at, failing_since, error FROM kasaga.archive

-- forget: timestamptz int4
DELETE FROM kasaga.ended
WHERE ctid = ANY (ARRAY(SELECT ctid FROM kasaga.ended WHERE deleted_at < $1 ORDER BY deleted_at LIMIT $2))

-- forget_older: timestamptz int4
-- What a release before `deleted_at` has deleted.
DELETE FROM kasaga.ended
WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM kasaga.ended WHERE deleted_at IS NULL AND ended_at < $1 ORDER BY ended_at LIMIT $2))

-- retain: text[] float8[]
INSERT INTO kasaga.retention AS r (name, seconds) SELECT * FROM unnest($1, $2)
ON CONFLICT (name) DO UPDATE SET seconds = excluded.seconds WHERE r.seconds <> excluded.seconds

-- retain_no_more: text[]
DELETE FROM kasaga.retention WHERE name = ANY ($1)

-- retained:
SELECT name, seconds FROM kasaga.retention

-- clock:
SELECT clock_timestamp()
