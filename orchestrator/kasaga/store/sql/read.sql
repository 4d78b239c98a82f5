-- What the loop and people read. LATERAL and OFFSET 0 keep the order: for each thing asked, one look-up by key. `IS NOT
-- DISTINCT FROM` is an `=` that only filters: it keeps the planner from another index of the same table.

-- namespace:
SELECT name, shards FROM kasaga.namespace

-- migrations:
SELECT name FROM kasaga.migration

-- open_rows: int4 int8 bool
-- Of what Kafka has already, up to $2, not what was sent: a shard has thousands of rows that only wait. 2: RECORD.
-- 3: TIMER; `timers` finds the rest of them.
SELECT o.shard, o.seq, o.kind, o.run_id, o.step, w.topic, w.partition, w.key, w.headers, w.payload, o.attempt, o.send_at,
    o.due_at
FROM kasaga.outbox o LEFT JOIN LATERAL (
    SELECT o.topic, o.partition, o.key, o.headers, o.payload WHERE o.seq > $2 OR o.send_at IS NOT NULL OR o.kind > 2
) w ON true
WHERE o.shard = $1 AND ($3 OR o.kind IS DISTINCT FROM 3 OR o.run_id IS NULL OR o.due_at IS NULL) ORDER BY o.seq

-- timers: int4 timestamptz int8 int4
SELECT shard, seq, kind, run_id, step, topic, partition, key, headers, payload, attempt, send_at, due_at
FROM kasaga.outbox
WHERE shard = $1 AND kind = 3 AND run_id IS NOT NULL AND due_at IS NOT NULL AND (due_at, seq) > ($2, $3)
ORDER BY due_at, seq LIMIT $4

-- timers_behind: int4[] timestamptz[] int8[]
SELECT coalesce(sum(b.rows), 0)::int8 FROM unnest($1, $2, $3) AS u (shard, due_at, seq), LATERAL (
    SELECT count(*) AS rows FROM kasaga.outbox o
    WHERE o.shard = u.shard AND o.kind = 3 AND o.run_id IS NOT NULL AND o.due_at IS NOT NULL
        AND (o.due_at, o.seq) > (u.due_at, u.seq)
) AS b

-- waits: int4 uuid
SELECT shard, seq, kind, run_id, step, topic, partition, key, headers, payload, attempt, send_at, due_at
FROM kasaga.outbox WHERE shard = $1 AND run_id = $2 ORDER BY seq

-- find: int4[] text[]
SELECT s.* FROM unnest($1, $2) AS u (shard, saga_id), LATERAL (
    SELECT shard, run_id, saga_id, name, version, state, input_hash, started_at, updated_at, ended_at, step, code,
        reason, remedy, with_exceptions, parked_code, result, base
    FROM kasaga.saga WHERE saga_id = u.saga_id COLLATE "C" AND shard IS NOT DISTINCT FROM u.shard OFFSET 0
) AS s

-- find_ended: int4[] text[]
SELECT e.* FROM unnest($1, $2) AS u (shard, saga_id), LATERAL (
    SELECT shard, run_id, saga_id, name, version, state, input_hash, started_at, ended_at AS updated_at, ended_at,
        '', '', '', '', with_exceptions, '', NULL::bytea, 1
    FROM kasaga.ended WHERE saga_id = u.saga_id COLLATE "C" AND shard = u.shard OFFSET 0
) AS e

-- find_runs: int4[] uuid[]
SELECT s.* FROM unnest($1, $2) AS u (shard, run_id), LATERAL (
    SELECT shard, run_id, saga_id, name, version, state, input_hash, started_at, updated_at, ended_at, step, code,
        reason, remedy, with_exceptions, parked_code, result, base
    FROM kasaga.saga WHERE run_id = u.run_id AND shard IS NOT DISTINCT FROM u.shard OFFSET 0
) AS s

-- load: int4[] uuid[]
-- Of a saga that has gone on as a new run only that.
SELECT h.* FROM unnest($1, $2) AS u (shard, run_id), LATERAL (
    SELECT coalesce((SELECT nullif(base, 1) FROM kasaga.saga s
                     WHERE s.run_id = u.run_id AND s.shard IS NOT DISTINCT FROM u.shard), 0) AS base OFFSET 0
) AS b, LATERAL (
    SELECT run_id, seq, at, kind, step, body
    FROM kasaga.history WHERE shard = u.shard AND run_id = u.run_id AND seq >= b.base ORDER BY seq OFFSET 0
) AS h

-- histories: int4[] uuid[]
SELECT h.* FROM unnest($1, $2) AS u (shard, run_id), LATERAL (
    SELECT run_id, seq, at, kind, step, body
    FROM kasaga.history WHERE shard = u.shard AND run_id = u.run_id ORDER BY seq OFFSET 0
) AS h

-- touched: int4 timestamptz timestamptz int4
-- By the index on time alone: the key would have the planner read all that a shard ever decided.
SELECT DISTINCT run_id FROM kasaga.history
WHERE at BETWEEN $2 AND $3 AND shard IS NOT DISTINCT FROM $1 LIMIT $4

-- parked: int4 text
SELECT run_id FROM kasaga.saga
WHERE attention AND shard = $1 AND state = 'STUCK' AND parked_code <> '' AND parked_code <> $2
ORDER BY run_id

-- put_schemas: bytea[] text[]
INSERT INTO kasaga.schema (hash, json) SELECT * FROM unnest($1, $2) ON CONFLICT (hash) DO NOTHING

-- schemas:
SELECT hash, json FROM kasaga.schema

