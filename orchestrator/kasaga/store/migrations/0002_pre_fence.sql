-- Ownership: the fence that every commit passes first, and what takes, keeps and gives up a shard. Row locks are
-- taken in the order of the shards (the callers sort), so that these never deadlock with each other.

-- The first statement of every commit. Raises, since nothing less stops what follows it in the pipeline:
--   KSG01  shards whose token isn't the stored one, and shards that are astray (detail: "lost|astray")
--   KSG02  this very batch is committed already (detail: the clock, in µs since 2000)
-- A zombie waits here for the lock of the new owner's claim and then sees the new token.
CREATE FUNCTION kasaga.fence(
    shards integer[], tokens uuid[], commit_seqs bigint[], sagas bigint[], replies bigint[], controls bigint[],
    acked_seqs bigint[], next_seqs bigint[], nows timestamptz[], suspects uuid[]
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
                                     next_seq, now, suspect)
            VALUES (shards[i], commit_seqs[i], sagas[i], replies[i], controls[i], acked_seqs[i],
                    next_seqs[i], nows[i], suspects[i]);
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

-- Ends a trial: raises, so that the transaction is rolled back with everything before it.
CREATE FUNCTION kasaga.undo() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'a trial, rolled back' USING ERRCODE = 'KSG03';
END $$;

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
            (SELECT array_agg(p.name ORDER BY p.name COLLATE "C") FROM kasaga.process p WHERE p.alive_until > clock),
            s.shard, s.owner, s.owner IS NOT NULL AND s.lease_until <= clock
        FROM kasaga.shard s ORDER BY s.shard;
END $$;

-- Takes a shard that is free, expired, or the process's own. No row: somebody else holds it.
CREATE FUNCTION kasaga.claim(wanted integer, process text, fresh uuid, seconds double precision)
RETURNS TABLE (token uuid, epoch bigint, deaths integer, commit_seq bigint, sagas_offset bigint,
               replies_offset bigint, control_offset bigint, acked_seq bigint, next_seq bigint, now timestamptz,
               suspect uuid)
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    holder text;
    until timestamptz;
BEGIN
    SELECT s.owner, s.lease_until INTO holder, until FROM kasaga.shard s WHERE s.shard = wanted;
    IF NOT FOUND OR (holder <> process AND until > clock_timestamp()) THEN
        RETURN; -- without waiting for the lock of a living owner's commit
    END IF;
    SELECT s.owner, s.lease_until INTO holder, until FROM kasaga.shard s WHERE s.shard = wanted FOR NO KEY UPDATE;
    IF holder <> process AND until > clock_timestamp() THEN
        RETURN;
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
            p.acked_seq, p.next_seq, coalesce(p.now, clock_timestamp()), p.suspect
        FROM taken t JOIN kasaga.position p ON p.shard = t.shard
        ORDER BY p.commit_seq DESC LIMIT 1;
END $$;

-- Gives shards back, and the process's place among the living.
CREATE FUNCTION kasaga.release(shards integer[], tokens uuid[], process text) RETURNS void
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    FOR i IN 1 .. cardinality(shards) LOOP
        UPDATE kasaga.shard s SET owner = NULL, token = NULL, lease_until = NULL, deaths = 0
            WHERE s.shard = shards[i] AND s.token = tokens[i];
    END LOOP;
    DELETE FROM kasaga.process p WHERE p.name = process;
END $$;

-- Forgets a shard's deaths and its suspect, where the token still holds.
CREATE FUNCTION kasaga.pardon(wanted integer, held uuid) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    UPDATE kasaga.shard s SET deaths = 0 WHERE s.shard = wanted AND s.token = held;
    IF FOUND THEN
        UPDATE kasaga.position p SET suspect = NULL WHERE p.shard = wanted AND p.suspect IS NOT NULL;
    END IF;
END $$;
