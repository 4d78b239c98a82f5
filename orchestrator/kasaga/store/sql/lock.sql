-- Locks: queues of sagas by key. What `contend` does stands in the migrations.

-- contend: int4[] uuid[] int4[] int4[] uuid[] text[] bool[]
SELECT number, answer, chain, behind FROM kasaga.contend($1, $2, $3, $4, $5, $6, $7)

-- moved: int4[] uuid[] text[]
-- Those that aren't in all of their queues any more, or are the first in all of them.
SELECT u.number
FROM unnest($1, $2, $3) AS u (number, run_id, key)
LEFT JOIN LATERAL (
    SELECT l.key, l.place, EXISTS (SELECT FROM kasaga.lock b WHERE b.key = l.key AND b.place < l.place) AS behind
    FROM kasaga.lock l WHERE l.run_id = u.run_id AND l.key = u.key OFFSET 0
) AS q ON true
GROUP BY u.number
HAVING bool_or(q.place IS NULL) OR NOT bool_or(q.behind)

-- queues: text[] uuid
SELECT l.key, (row_number() OVER (PARTITION BY l.key ORDER BY l.place) - 1)::int, l.shard, l.run_id,
    coalesce(s.saga_id, l.run_id::text)
FROM kasaga.lock l LEFT JOIN kasaga.saga s ON s.run_id = l.run_id AND s.shard = l.shard
WHERE l.key = ANY ($1) OR l.key IN (SELECT o.key FROM kasaga.lock o WHERE o.run_id = $2)
ORDER BY l.key, l.place

-- locks: text text int4
SELECT q.key, l.shard, l.run_id, coalesce(s.saga_id, l.run_id::text), q.waiting
FROM (
    SELECT k.key, min(k.place) AS first, (count(*) - 1)::int AS waiting FROM kasaga.lock k
    WHERE starts_with(k.key, $1) AND k.key > $2 GROUP BY k.key ORDER BY k.key LIMIT $3
) AS q
JOIN kasaga.lock l ON l.key = q.key AND l.place = q.first
LEFT JOIN kasaga.saga s ON s.run_id = l.run_id AND s.shard = l.shard
ORDER BY q.key
