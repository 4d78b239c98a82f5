-- Commands that were accepted and are answered later. Such a command's row in the inbox says `deferred`; it is the only
-- row that changes after it was committed.

-- Whose tokens are good: a token is the command's id and its HMAC under this key. The key is made here once; two random
-- UUIDs are 244 bits.
CREATE TABLE kasaga_inbox.secret (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    key bytea NOT NULL
);
INSERT INTO kasaga_inbox.secret (key)
VALUES (decode(replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', ''), 'hex'));

-- How to answer each of them. Deleted with the answer, and when its saga gives it up.
CREATE TABLE kasaga_inbox.deferral (
    id text COLLATE "C" PRIMARY KEY,
    participant text NOT NULL,
    attempt int NOT NULL,
    reply_to text NOT NULL,
    saga_id text NOT NULL,
    traceparent text,
    tracestate text,
    heartbeat float8,
    -- Heartbeats so far, and what the last one said.
    number int NOT NULL DEFAULT 0,
    progress text,
    deferred_at timestamptz NOT NULL DEFAULT now(),
    beat_at timestamptz NOT NULL DEFAULT now(),
    -- When the orchestrator was told last.
    sent_at timestamptz NOT NULL DEFAULT now()
);

-- Answers and heartbeats that aren't known to be sent. Written in the transaction of whoever answers, sent by any
-- process of the participant, deleted when Kafka has them.
CREATE TABLE kasaga_inbox.late (
    seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id text NOT NULL,
    participant text NOT NULL,
    attempt int NOT NULL,
    reply_to text NOT NULL,
    saga_id text NOT NULL,
    traceparent text,
    tracestate text,
    outcome text NOT NULL,
    number int NOT NULL,
    payload bytea,
    send_after timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX late_send_after ON kasaga_inbox.late (send_after);
