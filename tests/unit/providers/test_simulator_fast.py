"""The fast engine's HTTP/2, spoken to by h2 as an independent client, without sockets."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from typing import Any

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.settings
import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.simulators.exchange import Connection, Decision, Effect, Request
from providers.simulators.fast import Delays, FastConnection

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_BEGUN = _PREFACE + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
_WINDOW = h2.settings.SettingCodes.INITIAL_WINDOW_SIZE


def _head(path: str) -> list[tuple[str, str]]:
    return [(":method", "POST"), (":scheme", "https"), (":authority", "x"), (":path", path)]


class Wire:
    """What the connection writes to."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.is_closed = False

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def close(self) -> None:
        self.is_closed = True


class Pair:
    """A client and the connection. The handler answers with the path and the length of the body, unless told."""

    def __init__(
        self, handler: Callable[[Request], Decision] | None = None, latency: float = 0, loop: Any = None
    ) -> None:
        self.requests: list[Request] = []
        self.wire = Wire()
        self.server = FastConnection(
            lambda request: self._handle(request, handler), Connection(), lambda: latency, Delays(loop)
        )
        self.client = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self.events: list[h2.events.Event] = []
        self.server.connection_made(self.wire)

    def begin(self, settings: dict[Any, int] | None = None) -> Pair:
        """Exchange the settings."""
        self.client.initiate_connection()
        if settings:
            self.client.update_settings(settings)
        self.exchange()
        return self

    def _handle(self, request: Request, handler: Callable[[Request], Decision] | None) -> Decision:
        self.requests.append(request)
        if handler is not None:
            return handler(request)
        return Decision(200, [("kind", "test")], f"{request.path} {len(request.body)}".encode())

    def request(self, path: str, body: bytes = b"", *, headers: list[tuple[str, str]] | None = None) -> int:
        """Write a request; returns its stream."""
        stream = self.client.get_next_available_stream_id()
        self.client.send_headers(stream, _head(path) + (headers or []), end_stream=not body)
        if body:
            self.client.send_data(stream, body, end_stream=True)
        return stream

    def exchange(self) -> None:
        """Carry everything to and fro until both are silent."""
        while data := self.client.data_to_send():
            self.server.data_received(data)
            self.read()

    def read(self) -> None:
        """Let the client read what was written."""
        for data in self.wire.written:
            self.events += self.client.receive_data(data)
        self.wire.written.clear()

    def body(self, stream: int) -> bytes:
        """Return what has come of an answer's body."""
        return b"".join(event.data for event in self.found(h2.events.DataReceived, stream))

    def found(self, kind: type[h2.events.Event], stream: int | None = None) -> list[Any]:
        return [
            event
            for event in self.events
            if isinstance(event, kind) and (stream is None or getattr(event, "stream_id", None) == stream)
        ]

    def is_answered(self, stream: int) -> bool:
        return bool(self.found(h2.events.StreamEnded, stream))


def test_requests_are_answered_on_their_streams() -> None:
    """With and without a body; the query is not part of the path."""
    pair = Pair().begin()
    first, second = pair.request("/a?b=c", b"12345"), pair.request("/d")
    pair.exchange()
    assert (pair.body(first), pair.body(second)) == (b"/a 5", b"/d 0")
    assert [request.query for request in pair.requests] == ["b=c", ""]
    [answer] = pair.found(h2.events.ResponseReceived, first)
    assert dict(answer.headers) == {":status": "200", "kind": "test"}


def test_answers_of_one_read_leave_in_one_write() -> None:
    """That is what makes it cheap, for its client too."""
    pair = Pair().begin()
    for number in range(20):
        pair.request(f"/{number}", b"x")
    pair.server.data_received(pair.client.data_to_send())
    assert len(pair.wire.written) == 1
    pair.read()
    assert len(pair.found(h2.events.StreamEnded)) == 20


@given(cuts=st.lists(st.integers(min_value=1, max_value=700), max_size=12))
def test_input_may_be_cut_anywhere(cuts: list[int]) -> None:
    """In the preface, in a frame's head, in a block."""
    pair = Pair()
    pair.client.initiate_connection()
    streams = [pair.request(f"/{number}", b"x" * number) for number in range(6)]
    data = pair.client.data_to_send()
    for cut in cuts:
        pair.server.data_received(data[:cut])
        data = data[cut:]
    pair.server.data_received(data)
    pair.read()
    assert [pair.body(stream) for stream in streams] == [b"/%d %d" % (each, each) for each in range(6)]


