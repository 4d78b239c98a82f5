-- What an audit asks of a participant's own database, on a connection that can write nothing.

-- copy:
-- Of a standby: how far it has come. NULL: it has replayed nothing yet.
SELECT pg_is_in_recovery(),
    CASE WHEN pg_is_in_recovery() THEN extract(epoch FROM pg_last_xact_replay_timestamp())::float8 END

-- inbox: text[] text int4
-- `.` and `/` are neighbours: between them lies what begins with a run's id and a dot. Of a sealed payload the sum says
-- nothing: it comes itself.
SELECT found.id, found.type, found.outcome, found.input_hash,
    CASE WHEN found.outcome = 'done' THEN sha256(found.payload) END,
    CASE WHEN found.outcome = 'done' AND substring(found.payload FOR 2) = '\xc14b' THEN found.payload END
FROM unnest($1) AS run (id), LATERAL (
    SELECT id, type, outcome, input_hash, payload FROM kasaga_inbox.inbox
    WHERE id > greatest(run.id || '.', $2) COLLATE "C" AND id < (run.id || '/') COLLATE "C"
    ORDER BY id LIMIT $3
) AS found
ORDER BY found.id COLLATE "C" LIMIT $3
