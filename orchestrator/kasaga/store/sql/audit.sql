-- What an audit reads, on a connection that can write nothing. The last two are asked of participants' databases.

-- bounds:
-- The engine's time of each shard's last commit: nothing that will be written is older, but for clocks' differences.
SELECT shard, max(now) FROM kasaga.position WHERE now IS NOT NULL GROUP BY shard

-- ended: timestamptz timestamptz int4[] timestamptz[] timestamptz[] int4
-- Sagas that ended in a slice of time, each shard between bounds of its own; found by the index on history's time. One
-- row for each run that anything was decided of, empty for those that didn't end: the caller sees the limit.
WITH touched AS MATERIALIZED (
    SELECT DISTINCT h.shard, h.run_id, b.since, b.until
    FROM kasaga.history AS h JOIN unnest($3, $4, $5) AS b (shard, since, until) ON b.shard = h.shard
    WHERE h.at > $1 AND h.at <= $2 AND h.at > b.since AND h.at <= b.until
    LIMIT $6
)
SELECT s.* FROM touched AS t LEFT JOIN LATERAL (
    SELECT shard, run_id, saga_id, name, version, state, input_hash, started_at, updated_at, ended_at, step, code,
        reason, remedy, with_exceptions, parked_code, result
    FROM kasaga.saga WHERE run_id = t.run_id AND shard IS NOT DISTINCT FROM t.shard
        AND ended_at > $1 AND ended_at <= $2 AND ended_at > t.since AND ended_at <= t.until OFFSET 0
) AS s ON true

-- copy:
-- Of a standby: how far it has come. NULL: it has replayed nothing yet.
SELECT pg_is_in_recovery(),
    CASE WHEN pg_is_in_recovery() THEN extract(epoch FROM pg_last_xact_replay_timestamp())::float8 END

-- inbox: text[] text int4
-- `.` and `/` are neighbours: between them lies what begins with a run's id and a dot.
SELECT found.id, found.type, found.outcome, found.input_hash,
    CASE WHEN found.outcome = 'done' THEN sha256(found.payload) END
FROM unnest($1) AS run (id), LATERAL (
    SELECT id, type, outcome, input_hash, payload FROM kasaga_inbox.inbox
    WHERE id > greatest(run.id || '.', $2) COLLATE "C" AND id < (run.id || '/') COLLATE "C"
    ORDER BY id LIMIT $3
) AS found
ORDER BY found.id COLLATE "C" LIMIT $3
