"""The recorded ratios, and whether a quick run's have become worse.

Ratios compare two costs of the same run on the same machine, so they can be compared with those of another day and
another machine, as times cannot. Each has a tolerance that its noise has been seen to need.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from .measurement import Measured

FILE = Path(__file__).parent / "baseline.json"
# What a check measures: together a few minutes, and every part of the way of a delivery.
CHECKED = ("broadcast", "growth", "direct", "http", "chunking")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """A recorded ratio. `is_cost`: more is worse, else less is. `tolerance` is a share of it."""

    recorded: float
    is_cost: bool
    tolerance: float

    @property
    def limit(self) -> float:
        """The first value that is a regression."""
        return self.recorded * (1 + self.tolerance if self.is_cost else 1 / (1 + self.tolerance))

    def is_kept(self, value: float) -> bool:
        """Tell whether a value is no worse than recorded, but for noise."""
        return value <= self.limit if self.is_cost else value >= self.limit


def read(path: Path = FILE) -> dict[str, Bound]:
    """Read the recorded ratios, as `benchmark.figure`."""
    return {name: Bound(**values) for name, values in json.loads(path.read_text()).items()}


def record(found: Mapping[str, Measured], path: Path = FILE) -> None:
    """Replace the recorded values by these, and keep directions and tolerances."""
    values = _values(found)
    bounds = {
        name: {
            "recorded": values.get(name, bound.recorded),
            "is_cost": bound.is_cost,
            "tolerance": bound.tolerance,
        }
        for name, bound in read(path).items()
    }
    path.write_text(json.dumps(bounds, indent=2) + "\n")


def regressions(found: Mapping[str, Measured], bounds: Mapping[str, Bound]) -> Iterator[str]:
    """Yield a sentence for each recorded ratio that became worse, or was not measured at all."""
    values = _values(found)
    for name, bound in bounds.items():
        if name not in values:
            yield f"{name} was not measured"
        elif not bound.is_kept(values[name]):
            way = "at most" if bound.is_cost else "at least"
            yield f"{name} is {values[name]:.2f}; recorded is {bound.recorded:.2f}, so {way} {bound.limit:.2f}"


def _values(found: Mapping[str, Measured]) -> dict[str, float]:
    return {
        f"{benchmark}.{name}": value
        for benchmark, measured in found.items()
        for name, value in measured.figures.items()
    }
