-- The schema as it is today, for reading: what each table, index and function is for. Applied are the files in
-- migrations/, which may never be edited afterwards; a test holds that they add up to this.

CREATE SCHEMA kasaga;

-- What was applied, so that a file that was edited afterwards is noticed.
CREATE TABLE kasaga.migration (
    name text PRIMARY KEY, sha256 bytea NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- The tables. Every key of a table that grows with the sagas holds the shard, so that a distributed Postgres
-- can spread them by it. Column order is by alignment: wide fixed columns first, bytes of variable length last.

-- The one row that says what this database belongs to; `migrate` refuses another name or count.
CREATE TABLE kasaga.namespace (
    single boolean PRIMARY KEY DEFAULT true CHECK (single),
    name text NOT NULL, shards integer NOT NULL CHECK (shards > 0)
);

-- Who is alive, by the database's clock. A handful of rows.
CREATE TABLE kasaga.process (
    name text PRIMARY KEY,
    alive_until timestamptz NOT NULL,
    -- The sagas that it has, each as name/version, sorted. NULL: it is of an older release, which doesn't say.
    sagas text[]
);

-- Who owns a shard. The fence locks this row and compares the token; only claims, heartbeats and releases write
-- it, so that its versions stay few while somebody's pg_dump holds an old snapshot.
CREATE TABLE kasaga.shard (
    shard integer PRIMARY KEY,
    deaths integer NOT NULL DEFAULT 0,
    epoch bigint NOT NULL DEFAULT 0,
    lease_until timestamptz,
    lease_seconds double precision NOT NULL DEFAULT 0,
    token uuid, owner text
) WITH (fillfactor = 10, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0);

-- How far a shard has come: one live row a shard. Each commit inserts the next and deletes the one before, both
-- by their full key. Updating one row in place instead makes every commit walk all versions that the oldest
-- snapshot still protects: 0.13 ms became 0.74 after 40 s of a long transaction, this stayed at 0.2.
CREATE TABLE kasaga.position (
    shard integer NOT NULL,
    commit_seq bigint NOT NULL,
    sagas_offset bigint,
    replies_offset bigint,
    control_offset bigint,
    acked_seq bigint NOT NULL DEFAULT 0,
    next_seq bigint NOT NULL DEFAULT 1,
    now timestamptz,
    -- In suspect mode: the saga about to be stepped, and the line that it goes on from. The next commit takes it back.
    suspect uuid,
    suspect_at text NOT NULL DEFAULT '',
    -- What was decided before this is exported as spans; what wasn't, a dead owner's heir looks for. NULL: no traces.
    traced timestamptz,
    PRIMARY KEY (shard, commit_seq)
) WITH (autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_scale_factor = 0);

-- The sagas that were marked when an owner of their shard died, and how often each was. At most one row a death; those
-- of a shard go when it is released or pardoned.
CREATE TABLE kasaga.suspect (
    shard integer NOT NULL,
    deaths integer NOT NULL,
    run_id uuid NOT NULL,
    place text NOT NULL,
    PRIMARY KEY (shard, run_id)
);

-- The summary of a saga: inserted at its start, updated at a change of state. `attention` is in the index, `state`
-- is not: RUNNING to COMPLETED changes no indexed column, so that the update stays in its page (HOT) and writes no
-- index. The free fifth of a page is the room for that. saga_id sorts by bytes: prefixes are ranges of the index.
CREATE TABLE kasaga.saga (
    started_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    ended_at timestamptz,
    shard integer NOT NULL,
    version integer NOT NULL,
    run_id uuid NOT NULL,
    with_exceptions boolean NOT NULL,
    attention boolean NOT NULL GENERATED ALWAYS AS (state NOT IN ('RUNNING', 'COMPLETED', 'COMPENSATED')) STORED,
    state text NOT NULL,
    saga_id text COLLATE "C" NOT NULL,
    name text NOT NULL,
    input_hash bytea NOT NULL,
    step text NOT NULL,
    code text NOT NULL,
    reason text NOT NULL,
    remedy text NOT NULL,
    parked_code text NOT NULL,
    result bytea,
    -- The first row of history that its run needs; those before it are of runs that have ended.
    base integer NOT NULL DEFAULT 1,
    -- Run ids are UUIDv7: this is also the order of the list, newest first.
    PRIMARY KEY (run_id, shard),
    -- One saga per id. A shard follows from the id, hence the id first: it finds and searches prefixes as well.
    UNIQUE (saga_id, shard)
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.02);

-- The stuck, paused, cancelling and compensating: few, always looked for, and a shard's new owner asks for the
-- parked ones. Rows enter and leave only when something goes wrong.
CREATE INDEX saga_attention ON kasaga.saga (run_id, shard) WHERE attention;

-- Of those that have gone on as new runs: what retention deletes of a saga that lives on.
CREATE INDEX saga_continued ON kasaga.saga (run_id, shard) WHERE base > 1;

-- The truth: one row a decision, only ever added and, after retention, deleted by saga.
CREATE TABLE kasaga.history (
    at timestamptz NOT NULL,
    shard integer NOT NULL,
    seq integer NOT NULL,
    run_id uuid NOT NULL,
    kind text NOT NULL,
    step text NOT NULL,
    body bytea NOT NULL,
    -- A whole history is one range. A second writer of the same decision collides here: no ON CONFLICT, ever.
    PRIMARY KEY (shard, run_id, seq)
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.05);

-- The way to what was decided since a time, for the heir of an owner that died with spans. A range of pages knows its
-- latest time, and that is when something was last written to it, whatever was deleted before: few ranges to read. It
-- costs an insert next to nothing, where a tree on time would cost as much again as the key.
CREATE INDEX history_at ON kasaga.history USING brin (at) WITH (autosummarize = on);

-- What a shard's owner still has to do or waits for; see RowKind. Only the key: rows are inserted and deleted by
-- it, and a take-over reads one range. "What does this saga wait for" reads the shard's range: a person waits.
CREATE TABLE kasaga.outbox (
    seq bigint NOT NULL,
    send_at timestamptz,
    due_at timestamptz,
    shard integer NOT NULL,
    attempt integer NOT NULL,
    partition integer,
    kind smallint NOT NULL,
    run_id uuid,
    step text NOT NULL,
    topic text NOT NULL,
    key bytea,
    headers bytea NOT NULL, -- msgpack: [[name, value], ...]
    payload bytea,
    PRIMARY KEY (shard, seq)
) WITH (autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_scale_factor = 0.02,
        autovacuum_analyze_threshold = 5000, autovacuum_analyze_scale_factor = 0.02);

-- Sleeping rows by when they are due: an owner reads those that come next, and has no others in memory.
CREATE INDEX outbox_timer ON kasaga.outbox (shard, due_at, seq)
    WHERE kind = 3 AND run_id IS NOT NULL AND due_at IS NOT NULL;

-- Waits for events by what they await: an event's name and a key.
CREATE INDEX outbox_awaited ON kasaga.outbox (key) WHERE kind = 3 AND key IS NOT NULL AND run_id IS NOT NULL;

-- Search attributes: a row for each value, in bytes that sort as the values do (terms.py): name, NUL, kind, value. The
-- name is in the term, so that the planner's statistics know how many sagas have a value, and one index serves
-- equality, ranges and prefixes of all of them. Sagas without attributes have no row here, and their own row knows
-- nothing of it. Found by its term, newest first; by its saga, to be shown, changed and deleted.
CREATE TABLE kasaga.attribute (
    shard integer NOT NULL, run_id uuid NOT NULL, term bytea NOT NULL,
    PRIMARY KEY (term, run_id, shard)
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.02);
CREATE INDEX attribute_run ON kasaga.attribute (run_id, shard);

-- Locks: for each key a queue of sagas, by `place`; the first holds it. Places are given under an advisory lock of the key.
-- Nothing is written when a key passes on: it follows from the rows. Keys are those of all shards, so none holds the shard.
CREATE TABLE kasaga.lock (
    place bigint NOT NULL GENERATED ALWAYS AS IDENTITY,
    run_id uuid NOT NULL, shard integer NOT NULL, key text COLLATE "C" NOT NULL,
    PRIMARY KEY (run_id, key)
) WITH (autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0.02);
CREATE UNIQUE INDEX lock_queue ON kasaga.lock (key, place);

-- Records whose events sagas may await by a key, `name`: an event's name and the key. Kept for who awaits one later.
CREATE TABLE kasaga.heard (
    id bigint GENERATED ALWAYS AS IDENTITY, until timestamptz NOT NULL, event text COLLATE "C" NOT NULL, name bytea NOT NULL,
    position text COLLATE "C" NOT NULL, source text COLLATE "C" NOT NULL, payload bytea NOT NULL, PRIMARY KEY (name, position)
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.02);
CREATE INDEX heard_event ON kasaga.heard (event, id);
CREATE INDEX heard_until ON kasaga.heard (until);

-- What is remembered of a purged saga, so that a late duplicate of its start isn't run again.
CREATE TABLE kasaga.ended (
    started_at timestamptz NOT NULL,
    ended_at timestamptz NOT NULL,
    shard integer NOT NULL,
    version integer NOT NULL,
    run_id uuid NOT NULL,
    with_exceptions boolean NOT NULL,
    state text NOT NULL,
    saga_id text COLLATE "C" NOT NULL,
    name text NOT NULL,
    input_hash bytea NOT NULL,
    -- NULL: deleted by a release before this column.
    deleted_at timestamptz DEFAULT clock_timestamp(),
    PRIMARY KEY (saga_id, shard)
);

-- The rows to forget, oldest first; the first index is for those without a `deleted_at`.
CREATE INDEX ended_at ON kasaga.ended (ended_at);
CREATE INDEX ended_deleted ON kasaga.ended (deleted_at);

-- For how long finished sagas of a name are kept, in seconds, where their definition says so; infinity: for ever. By
-- name: what a release that has taken a saga out of its App had said of it stays true of its sagas.
CREATE TABLE kasaga.retention (
    seconds double precision NOT NULL CHECK (seconds > 0),
    name text COLLATE "C" NOT NULL,
    PRIMARY KEY (name)
);

-- How the archive is doing that finished sagas go to before they are deleted: one row, once there is an archive. What was
-- written so far, and since when the last thing that was to be written wasn't, with its error.
CREATE TABLE kasaga.archive (
    single boolean NOT NULL DEFAULT true CHECK (single),
    sagas bigint NOT NULL DEFAULT 0,
    objects bigint NOT NULL DEFAULT 0,
    bytes bigint NOT NULL DEFAULT 0,
    archived_at timestamptz,
    failing_since timestamptz,
    place text NOT NULL,
    error text NOT NULL DEFAULT '',
    PRIMARY KEY (single)
);

-- Schemas by the full SHA-256 of their canonical form.
CREATE TABLE kasaga.schema (
    hash bytea PRIMARY KEY,
    json text NOT NULL
);

-- The sagas that can be started, as the image that was started last announces them: for whoever starts one without
-- the author's code. `input` and `result` are hashes of schemas, `form` is the input as a JSON Schema.
CREATE TABLE kasaga.definition (
    announced_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    version integer NOT NULL,
    name text COLLATE "C" NOT NULL,
    input bytea NOT NULL,
    result bytea NOT NULL,
    form text NOT NULL,
    PRIMARY KEY (name, version)
);

-- How far the audits of a name have come: whatever ended before it, in this shard, was compared. One row a shard.
CREATE TABLE kasaga.audit_position (
    until timestamptz NOT NULL,
    shard integer NOT NULL,
    name text COLLATE "C" NOT NULL,
    PRIMARY KEY (name, shard)
);

-- The sagas that an audit has found something wrong with: looked at again by each, until they are well or purged.
CREATE TABLE kasaga.audit_open (
    found_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    shard integer NOT NULL,
    run_id uuid NOT NULL,
    name text COLLATE "C" NOT NULL,
    PRIMARY KEY (name, run_id, shard)
);

-- Ownership: the fence that every commit passes first, and what takes, keeps and gives up a shard. Row locks are
-- taken in the order of the shards (the callers sort), so that these never deadlock with each other.

-- The first statement of every commit. Raises, since nothing less stops what follows it in the pipeline:
--   KSG01  shards whose token isn't the stored one, and shards that are astray (detail: "lost|astray")
--   KSG02  this very batch is committed already (detail: the clock, in µs since 2000)
-- A zombie waits here for the lock of the new owner's claim and then sees the new token.
CREATE FUNCTION kasaga.fence(
    shards integer[], tokens uuid[], commit_seqs bigint[], sagas bigint[], replies bigint[], controls bigint[],
    acked_seqs bigint[], next_seqs bigint[], nows timestamptz[], suspects uuid[],
    traced timestamptz[]
) RETURNS timestamptz LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    lost integer[] := '{}';
    astray integer[] := '{}';
    known integer := 0;
    held uuid;
    until timestamptz;
    seconds double precision;
BEGIN
    FOR i IN 1 .. cardinality(shards) LOOP
        SELECT s.token, s.lease_until, s.lease_seconds INTO held, until, seconds
            FROM kasaga.shard s WHERE s.shard = shards[i] FOR NO KEY UPDATE;
        IF held IS DISTINCT FROM tokens[i] THEN
            lost := lost || shards[i];
            CONTINUE;
        END IF;
        DELETE FROM kasaga.position p WHERE p.shard = shards[i] AND p.commit_seq = commit_seqs[i] - 1;
        IF NOT FOUND THEN
            IF EXISTS (SELECT FROM kasaga.position p WHERE p.shard = shards[i] AND p.commit_seq = commit_seqs[i]) THEN
                known := known + 1;
            ELSE
                astray := astray || shards[i];
            END IF;
            CONTINUE;
        END IF;
        INSERT INTO kasaga.position (shard, commit_seq, sagas_offset, replies_offset, control_offset, acked_seq,
                                     next_seq, now, suspect, traced)
            VALUES (shards[i], commit_seqs[i], sagas[i], replies[i], controls[i], acked_seqs[i],
                    next_seqs[i], nows[i], suspects[i], traced[i]);
        -- The heartbeat renews the lease; a commit helps only where that is late, to keep the row's versions few.
        IF until < clock_timestamp() + make_interval(secs => seconds / 2) THEN
            UPDATE kasaga.shard s SET lease_until = clock_timestamp() + make_interval(secs => seconds)
                WHERE s.shard = shards[i];
        END IF;
    END LOOP;
    IF known > 0 AND known = cardinality(shards) THEN
        RAISE EXCEPTION 'committed before' USING ERRCODE = 'KSG02', DETAIL = (extract(epoch FROM clock_timestamp() - timestamptz '2000-01-01 00:00+00') * 1000000)::bigint;
    END IF;
    IF known > 0 OR lost <> '{}' OR astray <> '{}' THEN
        -- Some known, others fresh: their commits went apart, which one transaction can't do unless lost in time.
        IF lost = '{}' AND astray = '{}' THEN
            astray := shards;
        END IF;
        RAISE EXCEPTION 'lost shards' USING ERRCODE = 'KSG01',
            DETAIL = array_to_string(lost, ',') || '|' || array_to_string(astray, ',');
    END IF;
    RETURN clock_timestamp();
END $$;

-- The fence as processes of an older release call it, which leave no mark. To be dropped when there are none left.
CREATE FUNCTION kasaga.fence(
    shards integer[], tokens uuid[], commit_seqs bigint[], sagas bigint[], replies bigint[], controls bigint[],
    acked_seqs bigint[], next_seqs bigint[], nows timestamptz[], suspects uuid[]
) RETURNS timestamptz LANGUAGE sql VOLATILE AS $$
    SELECT kasaga.fence(shards, tokens, commit_seqs, sagas, replies, controls, acked_seqs, next_seqs, nows, suspects,
                        array_fill(NULL::timestamptz, ARRAY[cardinality(shards)]))
$$;

-- Ends a trial: raises, so that the transaction is rolled back with everything before it.
CREATE FUNCTION kasaga.undo() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'a trial, rolled back' USING ERRCODE = 'KSG03';
END $$;

-- Whether a lease of so many seconds holds. One that ends later than any of that length could was written by a clock
-- that has been set back since: were it honoured, the shard of an owner that died would be nobody's for as long.
CREATE FUNCTION kasaga.holds(until timestamptz, seconds double precision) RETURNS boolean LANGUAGE sql VOLATILE AS $$
    SELECT until > clock_timestamp() AND until <= clock_timestamp() + make_interval(secs => 2 * seconds)
$$;

-- Notes that a process lives, renews the leases whose token still holds, and lists everybody.
CREATE FUNCTION kasaga.heartbeat(process text, shards integer[], tokens uuid[], seconds double precision)
RETURNS TABLE (now timestamptz, processes text[], shard integer, owner text, expired boolean)
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    clock timestamptz;
BEGIN
    INSERT INTO kasaga.process AS p (name, alive_until)
        VALUES (process, clock_timestamp() + make_interval(secs => seconds))
        ON CONFLICT (name) DO UPDATE SET alive_until = excluded.alive_until;
    FOR i IN 1 .. cardinality(shards) LOOP
        UPDATE kasaga.shard s
            SET lease_until = clock_timestamp() + make_interval(secs => seconds), lease_seconds = seconds
            WHERE s.shard = shards[i] AND s.token = tokens[i];
    END LOOP;
    clock := clock_timestamp();
    DELETE FROM kasaga.process p WHERE p.alive_until < clock - interval '1 hour';
    RETURN QUERY
        SELECT clock,
            (SELECT array_agg(p.name ORDER BY p.name COLLATE "C") FROM kasaga.process p
                WHERE kasaga.holds(p.alive_until, greatest(seconds, (SELECT max(x.lease_seconds) FROM kasaga.shard x)))),
            s.shard, s.owner, s.owner IS NOT NULL AND NOT kasaga.holds(s.lease_until, s.lease_seconds)
        FROM kasaga.shard s ORDER BY s.shard;
END $$;

-- Takes a shard that is free, expired, or the process's own. No row: somebody else holds it. An owner that let it expire
-- has died, and so counts against the saga that it had marked; told is the one that was marked at most deaths.
CREATE FUNCTION kasaga.claim(wanted integer, process text, fresh uuid, seconds double precision)
RETURNS TABLE (token uuid, epoch bigint, deaths integer, commit_seq bigint, sagas_offset bigint,
               replies_offset bigint, control_offset bigint, acked_seq bigint, next_seq bigint, now timestamptz,
               suspect uuid, suspect_deaths integer, suspect_at text, traced timestamptz, last_owner text)
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    holder text;
    until timestamptz;
    length double precision;
    marked uuid;
    stood text;
BEGIN
    SELECT s.owner, s.lease_until, s.lease_seconds INTO holder, until, length FROM kasaga.shard s WHERE s.shard = wanted;
    IF NOT FOUND OR (holder <> process AND kasaga.holds(until, length)) THEN
        RETURN; -- without waiting for the lock of a living owner's commit
    END IF;
    SELECT s.owner, s.lease_until, s.lease_seconds INTO holder, until, length FROM kasaga.shard s
        WHERE s.shard = wanted FOR NO KEY UPDATE;
    IF holder <> process AND kasaga.holds(until, length) THEN
        RETURN;
    END IF;
    SELECT p.suspect, p.suspect_at INTO marked, stood FROM kasaga.position p
        WHERE p.shard = wanted AND p.suspect IS NOT NULL;
    -- The mark goes whoever claims: it is counted once, and says nothing about an owner that has stepped nothing.
    IF marked IS NOT NULL THEN
        UPDATE kasaga.position p SET suspect = NULL, suspect_at = '' WHERE p.shard = wanted AND p.suspect = marked;
        IF holder <> process THEN
            INSERT INTO kasaga.suspect AS x (shard, run_id, deaths, place) VALUES (wanted, marked, 1, stood)
                ON CONFLICT (shard, run_id) DO UPDATE
                SET deaths = x.deaths + 1, place = coalesce(nullif(excluded.place, ''), x.place);
        END IF;
    END IF;
    RETURN QUERY
        WITH taken AS (
            UPDATE kasaga.shard s
                SET token = fresh, epoch = s.epoch + 1, owner = process, lease_seconds = seconds,
                    lease_until = clock_timestamp() + make_interval(secs => seconds),
                    deaths = s.deaths + CASE WHEN s.owner <> process THEN 1 ELSE 0 END
                WHERE s.shard = wanted
                RETURNING s.shard, s.token, s.epoch, s.deaths
        )
        SELECT t.token, t.epoch, t.deaths, p.commit_seq, p.sagas_offset, p.replies_offset, p.control_offset,
            p.acked_seq, p.next_seq, coalesce(p.now, clock_timestamp()), x.run_id, x.deaths, x.place,
            p.traced, holder
        FROM taken t JOIN kasaga.position p ON p.shard = t.shard LEFT JOIN kasaga.suspect x ON x.shard = t.shard
        ORDER BY p.commit_seq DESC, x.deaths DESC, x.run_id LIMIT 1;
END $$;

-- Gives shards back, and the process's place among the living.
CREATE FUNCTION kasaga.release(shards integer[], tokens uuid[], process text) RETURNS void
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    FOR i IN 1 .. cardinality(shards) LOOP
        UPDATE kasaga.shard s SET owner = NULL, token = NULL, lease_until = NULL, deaths = 0
            WHERE s.shard = shards[i] AND s.token = tokens[i];
        IF FOUND THEN
            DELETE FROM kasaga.suspect x WHERE x.shard = shards[i];
        END IF;
    END LOOP;
    DELETE FROM kasaga.process p WHERE p.name = process;
END $$;

-- Forgets a shard's deaths and its suspects, where the token still holds.
CREATE FUNCTION kasaga.pardon(wanted integer, held uuid) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    UPDATE kasaga.shard s SET deaths = 0 WHERE s.shard = wanted AND s.token = held;
    IF FOUND THEN
        UPDATE kasaga.position p SET suspect = NULL, suspect_at = '' WHERE p.shard = wanted AND p.suspect IS NOT NULL;
        DELETE FROM kasaga.suspect x WHERE x.shard = wanted;
    END IF;
END $$;

-- Large payloads are compressed by lz4 where the server has it: a fifth of the CPU of its default, and no more bytes.
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_settings WHERE name = 'default_toast_compression' AND 'lz4' = ANY (enumvals)) THEN
        ALTER TABLE kasaga.history ALTER body SET COMPRESSION lz4;
        ALTER TABLE kasaga.outbox ALTER payload SET COMPRESSION lz4;
        ALTER TABLE kasaga.saga ALTER result SET COMPRESSION lz4;
    END IF;
