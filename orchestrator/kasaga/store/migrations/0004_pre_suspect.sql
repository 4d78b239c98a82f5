-- Suspect mode: a saga is convicted by two deaths with its mark, not by one; schema.sql says what each part is for.

ALTER TABLE kasaga.position ADD COLUMN suspect_at text NOT NULL DEFAULT '';

CREATE TABLE kasaga.suspect (
    shard integer NOT NULL,
    deaths integer NOT NULL,
    run_id uuid NOT NULL,
    place text NOT NULL,
    PRIMARY KEY (shard, run_id)
);

DROP FUNCTION kasaga.claim(integer, text, uuid, double precision);

CREATE FUNCTION kasaga.claim(wanted integer, process text, fresh uuid, seconds double precision)
RETURNS TABLE (token uuid, epoch bigint, deaths integer, commit_seq bigint, sagas_offset bigint,
               replies_offset bigint, control_offset bigint, acked_seq bigint, next_seq bigint, now timestamptz,
               suspect uuid, suspect_deaths integer, suspect_at text)
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
            p.acked_seq, p.next_seq, coalesce(p.now, clock_timestamp()), x.run_id, x.deaths, x.place
        FROM taken t JOIN kasaga.position p ON p.shard = t.shard LEFT JOIN kasaga.suspect x ON x.shard = t.shard
        ORDER BY p.commit_seq DESC, x.deaths DESC, x.run_id LIMIT 1;
END $$;

CREATE OR REPLACE FUNCTION kasaga.release(shards integer[], tokens uuid[], process text) RETURNS void
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

CREATE OR REPLACE FUNCTION kasaga.pardon(wanted integer, held uuid) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    UPDATE kasaga.shard s SET deaths = 0 WHERE s.shard = wanted AND s.token = held;
    IF FOUND THEN
        UPDATE kasaga.position p SET suspect = NULL, suspect_at = '' WHERE p.shard = wanted AND p.suspect IS NOT NULL;
        DELETE FROM kasaga.suspect x WHERE x.shard = wanted;
    END IF;
END $$;
