-- What an audit reads, on connections that can write nothing, and the notes it keeps of how far it has come.

-- bounds:
-- The engine's time of each shard's last commit: nothing that will be written is older, but for clocks' differences.
SELECT shard, max(now) FROM kasaga.position WHERE now IS NOT NULL GROUP BY shard

-- ended: timestamptz timestamptz int4[] timestamptz[] timestamptz[] int4
-- Sagas that ended in a slice of time, each shard between bounds of its own; found by the index on history's time. Read are
-- so many rows at most, before anything is made of them: each answer says how many, and the caller sees the limit.
WITH slice AS MATERIALIZED (
    SELECT h.shard, h.run_id, h.at FROM kasaga.history AS h WHERE h.at > $1 AND h.at <= $2 LIMIT $6
), touched AS MATERIALIZED (
    SELECT DISTINCT h.shard, h.run_id, b.since, b.until
    FROM slice AS h JOIN unnest($3, $4, $5) AS b (shard, since, until)
        ON b.shard = h.shard AND h.at > b.since AND h.at <= b.until
)
SELECT (SELECT count(*) FROM slice), s.* FROM (SELECT true) AS one LEFT JOIN (touched AS t JOIN LATERAL (
    SELECT shard, run_id, saga_id, name, version, state, input_hash, started_at, updated_at, ended_at, step, code,
        reason, remedy, with_exceptions, parked_code, NULL::bytea AS result, base
    FROM kasaga.saga WHERE run_id = t.run_id AND shard IS NOT DISTINCT FROM t.shard
        AND ended_at > $1 AND ended_at <= $2 AND ended_at > t.since AND ended_at <= t.until OFFSET 0
) AS s ON true) ON true

-- positions: text
SELECT shard, until FROM kasaga.audit_position WHERE name = $1

-- keep_positions: text int4[] timestamptz[]
-- Two audits of one name may run at once; neither takes the other's place back.
INSERT INTO kasaga.audit_position AS p (name, shard, until) SELECT $1, * FROM unnest($2, $3)
ON CONFLICT (name, shard) DO UPDATE SET until = greatest(p.until, excluded.until)

-- open: text int4
SELECT shard, run_id FROM kasaga.audit_open WHERE name = $1 ORDER BY run_id LIMIT $2

-- add_open: text int4[] uuid[]
INSERT INTO kasaga.audit_open (name, shard, run_id) SELECT $1, * FROM unnest($2, $3)
ON CONFLICT (name, run_id, shard) DO NOTHING

-- close_open: text int4[] uuid[]
DELETE FROM kasaga.audit_open AS o USING unnest($2, $3) AS u (shard, run_id)
WHERE o.name = $1 AND o.run_id = u.run_id AND o.shard = u.shard
