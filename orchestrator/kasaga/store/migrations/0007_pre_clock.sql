-- A clock of the database that was set back: leases and living processes that it had written before don't hold.

-- Whether a lease of so many seconds holds. One that ends later than any of that length could was written by a clock
-- that has been set back since: were it honoured, the shard of an owner that died would be nobody's for as long.
CREATE FUNCTION kasaga.holds(until timestamptz, seconds double precision) RETURNS boolean LANGUAGE sql VOLATILE AS $$
    SELECT until > clock_timestamp() AND until <= clock_timestamp() + make_interval(secs => 2 * seconds)
$$;

CREATE OR REPLACE FUNCTION kasaga.heartbeat(process text, shards integer[], tokens uuid[], seconds double precision)
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

CREATE OR REPLACE FUNCTION kasaga.claim(wanted integer, process text, fresh uuid, seconds double precision)
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
