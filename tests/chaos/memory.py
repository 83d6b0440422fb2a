"""Watches what workers and broker hold in memory while a run goes on."""

from __future__ import annotations

import contextlib
import statistics
import threading
from collections.abc import Sequence
from typing import Final

import psutil
import redis

from .stage import Stage

_PERIOD_SECONDS: Final = 1.0
_FEWEST_SAMPLES: Final = 9


class Memory:
    """Samples from a thread: the mean resident size of a worker's process, and what the broker says of itself.

    The mean and not the sum: killed processes are missing for a moment.
    """

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._workers: list[float] = []
        self._broker: list[float] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="memory", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._ended.set()
        self._thread.join()

    def growth(self) -> dict[str, float | None]:
        """Say what the last third of the samples is to the first: 1 is as before. `None` for too short a run."""
        return {"workers": _growth(self._workers), "broker": _growth(self._broker)}

    def _watch(self) -> None:
        client = redis.Redis.from_url(self._stage.valkey.url, socket_timeout=2)
        while not self._ended.wait(_PERIOD_SECONDS):
            if sizes := list(self._sizes()):
                self._workers.append(statistics.mean(sizes))
            with contextlib.suppress(redis.RedisError, OSError):
                self._broker.append(float(client.info("memory")["used_memory"]))
        client.close()

    def _sizes(self) -> Sequence[int]:
        found = []
        for child in list(self._stage.workers.values()):
            with contextlib.suppress(psutil.Error):
                parent = psutil.Process(child.pid)
                for process in (parent, *parent.children()):
                    with contextlib.suppress(psutil.Error):
                        found.append(process.memory_info().rss)
        return found


def _growth(samples: Sequence[float]) -> float | None:
    if len(samples) < _FEWEST_SAMPLES:
        return None
    third = len(samples) // 3
    return round(statistics.mean(samples[-third:]) / statistics.mean(samples[:third]), 3)
