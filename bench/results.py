"""RESULTS.md: the last figures of each measurement, and the machine they were taken on.

A section for each measurement; a run replaces those that it measured and leaves the others.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from . import table
from .measurement import Measured
from .suite import SUITE

ROOM = Path(__file__).parent
_HEAD = """\
# What Pushfan costs

Written by `make bench` (`python -m bench`). Everything runs on the one machine that each section names: workers,
PostgreSQL with fsync and synchronous commits, Valkey with an append-only file, and the simulated providers. CPU is that
of a group's processes for one accepted delivery.
"""
_SECTION = re.compile(r"^## (\w+)\n", re.MULTILINE)


def file_for(scale: str) -> Path:
    """Return where results of a scale are kept: quick ones must not replace those that count."""
    return ROOM / ("RESULTS.md" if scale == "full" else f"RESULTS.{scale}.md")


def write(path: Path, found: Mapping[str, Measured], machine: Mapping[str, str], scale: str) -> None:
    """Replace the sections of what was measured."""
    sections = _read(path) | {
        name: _section(name, measured, machine, scale) for name, measured in found.items()
    }
    ordered = [sections[name] for name in SUITE if name in sections]
    path.write_text("\n".join([_HEAD, *ordered]))


def _read(path: Path) -> dict[str, str]:
    if not path.exists():
        return {}
    parts = _SECTION.split(path.read_text())[1:]
    bodies = (f"## {name}\n{body.rstrip()}\n" for name, body in zip(parts[::2], parts[1::2], strict=True))
    return dict(zip(parts[::2], bodies, strict=True))


def _section(name: str, measured: Measured, machine: Mapping[str, str], scale: str) -> str:
    taken = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {scale}"
    about = "\n".join(f"- {what}: {value}" for what, value in machine.items())
    figures = "\n".join(table.lines(name, measured))
    return f"## {name}\n\n```\n{figures}\n```\n\n{taken}\n\n{about}\n"
