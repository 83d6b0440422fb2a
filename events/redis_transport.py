"""kombu's Redis transport, with one difference: a channel keeps its client.

kombu makes a client for each operation, and a client a table of some hundred and seventy commands: that took a third of
the CPU for a message.
"""

from __future__ import annotations

from typing import Any

from kombu.transport import redis


class Channel(redis.Channel):  # type: ignore[misc]  # kombu's types do not cover its transports
    """Makes a client once for each pool of connections; there is another pool after a fork."""

    _kept: tuple[Any, Any] | None = None

    def _create_client(self, asynchronous: bool = False) -> Any:  # noqa: FBT001, FBT002  kombu's signature
        if asynchronous:
            return super()._create_client(asynchronous=True)
        pool = self.pool
        if self._kept is None or self._kept[0] is not pool:
            self._kept = pool, super()._create_client()
        return self._kept[1]


class Transport(redis.Transport):  # type: ignore[misc]
    """Makes such channels."""

    Channel = Channel
