"""How much of each app waits to be sent, as of some seconds ago: a full house is told at the door."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Final

from registry import overview
from registry.apps import App

from .crew import Crew
from .problem import Problem

_FRESH_SECONDS: Final = 3.0
_COME_AGAIN_SECONDS: Final = 10


class BacklogGauge:
    """Refuses an app's events while too many of its deliveries wait. Never drops what was taken in."""

    def __init__(self, crew: Crew, *, limit: int) -> None:
        self._crew = crew
        self._limit = limit
        self._waiting: Mapping[int, int] = {}
        self._read_at = -_FRESH_SECONDS
        self._reading = asyncio.Lock()

    async def check(self, app: App) -> None:
        """Raise `Problem` when too much of the app waits."""
        if time.monotonic() - self._read_at >= _FRESH_SECONDS and not self._reading.locked():
            async with self._reading:
                self._waiting = await self._crew.query(overview.waiting_by_app)
                self._read_at = time.monotonic()
        waiting = self._waiting.get(app.id, 0)
        if waiting >= self._limit:
            raise Problem(
                "backlog",
                f"{waiting:,} deliveries of {app.name} wait, the limit is {self._limit:,}: nothing was taken in",
                retry_after_seconds=_COME_AGAIN_SECONDS,
            )
