"""What groups of processes use, read from /proc.

A group is a process with all its descendants. CPU counts those that ended, too, once their parent has waited for
them; it comes in ticks of 10 ms a process, so that short loads are blurred.
"""

from __future__ import annotations

import contextlib
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_PARENT, _TIMES = 1, slice(11, 15)


def cpu_seconds(roots: Iterable[int]) -> float:
    """Add up what some processes and their descendants have spent."""
    stats = _stats()
    return sum(sum(map(int, stats[pid][_TIMES])) for pid in _family(roots, stats)) / _TICKS


def resident_bytes(roots: Iterable[int]) -> list[int]:
    """Return the resident memory of each process of the group."""
    found = []
    for pid in _family(roots, _stats()):
        with contextlib.suppress(OSError):  # it ended meanwhile
            pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
            found.append(pages * os.sysconf("SC_PAGE_SIZE"))
    return found


def _family(roots: Iterable[int], stats: dict[int, list[str]]) -> Iterator[int]:
    """Yield the processes and their descendants. By parent, since PostgreSQL's backends lead sessions of their own."""
    children = defaultdict(list)
    for pid, fields in stats.items():
        children[int(fields[_PARENT])].append(pid)
    waiting = [pid for pid in roots if pid in stats]
    while waiting:
        pid = waiting.pop()
        yield pid
        waiting += children[pid]


def _stats() -> dict[int, list[str]]:
    """Read every process's fields after its name, which may itself contain spaces and brackets."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            found[int(entry.name)] = (entry / "stat").read_text().rpartition(")")[2].split()
    return found
