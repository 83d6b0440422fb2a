"""The same broadcast to ever larger crowds: what one device costs, and the memory, must not grow with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from bench.arena import Played
from bench.figures import Figures
from bench.measurement import Measured, Setting

from .broadcast import LATENCY_MS


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A crowd's size, and how often it is sent to: small ones end before a tick of CPU time says much."""

    devices: int
    runs: int


# The second step is what the last one is compared with.
STEPS: Mapping[str, Sequence[Step]] = {
    "full": (
        Step(devices=1_000, runs=10),
        Step(devices=10_000, runs=5),
        Step(devices=100_000, runs=1),
        Step(devices=1_000_000, runs=1),
    ),
    "quick": (Step(devices=500, runs=5), Step(devices=2_000, runs=5), Step(devices=20_000, runs=1)),
    "tiny": (Step(devices=100, runs=1), Step(devices=200, runs=1), Step(devices=400, runs=1)),
}


def measure(setting: Setting) -> Measured:
    """Send to the crowds, the smallest first."""
    steps = STEPS[setting.scale]
    found: list[list[Played]] = []
    with setting.open_arena(latency_ms=LATENCY_MS) as arena:
        setting.tell(f"registering {steps[-1].devices:,} devices")
        arena.settle_in("growth", steps[-1].devices)
        for step in steps:
            arena.subscribe(f"first-{step.devices}", "growth", step.devices)
            setting.tell(f"{step.runs} broadcasts to {step.devices:,} devices")
            found.append([arena.broadcast(f"first-{step.devices}") for _ in range(step.runs)])
    return Measured(figures=_figures(steps, found))


def _figures(steps: Sequence[Step], found: Sequence[Sequence[Played]]) -> Figures:
    figures: Figures = {}
    for step, played in zip(steps, found, strict=True):
        figures[f"cost_{step.devices}_us"] = median(map(_cost, played))
        figures[f"at_{step.devices}_per_second"] = median(one.per_second for one in played)
        figures[f"worker_{step.devices}_rss_mb"] = max(one.worker_bytes_peak for one in played) / 1e6
    first, last = steps[1].devices, steps[-1].devices
    return figures | {
        "cost_ratio": figures[f"cost_{last}_us"] / figures[f"cost_{first}_us"],
        "memory_ratio": figures[f"worker_{last}_rss_mb"] / figures[f"worker_{first}_rss_mb"],
        "broker_bytes_peak": max(one.broker_bytes_peak for played in found for one in played),
    }


def _cost(played: Played) -> float:
    return played.cpu_us("workers") + played.cpu_us("database")
