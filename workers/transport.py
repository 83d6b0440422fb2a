"""kombu's Redis transport, with one difference: what somebody else put on a queue does not end the worker.

kombu takes an element of a queue for a message without looking: JSON's null, a text, an unknown encoding raise in the
worker's main loop, and Celery ends. The element is off the queue by then, so it is handed to whoever wants to keep it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from kombu.transport import redis

# What reading, decoding and taking apart an element raise when it is not a message. Nothing of ours raises them
# here: the consumer keeps what goes wrong with a message that could be read.
_NOT_A_MESSAGE = (ValueError, TypeError, LookupError, AttributeError)


class Channel(redis.Channel):  # type: ignore[misc]  # kombu's types do not cover its transports
    """Reads queues, and steps over what is no message."""

    on_garbage: ClassVar[Callable[[object, Exception], None] | None] = None

    def _brpop_read(self, **options: Any) -> Any:
        self.connection.element = None
        try:
            return super()._brpop_read(**options)
        except _NOT_A_MESSAGE as error:
            if Channel.on_garbage is None:
                raise
            Channel.on_garbage(self.connection.element, error)
            return True


class Transport(redis.Transport):  # type: ignore[misc]
    """Remembers the element that is being delivered, for the case that it is no message."""

    Channel = Channel
    element: object = None

    def _deliver(self, message: Any, queue: str) -> None:
        self.element = message
        super()._deliver(message, queue)
