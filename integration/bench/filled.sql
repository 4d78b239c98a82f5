-- Finished sagas as the store would have written them: copies of one payment that ran and ended, each with a run id
-- and a saga id of its own, in the order of their times, ten days ago, spread over the shards. From bench.begin on,
-- before bench.end. Not filled: the participants' inboxes.
WITH one AS (
    SELECT * FROM kasaga.saga WHERE name = 'payment' AND state = 'COMPLETED' ORDER BY run_id LIMIT 1
), clock AS (
    SELECT i, now() - interval '10 days' + i * interval '1 millisecond' AS at,
        (lpad(to_hex(1700000000000 + i), 12, '0') || '7' || substr(md5(i::text), 1, 3)
            || 'a' || substr(md5(i::text), 4, 15))::uuid AS run_id,
        (i % (SELECT shards FROM kasaga.namespace))::integer AS shard
    FROM generate_series(current_setting('bench.begin')::bigint, current_setting('bench.end')::bigint - 1) AS i
), sagas AS (
    INSERT INTO kasaga.saga (started_at, updated_at, ended_at, shard, version, run_id, with_exceptions, state, saga_id,
                             name, input_hash, step, code, reason, remedy, parked_code, result)
    SELECT c.at, c.at, c.at, c.shard, version, c.run_id, with_exceptions, state, 'filled-' || c.i,
        name, input_hash, step, code, reason, remedy, parked_code, result
    FROM clock AS c, one ORDER BY c.i
)
INSERT INTO kasaga.history (at, shard, seq, run_id, kind, step, body)
SELECT c.at, c.shard, h.seq, c.run_id, h.kind, h.step, h.body
FROM clock AS c, one JOIN kasaga.history AS h ON h.shard = one.shard AND h.run_id = one.run_id
ORDER BY c.i, h.seq
