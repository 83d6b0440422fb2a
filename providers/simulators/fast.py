"""The fast engine: HTTP/2 with no more than an orderly client needs, for a third of what a push costs its sender.

It plays every decision that is an HTTP response, and silence. Everything else that frames can do is `fault`'s.
"""

from __future__ import annotations

import asyncio
import ssl
import struct
from collections.abc import Callable, Mapping
from typing import Any, Final

from .exchange import FRAME_EFFECTS, Connection, Decision, Effect, HeaderTable, Request
from .header_block import HeaderReader, InvalidBlock, write_headers
from .listener import Listener
from .stage import TRANSPORT_ANSWERS, ControlError

_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
# Length (8 and 16 bits), type, flags, stream. https://www.rfc-editor.org/rfc/rfc9113#section-4.1
_FRAME: Final = struct.Struct(">BHBBI")
_HEAD_BYTES: Final = _FRAME.size
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PUSH_PROMISE = 0, 1, 3, 4, 5
_PING, _GOAWAY, _WINDOW_UPDATE, _CONTINUATION = 6, 7, 8, 9
_ACK, _END_STREAM, _END_HEADERS, _PADDED, _PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20
_PROTOCOL_ERROR, _FLOW_CONTROL_ERROR, _FRAME_SIZE_ERROR = 1, 3, 6
_REFUSED_STREAM, _COMPRESSION_ERROR, _ENHANCE_YOUR_CALM = 7, 9, 11
_MAX_CONCURRENT_STREAMS, _INITIAL_WINDOW_SIZE, _MAX_HEADER_LIST_SIZE = 3, 4, 6

_MAX_STREAMS: Final = 1000
_FRAME_BYTES: Final = 16_384
_HEADER_BYTES: Final = 65_536
_BODY_BYTES: Final = 8 << 20
_STREAM_WINDOW: Final = 1 << 20
_WINDOW: Final = 1 << 30
_DEFAULT_WINDOW: Final = 65_535
_MAX_WINDOW: Final = 2**31 - 1


class FastListener(Listener):
    """Listens for clients that behave. A client certificate, where one is known, is demanded."""

    answers_missing = frozenset(name for name, effect in TRANSPORT_ANSWERS.items() if effect in FRAME_EFFECTS)
    certificates_wanted = ssl.CERT_REQUIRED

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._delays = Delays(asyncio.get_running_loop())

    def speak_http2(self, connection: Connection) -> FastConnection:
        """Make a connection; all share the timers."""
        return FastConnection(self.vendor.handle, connection, self.latency, self._delays)

    def disturb(self, action: str, values: dict[str, Any]) -> int:
        """Refuse: connections are not held."""
        raise ControlError(f"{action} needs --engine fault {values or ''}".strip())


