"""One message to a crowd on FCM and APNs, at a provider's latency, several times; the median of each figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from bench.arena import Played
from bench.figures import Figures
from bench.measurement import Measured, Setting
from bench.yardstick import bare_cpu_us

LATENCY_MS = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How many devices, how often."""

    devices: int
    runs: int


SIZES: Mapping[str, Size] = {
    "full": Size(devices=200_000, runs=5),
    "quick": Size(devices=40_000, runs=3),
    "tiny": Size(devices=300, runs=1),
}


def measure(setting: Setting) -> Measured:
    """Send the broadcast as often as the scale says."""
    size = SIZES[setting.scale]
    with setting.open_arena(latency_ms=LATENCY_MS) as arena:
        arena.settle_in("broadcast", size.devices)
        arena.subscribe("broadcast", "broadcast", size.devices)
        played = []
        for number in range(size.runs):
            setting.tell(f"broadcast {number + 1} of {size.runs} to {size.devices:,} devices")
            played.append(arena.broadcast("broadcast"))
        bare = bare_cpu_us(arena, min(size.devices, 5_000))
    return Measured(figures=_figures(played, bare))


def _figures(played: Sequence[Played], bare_us: float) -> Figures:
    worker_us = median(one.cpu_us("workers") for one in played)
    database_us = median(one.cpu_us("database") for one in played)
    return {
        "deliveries_per_second": median(one.per_second for one in played),
        "worker_cpu_us": worker_us,
        "database_cpu_us": database_us,
        "simulator_cpu_us": median(one.cpu_us("simulators") for one in played),
        "broker_cpu_us": median(one.cpu_us("broker") for one in played),
        "libcurl_cpu_us": bare_us,
        "broker_bytes_peak": max(one.broker_bytes_peak for one in played),
        "worker_rss_mb": max(one.worker_bytes_peak for one in played) / 1e6,
        # What does not depend on the machine: our cost against that of sending alone.
        "worker_cost_ratio": worker_us / bare_us,
        "database_cost_ratio": database_us / bare_us,
    }
