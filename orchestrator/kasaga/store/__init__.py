"""The store: what a shard commits, in one Postgres transaction."""
