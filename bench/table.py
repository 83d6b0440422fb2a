"""Figures as a table: for terminals and, since Markdown shows it well in a code block, for files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .figures import shown, target_of
from .measurement import Measured

_MET = {True: "", False: "  missed"}


def lines(benchmark: str, measured: Measured) -> Iterator[str]:
    """Yield a line for each figure, with what it is meant to reach, and the notes."""
    rows = [_row(benchmark, name, value) for name, value in measured.figures.items()]
    widths = [max(len(row[column]) for row in rows) if rows else 0 for column in range(2)]
    for name, value, target in rows:
        yield f"{name:<{widths[0]}}  {value:>{widths[1]}}  {target}".rstrip()
    for note in measured.notes:
        yield f"({note})"


def _row(benchmark: str, name: str, value: float) -> Sequence[str]:
    target = target_of(benchmark, name)
    wanted = "" if target is None else f"   {target}{_MET[target.is_met(value)]}"
    return name, shown(name, value), wanted
