"""Celery's consumer, with one difference: a message that it would drop, or die of, becomes a dead letter.

The consumer runs in the worker's main loop, where a wait for the database would stall everything: the body is
passed on as a task of our own, which a child stores.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import structlog
from billiard.exceptions import TimeLimitExceeded, WorkerLostError
from celery import Celery
from celery.exceptions import Ignore, Reject, Retry
from celery.worker.consumer import Consumer as CeleryConsumer
from celery.worker.request import Request as CeleryRequest
from kombu.exceptions import OperationalError

from events.names import QUEUE_FEEDBACK

from .dead_letters import TASK_DEAD_LETTER, as_text
from .transport import Channel

log = structlog.get_logger()

# The message is on the queue again, or was meant to end so.
_NOT_LOST = (Ignore, Reject, Retry, TimeLimitExceeded, WorkerLostError)
# The main loop waits meanwhile.
_SOON = {"max_retries": 1}
_CONFIRM_SECONDS = 5.0


class Consumer(CeleryConsumer):  # type: ignore[misc]  # celery has no types
    """Keeps what cannot be decoded, is no task message, or names a task that does not exist."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        Channel.on_garbage = self.on_garbage

    def connection_for_write(self, url: str | None = None, heartbeat: float | None = None) -> Any:
        """Connect for task events without RabbitMQ's confirmations.

        The main loop would wait for them without end where they do not come: under a memory alarm, behind a dead way.
        """
        connection = self.app.connection_for_write(url=url, heartbeat=heartbeat)
        connection.transport_options = {**connection.transport_options, "confirm_publish": False}
        return self.ensure_connected(connection)

    def on_garbage(self, element: object, error: Exception) -> None:
        """Keep an element of a queue that is no message at all."""
        log.error("garbage_on_a_queue", error=repr(error))
        keep(self.app, element, f"is none: {error!r}")

    def create_task_handler(self, *args: Any, **kwargs: Any) -> Callable[[Any], Any]:
        """Handle messages as Celery does; one that it cannot handle ends itself, not the worker."""
        handle = super().create_task_handler(*args, **kwargs)

        def on_task_received(message: Any) -> Any:
            try:
                _check_limits(message.headers)
                return handle(message)
            except (*self.connection_errors, MemoryError):
                raise
            except Exception as error:  # noqa: BLE001  a boundary: whatever garbage raises, the queue goes on
                keep(self.app, message.body, f"cannot be handled: {error!r}")
                return message.reject_log_error(log, self.connection_errors)

        return on_task_received

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        """Keep a body that cannot be decoded, then acknowledge it as Celery does."""
        keep(self.app, message.body, f"cannot be decoded: {exc}")
        message.ack_log_error(log, self.connection_errors)

    def on_unknown_message(self, body: Any, message: Any) -> None:
        """Keep a message that is no task."""
        keep(self.app, message.body, "is no task message: a task and an id are missing from its headers")
        super().on_unknown_message(body, message)

    def on_unknown_task(self, body: Any, message: Any, exc: Exception) -> None:
        """Keep a message for a task that does not exist."""
        keep(self.app, message.body, f"names the unknown task {exc}")
        super().on_unknown_task(body, message, exc)

    def on_invalid_task(self, body: Any, message: Any, exc: Exception) -> None:
        """Keep a task message of a wrong form."""
        keep(self.app, message.body, f"is an invalid task message: {exc}")
        super().on_invalid_task(body, message, exc)


def _check_limits(headers: object) -> None:
    """Refuse time limits that are none: the pool adds them to the clock, long after the message was taken."""
    limits = headers.get("timelimit") if isinstance(headers, dict) else None
    if limits is not None and not (
        isinstance(limits, (list, tuple))
        and len(limits) == 2
        and all(limit is None or isinstance(limit, (int, float)) for limit in limits)
    ):
        raise ValueError(f"the time limits {limits!r} are none")


class IntakeRequest(CeleryRequest):  # type: ignore[misc]
    """A message with events. One that cannot even be unpacked, or fails for good, is kept before it is acknowledged."""

    def on_failure(self, exc_info: Any, *args: Any, **kwargs: Any) -> Any:
        """Keep the message unless it is on the queue again. What cannot be kept goes back to the queue."""
        try:
            if not isinstance(exc_info.exception, _NOT_LOST):
                keep(self.app, self.message.body, f"cannot be taken in: {exc_info.exception!r}")
        except NotKept:
            return self.reject(requeue=True)
        return super().on_failure(exc_info, *args, **kwargs)


class NotKept(ConnectionError):
    """The broker did not take a dead letter. In the main loop this means: connect again, nothing is acknowledged."""


def keep(app: Celery, body: object, error: str) -> None:
    """Pass a message's body on, to be stored as a dead letter. Raises `NotKept`."""
    try:
        app.send_task(
            TASK_DEAD_LETTER,
            kwargs={"kind": "undecodable", "error": f"the message {error}", "body": as_text(body)},
            queue=QUEUE_FEEDBACK,
            retry_policy=_SOON,
            timeout=_CONFIRM_SECONDS,
            confirm_timeout=_CONFIRM_SECONDS,
            argsrepr="",
            kwargsrepr="an undecodable message",
        )
    except (OperationalError, OSError) as failure:
        raise NotKept(f"a message that {error} could not be kept: {failure}") from failure
