-- The functions of the schema, beside the tables of schema.sql. The migrations add up to both.

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
