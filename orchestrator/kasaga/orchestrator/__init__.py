"""The orchestrator's process: reads Kafka, lets the engine decide, commits, produces.

process   starts and ends it: settings, signals, store, Kafka, HTTP
loop      one turn: read, decide, commit, relay; everything else serves it
intake    Kafka records -> events of sagas
runs      the live sagas, bounded; loads the others from history
rows      decisions -> rows of the store
relay     committed rows -> Kafka, and what is acknowledged
shards    what is known of each owned shard; timers
leases    which shards are ours
functions ctx.run's threads
watchdog  sagas that don't come back to an await
"""
