-- Searching: the parts that `search.py` puts together, by name. Nothing of a query's text gets in here; what it names
-- and compares with are parameters, numbered anew from one part to the next. Every part is true or false, never NULL.

-- list:
SELECT s.shard, s.run_id, s.saga_id, s.name, s.version, s.state, s.input_hash, s.started_at, s.updated_at, s.ended_at,
    s.step, s.code, s.reason, s.remedy, s.with_exceptions, s.parked_code, s.result, s.base,
    (SELECT array_agg(a.term) FROM kasaga.attribute a WHERE a.run_id = s.run_id AND a.shard = s.shard)
FROM kasaga.saga s WHERE

-- before: uuid
s.run_id < $1

-- newest: int4
ORDER BY s.run_id DESC LIMIT $1

-- tally:
SELECT s.name, s.state, count(*) FROM kasaga.saga s WHERE

-- by_group:
GROUP BY s.name, s.state

-- state_attention: text[]
-- All of these states are in the partial index.
(s.attention AND s.state = ANY ($1))

-- state_is: text[]
s.state = ANY ($1)

-- saga_is: text[]
s.name = ANY ($1)

-- saga_starts: text
starts_with(s.name, $1)

-- id_is: text[]
s.saga_id = ANY ($1 COLLATE "C")

-- id_starts: text
starts_with(s.saga_id, $1)

-- code_is: text[]
(s.code = ANY ($1) AND s.code <> '')

-- code_starts: text
(starts_with(s.code, $1) AND s.code <> '')

-- code_exists:
s.code <> ''

-- ended_exists:
s.ended_at IS NOT NULL

-- version_is: int4[]
s.version = ANY ($1)

-- version_below: int4
s.version < $1

-- version_most: int4
s.version <= $1

-- version_above: int4
s.version > $1

-- version_least: int4
s.version >= $1

-- started_is: timestamptz[]
s.started_at = ANY ($1)

-- started_below: timestamptz
s.started_at < $1

-- started_most: timestamptz
s.started_at <= $1

-- started_above: timestamptz
s.started_at > $1

-- started_least: timestamptz
s.started_at >= $1

-- updated_is: timestamptz[]
s.updated_at = ANY ($1)

-- updated_below: timestamptz
s.updated_at < $1

-- updated_most: timestamptz
s.updated_at <= $1

-- updated_above: timestamptz
s.updated_at > $1

-- updated_least: timestamptz
s.updated_at >= $1

-- ended_is: timestamptz[]
(s.ended_at = ANY ($1) AND s.ended_at IS NOT NULL)

-- ended_below: timestamptz
(s.ended_at < $1 AND s.ended_at IS NOT NULL)

-- ended_most: timestamptz
(s.ended_at <= $1 AND s.ended_at IS NOT NULL)

-- ended_above: timestamptz
(s.ended_at > $1 AND s.ended_at IS NOT NULL)

-- ended_least: timestamptz
(s.ended_at >= $1 AND s.ended_at IS NOT NULL)

-- attribute_is: bytea
-- A saga has a term once at most, and the planner knows: it walks the index newest first, without sorting.
EXISTS (SELECT FROM kasaga.attribute a WHERE a.run_id = s.run_id AND a.shard = s.shard AND a.term = $1)

-- attribute_any: bytea[]
EXISTS (SELECT FROM kasaga.attribute a WHERE a.run_id = s.run_id AND a.shard = s.shard AND a.term = ANY ($1))

-- attribute_within: bytea bytea
EXISTS (
    SELECT FROM kasaga.attribute a
    WHERE a.run_id = s.run_id AND a.shard = s.shard AND a.term >= $1 AND a.term < $2
)
