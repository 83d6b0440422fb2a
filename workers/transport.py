"""Our Redis transport as workers need it: no garbage, no full broker and no dead connection ends the worker.

1. kombu takes an element of a queue for a message without looking: JSON's null, a text, an unknown encoding raise in
   the worker's main loop, and Celery ends. The element is off the queue by then, so it is handed to whoever wants to
   keep it.
2. kombu takes an element off its queue and then writes it down as delivered. A broker that is out of memory refuses
   that note: kombu would raise, and the element would be nowhere. It is delivered without a note, since working on it
   is what frees the broker's memory; what must go back to its queue is kept here until the broker takes it.
3. kombu reads the connection for remote control without a limit of time. Where that turns out to be dead and is opened
   anew in this moment, nothing comes, and the worker's main loop waits for good: it is read for a second at most.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, ClassVar

import structlog
from kombu.transport import redis, virtual
from redis.exceptions import OutOfMemoryError

from events import redis_transport

log = structlog.get_logger()

_READ_SECONDS = 1.0

# What reading, decoding and taking apart an element raise when it is not a message. Nothing of ours raises them
# here: the consumer keeps what goes wrong with a message that could be read.
_NOT_A_MESSAGE = (ValueError, TypeError, LookupError, AttributeError)


class QoS(redis.QoS):  # type: ignore[misc]  # kombu's types do not cover its transports
    """Notes what is delivered, as far as the broker has room for it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # By tag: delivered without a note, and of these, what waits to go back to its queue.
        self._unnoted: dict[str, Any] = {}
        self._homeless: dict[str, Any] = {}

    def append(self, message: Any, delivery_tag: str) -> None:
        """Take a message that was delivered. One that the broker cannot note is worked on all the same."""
        try:
            super().append(message, delivery_tag)
        except OutOfMemoryError as error:
            log.warning("broker_out_of_memory", error=str(error), follows="delivered without a note")
            self._unnoted[delivery_tag] = message
            virtual.QoS.append(self, message, delivery_tag)

    def ack(self, delivery_tag: str) -> None:
        """Forget a message that is done."""
        self._unnoted.pop(delivery_tag, None)
        super().ack(delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:  # noqa: FBT001, FBT002  kombu's signature
        """Put a message back, or away. Without room a noted one stays so until its visibility ends, others here."""
        message = self._unnoted.pop(delivery_tag, None)
        if message is None:
            self._reject_noted(delivery_tag, requeue=requeue)
            return
        if requeue:
            self._homeless[delivery_tag] = message
        virtual.QoS.ack(self, delivery_tag)
        self._bring_home()

    def _reject_noted(self, delivery_tag: str, *, requeue: bool) -> None:
        try:
            super().reject(delivery_tag, requeue)
        except OutOfMemoryError as error:
            log.warning("broker_out_of_memory", error=str(error), follows="stays unacknowledged for now")
            virtual.QoS.ack(self, delivery_tag)

    def restore_visible(self, *args: Any, **kwargs: Any) -> None:
        """Put back what was delivered too long ago, and what found no room before; later, if there is none now."""
        try:
            super().restore_visible(*args, **kwargs)
        except OutOfMemoryError as error:
            log.warning("broker_out_of_memory", error=str(error), follows="nothing is restored for now")
        else:
            self._bring_home()

    def restore_unacked(self, client: Any = None) -> None:
        """Put everything back when the connection ends."""
        self._homeless |= self._unnoted
        self._unnoted.clear()
        try:
            super().restore_unacked(client)
        except OutOfMemoryError:
            self._delivered.clear()  # the notes stay, until their visibility ends
        self._bring_home()
        if self._homeless:
            log.error("messages_lost", messages=len(self._homeless), follows="their senders must repeat them")

    def _bring_home(self) -> None:
        """Put back on their queues what the broker could not note. Stops when there is still no room."""
        with suppress(OutOfMemoryError):
            for tag, message in list(self._homeless.items()):
                self.channel.put_back(message)
                del self._homeless[tag]


class _Impatient:
    """A subscription that is read for a moment only."""

    def __init__(self, subscription: Any) -> None:
        self._subscription = subscription

    def parse_response(self) -> Any:
        """Read what is there; `None` if nothing is."""
        return self._subscription.parse_response(block=False, timeout=_READ_SECONDS)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._subscription, name)


class Channel(redis_transport.Channel):
    """Reads queues, and steps over what is no message."""

    QoS = QoS

    def put_back(self, message: Any) -> None:
        """Put a message that was delivered on its queue again, behind all others."""
        where = message.delivery_info
        with self.conn_or_acquire() as client, client.pipeline() as pipe:
            self._do_restore_message(
                message._raw,  # noqa: SLF001  as kombu's own notes do
                where["exchange"],
                where["routing_key"],
                pipe,
                leftmost=True,
            )
            pipe.execute()

    def _receive(self) -> Any:
        listener = self.subclient.connection
        socket = listener._sock  # noqa: SLF001  as kombu's poller does
        received = super()._receive()
        if listener._sock is not socket:  # noqa: SLF001
            # Opened anew: the poller knows the old one alone. It registers and subscribes who has none.
            listener.disconnect()
            self._in_listen = None
        return received

    def _receive_one(self, c: Any) -> Any:
        return super()._receive_one(_Impatient(c))

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


class Transport(redis_transport.Transport):
    """Remembers the element that is being delivered, for the case that it is no message."""

    Channel = Channel
    element: object = None

    def _deliver(self, message: Any, queue: str) -> None:
        self.element = message
        super()._deliver(message, queue)
