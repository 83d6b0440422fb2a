"""A tiny run of each measurement: that it works and says what it is meant to. No figure is judged here."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest

from bench.arena import Arena, open_arena
from bench.measurement import Setting
from bench.suite import SUITE
from gateway.interruption import Interruption

pytestmark = [pytest.mark.bench, pytest.mark.timeout(300)]

KEYS = {
    "broadcast": {
        "deliveries_per_second",
        "worker_cpu_us",
        "database_cpu_us",
        "broker_bytes_peak",
        "worker_rss_mb",
    },
    "growth": {"cost_ratio", "memory_ratio"},
    "direct": {
        "one_by_one_per_second",
        "many_per_second",
        "one_by_one_worker_cpu_us",
        "many_worker_cpu_us",
        "idle_p50_ms",
        "idle_p99_ms",
    },
    "http": {
        "single_per_second",
        "single_api_cpu_us",
        "single_worker_cpu_us",
        "single_database_cpu_us",
        "single_client_cpu_us",
        "lists_per_second",
        "lists_api_cpu_us",
        "lists_worker_cpu_us",
        "lists_database_cpu_us",
        "lists_client_cpu_us",
        "steady_p50_ms",
        "steady_p99_ms",
    },
    "isolation": {"direct_p99_ms", "alone_p99_ms"},
    "chunking": {"by_1_per_second", "by_1_worker_cpu_us", "by_500_per_second", "by_500_worker_cpu_us"},
    "registry": {
        "installs_per_second",
        "import_rows_per_second",
        "recipients_per_second",
        "trace_notification_ms",
        "trace_user_ms",
    },
    "peers": {"celery_fcm_ratio", "celery_fcm_per_second"},
}


@pytest.fixture(scope="module")
def arena() -> Iterator[Arena]:
    """Give one arena to all: starting it is most of what a tiny run takes."""
    with open_arena(Interruption(), lambda _: None) as arena:
        yield arena


@pytest.mark.parametrize("name", SUITE)
def test_tiny_run_gives_every_figure(name: str, arena: Arena) -> None:
    """Each measurement runs to its end on real servers and gives the figures that it is known for, above zero."""

    def lend(*, latency_ms: float = 0, **_: Any) -> AbstractContextManager[Arena]:
        arena.set_latency(latency_ms)
        return nullcontext(arena)

    figures = SUITE[name](Setting(scale="tiny", open_arena=lend, tell=lambda _: None)).figures
    assert figures.keys() >= KEYS[name]
    assert all(figures[key] > 0 for key in KEYS[name] if not key.endswith(("_us", "_p99_ms")))
