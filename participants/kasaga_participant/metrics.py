"""What can be measured of a participant.

Station: fed by the worker, the runtime and the upkeep; read through `/metrics`, or by whatever exports the
registry.
"""

from __future__ import annotations

from functools import cache

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """The metrics of one registry; made once for each."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Register all of them."""
        command = ["participant", "command"]
        self._commands = Counter(
            "kasaga_participant_commands",
            "Commands answered, by outcome",
            [*command, "outcome"],
            registry=registry,
        )
        self._handler = Histogram(
            "kasaga_participant_handler_seconds",
            "What a handler took, its own statements included",
            command,
            registry=registry,
            buckets=_SECONDS,
        )
        self.answer = Histogram(
            "kasaga_participant_answer_seconds",
            "From a command's coming to its reply's leaving",
            registry=registry,
            buckets=_SECONDS,
        )
        self.batch = Histogram(
            "kasaga_participant_batch_commands",
            "Commands that shared a transaction",
            registry=registry,
            buckets=_SIZES,
        )
        self.duplicates = Counter(
            "kasaga_participant_duplicates",
            "Commands answered from the inbox",
            ["participant"],
            registry=registry,
        )
        self.fence_refusals = Counter(
            "kasaga_participant_fence_refusals",
            "Late commands that an undo or a void had fenced off",
            ["participant"],
            registry=registry,
        )
        self.dead_letters = Counter(
            "kasaga_participant_dead_letters",
            "Records put on the dead letters' topic",
            ["participant", "code"],
            registry=registry,
        )
        self.purged = Counter(
            "kasaga_participant_inbox_rows_purged", "Rows of the inbox that were forgotten", registry=registry
        )
        self.in_hand = Gauge(
            "kasaga_participant_in_hand", "Commands read and not yet answered", registry=registry
        )
        self.inbox_away = Gauge(
            "kasaga_participant_inbox_away", "1 while the database can't be reached", registry=registry
        )
        self.stalls = Counter(
            "kasaga_participant_partition_stalls",
            "Partitions that were found not to be read",
            ["participant"],
            registry=registry,
        )
        self._spans = Counter(
            "kasaga_participant_spans",
            "Spans exported, failed and dropped, where the SDK exports them",
            ["result"],
            registry=registry,
        )
        self._spans_told = (0, 0, 0)
        self._counts: dict[tuple[str, str, str], Counter] = {}
        self._times: dict[tuple[str, str], Histogram] = {}

    def answered(self, participant: str, command: str, outcome: str) -> None:
        """Count one command. `command` must be one of the contract's: each makes metrics of its own."""
        key = (participant, command, outcome)
        count = self._counts.get(key)
        if count is None:
            count = self._counts[key] = self._commands.labels(*key)
        count.inc()

    def spans(self, totals: tuple[int, int, int]) -> None:
        """Bring the counter up to how many were exported, failed and dropped in all."""
        told, self._spans_told = self._spans_told, totals
        for result, before, now in zip(("exported", "failed", "dropped"), told, totals, strict=True):
            self._spans.labels(result).inc(max(0, now - before))

    def handled(self, participant: str, command: str, seconds: float) -> None:
        """Note what one run of a handler took."""
        key = (participant, command)
        times = self._times.get(key)
        if times is None:
            times = self._times[key] = self._handler.labels(*key)
        times.observe(seconds)


@cache
def metrics_of(registry: CollectorRegistry = REGISTRY) -> Metrics:
    """The metrics of a registry, registered at the first call."""
    return Metrics(registry)
