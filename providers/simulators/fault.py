"""The fault engine: h2 on asyncio, for what only a server that has gone wrong does, and it alone is strict.

RST_STREAM, GOAWAY with a reason, SETTINGS changes, blackholes, cut connections, bodies that stop halfway, one
stream until the first good credentials, optional client certificates. Many times the CPU of `fast`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .exchange import Connection
from .http2 import Http2Connection
from .listener import Listener
from .stage import ControlError

_ACTIONS: dict[str, Callable[[Http2Connection, dict[str, Any]], None]] = {
    "goaway": lambda it, values: it.goaway(
        values.get("reason"), values.get("last_stream_id"), values.get("error_code", 0)
    ),
    "reset": lambda it, _: it.cut(),
    "blackhole": lambda it, _: it.blackhole(),
    "settings": lambda it, values: it.limit_streams(int(values["max_concurrent_streams"])),
}


class FaultListener(Listener):
    """Holds its connections, so that they can be disturbed."""

    def __init__(self, *arguments: Any, has_warm_up: bool = False, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._has_warm_up = has_warm_up
        self._connections: set[Http2Connection] = set()

    def speak_http2(self, connection: Connection) -> Http2Connection:
        """Make a connection that is found while it is open."""
        return _Tracked(
            self.vendor.handle, connection, self.latency,
            has_warm_up=self._has_warm_up and connection.certificate_topic is None, among=self._connections,
            on_cut_off=self._count_cut_off,
        )  # fmt: skip

    def disturb(self, action: str, values: dict[str, Any]) -> int:
        """Do something to all open HTTP/2 connections; return to how many."""
        act = _ACTIONS.get(action)
        if act is None:
            raise ControlError(f"action must be one of {', '.join(_ACTIONS)}")
        connections = list(self._connections)
        for connection in connections:
            act(connection, values)
        return len(connections)

    async def stop(self) -> None:
        """Stop listening and close every connection."""
        await super().stop()
        for connection in list(self._connections):
            connection.cut()

    def _count_cut_off(self, receipts: int) -> None:
        self.stage.tally["answer_cut_off"] += receipts


class _Tracked(Http2Connection):
    """An HTTP/2 connection that the listener can find while it is open."""

    def __init__(
        self, *arguments: Any, has_warm_up: bool, among: set[Http2Connection],
        on_cut_off: Callable[[int], None],
    ) -> None:  # fmt: skip
        super().__init__(*arguments, has_warm_up=has_warm_up, on_cut_off=on_cut_off)
        self._among = among

    def connection_made(self, transport: Any) -> None:
        self._among.add(self)
        super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._among.discard(self)
        super().connection_lost(exc)
