"""What waits on the intake queue: a process that takes an event in takes along what waits behind it.

A Celery task costs several times what an event costs. So messages are read without being taken off the queue, taken
in together with the event at hand, and removed after the commit. A process that dies in between leaves them where
they are, and whoever sees one of them again finds it taken in. They are read at the young end: Celery takes messages
off at the old one.

Only Redis and Valkey let a queue be read like this. On RabbitMQ each message stays a task of its own.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import structlog
from celery import Celery
from kombu.exceptions import KombuError
from redis.exceptions import RedisError

from events.names import QUEUE_INTAKE, TASK_INTAKE

from .transport import Channel

log = structlog.get_logger()

_READ_AT_ONCE: Final = 10
_MESSAGES: Final = 100
_EVENTS: Final = 500
_BYTES: Final = 1_000_000
# One process reads at a time, or several would do the same work. It may die: then others wait so long.
_READER: Final = "pushfan.intake.reader"
_READER_MILLISECONDS: Final = 2_000
_PATIENCE_SECONDS: Final = 1.0
_AWAY: Final = (RedisError, KombuError, OSError)
# What taking a message apart raises when it is not one of ours: it is left to Celery, which keeps it.
_NOT_OURS: Final = (ValueError, TypeError, LookupError, AttributeError, RecursionError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A message that is still on the queue; `element` is it as it lies there."""

    id: str
    wires: Sequence[object]
    element: bytes


class IntakeQueue:
    """Reads the intake queue over the application's connections. Never raises for a broker that is away."""

    def __init__(self, app: Celery) -> None:
        self._app = app

    @contextmanager
    def waiting(self) -> Iterator[list[Waiting]]:
        """Give what waits, a hundred messages at most. What is left in the list at the end is taken off the queue.

        A block that raises takes off nothing.
        """
        waiting = self._read()
        is_reader = bool(waiting)
        try:
            yield waiting
        except BaseException:
            waiting.clear()
            raise
        finally:
            if is_reader:
                self._remove(waiting)

    def _read(self) -> list[Waiting]:
        try:
            with self._client() as client:
                return [] if client is None else _read(client)
        except _AWAY as error:
            log.warning("intake_queue_not_read", error=str(error), follows="events are taken in one by one")
            return []

    def _remove(self, taken: Sequence[Waiting]) -> None:
        try:
            with self._client() as client, client.pipeline(transaction=False) as pipe:
                for message in taken:
                    pipe.lrem(QUEUE_INTAKE, 1, message.element)
                pipe.delete(_READER)
                pipe.execute()
        except _AWAY as error:
            log.warning("intake_queue_not_shortened", error=str(error), follows="events are seen again")

    @contextmanager
    def _client(self) -> Iterator[Any]:
        """Give a client of Redis; `None` where the broker is something else."""
        with self._app.pool.acquire(block=True, timeout=_PATIENCE_SECONDS) as connection:
            channel = connection.default_channel
            if not isinstance(channel, Channel):
                yield None
                return
            with channel.conn_or_acquire() as client:
                yield client


def _read(client: Any) -> list[Waiting]:
    # Most often nothing waits: one question is enough.
    if not client.llen(QUEUE_INTAKE) or not client.set(_READER, b"", nx=True, px=_READER_MILLISECONDS):
        return []
    found: list[Waiting] = []
    for start in range(0, _MESSAGES, _READ_AT_ONCE):
        elements = client.lrange(QUEUE_INTAKE, start, start + _READ_AT_ONCE - 1)
        found += filter(None, map(_parse, elements))
        if len(elements) < _READ_AT_ONCE or _is_enough(found):
            break
    if not found:
        client.delete(_READER)
    return found


def _is_enough(found: Sequence[Waiting]) -> bool:
    events = sum(len(message.wires) for message in found)
    return events >= _EVENTS or sum(len(message.element) for message in found) >= _BYTES


def _parse(element: bytes) -> Waiting | None:
    """Read a message as Celery would; `None` for whatever is not simply one with events."""
    try:
        message = json.loads(element)
        headers = message["headers"]
        is_plain = (
            headers["task"] == TASK_INTAKE
            and message["content-type"] == "application/json"
            and message["properties"]["body_encoding"] == "base64"
            and not any(headers.get(name) for name in ("compression", "eta", "expires"))
        )
        if not is_plain:
            return None
        _, arguments, _ = json.loads(base64.b64decode(message["body"]))
        wires, name = arguments["events"], headers["id"]
    except _NOT_OURS:
        return None
    if not isinstance(wires, list) or not isinstance(name, str):
        return None
    return Waiting(id=name, wires=wires, element=element)
