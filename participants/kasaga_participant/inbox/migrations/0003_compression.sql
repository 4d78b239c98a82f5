-- Large payloads are compressed by lz4 where the server has it: a fifth of the CPU of its default, and no more bytes.

DO $$
BEGIN
    IF EXISTS (
        SELECT FROM pg_settings WHERE name = 'default_toast_compression' AND 'lz4' = ANY (enumvals)
    ) THEN
        ALTER TABLE kasaga_inbox.inbox ALTER payload SET COMPRESSION lz4;
        ALTER TABLE kasaga_inbox.late ALTER payload SET COMPRESSION lz4;
    END IF;
END $$;
