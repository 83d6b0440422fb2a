"""A client that costs next to nothing: `python -m bench.http_client`, in a process of its own.

1. It reads a job from its standard input, a line of JSON, opens its connections, prepares every request as bytes and
   says `ready`.
2. At a second line it publishes: as fast as it is answered, or at a steady rate. A connection has one request out.
3. It answers with a line of JSON and waits to be told to end, so that what it has spent can still be read.

At a steady rate a request's time counts from when it was due: a server that stalls is not excused.
"""

from __future__ import annotations

import json
import select
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Self

_ACCEPTED = b"HTTP/1.1 202"
_HEAD_ENDS = b"\r\n\r\n"
_LENGTH = b"content-length:"
_READ_BYTES = 262_144
_SILENT_SECONDS = 60.0


class NotAccepted(Exception):
    """The server answered something else than 202, or nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What to publish: an event for each user, its id made of the prefix and its number, all with one message.

    `in_a_list` events to a request; with 1 each is a request for itself. `rate` requests a second, as fast as possible
    if `None`.
    """

    host: str
    port: int
    key: str
    prefix: str
    users: Sequence[str]
    message: Mapping[str, Any]
    connections: int
    in_a_list: int = 1
    rate: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """When the first request was sent, and how long each one took until its 202."""

    began_at: float
    seconds: Sequence[float]


def requests_of(job: Job) -> list[bytes]:
    """Prepare the requests of a job."""
    message = json.dumps(job.message)
    if job.in_a_list == 1:
        return [
            _request(
                job, f"/v1/users/{user}/messages", f'{{"id":"{job.prefix}{number}","message":{message}}}'
            )
            for number, user in enumerate(job.users)
        ]
    events = [
        f'{{"kind":"direct","id":"{job.prefix}{number}","users":["{user}"],"message":{message}}}'
        for number, user in enumerate(job.users)
    ]
    lists = (events[start : start + job.in_a_list] for start in range(0, len(events), job.in_a_list))
    return [_request(job, "/v1/events", f'{{"events":[{",".join(one)}]}}') for one in lists]


def _request(job: Job, path: str, body: str) -> bytes:
    content = body.encode()
    head = (
        f"POST {path} HTTP/1.1\r\nhost: {job.host}:{job.port}\r\nauthorization: Bearer {job.key}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


class _Wire:
    """One connection that is kept alive."""

    def __init__(self, job: Job) -> None:
        self.socket = socket.create_connection((job.host, job.port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.asked_at = 0.0
        self._received = b""

    def ask(self, request: bytes, asked_at: float) -> None:
        """Send a request that counts from a given instant."""
        self.asked_at = asked_at
        self.socket.sendall(request)

    def is_answered(self) -> bool:
        """Read what is there; tell whether the answer is complete. Raises `NotAccepted`."""
        received = self.socket.recv(_READ_BYTES)
        self._received += received
        head, found, body = self._received.partition(_HEAD_ENDS)
        if not received or (found and not head.startswith(_ACCEPTED)):
            raise NotAccepted(self._received.decode(errors="replace")[:2_000] or "the connection was closed")
        if not found:
            return False
        length = head[head.index(_LENGTH) + len(_LENGTH) :].partition(b"\r\n")[0]
        if len(body) < int(length):
            return False
        self._received = b""
        return True


def publish(job: Job, wires: Sequence[_Wire], requests: Sequence[bytes]) -> Published:
    """Send all requests and wait for their answers. Raises `NotAccepted`."""
    by_number = {wire.socket.fileno(): wire for wire in wires}
    poll = select.epoll()
    for number in by_number:
        poll.register(number, select.EPOLLIN)
    free, waiting = deque(wires), deque(requests)
    seconds: list[float] = []
    pause = 0.0 if job.rate is None else 1 / job.rate
    began_at, due_at = time.time(), time.monotonic()
    while len(seconds) < len(requests):
        now = time.monotonic()
        while free and waiting and now >= due_at:
            free.popleft().ask(waiting.popleft(), due_at if pause else now)
            due_at += pause
        rest = max(0.0, due_at - time.monotonic()) if free and waiting else _SILENT_SECONDS
        found = poll.poll(rest)
        if not found and rest == _SILENT_SECONDS:
            raise NotAccepted(f"no answer for {_SILENT_SECONDS:.0f} s")
        for number, _ in found:
            wire = by_number[number]
            if wire.is_answered():
                seconds.append(time.monotonic() - wire.asked_at)
                free.append(wire)
    return Published(began_at=began_at, seconds=seconds)


class Client:
    """The process, ready to publish its job once."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.pid = process.pid

    @classmethod
    def start(cls, job: Job) -> Self:
        """Start it and wait until it is ready. Whoever starts it must `close` it."""
        process = subprocess.Popen(
            [sys.executable, "-m", "bench.http_client"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        client = cls(process)
        client._say(json.dumps(asdict(job)))
        client._hear()
        return client

    def publish(self) -> Published:
        """Let it publish. Raises `NotAccepted`."""
        self._say("publish")
        return Published(**json.loads(self._hear()))

    def close(self) -> None:
        """End it."""
        with self._process:
            pass  # which closes its input, and waits for it

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def _hear(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise NotAccepted("the client ended; it said why above")
        return line


@contextmanager
def open_client(job: Job) -> Iterator[Client]:
    """Start a client, and end it."""
    client = Client.start(job)
    try:
        yield client
    finally:
        client.close()


def main() -> None:
    """Do the job on the standard input."""
    job = Job(**json.loads(sys.stdin.readline()))
    requests, wires = requests_of(job), [_Wire(job) for _ in range(job.connections)]
    print("ready", flush=True)
    if sys.stdin.readline():
        print(json.dumps(asdict(publish(job, wires, requests))), flush=True)
        sys.stdin.readline()


if __name__ == "__main__":
    main()
