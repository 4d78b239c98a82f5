-- A commit: one pipeline, one transaction. Statements without rows are left out; the fence never is.
--
-- Rows are found by their key first and then by their place (ctid). Joined to the table directly, one ANALYZE that
-- saw it empty is enough to make the planner read all of its index for each batch (seen: 48 ms instead of 5).
-- Nobody else moves these rows: only their shard's owner writes them.

-- fence: int4[] uuid[] int8[] int8[] int8[] int8[] int8[] int8[] timestamptz[] uuid[] timestamptz[]
SELECT kasaga.fence($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)

-- note_place: int4 int8 text
-- Only in suspect mode: where the saga stands that this commit marks.
UPDATE kasaga.position SET suspect_at = $3 WHERE shard = $1 AND commit_seq = $2

-- acquit: int4 uuid
-- Only when this commit parks the saga for what its deaths are held against it.
DELETE FROM kasaga.suspect WHERE shard = $1 AND run_id = $2

-- undo:
SELECT kasaga.undo()

-- insert_history: int4[] uuid[] int4[] timestamptz[] text[] text[] bytea[]
INSERT INTO kasaga.history (shard, run_id, seq, at, kind, step, body)
SELECT * FROM unnest($1, $2, $3, $4, $5, $6, $7)

-- insert_sagas: int4[] uuid[] text[] text[] int4[] text[] bytea[] timestamptz[] timestamptz[] timestamptz[] text[] text[] text[] text[] bool[] text[] bytea[] int4[]
INSERT INTO kasaga.saga (shard, run_id, saga_id, name, version, state, input_hash, started_at, updated_at, ended_at,
                         step, code, reason, remedy, with_exceptions, parked_code, result, base)
SELECT * FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)

-- update_sagas: int4[] uuid[] int4[] text[] timestamptz[] timestamptz[] text[] text[] text[] text[] bool[] text[] bytea[] int4[]
UPDATE kasaga.saga s
SET version = u.version, state = u.state, updated_at = u.updated_at, ended_at = u.ended_at, step = u.step,
    code = u.code, reason = u.reason, remedy = u.remedy, with_exceptions = u.with_exceptions,
    parked_code = u.parked_code, result = u.result, base = u.base
FROM (
    SELECT n.*, (
        SELECT o.ctid FROM kasaga.saga o
        WHERE o.run_id = n.run_id AND o.shard IS NOT DISTINCT FROM n.shard -- no index but the right one helps this
    ) AS place
    FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
        AS n (shard, run_id, version, state, updated_at, ended_at, step, code, reason, remedy, with_exceptions,
              parked_code, result, base)
    OFFSET 0
) AS u
WHERE s.ctid = u.place

-- change_attributes: int4[] uuid[] bytea[]
-- Search attributes that are set anew, or taken away, by what their terms begin with. Found by their saga: the other
-- index would have the planner read all sagas' attributes of that name.
DELETE FROM kasaga.attribute
WHERE ctid = ANY (ARRAY(
    SELECT a.place FROM unnest($1, $2, $3) AS u (shard, run_id, name), LATERAL (
        SELECT ctid AS place FROM kasaga.attribute
        WHERE run_id = u.run_id AND shard = u.shard AND substr(term, 1, length(u.name)) = u.name OFFSET 0
    ) AS a))

-- insert_attributes: int4[] uuid[] bytea[]
INSERT INTO kasaga.attribute (shard, run_id, term) SELECT * FROM unnest($1, $2, $3)

-- free: uuid[] text[]
-- Locks that sagas hold no more. Who is next in a queue isn't told: its owner asks.
DELETE FROM kasaga.lock
WHERE ctid = ANY (ARRAY(
    SELECT (SELECT l.ctid FROM kasaga.lock l WHERE l.run_id = d.run_id AND l.key = d.key)
    FROM unnest($1, $2) AS d (run_id, key)))

-- insert_outbox: int4[] int8[] int2[] uuid[] text[] text[] int4[] bytea[] bytea[] bytea[] int4[] timestamptz[] timestamptz[]
INSERT INTO kasaga.outbox (shard, seq, kind, run_id, step, topic, partition, key, headers, payload, attempt,
                           send_at, due_at)
SELECT * FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)

-- delete_outbox: int4[] int8[]
DELETE FROM kasaga.outbox
WHERE ctid = ANY (ARRAY(
    SELECT (SELECT o.ctid FROM kasaga.outbox o WHERE o.shard = d.shard AND o.seq = d.seq)
    FROM unnest($1, $2) AS d (shard, seq)))
