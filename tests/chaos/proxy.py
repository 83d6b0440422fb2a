"""A TCP proxy that stands before PostgreSQL or the broker and misbehaves when told to.

    with Proxy(valkey.url, seed=7) as proxy:
        use(proxy.url)
        proxy.black_hole()
        ...
        proxy.heal()

1. `refuse`: connections are cut and the port is closed, as if the server were down.
2. `black_hole`: packets vanish in both directions without a word, those of new connections too. On Linux a filter on
   the sockets drops them before they are acknowledged, so a client's own time-outs see what they would see behind a
   firewall that forgot. What was half open stays so; after `heal` new connections pass.
3. `delay`: each packet takes its time, each way.
4. `cut`: all connections are reset now.
5. `drop_pops`: Redis's reply to a BRPOP that took an element is swallowed and the connection cut: the element is on no
   list any more, and nobody has it.
6. `cut_commits`: a COMMIT, or a statement that is a transaction by itself, reaches PostgreSQL and is done, its reply
   is swallowed and the connection cut.

The faults of 5 and 6 strike by chance, by the proxy's own seed, and are counted in `struck`. TLS is not looked into.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import random
import re
import socket
import struct
import sys
import threading
from asyncio.trsock import TransportSocket
from collections import Counter, deque
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Final, Self, TypeVar
from urllib.parse import urlsplit, urlunsplit

from gateway.local.ports import LOOPBACK, find_free_port

T = TypeVar("T")

_PATIENCE_SECONDS: Final = 10.0
_RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER with no time: closing sends RST
_SO_ATTACH_FILTER: Final = 26
_SO_DETACH_FILTER: Final = 27

# https://redis.io/docs/latest/develop/reference/protocol-spec/ : kombu sends nothing else behind a BRPOP.
_POP: Final = re.compile(rb"\A\*\d+\r\n\$5\r\nBRPOP\r\n", re.IGNORECASE)
_NOTHING_POPPED: Final = (b"*-1\r\n", b"_\r\n", b"-")
# https://www.postgresql.org/docs/current/protocol-message-formats.html : Query or, in a pipeline, Parse.
# What runs something: Query, Parse, Bind; and that the server is ready again with no transaction open.
_RUNS: Final = (b"Q", b"P", b"B")
_COMMITTED: Final = b"Z\0\0\0\x05I"


@dataclass(slots=True, kw_only=True)
class _Faults:
    """What the proxy does to its connections now, and the connections."""

    target: tuple[str, int]
    random: random.Random
    struck: Counter[str] = field(default_factory=Counter)
    lines: set[_Line] = field(default_factory=set)
    is_dark: bool = False
    delay_seconds: float = 0.0
    pop_share: float = 0.0
    commit_share: float = 0.0

    @property
    def is_listening(self) -> bool:
        """Whether what clients say must be looked at."""
        return self.pop_share > 0 or self.commit_share > 0

    def strikes(self, what: str, share: float) -> bool:
        """Choose whether an answer is lost."""
        if share <= 0 or self.random.random() >= share:
            return False
        self.struck[what] += 1
        return True


class Proxy:
    """A proxy on a loopback port of its own, in a thread. Its methods return when what they ask for holds.

    Used by one thread. `url` is the server's with the proxy's address in it.
    """

    def __init__(self, url: str, *, seed: int = 0) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        assert parts.port is not None
        self.port = find_free_port()
        userinfo, at, _ = parts.netloc.rpartition("@")
        self.url = urlunsplit(parts._replace(netloc=f"{userinfo}{at}{LOOPBACK}:{self.port}"))
        self._faults = _Faults(target=(parts.hostname, parts.port), random=random.Random(seed))
        self._listener: asyncio.Server | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()
        self._call(self._listen())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def struck(self) -> Counter[str]:
        """How many answers were lost by chance: to each `pop`, to each `commit`."""
        return self._faults.struck

    def heal(self) -> None:
        """Pass everything again, except what went into the black hole."""
        faults = self._faults
        faults.delay_seconds = faults.pop_share = faults.commit_share = 0.0
        self._call(self._light())
        self._call(self._listen())

    def refuse(self) -> int:
        """Close the port and cut what is open. Returns how many connections were cut."""
        self._call(self._unlisten())
        return self.cut()

    def black_hole(self) -> None:
        """Let every packet vanish from now on."""
        self._call(self._darken())

    def delay(self, seconds: float) -> None:
        """Hold each packet back this long, each way."""
        self._faults.delay_seconds = seconds

    def cut(self) -> int:
        """Reset all connections. Returns how many."""
        return self._call(self._cut())

    def drop_pops(self, share: float = 1.0) -> None:
        """Swallow this share of the replies to BRPOP that carry an element, and cut the connection."""
        self._faults.pop_share = share

    def cut_commits(self, share: float = 1.0) -> None:
        """Cut the connection after this share of what commits, before the reply reaches the client."""
        self._faults.commit_share = share

    def connections(self) -> int:
        """Count what is open, half open included."""
        return len(self._faults.lines)

    def close(self) -> None:
        """Cut everything and end. Harmless when ended already."""
        if self._loop.is_closed():
            return
        self.refuse()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_PATIENCE_SECONDS)
        self._loop.run_until_complete(_finish_tasks())
        self._loop.close()

    def _call(self, work: Coroutine[None, None, T]) -> T:
        """Run on the loop's thread and wait for it."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_PATIENCE_SECONDS)

    async def _listen(self) -> None:
        if self._listener is None:
            listening = socket.create_server((LOOPBACK, self.port), backlog=512)
            self._listener = await self._loop.create_server(
                lambda: _End(_Line(self._loop, self._faults)), sock=listening
            )

    async def _unlisten(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    async def _darken(self) -> None:
        self._faults.is_dark = True
        for line in self._faults.lines:
            line.darken()
        for listening in self._listener.sockets if self._listener else ():
            _drop_packets(listening)

    async def _light(self) -> None:
        self._faults.is_dark = False
        for listening in self._listener.sockets if self._listener else ():
            _pass_packets(listening)

    async def _cut(self) -> int:
        lines = list(self._faults.lines)
        for line in lines:
            line.cut()
        await asyncio.sleep(0)  # what was aborted has closed
        return len(lines)


class _Line:
    """One connection through the proxy: the client's end and the server's."""

    def __init__(self, loop: asyncio.AbstractEventLoop, faults: _Faults) -> None:
        self.loop = loop
        self.faults = faults
        self.client: _End | None = None
        self.server: _End | None = None
        self.is_dark = False
        self._asked: str | None = None
        self._tail = b""

    def begin(self, client: _End) -> None:
        """Connect to the server for a client that has come."""
        self.faults.lines.add(self)
        self.client = client
        client.transport.pause_reading()
        if self.faults.is_dark:
            self.darken()
        self._opening = self.loop.create_task(self._open(client))

    async def _open(self, client: _End) -> None:
        try:
            _, server = await self.loop.create_connection(lambda: _End(self), *self.faults.target)
        except OSError:
            self.cut()
            return
        self.server = server
        if client.transport.is_closing():
            self.cut()
            return
        server.peer, client.peer = client, server
        if self.is_dark:
            self.darken()
        client.transport.resume_reading()

    def darken(self) -> None:
        """Let what both ends say vanish from now on."""
        self.is_dark = True
        for end in self._open_ends():
            _drop_packets(end.transport.get_extra_info("socket"))

    def cut(self) -> None:
        """Reset both ends."""
        self.faults.lines.discard(self)
        for end in (self.client, self.server):
            if end is not None:
                end.reset()

    def end(self) -> None:
        """Forget the line when both ends have closed."""
        if not self._open_ends():
            self.faults.lines.discard(self)

    def _open_ends(self) -> list[_End]:
        ends = (self.client, self.server)
        return [end for end in ends if end is not None and not end.transport.is_closing()]

    def is_lost(self, end: _End, data: bytes) -> bool:
        """Tell whether data from one end goes no further."""
        if self.is_dark:
            return True
        if self._asked is None and not self.faults.is_listening:
            return False
        if end is self.client:
            self._note_question(data)
            return False
        if self._asked is None or not self._is_answer_lost(data):
            return False
        self.cut()
        return True

    def _note_question(self, data: bytes) -> None:
        if _POP.match(data):
            self._asked = "pop"
        elif data.startswith(_RUNS):
            self._asked, self._tail = "commit", b""

    def _is_answer_lost(self, data: bytes) -> bool:
        """Tell whether this is the answer, and chance wants it lost."""
        if self._asked == "pop":
            self._asked = None
            return not data.startswith(_NOTHING_POPPED) and self.faults.strikes("pop", self.faults.pop_share)
        seen, self._tail = self._tail + data, data[-len(_COMMITTED) :]
        if _COMMITTED not in seen:
            return False
        self._asked = None
        return self.faults.strikes("commit", self.faults.commit_share)


class _End(asyncio.Protocol):
    """One socket of a line."""

    def __init__(self, line: _Line) -> None:
        self.peer: _End | None = None
        self._line = line
        self._held: deque[bytes | None] = deque()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._line.client is None:
            self._line.begin(self)

    def data_received(self, data: bytes) -> None:
        if self.peer is not None and not self._line.is_lost(self, data):
            self.peer.pass_on(data)

    def pass_on(self, data: bytes | None) -> None:
        """Write what the other end said, after the delay and in order; `None` is its end."""
        delay_seconds = self._line.faults.delay_seconds
        if delay_seconds > 0 or self._held:
            self._held.append(data)
            self._line.loop.call_later(delay_seconds, lambda: self._write(self._held.popleft()))
        else:
            self._write(data)

    def _write(self, data: bytes | None) -> None:
        if self._line.is_dark:
            return
        if data is None:
            self.transport.close()
        else:
            self.transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._line.is_dark:
            return
        self._line.end()
        if self.peer is not None and isinstance(exc, ConnectionResetError):
            self.peer.reset()
        elif self.peer is not None:
            self.peer.pass_on(None)

    def pause_writing(self) -> None:
        if self.peer is not None:
            self.peer.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.peer is not None:
            self.peer.transport.resume_reading()

    def reset(self) -> None:
        """Close with RST."""
        if not self.transport.is_closing():
            self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.transport.abort()


class _Instruction(ctypes.Structure):
    _fields_ = (
        ("code", ctypes.c_ushort),
        ("if_true", ctypes.c_ubyte),
        ("if_false", ctypes.c_ubyte),
        ("operand", ctypes.c_uint32),
    )


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.POINTER(_Instruction)))


# https://www.kernel.org/doc/html/latest/networking/filter.html : `ret #0` keeps nothing of any packet.
_RETURN_NOTHING: Final = _Instruction(0x06, 0, 0, 0)
_DROP_ALL: Final = _Program(1, ctypes.pointer(_RETURN_NOTHING))


def _drop_packets(sock: socket.socket | TransportSocket) -> None:
    """Drop what arrives before it is acknowledged. Elsewhere than on Linux it is only not passed on."""
    if sys.platform == "linux":
        sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, bytes(_DROP_ALL))


def _pass_packets(sock: socket.socket | TransportSocket) -> None:
    if sys.platform == "linux":
        with contextlib.suppress(FileNotFoundError):  # it had none
            sock.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)


async def _finish_tasks() -> None:
    """Let transports close and connections that were being opened end."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.sleep(0)
