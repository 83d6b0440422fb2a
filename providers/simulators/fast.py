"""The fast transport: granian speaks HTTP/2, HTTP/1.1 and TLS, and Python only decides.

It plays every decision that is an HTTP response, and silence. Frames are out of its reach: see `fault`.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any, Protocol

from granian.constants import HTTPModes, Interfaces, SSLProtocols, TaskImpl
from granian.http import HTTP1Settings, HTTP2Settings
from granian.server.embed import Server

from .authority import Certificates
from .exchange import FRAME_EFFECTS, Connection, Effect, Request
from .stage import TRANSPORT_ANSWERS, Stage, Vendor

_MAX_STREAMS = 1000
# granian does not say when a connection ends, and its address may come again: forget what idles.
_CONNECTION_IDLE_SECONDS = 120
_SWEEP_SECONDS = 30
_STOP_SECONDS = 0.5


class Exchange(Protocol):
    """granian's side of one request."""

    async def __call__(self) -> bytes:
        """Read the body."""

    async def client_disconnect(self) -> None:
        """Wait until the client leaves."""

    def response_bytes(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        """Answer."""


class FastTransport:
    """Listens on one port for one vendor. `start` returns when it listens; lives on the process's loop."""

    answers_missing = frozenset(name for name, effect in TRANSPORT_ANSWERS.items() if effect in FRAME_EFFECTS)

    def __init__(
        self, vendor: Vendor, stage: Stage, certificates: Certificates, *, is_sandbox: bool = False,
        is_http2_only: bool = False, certificate_topic: str | None = None,
    ) -> None:  # fmt: skip
        self._vendor = vendor
        self._stage = stage
        self._certificates = certificates
        self._is_sandbox = is_sandbox
        self._is_http2_only = is_http2_only
        self._certificate_topic = certificate_topic
        self._connections: dict[str, Connection] = {}
        self._server: Any = None
        self._serving: asyncio.Task[None] | None = None
        self._delays = _Delays()

    async def start(self, host: str, port: int) -> None:
        """Start listening on a port that the process holds reserved."""
        is_listening = asyncio.Event()
        self._server = Server(
            self._answer, address=host, port=port, interface=Interfaces.RSGI, websockets=False,
            log_enabled=False,
            http=HTTPModes.http2 if self._is_http2_only else HTTPModes.auto, task_impl=TaskImpl.asyncio,
            backlog=1024, backpressure=100_000,
            http1_settings=HTTP1Settings(), http2_settings=HTTP2Settings(max_concurrent_streams=_MAX_STREAMS),
            ssl_cert=self._certificates.chain_file, ssl_key=self._certificates.key_file,
            ssl_protocol_min=SSLProtocols.tls12,
            ssl_ca=self._certificates.ca_file if self._certificate_topic else None,
            ssl_client_verify=self._certificate_topic is not None,
        )  # fmt: skip
        self._server.on_startup(is_listening.set)
        self._serving = asyncio.create_task(self._server.serve())
        asyncio.get_running_loop().call_later(_SWEEP_SECONDS, self._forget_idle)
        waiting = asyncio.create_task(is_listening.wait())
        await asyncio.wait({waiting, self._serving}, return_when=asyncio.FIRST_COMPLETED)
        if self._serving.done():
            self._serving.result()

    async def stop(self) -> None:
        """Stop listening, waiting a moment for requests in flight."""
        self._server.stop()
        if self._serving is not None:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(asyncio.shield(self._serving), _STOP_SECONDS)

    def disturb(self, action: str, values: dict[str, Any]) -> int:
        """Refuse: granian lets nobody reach its connections."""
        raise ValueError(f"{action} needs --engine fault {values or ''}".strip())

    async def _answer(self, scope: Any, exchange: Exchange) -> None:
        body = await exchange()
        request = Request(
            scope.method, scope.path, scope.query_string, scope.headers, body, self._connection(scope.client)
        )
        decision = self._vendor.handle(request)
        delay = self._stage.latency_seconds + decision.delay_seconds
        if delay:
            await self._delays.wait(delay)
        if decision.effect is not Effect.ANSWER:
            await exchange.client_disconnect()
            return
        exchange.response_bytes(decision.status, decision.headers, decision.body)

    def _connection(self, client: str) -> Connection:
        connection = self._connections.get(client)
        if connection is None:
            connection = Connection(self._certificate_topic, self._is_sandbox)
            self._connections[client] = connection
        connection.last_used_at = time.monotonic()
        return connection

    def _forget_idle(self) -> None:
        limit = time.monotonic() - _CONNECTION_IDLE_SECONDS
        self._connections = {
            client: it for client, it in self._connections.items() if it.last_used_at > limit
        }
        asyncio.get_running_loop().call_later(_SWEEP_SECONDS, self._forget_idle)


class _Delays:
    """Waits that end together: a timer for each millisecond instead of one for each request, half of its cost."""

    def __init__(self) -> None:
        self._ends: dict[int, asyncio.Future[None]] = {}

    async def wait(self, seconds: float) -> None:
        """Wait at least so long, and at most a millisecond more."""
        loop = asyncio.get_running_loop()
        tick = int((loop.time() + seconds) * 1000) + 1
        end = self._ends.get(tick)
        if end is None:
            end = self._ends[tick] = loop.create_future()
            loop.call_at(tick / 1000, self._end, tick)
        await end

    def _end(self, tick: int) -> None:
        end = self._ends.pop(tick)
        if not end.done():
            end.set_result(None)


class Loop(asyncio.SelectorEventLoop):
    """A loop that is woken once for many calls from granian's threads, not once for each.

    `call_soon_threadsafe` writes to a pipe at each call, a third of what a request costs. While a wake-up is
    still unread, further ones are left out: what was scheduled is in the queue by then, and the loop looks at
    its queue again after reading.
    """

    def __init__(self) -> None:
        self._is_woken = False
        super().__init__()

    def _read_from_self(self) -> None:
        super()._read_from_self()  # type: ignore[misc]  # private to asyncio, absent from its types
        self._is_woken = False

    def _write_to_self(self) -> None:
        if not self._is_woken:
            self._is_woken = True
            super()._write_to_self()  # type: ignore[misc]  # private to asyncio, absent from its types
