"""The fault transport: h2 on asyncio, for what granian cannot do.

RST_STREAM, GOAWAY with a reason, SETTINGS changes, blackholes, cut connections, bodies that stop halfway, one
stream until the first good credentials, optional client certificates. Five times the CPU of `fast`.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import Any

from .authority import Certificates
from .exchange import Connection
from .http1 import Http1Connection
from .http2 import Http2Connection
from .stage import ControlError, Stage, Vendor

_ACTIONS: dict[str, Callable[[Http2Connection, dict[str, Any]], None]] = {
    "goaway": lambda it, values: it.goaway(
        values.get("reason"), values.get("last_stream_id"), values.get("error_code", 0)
    ),
    "reset": lambda it, _: it.cut(),
    "blackhole": lambda it, _: it.blackhole(),
    "settings": lambda it, values: it.limit_streams(int(values["max_concurrent_streams"])),
}


class FaultTransport:
    """Listens on one port for one vendor, and holds its connections. Lives on the process's loop."""

    answers_missing: frozenset[str] = frozenset()

    def __init__(
        self, vendor: Vendor, stage: Stage, certificates: Certificates, *, is_sandbox: bool = False,
        is_http2_only: bool = False, has_warm_up: bool = False, certificate_topic: str | None = None,
    ) -> None:  # fmt: skip
        self._vendor = vendor
        self._stage = stage
        self._certificates = certificates
        self._is_sandbox = is_sandbox
        self._is_http2_only = is_http2_only
        self._has_warm_up = has_warm_up
        self._certificate_topic = certificate_topic
        self._connections: set[Http2Connection] = set()
        self._server: asyncio.Server | None = None

    async def start(self, host: str, port: int) -> None:
        """Start listening on a port that the process holds reserved."""
        self._server = await asyncio.get_running_loop().create_server(
            lambda: _Negotiation(self), host, port, ssl=self._context(), reuse_port=True, backlog=1024
        )

    async def stop(self) -> None:
        """Stop listening and close every connection."""
        if self._server is not None:
            self._server.close()
        for connection in list(self._connections):
            connection.cut()

    def disturb(self, action: str, values: dict[str, Any]) -> int:
        """Do something to all open HTTP/2 connections; return to how many."""
        act = _ACTIONS.get(action)
        if act is None:
            raise ControlError(f"action must be one of {', '.join(_ACTIONS)}")
        connections = list(self._connections)
        for connection in connections:
            act(connection, values)
        return len(connections)

    def choose(self, transport: Any) -> asyncio.Protocol | None:
        """Return what speaks the negotiated protocol; `None` when the vendor speaks no such thing."""
        tls = transport.get_extra_info("ssl_object")
        has_certificate = self._certificate_topic is not None and bool(tls.getpeercert())
        connection = Connection(self._certificate_topic if has_certificate else None, self._is_sandbox)
        if tls.selected_alpn_protocol() == "h2":
            return _Tracked(
                self._vendor.handle, connection, self._latency,
                has_warm_up=self._has_warm_up and not has_certificate, among=self._connections,
                on_cut_off=self._count_cut_off,
            )  # fmt: skip
        return (
            None if self._is_http2_only else Http1Connection(self._vendor.handle, connection, self._latency)
        )

    def _count_cut_off(self, receipts: int) -> None:
        self._stage.tally["answer_cut_off"] += receipts

    def _latency(self) -> float:
        return self._stage.latency_seconds

    def _context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self._certificates.chain_file, self._certificates.key_file)
        context.set_alpn_protocols(["h2"] if self._is_http2_only else ["h2", "http/1.1"])
        if self._certificate_topic is not None:
            context.load_verify_locations(self._certificates.ca_file)
            context.verify_mode = ssl.CERT_OPTIONAL
        return context


class _Negotiation(asyncio.Protocol):
    """Waits for the end of the handshake, then hands the connection to what was negotiated."""

    def __init__(self, owner: FaultTransport) -> None:
        self._owner = owner

    def connection_made(self, transport: Any) -> None:
        protocol = self._owner.choose(transport)
        if protocol is None:
            transport.close()
            return
        transport.set_protocol(protocol)
        protocol.connection_made(transport)


class _Tracked(Http2Connection):
    """An HTTP/2 connection that the transport can find while it is open."""

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
