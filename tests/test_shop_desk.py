"""How `images-test` and `kubernetes` start orders."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import accumulate

import httpx
import pytest

import shop_desk
from eventually import eventually
from examples.contracts import Order
from examples.orders import load_orders
from shop_desk import Api, DeskError, Feeder, pause

ORDERS = load_orders(20)


def test_the_fewer_orders_are_left_the_longer_they_last() -> None:
    pauses = [pause(100, started, 10.0) for started in range(1, 101)]
    assert pauses == sorted(pauses)
    assert pauses[0] == pytest.approx(0.1, rel=0.02)
    times = list(accumulate(pauses))
    # Half of them in a few seconds, and after half a minute there are still some.
    assert times[50] < 10
    assert times[94] > 25
    assert pauses[-1] == 10.0


def test_a_feeder_that_is_told_to_hurry_starts_the_rest_in_order() -> None:
    started: list[Order] = []
    feeder = Feeder(started.append, ORDERS, per_second=1000)
    feeder.start()
    feeder.hurry()
    feeder.join(10)
    feeder.check()
    assert started == ORDERS
    assert feeder.count == len(ORDERS)


def test_a_feeder_that_isn_t_told_to_hurry_has_something_left() -> None:
    started: list[Order] = []
    feeder = Feeder(started.append, ORDERS, per_second=20)
    feeder.start()
    eventually(lambda: started)
    time.sleep(0.5)
    assert feeder.is_alive()
    assert len(started) < len(ORDERS)
    feeder.hurry()
    feeder.join(10)
    assert not feeder.is_alive()


def test_what_a_feeder_dies_of_is_raised() -> None:
    def fail(_: Order) -> None:
        raise DeskError("no")

    feeder = Feeder(fail, ORDERS, per_second=10)
    feeder.start()
    feeder.join(10)
    with pytest.raises(DeskError, match="no"):
        feeder.check()


def answering(*answers: int | Exception) -> tuple[Api, list[httpx.Request]]:
    asked: list[httpx.Request] = []
    left = list(answers)

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        given = left.pop(0)
        if isinstance(given, Exception):
            raise given
        return httpx.Response(given, json={})

    return Api("http://api", "the token", transport=httpx.MockTransport(answer)), asked


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    monkeypatch.setattr(shop_desk, "TRY_AGAIN_SECONDS", 0.0)
    return lambda seconds: monkeypatch.setattr(shop_desk, "START_SECONDS", seconds)


def test_a_start_is_tried_again_while_pods_come_and_go(quick: Callable[[float], None]) -> None:
    quick(10)
    api, asked = answering(httpx.ConnectError("refused"), httpx.ReadError("reset"), 503, 429, 202)
    api.start(ORDERS[0])
    assert len(asked) == 5
    assert len({request.content for request in asked}) == 1
    assert asked[0].headers["authorization"] == "Bearer the token"


def test_a_start_that_is_refused_is_not_tried_again() -> None:
    api, asked = answering(409)
    with pytest.raises(DeskError, match=f"refuses to start {ORDERS[0].id}: 409"):
        api.start(ORDERS[0])
    assert len(asked) == 1


def test_a_start_that_is_never_accepted_is_given_up(quick: Callable[[float], None]) -> None:
    quick(0)
    api, _ = answering(503)
    with pytest.raises(DeskError, match="could not be started within 0 s: 503"):
        api.start(ORDERS[0])