class _ConnectionError(Exception):
    """The client broke the protocol; the code says how."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class _Stream:
    """One request that is not answered yet. `window` is what of an answer the client takes, `unsent` the rest."""

    __slots__ = ("body", "headers", "is_complete", "unsent", "window")

    def __init__(self, headers: HeaderTable, window: int) -> None:
        self.headers = headers
        self.window = window
        self.body = b""
        self.unsent = b""
        self.is_complete = False


class FastConnection(asyncio.Protocol):
    """One client connection. Used on one loop only.

    What one piece of input asks for, and what becomes due in one millisecond, leaves in one write.
    """

    def __init__(
        self,
        handler: Callable[[Request], Decision],
        connection: Connection,
        latency: Callable[[], float],
        delays: Delays,
    ) -> None:
        self._handler = handler
        self._connection = connection
        self._latency = latency
        self._delays = delays
        self._reader = HeaderReader()
        self._streams: dict[int, _Stream] = {}
        self._highest = 0
        self._unread = b""
        self._block: tuple[int, int, bytes] | None = None
        self._has_begun = False
        self._consumed = 0
        self._window = _DEFAULT_WINDOW
        self._stream_window = _DEFAULT_WINDOW
        self._out: list[bytes] = []
        self._transport: asyncio.Transport | None = None
        # Frames that come now and then. What is not here means nothing to a server and is passed over.
        self._rare: Mapping[int, Callable[[int, int, bytes], None]] = {
            _RST_STREAM: self._forget,
            _SETTINGS: self._obey,
            _PUSH_PROMISE: self._refuse,
            _PING: self._echo,
            _WINDOW_UPDATE: self._widen,
            _CONTINUATION: self._take_continuation,
        }

    def connection_made(self, transport: Any) -> None:
        """Send the settings."""
        self._transport = transport
        settings = struct.pack(
            ">HIHIHI", _MAX_CONCURRENT_STREAMS, _MAX_STREAMS, _INITIAL_WINDOW_SIZE, _STREAM_WINDOW,
            _MAX_HEADER_LIST_SIZE, _HEADER_BYTES,
        )  # fmt: skip
        self._send(_SETTINGS, 0, 0, settings)
        self._send(_WINDOW_UPDATE, 0, 0, struct.pack(">I", _WINDOW - _DEFAULT_WINDOW))
        self.flush()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the streams, so that late answers are dropped."""
        del exc
        self._transport = None
        self._streams.clear()

    def data_received(self, data: bytes) -> None:
        """Read whole frames and act on them."""
        if self._transport is None:
            return
        try:
            self._read(self._unread + data if self._unread else data)
        except _ConnectionError as error:
            self._break_off(error.code)
        except InvalidBlock:
            self._break_off(_COMPRESSION_ERROR)
        self.flush()

    def _read(self, data: bytes) -> None:
        at, end = 0, len(data)
        if not self._has_begun:
            if not data.startswith(_PREFACE[:end]):
                raise _ConnectionError(_PROTOCOL_ERROR)
            if end < len(_PREFACE):
                self._unread = data
                return
            self._has_begun, at = True, len(_PREFACE)
        while end - at >= _HEAD_BYTES:
            high, low, kind, flags, stream_id = _FRAME.unpack_from(data, at)
            length = high << 16 | low
            if length > _FRAME_BYTES:
                raise _ConnectionError(_FRAME_SIZE_ERROR)
            after = at + _HEAD_BYTES + length
            if after > end:
                break
            self._take(kind, flags, stream_id & _MAX_WINDOW, data[at + _HEAD_BYTES : after])
            at = after
        self._unread = data[at:]

    def _take(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        if self._block is not None and kind != _CONTINUATION:
            raise _ConnectionError(_PROTOCOL_ERROR)
        if kind == _DATA:
            self._take_data(flags, stream_id, payload)
        elif kind == _HEADERS:
            self._take_headers(flags, stream_id, payload)
        elif kind in self._rare:
            self._rare[kind](flags, stream_id, payload)

    def _take_headers(self, flags: int, stream_id: int, payload: bytes) -> None:
        if flags & _PADDED:
            payload = _unpadded(payload)
        if flags & _PRIORITY:
            payload = payload[5:]
        if flags & _END_HEADERS:
            self._open(stream_id, flags, payload)
        else:
            self._block = stream_id, flags, payload

    def _take_continuation(self, flags: int, stream_id: int, payload: bytes) -> None:
        if self._block is None or self._block[0] != stream_id:
            raise _ConnectionError(_PROTOCOL_ERROR)
        _, first_flags, block = self._block
        block += payload
        if len(block) > _HEADER_BYTES:
            raise _ConnectionError(_ENHANCE_YOUR_CALM)
        if flags & _END_HEADERS:
            self._block = None
            self._open(stream_id, first_flags, block)
        else:
            self._block = stream_id, first_flags, block

    def _open(self, stream_id: int, flags: int, block: bytes) -> None:
        headers = self._reader.read(block)
        if stream_id <= self._highest:
            self._take_trailers(flags, stream_id)
            return
        if not stream_id & 1:
            raise _ConnectionError(_PROTOCOL_ERROR)
        self._highest = stream_id
        if len(self._streams) >= _MAX_STREAMS:
            self._reset(stream_id, _REFUSED_STREAM)
            return
        stream = self._streams[stream_id] = _Stream(headers, self._stream_window)
        if flags & _END_STREAM:
            self._dispatch(stream_id, stream)

    def _take_trailers(self, flags: int, stream_id: int) -> None:
        stream = self._streams.get(stream_id)
        if stream is None:  # it was reset or refused
            return
        if stream.is_complete or not flags & _END_STREAM:
            raise _ConnectionError(_PROTOCOL_ERROR)
        self._dispatch(stream_id, stream)

    def _take_data(self, flags: int, stream_id: int, payload: bytes) -> None:
        length = len(payload)
        self._consumed += length
        if self._consumed > _WINDOW // 2:
            self._send(_WINDOW_UPDATE, 0, 0, struct.pack(">I", self._consumed))
            self._consumed = 0
        stream = self._streams.get(stream_id)
        if stream is None:
            if stream_id > self._highest:
                raise _ConnectionError(_PROTOCOL_ERROR)
            return
        if stream.is_complete:
            raise _ConnectionError(_PROTOCOL_ERROR)
        if flags & _PADDED:
            payload = _unpadded(payload)
        stream.body = stream.body + payload if stream.body else payload
        if flags & _END_STREAM:
            self._dispatch(stream_id, stream)
        elif len(stream.body) > _BODY_BYTES:
            self._reset(stream_id, _ENHANCE_YOUR_CALM)
        elif length:
            self._send(_WINDOW_UPDATE, 0, stream_id, struct.pack(">I", length))

    def _dispatch(self, stream_id: int, stream: _Stream) -> None:
        stream.is_complete = True
        headers = stream.headers
        path, _, query = headers.get(":path", "").partition("?")
        decision = self._handler(
            Request(headers.get(":method", ""), path, query, headers, stream.body, self._connection)
        )
        if decision.effect is not Effect.ANSWER:
            return
        delay = self._latency() + decision.delay_seconds
        if delay:
            self._delays.add(delay, self, stream_id, decision)
        else:
            self.answer(stream_id, decision)

    def answer(self, stream_id: int, decision: Decision) -> None:
        """Answer a request, unless it is not open any more. It leaves at the next `flush`."""
        stream = self._streams.get(stream_id)
        if stream is None:
            return
        body = decision.body
        block = write_headers(decision.status, decision.headers)
        if not body:
            self._send(_HEADERS, _END_HEADERS | _END_STREAM, stream_id, block)
            del self._streams[stream_id]
            return
        self._send(_HEADERS, _END_HEADERS, stream_id, block)
        stream.unsent = body
        self._pump(stream_id, stream)

    def _pump(self, stream_id: int, stream: _Stream) -> None:
        """Send as much of a body as the client's windows let through."""
        while stream.unsent:
            room = min(self._window, stream.window, _FRAME_BYTES)
            if room <= 0:
                return
            part, stream.unsent = stream.unsent[:room], stream.unsent[room:]
            self._window -= len(part)
            stream.window -= len(part)
            self._send(_DATA, 0 if stream.unsent else _END_STREAM, stream_id, part)
        del self._streams[stream_id]

    def _forget(self, flags: int, stream_id: int, payload: bytes) -> None:
        del flags, payload
        self._streams.pop(stream_id, None)

    def _echo(self, flags: int, stream_id: int, payload: bytes) -> None:
        if not flags & _ACK:
            self._send(_PING, _ACK, stream_id, payload)

    def _refuse(self, flags: int, stream_id: int, payload: bytes) -> None:
        del flags, stream_id, payload
        raise _ConnectionError(_PROTOCOL_ERROR)

    def _widen(self, flags: int, stream_id: int, payload: bytes) -> None:
        del flags
        increment = _number(payload)
        if stream_id == 0:
            self._window += increment
            if self._window > _MAX_WINDOW:
                raise _ConnectionError(_FLOW_CONTROL_ERROR)
            self._pump_all()
            return
        stream = self._streams.get(stream_id)
        if stream is not None:
            stream.window += increment
            if stream.unsent:
                self._pump(stream_id, stream)

    def _obey(self, flags: int, stream_id: int, payload: bytes) -> None:
        del stream_id
        if flags & _ACK:
            return
        if len(payload) % 6:
            raise _ConnectionError(_FRAME_SIZE_ERROR)
        for name, value in struct.iter_unpack(">HI", payload):
            if name == _INITIAL_WINDOW_SIZE:
                if value > _MAX_WINDOW:
                    raise _ConnectionError(_FLOW_CONTROL_ERROR)
                for stream in self._streams.values():
                    stream.window += value - self._stream_window
                self._stream_window = value
        self._send(_SETTINGS, _ACK, 0, b"")
        self._pump_all()

    def _pump_all(self) -> None:
        for stream_id in [number for number, stream in self._streams.items() if stream.unsent]:
            self._pump(stream_id, self._streams[stream_id])

    def _reset(self, stream_id: int, code: int) -> None:
        self._streams.pop(stream_id, None)
        self._send(_RST_STREAM, 0, stream_id, struct.pack(">I", code))

    def _break_off(self, code: int) -> None:
        self._send(_GOAWAY, 0, 0, struct.pack(">II", self._highest, code))
        self._streams.clear()
        self.flush()
        if self._transport is not None:
            transport, self._transport = self._transport, None
            transport.close()

    def _send(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        length = len(payload)
        self._out.append(_FRAME.pack(length >> 16, length & 0xFFFF, kind, flags, stream_id))
        self._out.append(payload)

    def flush(self) -> None:
        """Write what has gathered."""
        if self._out:
            data = b"".join(self._out)
            self._out.clear()
            if self._transport is not None:
                self._transport.write(data)


def _unpadded(payload: bytes) -> bytes:
    if not payload or payload[0] >= len(payload):
        raise _ConnectionError(_PROTOCOL_ERROR)
    return payload[1 : len(payload) - payload[0]]


def _number(payload: bytes) -> int:
    if len(payload) != 4:
        raise _ConnectionError(_FRAME_SIZE_ERROR)
    number = int.from_bytes(payload, "big") & _MAX_WINDOW
    if not number:
        raise _ConnectionError(_PROTOCOL_ERROR)
    return number


class Delays:
    """Answers that wait; those of one millisecond leave together: one timer, and one write for each connection."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._due: dict[int, list[tuple[FastConnection, int, Decision]]] = {}

    def add(self, seconds: float, connection: FastConnection, stream_id: int, decision: Decision) -> None:
        """Let an answer leave after so long, and at most a millisecond more."""
        tick = int((self._loop.time() + seconds) * 1000) + 1
        due = self._due.get(tick)
        if due is None:
            due = self._due[tick] = []
            self._loop.call_at(tick / 1000, self._end, tick)
        due.append((connection, stream_id, decision))

    def _end(self, tick: int) -> None:
        due = self._due.pop(tick)
        for connection, stream_id, decision in due:
            connection.answer(stream_id, decision)
        for connection in {connection for connection, _, _ in due}:
            connection.flush()
