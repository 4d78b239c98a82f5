-- How the archive is doing that finished sagas go to before they are deleted; schema.sql says more.

CREATE TABLE kasaga.archive (
    single boolean NOT NULL DEFAULT true CHECK (single),
    sagas bigint NOT NULL DEFAULT 0,
    objects bigint NOT NULL DEFAULT 0,
    bytes bigint NOT NULL DEFAULT 0,
    archived_at timestamptz,
    failing_since timestamptz,
    place text NOT NULL,
    error text NOT NULL DEFAULT '',
    PRIMARY KEY (single)
);
