-- For how long finished sagas of a name are kept, and since when a deleted one is remembered.

-- By name: what a release that has taken a saga out of its App had said of it stays true of its sagas. Infinity: for ever.
CREATE TABLE kasaga.retention (
    seconds double precision NOT NULL CHECK (seconds > 0),
    name text COLLATE "C" NOT NULL,
    PRIMARY KEY (name)
);

-- NULL: deleted by a release before this column. The default comes second, so that the table isn't written anew.
ALTER TABLE kasaga.ended ADD COLUMN deleted_at timestamptz;
ALTER TABLE kasaga.ended ALTER COLUMN deleted_at SET DEFAULT clock_timestamp();

CREATE INDEX ended_deleted ON kasaga.ended (deleted_at);
