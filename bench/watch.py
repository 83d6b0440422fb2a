"""A watch over an arena: what each group of processes spends between two instants, and the peaks in between."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Self

import redis

from .usage import cpu_seconds, resident_bytes

# Looking costs CPU on the machine that is measured: a few times a second is enough for peaks that last.
_POLL_SECONDS = 0.25


@dataclass(slots=True)
class Watch:
    """Watches while it is entered; afterwards `cpu` has seconds by group, the rest are peaks.

    `groups` are root processes by name; the group `workers` is the one whose memory is looked at.
    """

    groups: Mapping[str, Iterable[int]]
    broker_url: str
    cpu: dict[str, float] = field(default_factory=dict)
    broker_bytes_peak: int = 0
    worker_bytes_peak: int = 0
    _ended: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._look()
        self._thread = threading.Thread(target=self._keep_looking, name="watch", daemon=True)
        self._thread.start()
        self.cpu = self._spent()
        return self

    def __exit__(self, *_: object) -> None:
        self.cpu = {name: spent - self.cpu[name] for name, spent in self._spent().items()}
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
        self._look()

    def _spent(self) -> dict[str, float]:
        spent = {name: cpu_seconds(pids) for name, pids in self.groups.items()}
        return spent | {"publisher": cpu_seconds_here()}

    def _keep_looking(self) -> None:
        while not self._ended.wait(_POLL_SECONDS):
            self._look()

    def _look(self) -> None:
        with redis.Redis.from_url(self.broker_url) as broker:
            used = int(broker.info("memory")["used_memory"])
        self.broker_bytes_peak = max(self.broker_bytes_peak, used)
        self.worker_bytes_peak = max(self.worker_bytes_peak, *resident_bytes(self.groups["workers"]), 0)


def cpu_seconds_here() -> float:
    """Return what this process has spent, without its children."""
    times = os.times()
    return times.user + times.system
