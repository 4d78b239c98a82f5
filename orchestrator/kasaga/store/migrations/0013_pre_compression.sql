-- Large payloads are compressed by lz4 where the server has it: a fifth of the CPU of its default, and no more bytes.

DO $$
BEGIN
    IF EXISTS (
        SELECT FROM pg_settings WHERE name = 'default_toast_compression' AND 'lz4' = ANY (enumvals)
    ) THEN
        ALTER TABLE kasaga.history ALTER body SET COMPRESSION lz4;
        ALTER TABLE kasaga.outbox ALTER payload SET COMPRESSION lz4;
        ALTER TABLE kasaga.saga ALTER result SET COMPRESSION lz4;
    END IF;
END $$;
