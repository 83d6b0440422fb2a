"""A receiver of webhooks: a real HTTP server that keeps what it got and answers as it is told."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from events import verify_webhook


@dataclass(slots=True, kw_only=True)
class Got:
    """One request."""

    headers: dict[str, str]
    body: bytes
    path: str


@dataclass(slots=True, kw_only=True)
class Receiver:
    """`answers` are statuses, used up one by one; the last one stays. `before` runs before each answer."""

    url: str = ""
    answers: list[int] = field(default_factory=lambda: [204])
    headers: dict[str, str] = field(default_factory=dict)
    content: bytes = b""
    is_endless: bool = False
    got: list[Got] = field(default_factory=list)
    before: Callable[[], None] = lambda: None

    def documents(self, secret: str) -> list[dict[str, Any]]:
        """Verify everything that came, and read it."""
        return [verify_webhook(one.body, one.headers, secret, now=time.time()) for one in self.got]

    def events(self, secret: str) -> list[dict[str, Any]]:
        """Give the events of all messages, in the order in which they came."""
        return [event for document in self.documents(secret) for event in document["events"]]


@contextmanager
def receiving(
    *, host: str = "127.0.0.1", port: int = 0, context: ssl.SSLContext | None = None
) -> Iterator[Receiver]:
    """Run a receiver, with TLS if there is a context."""
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            receiver.got.append(Got(headers=dict(self.headers), body=body, path=self.path))
            receiver.before()
            status = receiver.answers.pop(0) if len(receiver.answers) > 1 else receiver.answers[0]
            self.send_response(status)
            for name, value in receiver.headers.items():
                self.send_header(name, value)
            if not receiver.is_endless:
                self.send_header("content-length", str(len(receiver.content)))
            self.end_headers()
            self.wfile.write(receiver.content)
            while receiver.is_endless:
                self.wfile.write(b"x" * 65_536)  # until the client leaves

        def log_message(self, *_: object) -> None:
            """Say nothing."""

        def handle(self) -> None:
            """Serve, whatever the client does meanwhile."""
            try:
                super().handle()
            except OSError:
                self.close_connection = True

    with ThreadingHTTPServer((host, port), Handler) as server:
        if context is not None:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        receiver.url = f"{'https' if context else 'http'}://{host}:{server.server_address[1]}/hook"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield receiver
        finally:
            server.shutdown()
            thread.join()
