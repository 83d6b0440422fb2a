"""Plan the fan-outs that do not fit in intake's one page: page by page, each its own transaction."""

from __future__ import annotations

import time
from collections.abc import Callable

from registry import ledger, notifications
from registry.database import Connection
from registry.ledger import Published
from registry.notifications import Page

from .intake import Door

# A planner gives way after this long; the dispatcher sends for it again.
_PATIENCE_SECONDS = 20.0


def plan(door: Door, notification_id: int, *, is_stopping: Callable[[], bool]) -> int:
    """Plan page after page until all are planned, time is up or the worker stops. Returns how many devices."""
    devices = 0
    started_at = time.monotonic()
    while not is_stopping() and time.monotonic() - started_at < _PATIENCE_SECONDS:
        page, published = door.database.run(lambda connection: _plan_page(door, connection, notification_id))
        if page is None:
            break
        door.announcer.chunks(published)
        devices += page.devices
        if page.is_planned:
            break
    return devices


def _plan_page(
    door: Door, connection: Connection, notification_id: int
) -> tuple[Page | None, list[Published]]:
    limits = door.settings
    page = notifications.plan_page(
        connection, notification_id, chunk_size=limits.chunk_size, page_size=limits.page_size
    )
    if page is None or not page.channel_ids:
        return page, []
    return page, ledger.dispatch(connection, sorted(page.channel_ids))