def test_long_headers_come_in_several_frames() -> None:
    """A block larger than a frame goes on in CONTINUATION."""
    pair = Pair().begin()
    headers = [(f"x-{number}", "\u00e9~" * 300) for number in range(12)]
    stream = pair.request("/long", b"x", headers=headers)
    pair.exchange()
    assert pair.body(stream) == b"/long 1"
    assert pair.requests[0].headers.items()[4:] == headers


def test_bodies_of_several_frames_are_put_together() -> None:
    """Padded ones too, and the window is opened again for what has come."""
    pair = Pair().begin()
    stream = pair.client.get_next_available_stream_id()
    pair.client.send_headers(stream, _head("/body"))
    pair.client.send_data(stream, b"padded", pad_length=10)
    left = 3_000_000
    while left:
        part = min(left, 16_384, pair.client.local_flow_control_window(stream))
        assert part, "the window stays closed"
        pair.client.send_data(stream, b"x" * part)
        left -= part
        pair.exchange()
    pair.client.end_stream(stream)
    pair.exchange()
    assert pair.body(stream) == b"/body 3000006"


def test_endless_body_is_refused() -> None:
    """Eight megabytes are more than any push has."""
    pair = Pair().begin()
    stream = pair.client.get_next_available_stream_id()
    pair.client.send_headers(stream, _head("/"))
    for _ in range(9 * 64 + 1):
        if pair.found(h2.events.StreamReset):
            break
        pair.client.send_data(stream, b"x" * 16_384)
        pair.exchange()
    assert [event.error_code for event in pair.found(h2.events.StreamReset)] == [11]
    assert pair.requests == []


def test_trailers_end_a_request() -> None:
    """Few clients send any."""
    pair = Pair().begin()
    stream = pair.client.get_next_available_stream_id()
    pair.client.send_headers(stream, _head("/t"))
    pair.client.send_data(stream, b"x")
    pair.client.send_headers(stream, [("x-end", "yes")], end_stream=True)
    pair.exchange()
    assert pair.body(stream) == b"/t 1"


def test_answers_wait_for_the_clients_window() -> None:
    """First the stream's, then the connection's: what does not fit follows when there is room."""
    content = bytes(range(256)) * 400
    pair = Pair(lambda _: Decision(200, [], content)).begin({_WINDOW: 10})
    stream = pair.request("/big", b"x")
    pair.exchange()
    assert pair.body(stream) == content[:10]
    pair.client.increment_flow_control_window(90_000, stream)
    pair.exchange()
    assert pair.body(stream) == content[:65_535]
    pair.client.increment_flow_control_window(1_000_000)
    pair.exchange()
    assert pair.body(stream) == content[:90_010]
    pair.client.update_settings({_WINDOW: 100_000})
    pair.exchange()
    assert pair.body(stream) == content
    assert pair.is_answered(stream)


def test_more_streams_than_allowed_are_refused_one_by_one() -> None:
    """Before the client has read our settings it may open too many."""
    pair = Pair(lambda _: Decision(0, [], b"", Effect.SILENCE))
    pair.client.initiate_connection()
    for number in range(1002):
        pair.request(f"/{number}")
    pair.server.data_received(pair.client.data_to_send())
    pair.read()
    assert [event.error_code for event in pair.found(h2.events.StreamReset)] == [7, 7]
    assert len(pair.requests) == 1000


def test_silence_keeps_the_stream_and_the_rest_goes_on() -> None:
    """Until the client gives up."""
    silent = Decision(0, [], b"", Effect.SILENCE)
    pair = Pair(lambda request: silent if request.path == "/hang" else Decision(200, [], b"")).begin()
    hanging, other = pair.request("/hang"), pair.request("/go")
    pair.exchange()
    pair.client.reset_stream(hanging)
    pair.exchange()
    assert pair.is_answered(other)
    assert not pair.is_answered(hanging)


