"""The bed of the bench: it comes up, sagas run on it, and what is wrong with them fails the bench."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import psycopg
import pytest

from bench.bed import Setup, bed
from bench.errors import BenchError


def test_a_bench_fails_where_its_sagas_are_not_as_they_should_be(tmp_path: Path) -> None:
    with bed(Setup(shards=4, orchestrators=2), tmp_path, audit=False) as town:
        assert set(town.load.closed(10, 0.5).ends) == {"COMPLETED"}
        assert town.load.single(2, saga="plan", inputs={"steps": 2, "width": 3}).ends == {"COMPLETED": 2}
        town.load.park(5, inputs={"seconds": 3600.0})
        town.audit()

        with pytest.raises(BenchError, match="COMPENSATED"):
            town.load.closed(1, 0.1, inputs={"sku": "unshippable"})
        with psycopg.connect(town.services) as services:
            services.execute(
                "DELETE FROM kasaga_inbox.inbox WHERE id IN (SELECT id FROM kasaga_inbox.inbox LIMIT 1)"
            )
        with pytest.raises(BenchError, match="KSG-64"):
            town.audit()

        os.kill(town.load.pid, signal.SIGKILL)
        with pytest.raises(BenchError, match="ended"):
            town.load.single(1)
