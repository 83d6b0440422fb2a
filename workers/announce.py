"""Announce work over the broker. A message is a hint: what it names is in PostgreSQL, and a lost one is repeated."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any

import structlog
from celery import Celery
from kombu.exceptions import KombuError, OperationalError

from events.names import (
    QUEUE_FEEDBACK,
    QUEUE_PLAN,
    TASK_DELIVER,
    TASK_FEEDBACK,
    TASK_PLAN,
    Lane,
    deliver_queue,
)
from registry.ledger import Published

log = structlog.get_logger()

_BATCH = 100
_REST_SECONDS = 3.0
# RabbitMQ confirms each message; with its memory alarm on, or behind a dead way, it never does.
_CONFIRM_SECONDS = 5.0


class Announcer:
    """Publishes tasks. Never raises for a broker that is away: the dispatcher announces the same work again.

    After a failure it announces nothing for a moment, or each chunk that a process ends would wait for the broker.
    """

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._rests_until = 0.0

    def chunks(self, published: Sequence[Published]) -> None:
        """Announce chunks, each to the queue of its lane."""
        self._send([_chunk_task(chunk) for chunk in published])

    def plans(self, notification_ids: Iterable[int]) -> None:
        """Ask for further pages of notifications."""
        self._send(
            [
                {
                    "name": TASK_PLAN,
                    "queue": QUEUE_PLAN,
                    "kwargs": {"notification": notification_id},
                    "kwargsrepr": f"notification {notification_id}",
                }
                for notification_id in notification_ids
            ]
        )

    def feedback(self, duties: Iterable[tuple[str, int]]) -> None:
        """Ask for feedback work: (`suspects` or `receipts`, channel id)."""
        self._send(
            [
                {
                    "name": TASK_FEEDBACK,
                    "queue": QUEUE_FEEDBACK,
                    "kwargs": {"duty": duty, "channel": channel_id},
                    "kwargsrepr": f"{duty} of channel {channel_id}",
                }
                for duty, channel_id in duties
            ]
        )

    def _send(self, tasks: list[dict[str, Any]]) -> None:
        if not tasks or time.monotonic() < self._rests_until:
            return
        try:
            with self._app.producer_or_acquire() as producer:
                self._publish(producer, tasks)
        except (OperationalError, KombuError, OSError, TimeoutError) as error:
            self._rests_until = time.monotonic() + _REST_SECONDS
            log.warning("announcement_failed", tasks=len(tasks), error=str(error))

    def _publish(self, producer: Any, tasks: Sequence[dict[str, Any]]) -> None:
        """Publish at once. A connection that failed is not used again: its next answer would be to this question."""
        try:
            # kombu pipelines a batch on Redis and publishes one by one elsewhere.
            with producer.batch(max_size=_BATCH):
                for task in tasks:
                    self._app.send_task(
                        producer=producer,
                        retry=False,
                        timeout=_CONFIRM_SECONDS,
                        confirm_timeout=_CONFIRM_SECONDS,
                        argsrepr="",
                        **task,
                    )
        except BaseException:
            producer.connection.collect()
            raise


def _chunk_task(chunk: Published) -> dict[str, Any]:
    return {
        "name": TASK_DELIVER,
        "queue": deliver_queue(Lane(chunk.lane)),
        "kwargs": {"chunk": chunk.chunk_id, "channel": chunk.channel_id},
        "kwargsrepr": (
            f"chunk {chunk.chunk_id}: {chunk.positions} positions of notification {chunk.notification_id}, "
            f"channel {chunk.channel_id}"
        ),
    }