def test_delayed_answers_come_in_time_and_not_to_streams_that_are_gone() -> None:
    """A latency holds for each; a request that was cancelled meanwhile is not answered."""

    async def main() -> Pair:
        pair = Pair(latency=0.05, loop=asyncio.get_running_loop()).begin()
        kept, cancelled = pair.request("/kept"), pair.request("/cancelled")
        pair.exchange()
        assert not pair.is_answered(kept)
        pair.client.reset_stream(cancelled)
        pair.exchange()
        await asyncio.sleep(0.06)
        pair.read()
        assert pair.is_answered(kept)
        assert pair.found(h2.events.ResponseReceived, cancelled) == []
        return pair

    pair = asyncio.run(main())
    assert not pair.wire.is_closed


def test_nothing_is_written_after_the_connection_is_lost() -> None:
    """An answer may be due later than that."""

    async def main() -> Pair:
        pair = Pair(latency=0.02, loop=asyncio.get_running_loop()).begin()
        pair.request("/late")
        pair.exchange()
        pair.server.connection_lost(None)
        await asyncio.sleep(0.04)
        return pair

    assert asyncio.run(main()).wire.written == []


def test_ping_is_answered() -> None:
    """With the same eight bytes."""
    pair = Pair().begin()
    pair.client.ping(b"are you?")
    pair.exchange()
    [answer] = pair.found(h2.events.PingAckReceived)
    assert answer.ping_data == b"are you?"


def _frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3, "big") + struct.pack(">BBI", kind, flags, stream) + payload


@pytest.mark.parametrize(
    ("data", "code"),
    [
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", 1, id="another protocol"),
        pytest.param(_BEGUN + b"\x00\x40\x01\x00\x00\x00\x00\x00\x01", 6, id="frame too large"),
        pytest.param(_BEGUN + _frame(1, 5, 1, b"\xbe"), 9, id="block that cannot be read"),
        pytest.param(_BEGUN + _frame(1, 5, 2, b"\x82"), 1, id="even stream"),
        pytest.param(_BEGUN + _frame(0, 0, 1, b"x"), 1, id="data for no stream"),
        pytest.param(_BEGUN + _frame(1, 4, 1, b"\x82") + _frame(1, 4, 1, b"\x82"), 1, id="headers twice"),
        pytest.param(_BEGUN + _frame(1, 0, 1, b"\x82") + _frame(6, 0, 0, b"8bytes.."), 1, id="block interrupted"),
        pytest.param(_BEGUN + _frame(9, 4, 1, b"\x82"), 1, id="continuation of nothing"),
        pytest.param(_BEGUN + _frame(1, 13, 1, b"\x09\x82"), 1, id="padding longer than the frame"),
        pytest.param(_BEGUN + _frame(8, 0, 0, b"\x00\x00\x00\x00"), 1, id="window by nothing"),
        pytest.param(_BEGUN + _frame(8, 0, 0, b"\x7f\xff\xff\xff"), 3, id="window too wide"),
        pytest.param(_BEGUN + _frame(8, 0, 0, b"\x01"), 6, id="window of a byte"),
        pytest.param(_PREFACE + _frame(4, 0, 0, b"\x00\x04\x00"), 6, id="half a setting"),
        pytest.param(_PREFACE + _frame(4, 0, 0, b"\x00\x04\xff\xff\xff\xff"), 3, id="setting too large"),
        pytest.param(_BEGUN + _frame(5, 4, 1, b"\x00\x00\x00\x02"), 1, id="promise"),
        pytest.param(
            _BEGUN + _frame(1, 0, 1, b"x" * 16_000) + _frame(9, 0, 1, b"x" * 16_000) * 4, 11,
            id="endless block",
        ),
    ],
)  # fmt: skip
def test_what_breaks_the_protocol_ends_the_connection_with_a_reason(data: bytes, code: int) -> None:
    """GOAWAY with the code that RFC 9113 names, then nothing more is read."""
    pair = Pair()
    pair.client.initiate_connection()
    pair.server.data_received(data)
    pair.read()
    assert [event.error_code for event in pair.found(h2.events.ConnectionTerminated)] == [code]
    assert pair.wire.is_closed
    pair.server.data_received(_frame(1, 5, 1, b"\x82"))
    assert pair.requests == []


@given(data=st.binary(max_size=300))
def test_rubbish_raises_nothing(data: bytes) -> None:
    """Whatever comes, the process goes on."""
    pair = Pair()
    pair.server.data_received(_BEGUN)
    pair.server.data_received(data)
