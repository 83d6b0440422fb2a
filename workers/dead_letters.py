"""Broker messages that are not ours to understand: stored for a person, while the queue goes on."""

from __future__ import annotations

from typing import Final

from registry import notifications
from registry.database import Database
from registry.notifications import DeadLetter

TASK_DEAD_LETTER: Final = "pushfan.dead_letter"
# A dead letter keeps enough of a body to recognise it.
LONGEST_BODY = 64 * 1024


def bury(database: Database, kind: str, error: str, body: str) -> None:
    """Store one dead letter."""
    letter = DeadLetter(kind=kind, error=error, body=body[:LONGEST_BODY])
    database.run(lambda connection: notifications.store_dead_letter(connection, letter))


def as_text(body: object) -> str:
    """Show a message's raw body as text; the registry replaces what PostgreSQL cannot hold."""
    text = bytes(body).decode("utf-8", "replace") if isinstance(body, (bytes, memoryview)) else str(body)
    return text[:LONGEST_BODY]
