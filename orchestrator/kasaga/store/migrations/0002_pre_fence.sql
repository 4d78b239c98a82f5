-- Ownership: the fence, claims and leases; schema.sql says what each function does.

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
        IF until < clock_timestamp() + make_interval(secs => seconds / 2) THEN
            UPDATE kasaga.shard s SET lease_until = clock_timestamp() + make_interval(secs => seconds)
                WHERE s.shard = shards[i];
        END IF;
    END LOOP;
    IF known > 0 AND known = cardinality(shards) THEN
        RAISE EXCEPTION 'committed before' USING ERRCODE = 'KSG02', DETAIL = (extract(epoch FROM clock_timestamp() - timestamptz '2000-01-01 00:00+00') * 1000000)::bigint;
    END IF;
    IF known > 0 OR lost <> '{}' OR astray <> '{}' THEN
        IF lost = '{}' AND astray = '{}' THEN
            astray := shards;
        END IF;
        RAISE EXCEPTION 'lost shards' USING ERRCODE = 'KSG01',
            DETAIL = array_to_string(lost, ',') || '|' || array_to_string(astray, ',');
    END IF;
    RETURN clock_timestamp();
END $$;

CREATE FUNCTION kasaga.undo() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'a trial, rolled back' USING ERRCODE = 'KSG03';
END $$;

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
        RETURN;
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

CREATE FUNCTION kasaga.release(shards integer[], tokens uuid[], process text) RETURNS void
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    FOR i IN 1 .. cardinality(shards) LOOP
        UPDATE kasaga.shard s SET owner = NULL, token = NULL, lease_until = NULL, deaths = 0
            WHERE s.shard = shards[i] AND s.token = tokens[i];
    END LOOP;
    DELETE FROM kasaga.process p WHERE p.name = process;
END $$;

CREATE FUNCTION kasaga.pardon(wanted integer, held uuid) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    UPDATE kasaga.shard s SET deaths = 0 WHERE s.shard = wanted AND s.token = held;
    IF FOUND THEN
        UPDATE kasaga.position p SET suspect = NULL WHERE p.shard = wanted AND p.suspect IS NOT NULL;
    END IF;
END $$;
