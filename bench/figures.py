"""Figures: numbers by name, whose ending is their unit, and what they are meant to reach."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Figures = dict[str, float]

# The ending of a figure's name -> how it is shown: unit and decimals.
UNITS: Mapping[str, tuple[str, int]] = {
    "_per_second": ("/s", 0),
    "_us": ("µs", 1),
    "_ms": ("ms", 1),
    "_mb": ("MB", 1),
    "_bytes_peak": ("bytes", 0),
    "_ratio": ("x", 2),
    "_seconds": ("s", 1),
    "_deliveries": ("", 0),
    "_pushes": ("", 0),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What a figure is meant to reach."""

    least: float = -math.inf
    most: float = math.inf

    def is_met(self, value: float) -> bool:
        """Tell whether a value is within."""
        return self.least <= value <= self.most

    def __str__(self) -> str:
        return f"≥ {self.least:,g}" if self.most == math.inf else f"≤ {self.most:,g}"


TARGETS: Mapping[tuple[str, str], Target] = {
    ("broadcast", "deliveries_per_second"): Target(least=10_000),
    ("broadcast", "worker_cpu_us"): Target(most=100),
    ("broadcast", "broker_bytes_peak"): Target(most=10_000_000),
    ("growth", "cost_ratio"): Target(most=1.1),
    ("growth", "memory_ratio"): Target(most=1.1),
    ("growth", "broker_bytes_peak"): Target(most=10_000_000),
    ("direct", "many_per_second"): Target(least=2_000),
    ("direct", "one_by_one_per_second"): Target(least=700),
    ("direct", "idle_p50_ms"): Target(most=20),
    ("http", "single_per_second"): Target(least=2_000),
    ("http", "lists_per_second"): Target(least=2_000),
    ("http", "steady_p99_ms"): Target(most=50),
    ("isolation", "direct_p99_ms"): Target(most=250),
    ("registry", "trace_notification_ms"): Target(most=100),
    ("registry", "trace_user_ms"): Target(most=100),
}


def target_of(benchmark: str, name: str) -> Target | None:
    """Return what a figure is meant to reach; every peer is meant to be slower than we are."""
    if benchmark == "peers" and name.endswith("_ratio"):
        return Target(least=1)
    return TARGETS.get((benchmark, name))


def shown(name: str, value: float) -> str:
    """Write a figure with its unit."""
    unit, decimals = next((UNITS[ending] for ending in UNITS if name.endswith(ending)), ("", 2))
    return f"{value:,.{decimals}f} {unit}".rstrip()


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that this share of the values does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def rounded(figures: Mapping[str, float]) -> Figures:
    """Round to what a figure can say: four digits."""
    return {
        name: float(f"{value:.4g}") if abs(value) < 1e4 else round(value) for name, value in figures.items()
    }
