-- Where the history of a saga's run begins, of one that has gone on as a new run; schema.sql says more.

ALTER TABLE kasaga.saga ADD COLUMN base integer NOT NULL DEFAULT 1;

CREATE INDEX saga_continued ON kasaga.saga (run_id, shard) WHERE base > 1;
