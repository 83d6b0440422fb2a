"""An HTTP/2 server over TLS on a thread of its own that does what the path of a request tells it."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import h2.config
import h2.connection
import h2.errors
import h2.events
import trustme


@dataclass
class Received:
    """One request, complete with its body."""

    path: str
    headers: dict[str, str]
    body: bytes
    connection: int
    stream: int


@dataclass
class ScriptedServer:
    """What happened: every complete request and every connection. `url` ends without a slash."""

    url: str = ""
    ca_file: str = ""
    requests: list[Received] = field(default_factory=list)
    connections: int = 0
    most_open_streams: int = 0
    stop_listening: Callable[[], None] = lambda: None

    def paths(self) -> list[str]:
        """The paths requested so far, in order of arrival."""
        return [request.path for request in self.requests]


class _Connection(asyncio.Protocol):
    def __init__(self, server: ScriptedServer, open_transports: set[asyncio.Transport]) -> None:
        self.server = server
        self.open_transports = open_transports
        server.connections += 1
        self.number = server.connections
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        self.partial: dict[int, tuple[dict[str, str], bytearray]] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.open_transports.add(transport)
        self.h2.initiate_connection()
        self.flush()

    def connection_lost(self, exc: Exception | None) -> None:
        self.open_transports.discard(self.transport)

    def flush(self) -> None:
        if data := self.h2.data_to_send():
            self.transport.write(data)

    def data_received(self, data: bytes) -> None:
        for event in self.h2.receive_data(data):
            if isinstance(event, h2.events.RequestReceived):
                headers = {name.decode(): value.decode() for name, value in event.headers}
                self.partial[event.stream_id] = (headers, bytearray())
                self.server.most_open_streams = max(self.server.most_open_streams, len(self.partial))
            elif isinstance(event, h2.events.DataReceived):
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                if event.stream_id in self.partial:
                    self.partial[event.stream_id][1].extend(event.data)
            elif isinstance(event, h2.events.StreamEnded):
                if event.stream_id in self.partial:
                    self.finish(event.stream_id)
            elif isinstance(event, h2.events.StreamReset):
                self.partial.pop(event.stream_id, None)
        self.flush()

    def finish(self, stream: int) -> None:
        headers, body = self.partial[stream]
        path = headers[":path"]
        self.server.requests.append(
            Received(path=path, headers=headers, body=bytes(body), connection=self.number, stream=stream)
        )
        parts = urlsplit(path)
        options = {name: values[0] for name, values in parse_qs(parts.query).items()}
        is_first = self.server.paths().count(path) == 1
        getattr(self, f"do_{parts.path.strip('/')}")(stream, options, bytes(body), is_first=is_first)

    def answer(self, stream: int, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.partial.pop(stream, None)
        self.h2.send_headers(stream, [(":status", str(status)), *headers])
        self.h2.send_data(stream, body[:1000], end_stream=True)

    def do_answer(self, stream: int, options: dict[str, str], body: bytes, *, is_first: bool) -> None:
        """Answer with the beginning of the request's body, and a status of the caller's choice."""
        status = int(options.get("status", "200"))
        if options.get("interim"):
            self.h2.send_headers(stream, [(":status", "103"), ("retry-after", "999")])
            self.answer(stream, status, [], body)
            return
        sent_with = self.partial[stream][0].get("authorization", "")
        told = [("retry-after", "7"), ("x-connection", str(self.number)), ("x-authorization", sent_with)]
        self.answer(stream, status, told, body)

    def do_location(self, stream: int, options: dict[str, str], body: bytes, *, is_first: bool) -> None:
        """Answer with a redirect."""
        self.answer(stream, 302, [("location", f"{self.server.url}/answer")], b"")

    def do_hang(self, stream: int, options: dict[str, str], body: bytes, *, is_first: bool) -> None:
        """Never answer."""

    def do_reset(self, stream: int, options: dict[str, str], body: bytes, *, is_first: bool) -> None:
        """Reset the stream, with the error code the caller names; `once` answers the second time."""
        if options.get("once") and not is_first:
            self.answer(stream, 200, [], body)
            return
        self.partial.pop(stream, None)
        self.h2.reset_stream(stream, h2.errors.ErrorCodes[options.get("code", "INTERNAL_ERROR")])

    def do_goaway(self, stream: int, options: dict[str, str], body: bytes, *, is_first: bool) -> None:
        """Say goodbye naming `last` as the last stream, and close; `once` answers the second time."""
        if options.get("once") and not is_first:
            self.answer(stream, 200, [], body)
            return
        last = int(options["last"]) if "last" in options else stream
        self.h2.close_connection(last_stream_id=last)
        self.flush()
        self.transport.close()
        if options.get("deaf"):
            self.server.stop_listening()

    def do_abort(self, stream: int, options: dict[str, str], body: bytes, *, is_first: bool) -> None:
        """Close the connection without a word."""
        self.transport.abort()


@contextmanager
def scripted_server(directory: Path) -> Iterator[ScriptedServer]:
    """Run a server on a free port of loopback until the block ends."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    context.set_alpn_protocols(["h2"])
    authority.cert_pem.write_to_path(directory / "ca.pem")
    server = ScriptedServer(ca_file=str(directory / "ca.pem"))
    loop = asyncio.new_event_loop()
    transports: set[asyncio.Transport] = set()
    listening = loop.run_until_complete(
        loop.create_server(lambda: _Connection(server, transports), "127.0.0.1", 0, ssl=context)
    )
    server.url = f"https://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    server.stop_listening = listening.close
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        asyncio.run_coroutine_threadsafe(_close(listening, transports), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


async def _close(listening: asyncio.Server, transports: set[asyncio.Transport]) -> None:
    """Stop listening, cut every connection, and let the loop see that they are gone."""
    listening.close()
    for transport in tuple(transports):
        transport.abort()
    for _ in range(5000):
        if not transports:
            break
        await asyncio.sleep(0.001)
    await asyncio.sleep(0.01)  # connections that never got through TLS end here