END $$;

-- Puts runs into the queues of keys, and says who is first in all of theirs, who may not wait, who would wait for itself.
-- Shards' rows are locked first, as in the fence, then keys, in order, then all who look for cycles: this never deadlocks.
-- A cycle is closed by whoever joins last, if it is in another queue already; of two such the second sees the first.
CREATE FUNCTION kasaga.contend(
    shards integer[], tokens uuid[], numbers integer[], owners integer[], runs uuid[], keys text[], waits boolean[]
) RETURNS TABLE (number integer, answer text, chain text[], behind text[]) LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    held integer[] := '{}';
    hash integer; want record; next record; added text[];
    seen uuid[]; froms integer[]; vias text[]; at integer; -- runs that were come by, from which of them, by which key
BEGIN
    FOR i IN 1 .. cardinality(shards) LOOP
        held := held || ARRAY(SELECT s.shard FROM kasaga.shard s
            WHERE s.shard = shards[i] AND s.token = tokens[i] FOR NO KEY UPDATE);
    END LOOP;
    FOR hash IN SELECT DISTINCT hashtext(k) FROM unnest(keys) k ORDER BY 1 LOOP
        PERFORM pg_advisory_xact_lock(1801546859, hash);
    END LOOP;
    FOR want IN
        SELECT u.number, u.owner, u.run_id, u.wait, array_agg(u.key ORDER BY u.key COLLATE "C") AS keys
        FROM unnest(numbers, owners, runs, keys, waits) AS u (number, owner, run_id, key, wait)
        WHERE u.owner = ANY (held) GROUP BY 1, 2, 3, 4 ORDER BY 1
    LOOP
        number := want.number; answer := NULL;
        WITH come AS (
            INSERT INTO kasaga.lock AS l (shard, run_id, key)
                SELECT want.owner, want.run_id, k FROM unnest(want.keys) k ON CONFLICT DO NOTHING RETURNING l.key
        ) SELECT coalesce(array_agg(c.key), '{}') INTO added FROM come c;
        SELECT b.run_id, l.key INTO next
            FROM kasaga.lock l JOIN kasaga.lock b ON b.key = l.key AND b.place < l.place
            WHERE l.run_id = want.run_id AND l.key = ANY (want.keys) ORDER BY l.key, b.place LIMIT 1;
        IF NOT FOUND THEN
            answer := 'granted'; chain := '{}'; behind := '{}';
            RETURN NEXT; CONTINUE;
        END IF;
        IF NOT want.wait THEN
            answer := 'refused'; seen := ARRAY[next.run_id]; behind := ARRAY[next.key];
        ELSIF added <> '{}' AND EXISTS (SELECT FROM kasaga.lock l WHERE l.run_id = want.run_id AND l.key <> ALL (added)) THEN
            PERFORM pg_advisory_xact_lock(1801546860, 0);
            seen := ARRAY[want.run_id]; froms := ARRAY[0]; vias := ARRAY['']; at := 1;
            WHILE at <= cardinality(seen) AND answer IS NULL LOOP
                FOR next IN
                    SELECT b.run_id, l.key FROM kasaga.lock l JOIN kasaga.lock b ON b.key = l.key AND b.place < l.place
                    WHERE l.run_id = seen[at] ORDER BY l.key, b.place
                LOOP
                    IF next.run_id = want.run_id THEN
                        answer := 'deadlock'; behind := ARRAY[next.key]; EXIT;
                    ELSIF next.run_id <> ALL (seen) THEN
                        seen := seen || next.run_id; froms := froms || at; vias := vias || next.key;
                    END IF;
                END LOOP;
                at := at + 1;
            END LOOP;
            at := at - 1;
            runs := ARRAY[seen[at]];
            WHILE answer IS NOT NULL AND at > 1 LOOP
                behind := vias[at] || behind; at := froms[at]; runs := seen[at] || runs;
            END LOOP;
            seen := runs;
        END IF;
        IF answer IS NOT NULL THEN
            DELETE FROM kasaga.lock l WHERE l.run_id = want.run_id AND l.key = ANY (added);
            SELECT array_agg(coalesce(s.saga_id, u.run_id::text) ORDER BY u.n) INTO chain
                FROM unnest(seen) WITH ORDINALITY AS u (run_id, n) LEFT JOIN kasaga.saga s ON s.run_id = u.run_id;
            RETURN NEXT;
        END IF;
    END LOOP;
END $$;
