"""HTTP/1.1 on asyncio: the control API, and the vendors' HTTP/1.1 under the fault engine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import h11

from .exchange import Connection, Decision, Effect, HeaderTable, Request

Handler = Callable[[Request], Decision]
_BODILESS = frozenset({204, 304})


class Http1Connection(asyncio.Protocol):
    """One HTTP/1.1 connection with keep-alive, one request at a time.

    A frame-level effect becomes the nearest thing that HTTP/1.1 has: the connection is cut.
    """

    def __init__(self, handler: Handler, connection: Connection, latency: Callable[[], float]) -> None:
        self._handler = handler
        self._connection = connection
        self._latency = latency
        self._h11 = h11.Connection(h11.SERVER)
        self._head: h11.Request | None = None
        self._body = bytearray()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: Any) -> None:
        """Keep the transport."""
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the transport, so that late answers are dropped."""
        del exc
        self._transport = None

    def data_received(self, data: bytes) -> None:
        """Read as many requests as there are."""
        self._h11.receive_data(data)
        self._advance()

    def _advance(self) -> None:
        try:
            while True:
                event = self._h11.next_event()
                if event is h11.NEED_DATA or event is h11.PAUSED:
                    return
                if isinstance(event, h11.ConnectionClosed):
                    self._close()
                    return
                self._take(event)
        except h11.RemoteProtocolError:
            self._close()

    def _take(self, event: Any) -> None:
        if isinstance(event, h11.Request):
            self._head, self._body = event, bytearray()
        elif isinstance(event, h11.Data):
            self._body += event.data
        elif isinstance(event, h11.EndOfMessage) and self._head is not None:
            self._dispatch(self._head)

    def _dispatch(self, head: h11.Request) -> None:
        path, _, query = head.target.decode("ascii", "replace").partition("?")
        headers = HeaderTable(
            [(name.decode(), value.decode("utf-8", "replace")) for name, value in head.headers]
        )
        request = Request(head.method.decode(), path, query, headers, bytes(self._body), self._connection)
        decision = self._handler(request)
        delay = self._latency() + decision.delay_seconds
        if delay:
            asyncio.get_running_loop().call_later(delay, self._play, decision)
        else:
            self._play(decision)

    def _play(self, decision: Decision) -> None:
        transport = self._transport
        if transport is None or decision.effect is Effect.SILENCE:
            return
        if decision.effect is Effect.BLACKHOLE:
            transport.pause_reading()
            return
        if decision.effect is Effect.TRUNCATE:
            self._write(decision, decision.body[: len(decision.body) // 2])
        if decision.effect is not Effect.ANSWER:
            transport.abort()
            return
        self._write(decision, decision.body)
        self._h11.send(h11.EndOfMessage())
        if self._h11.our_state is h11.MUST_CLOSE:
            self._close()
            return
        self._h11.start_next_cycle()
        self._advance()

    def _write(self, decision: Decision, body: bytes) -> None:
        length = [] if decision.status in _BODILESS else [("content-length", str(len(decision.body)))]
        head = h11.Response(status_code=decision.status, headers=[*decision.headers, *length])
        data = (self._h11.send(head) or b"") + (self._h11.send(h11.Data(data=body)) or b"")
        if self._transport is not None:
            self._transport.write(data)

    def _close(self) -> None:
        if self._transport is not None:
            self._transport.close()
