-- The inbox's statements, by name; loaded by statements.py.

-- name: begin
BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE

-- name: limit_idle
-- A process that is frozen in the middle of a transaction must not hold its claims for ever.
SELECT set_config('idle_in_transaction_session_timeout', %s, true)

-- name: claim
INSERT INTO kasaga_inbox.inbox (id, type, input_hash, outcome)
SELECT new.id, new.type, new.input_hash, new.outcome
FROM unnest(%s::text[], %s::text[], %b::bytea[], %s::text[]) AS new (id, type, input_hash, outcome)
ORDER BY new.id COLLATE "C"
ON CONFLICT (id) DO NOTHING
RETURNING id

-- name: answered
-- Lets the transaction commit: see the trigger in 0001_inbox.sql.
SELECT set_config('kasaga_inbox.answered', 'yes', true)

-- name: read
SELECT id, type, input_hash, outcome, payload, used_at < now() - make_interval(secs => %s)
FROM kasaga_inbox.inbox
WHERE id = ANY (%s::text[])

-- name: hold
-- Of commands that wait for their answer, which may come at this moment.
SELECT id, type, input_hash, outcome, payload, used_at < now() - make_interval(secs => %s)
FROM kasaga_inbox.inbox
WHERE id = ANY (%s::text[])
ORDER BY id FOR UPDATE

-- name: answer
UPDATE kasaga_inbox.inbox AS row
SET outcome = new.outcome, payload = new.payload
FROM unnest(%s::text[], %s::text[], %b::bytea[]) AS new (id, outcome, payload)
WHERE row.id = new.id

-- name: defer
INSERT INTO kasaga_inbox.deferral
    (id, participant, attempt, reply_to, saga_id, traceparent, tracestate, heartbeat)
SELECT * FROM unnest(%s::text[], %s::text[], %s::int[], %s::text[], %s::text[], %s::text[], %s::text[], %s::float8[])

-- name: give_up
DELETE FROM kasaga_inbox.deferral WHERE id = ANY (%s::text[])

-- name: late_secret
SELECT key FROM kasaga_inbox.secret

-- name: late_row
-- Locked first, so that an undo and a second answer wait.
SELECT type, outcome, payload FROM kasaga_inbox.inbox WHERE id = %s FOR UPDATE

-- name: late_deferral
SELECT participant, attempt, reply_to, saga_id, traceparent, tracestate, heartbeat, number,
    extract(epoch FROM now() - sent_at)::float8
FROM kasaga_inbox.deferral WHERE id = %s FOR UPDATE

-- name: late_answer
UPDATE kasaga_inbox.inbox SET outcome = %s, payload = %s, used_at = now() WHERE id = %s

-- name: late_release
-- It didn't work: the next attempt runs the handler again.
DELETE FROM kasaga_inbox.inbox WHERE id = %s

-- name: late_beat
UPDATE kasaga_inbox.deferral
SET number = %s, progress = %s, beat_at = now(), sent_at = CASE WHEN %s THEN now() ELSE sent_at END
WHERE id = %s

-- name: late_reply
INSERT INTO kasaga_inbox.late
    (id, participant, attempt, reply_to, saga_id, traceparent, tracestate, outcome, number, payload)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)

-- name: late_take
-- Whoever takes a reply has so many seconds until somebody else sends it as well.
UPDATE kasaga_inbox.late AS row SET send_after = now() + make_interval(secs => %s)
FROM (
    SELECT seq FROM kasaga_inbox.late WHERE send_after <= now() AND participant = ANY (%s::text[])
        AND split_part(reply_to, '/', 1) = ANY (%s::text[])
    ORDER BY send_after, seq LIMIT %s FOR UPDATE SKIP LOCKED
) AS due
WHERE row.seq = due.seq
RETURNING row.id, row.participant, row.attempt, row.reply_to, row.saga_id, row.traceparent,
    row.tracestate, row.outcome, row.number, row.payload, row.seq

-- name: late_sent
DELETE FROM kasaga_inbox.late WHERE seq = ANY (%s::bigint[])

-- name: release
-- Of what failed: its answer is stored nowhere, so that it can be tried again.
DELETE FROM kasaga_inbox.inbox WHERE id = ANY (%s::text[])

-- name: guard
-- Never released: the transaction ends soon, and the next one of this name stands before it.
SAVEPOINT kasaga

-- name: retreat
ROLLBACK TO SAVEPOINT kasaga

-- name: touch
UPDATE kasaga_inbox.inbox AS row
SET used_at = now()
FROM (
    SELECT id FROM kasaga_inbox.inbox WHERE id = ANY (%s::text[]) ORDER BY id FOR UPDATE
) AS old
WHERE row.id = old.id

-- name: commit
COMMIT

-- name: rollback
ROLLBACK

-- name: purge
-- SKIP LOCKED: several processes may purge, and a row that is being used again is not worth waiting for.
DELETE FROM kasaga_inbox.inbox
WHERE id IN (
    SELECT id FROM kasaga_inbox.inbox
    WHERE used_at < now() - make_interval(secs => %s) AND outcome <> 'deferred'
    ORDER BY used_at
    LIMIT %s
    FOR UPDATE SKIP LOCKED
)

-- name: drill_limits
-- A drill waits for nobody who is at work: a second for a lock, half a minute for a statement.
SELECT set_config('lock_timeout', '1s', true), set_config('statement_timeout', '30s', true)

-- name: drill_check
-- What is deferred to a commit that never comes.
SET CONSTRAINTS ALL IMMEDIATE

-- name: limit_examine
SELECT set_config('statement_timeout', %s, true)

-- name: examine
-- For an audit: the rows of some runs, in the order of their ids, behind one id. `.` and `/` are neighbours: between
-- them lies what begins with a run's id and a dot. Of a sealed payload the sum says nothing: it comes itself.
SELECT found.id, found.type, found.outcome, found.input_hash,
    CASE WHEN found.outcome = 'done' THEN sha256(found.payload) END,
    CASE WHEN found.outcome = 'done' AND substring(found.payload FOR 2) = '\xc14b' THEN found.payload END
FROM unnest(%s::text[]) AS run (id), LATERAL (
    SELECT id, type, outcome, input_hash, payload FROM kasaga_inbox.inbox
    WHERE id > greatest(run.id || '.', %s::text) COLLATE "C" AND id < (run.id || '/') COLLATE "C"
    ORDER BY id LIMIT %s
) AS found
ORDER BY found.id LIMIT %s

-- name: migration_lock
-- Two processes that start at once take turns; the number is "KASAGA" in hexadecimal ASCII.
SELECT pg_advisory_xact_lock(x'4b4153414741'::bigint)

-- name: migration_table
SELECT to_regclass('kasaga_inbox.migration') IS NOT NULL

-- name: migration_done
SELECT name FROM kasaga_inbox.migration

-- name: migration_first
CREATE SCHEMA IF NOT EXISTS kasaga_inbox;
CREATE TABLE IF NOT EXISTS kasaga_inbox.migration (
    name text PRIMARY KEY,
    applied_at timestamptz NOT NULL DEFAULT now()
)

-- name: migration_note
INSERT INTO kasaga_inbox.migration (name) VALUES (%s)
