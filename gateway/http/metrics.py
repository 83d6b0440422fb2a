"""Figures for Prometheus. Labels are routes, statuses, providers, lanes, circuits: never a user, a token or an id."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from starlette.types import Scope

from registry import apps, channels, doctor, overview
from registry.channels import Channel, Circuit
from registry.database import Connection
from registry.errors import RegistryError
from registry.ledger import FinalOutcome

from .crew import Crew
from .guard import route_of

_SECONDS: Final = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)
_METHODS: Final = frozenset({"GET", "PUT", "POST", "DELETE", "PATCH", "HEAD", "OPTIONS"})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sample:
    """What the database tells at one moment."""

    app_names: dict[int, str]
    channels: list[Channel]
    backlogs: list[overview.Backlog]
    outcomes: dict[int, dict[FinalOutcome, int]]
    condition: doctor.Condition


class Metrics:
    """What one process counts, and what the database tells when it is asked."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "pushfan_http_requests",
            "Answers of the HTTP API.",
            ("method", "route", "status"),
            registry=self._registry,
        )
        self._durations = Histogram(
            "pushfan_http_request_seconds",
            "From the head of a request to its answer's.",
            ("route",),
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._counted: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}

    def count(self, scope: Scope, status: int, seconds: float) -> None:
        """Count an answer."""
        method = scope["method"] if scope["method"] in _METHODS else "other"
        kind = method, route_of(scope), status
        if (counted := self._counted.get(kind)) is None:
            requests = self._requests.labels(method, route_of(scope), str(status))
            counted = self._counted[kind] = requests, self._durations.labels(route_of(scope))
        requests, durations = counted
        requests.inc()
        durations.observe(seconds)

    async def write(self, crew: Crew) -> tuple[bytes, str]:
        """Write everything in Prometheus' form."""
        text = generate_latest(self._registry)
        try:
            sample = await crew.query(_look)
        except RegistryError:
            return text + generate_latest(_Families([_up(0)])), CONTENT_TYPE_LATEST
        return text + generate_latest(_Families([_up(1), *_families(sample)])), CONTENT_TYPE_LATEST


class _Families(CollectorRegistry):
    """Metrics that were collected already."""

    def __init__(self, families: list[Metric]) -> None:
        super().__init__()
        self._families = families

    def collect(self) -> Iterator[Metric]:
        """Give them."""
        return iter(self._families)


def _look(connection: Connection) -> _Sample:
    return _Sample(
        app_names={app.id: app.name for app in apps.list_all(connection)},
        channels=channels.list_all(connection),
        backlogs=overview.backlogs(connection),
        outcomes=overview.outcomes(connection),
        condition=doctor.examine(connection),
    )


def _up(value: int) -> Metric:
    return GaugeMetricFamily("pushfan_database_up", "Whether the database answers.", value)


def _families(sample: _Sample) -> Iterator[Metric]:
    yield from _of_channels(sample)
    yield _of_outcomes(sample)
    yield from _of_backlogs(sample)
    workers = sample.condition.workers
    yield GaugeMetricFamily("pushfan_workers", "Workers heard of in the last 30 seconds.", len(workers))
    processes = sum(worker.processes for worker in workers)
    yield GaugeMetricFamily("pushfan_worker_processes", "Their processes.", processes)
    letters = GaugeMetricFamily(
        "pushfan_dead_letters", "Dead letters of the last day, by kind.", labels=("kind",)
    )
    for kind, number in sample.condition.dead_letters.items():
        letters.add_metric((kind,), number)
    yield letters


def _of_channels(sample: _Sample) -> Iterator[Metric]:
    names = ("app", "channel", "provider")
    circuit = GaugeMetricFamily(
        "pushfan_channel_circuit", "1 for the circuit's state.", labels=(*names, "state")
    )
    accepted = GaugeMetricFamily(
        "pushfan_channel_accepted", "Accepted since the channel's health is counted.", labels=names
    )
    doubted = GaugeMetricFamily(
        "pushfan_channel_doubted", "Doubted tokens since the channel's health is counted.", labels=names
    )
    for channel in sample.channels:
        labels = (sample.app_names.get(channel.app_id, ""), channel.name, channel.provider.value)
        for state in Circuit:
            circuit.add_metric((*labels, state.value), int(channel.circuit is state))
        accepted.add_metric(labels, channel.accepted)
        doubted.add_metric(labels, channel.doubted)
    yield from (circuit, accepted, doubted)


def _of_outcomes(sample: _Sample) -> Metric:
    ended = CounterMetricFamily(
        "pushfan_deliveries_ended",
        "Deliveries that ended, by outcome, since the channel was made.",
        labels=("app", "channel", "provider", "outcome"),
    )
    for channel in sample.channels:
        app = sample.app_names.get(channel.app_id, "")
        for outcome, number in sample.outcomes.get(channel.id, {}).items():
            ended.add_metric((app, channel.name, channel.provider.value, outcome.value), number)
    return ended


def _of_backlogs(sample: _Sample) -> Iterator[Metric]:
    planned = GaugeMetricFamily(
        "pushfan_backlog_planned", "Deliveries planned and not ended.", labels=("provider", "lane")
    )
    waiting = GaugeMetricFamily(
        "pushfan_backlog_waiting", "Deliveries that wait for another attempt.", labels=("provider", "lane")
    )
    providers = {channel.id: channel.provider.value for channel in sample.channels}
    sums: dict[tuple[str, str], list[int]] = {}
    for backlog in sample.backlogs:
        both = sums.setdefault((providers.get(backlog.channel_id, "none"), backlog.lane), [0, 0])
        both[0] += backlog.positions
        both[1] += backlog.waiting
    for labels, (positions, retries) in sums.items():
        planned.add_metric(labels, positions)
        waiting.add_metric(labels, retries)
    yield from (planned, waiting)