-- announce: text[] int4[] bytea[] bytea[] text[]
-- Rows that stay as they are aren't written: each process announces the same when it starts.
INSERT INTO kasaga.definition AS d (name, version, input, result, form) SELECT * FROM unnest($1, $2, $3, $4, $5)
ON CONFLICT (name, version) DO UPDATE
    SET input = excluded.input, result = excluded.result, form = excluded.form, announced_at = excluded.announced_at
    WHERE (d.input, d.result, d.form) IS DISTINCT FROM (excluded.input, excluded.result, excluded.form)

-- withdraw: text[] int4[]
DELETE FROM kasaga.definition WHERE (name, version) NOT IN (SELECT * FROM unnest($1, $2))

-- definitions:
SELECT name, version, input, result, form FROM kasaga.definition ORDER BY name, version

-- saga: text
SELECT s.shard, s.run_id, s.saga_id, s.name, s.version, s.state, s.input_hash, s.started_at, s.updated_at, s.ended_at,
    s.step, s.code, s.reason, s.remedy, s.with_exceptions, s.parked_code, s.result, s.base,
    (SELECT array_agg(a.term) FROM kasaga.attribute a WHERE a.run_id = s.run_id AND a.shard = s.shard)
FROM kasaga.saga s WHERE s.saga_id = $1

-- attention: int4[]
-- Sagas that were terminated are in the index, too: they wait for nobody, and are few.
SELECT name, state, count(*), extract(epoch FROM clock_timestamp() - min(updated_at))::float8
FROM kasaga.saga WHERE attention AND shard = ANY ($1) AND state <> 'TERMINATED' GROUP BY name, state

-- pulse: int4 float8 int4
-- $1 of the newest sagas, $2 seconds back, in $3 slices. A full sample that begins later tells of less time.
WITH clock AS MATERIALIZED (
    SELECT clock_timestamp() AS now
), recent AS MATERIALIZED (
    SELECT started_at, ended_at, state FROM kasaga.saga ORDER BY run_id DESC LIMIT $1
), span AS MATERIALIZED (
    SELECT now, CASE WHEN count(started_at) < $1 THEN $2
        ELSE least($2, greatest(extract(epoch FROM now - min(started_at))::float8, 1)) END AS seconds
    FROM clock LEFT JOIN recent ON true GROUP BY now
), placed AS MATERIALIZED (
    SELECT state, extract(epoch FROM ended_at - started_at)::float8 AS took,
        least(floor($3 + extract(epoch FROM started_at - now)::float8 * $3 / seconds), $3 - 1) AS started,
        least(floor($3 + extract(epoch FROM ended_at - now)::float8 * $3 / seconds), $3 - 1) AS ended
    FROM recent, span
), counted AS (
    SELECT slice, sum(started)::int4 AS started, sum(completed)::int4 AS completed,
        sum(compensated)::int4 AS compensated
    FROM (
        SELECT generate_series(0, $3 - 1), 0, 0, 0
        UNION ALL SELECT started, 1, 0, 0 FROM placed WHERE started >= 0
        UNION ALL SELECT ended, 0, (state = 'COMPLETED')::int4, (state = 'COMPENSATED')::int4
            FROM placed WHERE ended >= 0
    ) AS each (slice, started, completed, compensated)
    GROUP BY slice
)
SELECT now, seconds,
    (SELECT array_agg(started ORDER BY slice) FROM counted),
    (SELECT array_agg(completed ORDER BY slice) FROM counted),
    (SELECT array_agg(compensated ORDER BY slice) FROM counted),
    (SELECT percentile_cont(ARRAY[0.5, 0.95, 0.99]) WITHIN GROUP (ORDER BY took) FROM placed
        WHERE state = 'COMPLETED' AND ended >= 0)
FROM span

-- pulse_open: int4
-- The first row is all of it: its topic is NULL.
WITH open AS MATERIALIZED (
    SELECT kind, topic, run_id, attempt FROM kasaga.outbox WHERE kind <> 2 LIMIT $1
)
SELECT 0::int2, NULL, count(DISTINCT run_id), count(*) FROM open
UNION ALL
SELECT * FROM (
    SELECT kind, topic, count(*), count(*) FILTER (WHERE attempt > 1) FROM open GROUP BY kind, topic
    ORDER BY kind, topic COLLATE "C"
) AS sorted

-- saga_ended: text
SELECT shard, run_id, saga_id, name, version, state, input_hash, started_at, ended_at, ended_at, '', '', '', '',
    with_exceptions, '', NULL::bytea, 1, NULL::bytea[]
FROM kasaga.ended WHERE saga_id = $1

-- history: int4 uuid int4 int4
SELECT seq, at, kind, step, body FROM kasaga.history
WHERE shard = $1 AND run_id = $2 AND seq > $3 ORDER BY seq LIMIT $4

-- shards:
SELECT shard, owner, owner IS NOT NULL AND NOT kasaga.holds(lease_until, lease_seconds)
FROM kasaga.shard ORDER BY shard

-- open_runs: int4 int8 int4
SELECT seq, run_id FROM kasaga.outbox WHERE shard = $1 AND seq > $2 ORDER BY seq LIMIT $3

-- runs: int4 uuid[]
SELECT s.* FROM unnest($2) AS u (run_id), LATERAL (
    SELECT shard, run_id, saga_id, name, version, state, input_hash, started_at, updated_at, ended_at, step, code,
        reason, remedy, with_exceptions, parked_code, result, base
    FROM kasaga.saga WHERE run_id = u.run_id AND shard IS NOT DISTINCT FROM $1 OFFSET 0
) AS s
