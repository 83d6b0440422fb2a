"""Announcing chunks without letting a request wait for the broker."""

from __future__ import annotations

import queue
import threading
from typing import Any, Final

from celery import Celery

from workers.announce import Announcer

# Announcements are hints: what does not fit is found by the dispatcher.
_MOST_WAITING: Final = 1_000


class Herald(Announcer):
    """An announcer whose publishing is done by a thread of its own."""

    def __init__(self, app: Celery) -> None:
        super().__init__(app)
        self._queue: queue.Queue[list[dict[str, Any]] | None] = queue.Queue(_MOST_WAITING)
        self._thread = threading.Thread(target=self._run, name="pushfan-herald", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Publish what waits, and end the thread."""
        self._queue.put(None)
        self._thread.join()

    def _send(self, tasks: list[dict[str, Any]]) -> None:
        if tasks and not self._queue.full():
            self._queue.put(tasks)

    def _run(self) -> None:
        while (tasks := self._queue.get()) is not None:
            super()._send(tasks)
