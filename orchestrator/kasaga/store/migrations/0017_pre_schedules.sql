-- Schedules: how far each is planned, and its recent firings.

CREATE TABLE kasaga.schedule (
    position timestamptz NOT NULL DEFAULT clock_timestamp(),
    declared boolean NOT NULL DEFAULT true,
    paused boolean NOT NULL DEFAULT false,
    name text COLLATE "C" NOT NULL,
    definition text NOT NULL,
    acted_by text NOT NULL DEFAULT '',
    PRIMARY KEY (name)
);

CREATE TABLE kasaga.firing (
    due timestamptz NOT NULL,
    at timestamptz NOT NULL,
    schedule text COLLATE "C" NOT NULL,
    cause text NOT NULL,
    state text NOT NULL,
    saga_id text NOT NULL,
    reason text NOT NULL,
    PRIMARY KEY (schedule, due)
);
