"""A port of a vendor's API: TLS, the choice of the protocol, and the connections that come."""

from __future__ import annotations

import asyncio
import ssl
from abc import ABC, abstractmethod
from typing import Any

from .authority import Certificates
from .exchange import Connection
from .http1 import Http1Connection
from .stage import Stage, Vendor


class Listener(ABC):
    """Listens on one port for one vendor. Lives on the process's loop; an engine says how it speaks HTTP/2.

    `certificate_topic`: clients may come with a certificate of the simulator's authority, which is for this topic.
    """

    answers_missing: frozenset[str] = frozenset()
    certificates_wanted = ssl.CERT_OPTIONAL

    def __init__(
        self, vendor: Vendor, stage: Stage, certificates: Certificates, *, is_sandbox: bool = False,
        is_http2_only: bool = False, certificate_topic: str | None = None,
    ) -> None:  # fmt: skip
        self.vendor = vendor
        self.stage = stage
        self._certificates = certificates
        self._is_sandbox = is_sandbox
        self._is_http2_only = is_http2_only
        self._certificate_topic = certificate_topic
        self._server: asyncio.Server | None = None

    @abstractmethod
    def speak_http2(self, connection: Connection) -> asyncio.Protocol:
        """Make what speaks HTTP/2 on a new connection."""

    @abstractmethod
    def disturb(self, action: str, values: dict[str, Any]) -> int:
        """Do something to all open HTTP/2 connections; return to how many. Raises `ControlError`."""

    async def start(self, host: str, port: int) -> None:
        """Start listening on a port that the process holds reserved."""
        self._server = await asyncio.get_running_loop().create_server(
            lambda: _Negotiation(self), host, port, ssl=self._context(), reuse_port=True, backlog=1024
        )

    async def stop(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.close()

    def choose(self, transport: Any) -> asyncio.Protocol | None:
        """Return what speaks the negotiated protocol; `None` when the vendor speaks no such thing."""
        tls = transport.get_extra_info("ssl_object")
        has_certificate = self._certificate_topic is not None and bool(tls.getpeercert())
        connection = Connection(self._certificate_topic if has_certificate else None, self._is_sandbox)
        if tls.selected_alpn_protocol() == "h2":
            return self.speak_http2(connection)
        return None if self._is_http2_only else Http1Connection(self.vendor.handle, connection, self.latency)

    def latency(self) -> float:
        """Return the general latency in seconds."""
        return self.stage.latency_seconds

    def _context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self._certificates.chain_file, self._certificates.key_file)
        context.set_alpn_protocols(["h2"] if self._is_http2_only else ["h2", "http/1.1"])
        if self._certificate_topic is not None:
            context.load_verify_locations(self._certificates.ca_file)
            context.verify_mode = self.certificates_wanted
        return context


class _Negotiation(asyncio.Protocol):
    """Waits for the end of the handshake, then hands the connection to what was negotiated."""

    def __init__(self, owner: Listener) -> None:
        self._owner = owner

    def connection_made(self, transport: Any) -> None:
        protocol = self._owner.choose(transport)
        if protocol is None:
            transport.close()
            return
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
