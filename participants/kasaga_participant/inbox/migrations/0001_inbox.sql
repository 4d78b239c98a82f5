-- One row per command, undo, void and tombstone. A database of a service holds the rows of all its participants:
-- command ids begin with the saga's run id, so they never meet.
CREATE TABLE kasaga_inbox.inbox (
    -- COLLATE "C": the order in which rows are claimed must be the one in which Python sorts.
    id text COLLATE "C" PRIMARY KEY,
    type text NOT NULL,
    -- SHA-256 of the payload; NULL where it may differ per attempt.
    input_hash bytea,
    outcome text NOT NULL,
    -- The reply's payload; NULL for an empty one.
    payload bytea,
    -- When the row was written or last answered a duplicate (in steps of an eighth of the retention).
    used_at timestamptz NOT NULL DEFAULT now()
) WITH (
    -- Each claim is updated once, in its own transaction: room for that on the same page keeps indexes out of it.
    fillfactor = 70,
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_insert_scale_factor = 0.02
);

CREATE INDEX inbox_used_at ON kasaga_inbox.inbox (used_at);

-- A claim without its answer must never be committed, whatever a handler's SQL does. Checked at commit, by what the
-- inbox says just before it writes its answers: looking each row up again would cost more than all else at commit.
CREATE FUNCTION kasaga_inbox.check_answered() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('kasaga_inbox.answered', true) IS DISTINCT FROM 'yes' THEN
        RAISE EXCEPTION 'the command % would be committed without its reply', NEW.id
            USING ERRCODE = 'KS001', HINT = 'A handler has ended the transaction that the inbox owns.';
    END IF;
    RETURN NULL;
END
$$;

CREATE CONSTRAINT TRIGGER inbox_answered
    AFTER INSERT ON kasaga_inbox.inbox DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (NEW.outcome = 'claimed')
    EXECUTE FUNCTION kasaga_inbox.check_answered();
