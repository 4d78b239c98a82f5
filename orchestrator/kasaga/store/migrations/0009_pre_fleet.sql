-- Which sagas each process has: a new version starts when all have it. NULL: an older release, which doesn't say.

ALTER TABLE kasaga.process ADD COLUMN sagas text[];
