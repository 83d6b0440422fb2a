"""Celery's consumer, with one difference: a message that it would only log and drop becomes a dead letter.

The consumer runs in the worker's main loop, where a wait for the database would stall everything: the body is
passed on as a task of our own, which a child stores.
"""

from __future__ import annotations

from typing import Any

import structlog
from celery.worker.consumer import Consumer as CeleryConsumer

from events.names import QUEUE_FEEDBACK

from .dead_letters import TASK_DEAD_LETTER, as_text

log = structlog.get_logger()


class Consumer(CeleryConsumer):  # type: ignore[misc]  # celery has no types
    """Keeps what cannot be decoded, is no task message, or names a task that does not exist."""

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        """Keep a body that cannot be decoded, then acknowledge it as Celery does."""
        self._keep(message, f"cannot be decoded: {exc}")
        message.ack_log_error(log, self.connection_errors)

    def on_unknown_message(self, body: Any, message: Any) -> None:
        """Keep a message that is no task."""
        self._keep(message, "is no task message: a task and an id are missing from its headers")
        super().on_unknown_message(body, message)

    def on_unknown_task(self, body: Any, message: Any, exc: Exception) -> None:
        """Keep a message for a task that does not exist."""
        self._keep(message, f"names the unknown task {exc}")
        super().on_unknown_task(body, message, exc)

    def on_invalid_task(self, body: Any, message: Any, exc: Exception) -> None:
        """Keep a task message of a wrong form."""
        self._keep(message, f"is an invalid task message: {exc}")
        super().on_invalid_task(body, message, exc)

    def _keep(self, message: Any, error: str) -> None:
        self.app.send_task(
            TASK_DEAD_LETTER,
            kwargs={"kind": "undecodable", "error": f"the message {error}", "body": as_text(message.body)},
            queue=QUEUE_FEEDBACK,
            argsrepr="",
            kwargsrepr="an undecodable message",
        )
