-- Events that sagas await by a key. `keep` and `waiters` are two transactions, so that the second sees whatever wait
-- didn't see the first; see store/hearing.py. 3: TIMER.

-- keep: text[] bytea[] text[] text[] bytea[] float8[]
INSERT INTO kasaga.heard (event, name, position, source, payload, until)
SELECT u.event, u.name, u.position, u.source, u.payload, clock_timestamp() + make_interval(secs => u.seconds)
FROM unnest($1, $2, $3, $4, $5, $6) AS u (event, name, position, source, payload, seconds)
ON CONFLICT (name, position) DO NOTHING

-- waiters: bytea[]
SELECT DISTINCT u.name, s.saga_id FROM (SELECT DISTINCT n.name FROM unnest($1) AS n (name)) AS u, LATERAL (
    SELECT shard, run_id FROM kasaga.outbox
    WHERE key = u.name AND kind = 3 AND key IS NOT NULL AND run_id IS NOT NULL OFFSET 0
) AS w, LATERAL (
    SELECT saga_id FROM kasaga.saga WHERE run_id = w.run_id AND shard IS NOT DISTINCT FROM w.shard OFFSET 0
) AS s

-- arrived: int4 int8[] int4
SELECT w.seq, w.run_id, s.saga_id, w.key, h.position, h.source, h.payload
FROM unnest($2) AS u (seq), LATERAL (
    SELECT seq, run_id, key FROM kasaga.outbox WHERE shard = $1 AND seq = u.seq OFFSET 0
) AS w, LATERAL (
    SELECT saga_id FROM kasaga.saga WHERE run_id = w.run_id AND shard IS NOT DISTINCT FROM $1 OFFSET 0
) AS s, LATERAL (
    SELECT id, position, source, payload FROM kasaga.heard
    WHERE name = w.key AND until > clock_timestamp() ORDER BY id LIMIT $3
) AS h
ORDER BY h.id, w.seq

-- awaited: int4
SELECT o.seq FROM kasaga.outbox o
WHERE o.shard = $1 AND o.kind = 3 AND o.key IS NOT NULL AND o.run_id IS NOT NULL
    AND EXISTS (SELECT FROM kasaga.heard h WHERE h.name = o.key AND h.until > clock_timestamp())
ORDER BY o.seq

-- forget: int4
DELETE FROM kasaga.heard
WHERE ctid = ANY (ARRAY(SELECT ctid FROM kasaga.heard WHERE until <= clock_timestamp() ORDER BY until LIMIT $1))

-- forget_above: text int8 int4
DELETE FROM kasaga.heard
WHERE ctid = ANY (ARRAY(
    SELECT h.ctid FROM kasaga.heard h
    WHERE h.event = $1
        AND h.id <= (SELECT n.id FROM kasaga.heard n WHERE n.event = $1 ORDER BY n.id DESC OFFSET $2 LIMIT 1)
    ORDER BY h.id LIMIT $3))
