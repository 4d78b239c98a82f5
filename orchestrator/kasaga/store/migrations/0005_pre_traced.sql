-- The mark that each commit leaves of what may not be exported as spans yet, and the way to what was decided since:
-- schema.sql says how.

ALTER TABLE kasaga.position ADD COLUMN traced timestamptz;

CREATE INDEX history_at ON kasaga.history USING brin (at) WITH (autosummarize = on);

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

DROP FUNCTION kasaga.fence(
    integer[], uuid[], bigint[], bigint[], bigint[], bigint[], bigint[], bigint[], timestamptz[], uuid[]
);

CREATE FUNCTION kasaga.fence(
    shards integer[], tokens uuid[], commit_seqs bigint[], sagas bigint[], replies bigint[], controls bigint[],
    acked_seqs bigint[], next_seqs bigint[], nows timestamptz[], suspects uuid[]
) RETURNS timestamptz LANGUAGE sql VOLATILE AS $$
    SELECT kasaga.fence(shards, tokens, commit_seqs, sagas, replies, controls, acked_seqs, next_seqs, nows, suspects,
                        array_fill(NULL::timestamptz, ARRAY[cardinality(shards)]))
$$;

-- Whoever called it by the columns' names still can.
DROP FUNCTION kasaga.claim(integer, text, uuid, double precision);

CREATE FUNCTION kasaga.claim(wanted integer, process text, fresh uuid, seconds double precision)
RETURNS TABLE (token uuid, epoch bigint, deaths integer, commit_seq bigint, sagas_offset bigint,
               replies_offset bigint, control_offset bigint, acked_seq bigint, next_seq bigint, now timestamptz,
               suspect uuid, suspect_deaths integer, suspect_at text, traced timestamptz, last_owner text)
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    holder text;
    until timestamptz;
    marked uuid;
    stood text;
BEGIN
    SELECT s.owner, s.lease_until INTO holder, until FROM kasaga.shard s WHERE s.shard = wanted;
    IF NOT FOUND OR (holder <> process AND until > clock_timestamp()) THEN
        RETURN;
    END IF;
    SELECT s.owner, s.lease_until INTO holder, until FROM kasaga.shard s WHERE s.shard = wanted FOR NO KEY UPDATE;
    IF holder <> process AND until > clock_timestamp() THEN
        RETURN;
    END IF;
    SELECT p.suspect, p.suspect_at INTO marked, stood FROM kasaga.position p
        WHERE p.shard = wanted AND p.suspect IS NOT NULL;
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
