"""A real orchestrator over the sagas of `trips`, as a process: settings come from the environment."""

from __future__ import annotations

import importlib
import logging
import os
import sys
from functools import partial

from kasaga.orchestrator import process
from kasaga.orchestrator.retention import Retention
from kasaga.settings import Settings
from orchestrator import trips, versions

if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(name)s %(message)s")
    app = trips.make_app(os.environ["TRIPS_NAMESPACE"])
    if os.environ.get("TRIPS_BUG_MENDED"):
        trips.MENDED[0] = 1
        app = trips.NewCode(app.namespace, sagas=trips.SAGAS, participants=trips.CONTRACTS)
    if os.environ.get("TRIPS_VERSIONS"):
        app = trips.NewCode(app.namespace, sagas=versions.sagas(), participants=trips.CONTRACTS)
    if module := os.environ.get("TRIPS_MODULE"):
        app = importlib.import_module(module).make_app(app.namespace)
    if seconds := os.environ.get("TRIPS_RETENTION_ROUND_SECONDS"):
        process.__dict__["Retention"] = partial(Retention, interval=float(seconds))
    process.run(app, Settings.from_env())
