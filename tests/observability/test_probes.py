"""The probes' server by itself: paths, states, bodies."""

from __future__ import annotations

import json
import socket
import urllib.error
import urllib.request
from collections.abc import Generator

import pytest
from prometheus_client import CollectorRegistry, Counter

from kasaga.probes import Probes


class Health:
    live = ready = True


@pytest.fixture
def health() -> Health:
    return Health()


@pytest.fixture
def probes(health: Health) -> Generator[Probes]:
    registry = CollectorRegistry()
    Counter("things", "Things", registry=registry).inc(3)
    made = Probes(
        "127.0.0.1",
        0,
        registry,
        lambda: (health.live, {"quiet_seconds": 0.5}),
        lambda: (health.ready, {"shards": 4}),
    )
    yield made
    made.close()


def ask(probes: Probes, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{probes.port}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_it_serves_on_ipv6_and_then_on_ipv4_too() -> None:
    """As in a cluster of IPv6 alone, or of both."""
    made = Probes("::", 0, CollectorRegistry(), lambda: (True, {}), lambda: (True, {}))
    try:
        for host in ("[::1]", "127.0.0.1"):
            with urllib.request.urlopen(f"http://{host}:{made.port}/live", timeout=10) as answer:
                assert answer.status == 200
    finally:
        made.close()


@pytest.mark.parametrize("path", ["/live", "/ready"])
def test_each_probe_says_its_own_state_and_why(probes: Probes, health: Health, path: str) -> None:
    assert ask(probes, path)[0] == 200
    setattr(health, path[1:], False)
    status, body = ask(probes, f"{path}?from=kubelet")
    assert status == 503
    assert json.loads(body)
    other = {"/live": "/ready", "/ready": "/live"}[path]
    assert ask(probes, other)[0] == 200


def test_metrics_are_prometheus_text(probes: Probes) -> None:
    assert "\nthings_total 3.0\n" in ask(probes, "/metrics")[1]


def test_elsewhere_is_nothing(probes: Probes) -> None:
    status, body = ask(probes, "/")
    assert status == 404
    assert "/metrics" in body


def test_a_client_that_says_nothing_holds_nobody_up(probes: Probes) -> None:
    with socket.create_connection(("127.0.0.1", probes.port)):
        assert ask(probes, "/live")[0] == 200
