"""A relay between a client and a server, which lets a test lose an answer."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from typing import Self


class Relay:
    """Forwards one request at a time. While `on_answer` is set, the next answer is lost: that is called instead."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.on_answer: Callable[[], None] | None = None
        self.lost = 0
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def _run(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with client:
                self._forward(client)

    def _forward(self, client: socket.socket) -> None:
        with socket.create_connection(("127.0.0.1", self._to)) as server:
            while request := _read_message(client):
                server.sendall(request)
                answer = _read_message(server)
                if self.on_answer is not None:
                    lose, self.on_answer = self.on_answer, None
                    self.lost += 1
                    lose()
                    return
                client.sendall(answer)


def _read_message(peer: socket.socket) -> bytes:
    """Read a head and the body whose length it tells; nothing when the peer has left."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = peer.recv(65_536)
        if not piece:
            return b""
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    lengths = [
        line.split(b":")[1] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")
    ]
    while len(body) < int(lengths[0]):
        body += peer.recv(65_536)
    return head + b"\r\n\r\n" + body
