-- Ownership; what the functions do stands in the migrations.

-- heartbeat: text int4[] uuid[] float8
-- Of the process's own shards also how far they have come: it alone commits them, so it knows what must be there.
SELECT h.now, h.processes, h.shard, h.owner, h.expired, p.commit_seq
FROM kasaga.heartbeat($1, $2, $3, $4) h
LEFT JOIN LATERAL (
    SELECT p.commit_seq FROM kasaga.position p
    WHERE p.shard = h.shard AND h.shard = ANY ($2)
    ORDER BY p.commit_seq DESC LIMIT 1
) p ON true
ORDER BY h.shard

-- has: text text[] float8
-- What this process has is written when it is new; told is what the others have.
WITH mine AS (
    UPDATE kasaga.process p SET sagas = $2 WHERE p.name = $1 AND p.sagas IS DISTINCT FROM $2
)
SELECT p.name, p.sagas FROM kasaga.process p
WHERE p.name <> $1 AND p.sagas IS NOT NULL
    AND kasaga.holds(p.alive_until, greatest($3, (SELECT max(s.lease_seconds) FROM kasaga.shard s)))

-- fleet:
SELECT p.name, p.sagas FROM kasaga.process p
WHERE p.sagas IS NOT NULL
    AND kasaga.holds(p.alive_until, (SELECT max(s.lease_seconds) FROM kasaga.shard s))

-- renew: int4[] uuid[] float8
UPDATE kasaga.shard s SET lease_until = clock_timestamp() + make_interval(secs => $3), lease_seconds = $3
FROM unnest($1, $2) AS u (shard, token) WHERE s.shard = u.shard AND s.token = u.token

-- lock_timeout: text
SELECT set_config('lock_timeout', $1, true)

-- claim: int4 text uuid float8
SELECT token, epoch, sagas_offset, replies_offset, control_offset, commit_seq, acked_seq, next_seq, now, deaths,
    suspect, suspect_at, suspect_deaths, traced, last_owner
FROM kasaga.claim($1, $2, $3, $4)

-- terminate_holder: int4
-- A frozen process can hold an expired shard's row lock between its fence and its commit. The row's xmax is that
-- transaction; whoever runs it has lost the shard already.
SELECT pg_terminate_backend(l.pid)
FROM kasaga.shard s
JOIN pg_locks l ON l.locktype = 'transactionid' AND l.transactionid = s.xmax AND l.granted
WHERE s.shard = $1 AND NOT kasaga.holds(s.lease_until, s.lease_seconds) AND l.pid <> pg_backend_pid()

-- release: int4[] uuid[] text
SELECT kasaga.release($1, $2, $3)

-- pardon: int4 uuid
SELECT kasaga.pardon($1, $2)
