-- What can be started; schema.sql says more.

CREATE TABLE kasaga.definition (
    announced_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    version integer NOT NULL,
    name text COLLATE "C" NOT NULL,
    input bytea NOT NULL,
    result bytea NOT NULL,
    form text NOT NULL,
    PRIMARY KEY (name, version)
);
