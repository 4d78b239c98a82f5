-- Locks of sagas on keys; schema.sql says more.

CREATE TABLE kasaga.lock (
    place bigint NOT NULL GENERATED ALWAYS AS IDENTITY,
    run_id uuid NOT NULL,
    shard integer NOT NULL,
    key text COLLATE "C" NOT NULL,
    PRIMARY KEY (run_id, key)
) WITH (autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0.02);

CREATE UNIQUE INDEX lock_queue ON kasaga.lock (key, place);

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
