-- Schedules, off the loop's connection. Writes of the owner of shard 0 hold only with its token.

-- declare_schedules: uuid text[] text[]
WITH fence AS (SELECT 1 FROM kasaga.shard WHERE shard = 0 AND token = $1), gone AS (
    UPDATE kasaga.schedule SET declared = false
    WHERE declared AND name <> ALL ($2) AND EXISTS (SELECT FROM fence)
), kept AS (
    INSERT INTO kasaga.schedule AS s (name, definition)
    SELECT u.name, u.definition FROM unnest($2, $3) AS u (name, definition) WHERE EXISTS (SELECT FROM fence)
    ON CONFLICT (name) DO UPDATE SET definition = excluded.definition, declared = true
    WHERE s.definition <> excluded.definition OR NOT s.declared
)
SELECT EXISTS (SELECT FROM fence)

-- schedules: text
SELECT clock_timestamp(), name, definition, declared, paused, acted_by, position FROM kasaga.schedule
WHERE $1 = '' OR name = $1 ORDER BY name

-- firings: text
SELECT schedule, due, cause, state, at, saga_id, reason FROM kasaga.firing
WHERE $1 = '' OR schedule = $1 ORDER BY schedule, due

-- plan_schedule: uuid text timestamptz timestamptz timestamptz[] text[] text[] timestamptz[] text[] text[]
-- One statement: the position moves with what it has passed.
WITH moved AS (
    UPDATE kasaga.schedule s SET position = $4
    WHERE s.name = $2 AND s.position = $3
        AND EXISTS (SELECT FROM kasaga.shard WHERE shard = 0 AND token = $1)
    RETURNING s.name
), added AS (
    INSERT INTO kasaga.firing (schedule, due, cause, state, at, saga_id, reason)
    SELECT m.name, u.* FROM moved m, unnest($5, $6, $7, $8, $9, $10) AS u (due, cause, state, at, saga_id, reason)
    ON CONFLICT (schedule, due) DO NOTHING
)
SELECT name FROM moved

-- move_firing: uuid text timestamptz text text text
UPDATE kasaga.firing SET state = $5, reason = $6, at = clock_timestamp()
WHERE schedule = $2 AND due = $3 AND state = $4
    AND EXISTS (SELECT FROM kasaga.shard WHERE shard = 0 AND token = $1)
RETURNING schedule

-- prune_firings: text int4
-- Starts apart from the others: a saga that runs for long must be known however many due times it has skipped.
DELETE FROM kasaga.firing WHERE schedule = $1 AND due IN (
    SELECT n.due FROM (
        SELECT due, row_number() OVER (PARTITION BY state = 'sent' ORDER BY at DESC, due DESC) AS place
        FROM kasaga.firing WHERE schedule = $1 AND state NOT IN ('waiting', 'sending')
    ) n WHERE n.place > $2)

-- pause_schedule: text text bool
UPDATE kasaga.schedule SET paused = $3, acted_by = $2,
    position = CASE WHEN paused AND NOT $3 THEN greatest(position, clock_timestamp()) ELSE position END
WHERE name = $1 RETURNING name

-- ask_firings: text int4 timestamptz[] text[] text[] timestamptz[] text[] text[]
WITH room AS (
    SELECT s.name FROM kasaga.schedule s WHERE s.name = $1 AND cardinality($3) + (
        SELECT count(*) FROM kasaga.firing f WHERE f.schedule = $1 AND f.state IN ('waiting', 'sending')) <= $2
)
INSERT INTO kasaga.firing AS f (schedule, due, cause, state, at, saga_id, reason)
SELECT r.name, u.* FROM room r, unnest($3, $4, $5, $6, $7, $8) AS u (due, cause, state, at, saga_id, reason)
ON CONFLICT (schedule, due) DO UPDATE
SET cause = excluded.cause, state = excluded.state, at = excluded.at, reason = excluded.reason
WHERE f.state IN ('skipped', 'missed', 'failed')
RETURNING f.due
