-- What a session is set to; see settings.py. A pooler in transaction mode keeps nothing from one transaction to the
-- next: there, the first goes in front of each with $6 = true, which makes it last for that transaction.

-- settings: text text text text text bool
SELECT set_config('statement_timeout', $1, $6), set_config('lock_timeout', $2, $6),
    set_config('idle_in_transaction_session_timeout', $3, $6), set_config('plan_cache_mode', $4, $6),
    set_config('enable_seqscan', $5, $6), set_config('enable_hashjoin', $5, $6),
    set_config('enable_mergejoin', $5, $6),
    set_config('jit', $5, $6) -- a scan that is off, but must be, looks dear enough to be compiled: 240 ms

-- watch_client:
-- Notices within a second that the client of a running statement is gone.
SELECT set_config('client_connection_check_interval', '1000', false)

-- transaction_timeout: text
-- From PostgreSQL 17 on: ends a pipeline, too, whose rest never arrives.
SELECT set_config('transaction_timeout', $1, false)

-- read_only:
-- In front of each transaction of somebody who only looks: the server itself then refuses whatever would write.
SELECT set_config('transaction_read_only', 'on', true)
