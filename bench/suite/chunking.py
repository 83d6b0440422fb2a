"""The broadcast with chunks of different sizes: what bundling deliveries into Celery tasks is worth."""

from __future__ import annotations

from collections.abc import Mapping

from bench.figures import Figures
from bench.measurement import Measured, Setting

from .broadcast import LATENCY_MS

# Chunk size -> devices. A task for each device costs so much that fewer of them say the same.
SIZES: Mapping[str, Mapping[int, int]] = {
    "full": {1: 10_000, 10: 50_000, 100: 200_000, 500: 200_000, 1_000: 200_000},
    "quick": {1: 600, 10: 3_000, 100: 10_000, 500: 10_000, 1_000: 10_000},
    "tiny": {1: 40, 500: 200},
}


def measure(setting: Setting) -> Measured:
    """Send the broadcast once for each chunk size, each with workers of its own."""
    figures: Figures = {}
    for chunk_size, devices in SIZES[setting.scale].items():
        name = f"chunking-{chunk_size}"
        with setting.open_arena(latency_ms=LATENCY_MS, chunk_size=chunk_size) as arena:
            arena.settle_in(name, devices)
            arena.subscribe(name, name, devices)
            setting.tell(f"{devices:,} devices in chunks of {chunk_size:,}")
            played = arena.broadcast(name)
        figures[f"by_{chunk_size}_per_second"] = played.per_second
        figures[f"by_{chunk_size}_worker_cpu_us"] = played.cpu_us("workers")
        figures[f"by_{chunk_size}_database_cpu_us"] = played.cpu_us("database")
        figures[f"by_{chunk_size}_broker_bytes_peak"] = played.broker_bytes_peak
    figures["bundling_gain_ratio"] = figures["by_1_worker_cpu_us"] / figures["by_500_worker_cpu_us"]
    return Measured(figures=figures)
