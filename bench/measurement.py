"""What all measurements are given, and what they give."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

from .arena import Arena
from .figures import Figures

# `full` is what the targets are about, `quick` finds regressions in minutes, `tiny` proves that everything works.
SCALES = ("full", "quick", "tiny")


class OpenArena(Protocol):
    """Opens an arena, with settings that differ from the defaults."""

    def __call__(self, *, latency_ms: float = 0, **settings: Any) -> AbstractContextManager[Arena]:
        """Open it; it is gone afterwards."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """How to measure: the scale, on what, whom to tell; which peers, all if none is named."""

    scale: str
    open_arena: OpenArena
    tell: Callable[[str], None]
    peers: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Figures, and sentences about what they do not show."""

    figures: Figures
    notes: Sequence[str] = field(default_factory=list)


Measure = Callable[[Setting], Measured]
