"""What every store has to tell of the sagas that each process has."""

from __future__ import annotations

from kasaga.store.base import Store
from store.contract import Bench
from store.samples import TTL


class FleetContract:
    def test_a_heartbeat_tells_what_the_others_have(self, bench: Bench, store: Store) -> None:
        store.heartbeat("pa", [], ttl=TTL, sagas=["order/1"])
        store.heartbeat("older", [], ttl=TTL)
        assert store.heartbeat("pb", [], ttl=TTL, sagas=["x/1"]).sagas == {"pa": frozenset({"order/1"})}
        store.heartbeat("pa", [], ttl=TTL, leaving=True)
        assert store.heartbeat("pb", [], ttl=TTL, sagas=["x/2"]).sagas == {}
        store.claim(3, "pb", ttl=TTL)
        assert store.fleet() == {"pb": frozenset({"x/2"})}
