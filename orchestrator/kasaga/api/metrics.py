"""Every metric of the API's process, in one place. `orchestrator/metrics.md` has the table of them."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from kasaga_wire import __version__

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class ApiMetrics:
    """The metrics of one process; `registry` is what /metrics shows."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        reg = self.registry
        ProcessCollector(registry=reg)
        self._requests = Counter(
            "kasaga_api_requests_total",
            "Requests answered",
            ["method", "route", "status"],
            registry=reg,
        )
        self._seconds = Histogram(
            "kasaga_api_request_seconds",
            "From a request's coming to its answer, waiting that was asked for included",
            ["route"],
            buckets=SECONDS,
            registry=reg,
        )
        self._at_hand = Gauge("kasaga_api_requests_at_hand", "Requests not answered yet", registry=reg)
        self._waiting = Gauge(
            "kasaga_api_requests_waiting",
            "Requests that wait for a saga's end or its owner's answer",
            registry=reg,
        )
        self._sent = Counter(
            "kasaga_api_records_total",
            "Starts and actions by what became of them: confirmed by Kafka, or failed",
            ["record", "result"],
            registry=reg,
        )
        self._lost = Counter(
            "kasaga_api_store_unavailable_total", "Times that Postgres did not answer", registry=reg
        )
        Gauge("kasaga_build_info", "The release; always 1", ["version"], registry=reg).labels(
            __version__
        ).set(1)

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """A request was answered; `route` is the path's pattern, so that there are few of them."""
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def at_hand(self, number: int) -> None:
        """So many requests are at hand."""
        self._at_hand.set(number)

    def waiting(self, number: int) -> None:
        """So many of them wait."""
        self._waiting.set(number)

    def sent(self, record: str, result: str) -> None:
        """A record was confirmed, or wasn't."""
        self._sent.labels(record, result).inc()

    def store_lost(self) -> None:
        """Postgres did not answer."""
        self._lost.inc()
