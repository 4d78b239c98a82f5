-- With which keys the payloads that are kept are encrypted; see kasaga_wire/sealing.py for the frame. Read by pages of
-- primary keys, so that no question is long. One row for each key of a page ('' for what isn't encrypted): its id, how many
-- rows, how many the page has, and where the page ends.

-- history: int4 uuid int4 int4
WITH page AS MATERIALIZED (
    SELECT shard, run_id, seq, substring(body FOR 36) AS head FROM kasaga.history
    WHERE (shard, run_id, seq) > ($1, $2, $3) ORDER BY shard, run_id, seq LIMIT $4
), ending AS (SELECT shard, run_id, seq FROM page ORDER BY shard DESC, run_id DESC, seq DESC LIMIT 1)
SELECT CASE WHEN substring(p.head FOR 2) = '\xc14b' THEN encode(substring(p.head FROM 5 FOR get_byte(p.head, 3)), 'escape')
    ELSE '' END AS key, count(*), (SELECT count(*) FROM page), e.shard, e.run_id, e.seq
FROM page p CROSS JOIN ending e GROUP BY 1, 4, 5, 6

-- results: uuid int4 int4
WITH page AS MATERIALIZED (
    SELECT run_id, shard, substring(result FOR 36) AS head FROM kasaga.saga
    WHERE (run_id, shard) > ($1, $2) ORDER BY run_id, shard LIMIT $3
), ending AS (SELECT run_id, shard FROM page ORDER BY run_id DESC, shard DESC LIMIT 1)
SELECT CASE WHEN substring(p.head FOR 2) = '\xc14b' THEN encode(substring(p.head FROM 5 FOR get_byte(p.head, 3)), 'escape')
    ELSE '' END AS key, count(*), (SELECT count(*) FROM page), e.run_id, e.shard
FROM page p CROSS JOIN ending e GROUP BY 1, 4, 5

-- outbox: int4 int8 int4
WITH page AS MATERIALIZED (
    SELECT shard, seq, substring(payload FOR 36) AS head FROM kasaga.outbox
    WHERE (shard, seq) > ($1, $2) ORDER BY shard, seq LIMIT $3
), ending AS (SELECT shard, seq FROM page ORDER BY shard DESC, seq DESC LIMIT 1)
SELECT CASE WHEN substring(p.head FOR 2) = '\xc14b' THEN encode(substring(p.head FROM 5 FOR get_byte(p.head, 3)), 'escape')
    ELSE '' END AS key, count(*), (SELECT count(*) FROM page), e.shard, e.seq
FROM page p CROSS JOIN ending e GROUP BY 1, 4, 5

-- events: bytea text int4
-- Records that sagas may await by a key.
WITH page AS MATERIALIZED (
    SELECT name, position, substring(payload FOR 36) AS head FROM kasaga.heard
    WHERE (name, position) > ($1, $2) ORDER BY name, position LIMIT $3
), ending AS (SELECT name, position FROM page ORDER BY name DESC, position DESC LIMIT 1)
SELECT CASE WHEN substring(p.head FOR 2) = '\xc14b' THEN encode(substring(p.head FROM 5 FOR get_byte(p.head, 3)), 'escape')
    ELSE '' END AS key, count(*), (SELECT count(*) FROM page), e.name, e.position
FROM page p CROSS JOIN ending e GROUP BY 1, 4, 5

-- inbox: text int4
-- Of a participant's own database.
WITH page AS MATERIALIZED (
    SELECT id, substring(payload FOR 36) AS head FROM kasaga_inbox.inbox
    WHERE id COLLATE "C" > $1 ORDER BY id COLLATE "C" LIMIT $2
), ending AS (SELECT id FROM page ORDER BY id COLLATE "C" DESC LIMIT 1)
SELECT CASE WHEN substring(p.head FOR 2) = '\xc14b' THEN encode(substring(p.head FROM 5 FOR get_byte(p.head, 3)), 'escape')
    ELSE '' END AS key, count(*), (SELECT count(*) FROM page), e.id
FROM page p CROSS JOIN ending e GROUP BY 1, 4
