"""HTTP/2 frame by frame on asyncio: what a vendor's server does, and what a broken one does."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings
import orjson
from hyperframe.frame import GoAwayFrame

from .exchange import Connection, Decision, Effect, HeaderTable, Request

Handler = Callable[[Request], Decision]
MAX_STREAMS = 1000
# How long in-flight answers have after a GOAWAY before the connection is closed.
_GOAWAY_GRACE_SECONDS = 1.0
_WINDOW_BYTES = 1 << 20
# An answer written so lately may lie unread when the connection is cut, and is lost with it.
_UNREAD_SECONDS = 1.0
_STREAM_LIMIT = h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS


@dataclass(slots=True)
class _Stream:
    """One request that is not answered yet; `unsent` is the rest of a body that waits for window."""

    headers: HeaderTable
    body: bytearray = field(default_factory=bytearray)
    unsent: bytes = b""
    receipts: int = 0


class Http2Connection(asyncio.Protocol):
    """One client connection.

    It begins with one stream if `has_warm_up` (APNs, until the first push with good credentials), refuses
    streams above its limit, plays decisions, and goes away: after a GOAWAY, streams up to its last id are
    still answered, later ones ignored. It never says of a request that the vendor has seen that it was not
    processed: clients resend such requests, and the receipts would show a repetition that is nobody's fault.
    Used on one loop only. `on_cut_off` is told how many accepted pushes may have lost their answers when this side
    ends the connection: clients cannot know about these.
    """

    def __init__(
        self,
        handler: Handler,
        connection: Connection,
        latency: Callable[[], float],
        *,
        has_warm_up: bool = False,
        on_cut_off: Callable[[int], None] = lambda _: None,
    ) -> None:
        self.connection = connection
        self._on_cut_off = on_cut_off
        self._answered: deque[tuple[float, int]] = deque()
        self._handler = handler
        self._latency = latency
        self._is_warming_up = has_warm_up
        self._limit = 1 if has_warm_up else MAX_STREAMS
        self._streams: dict[int, _Stream] = {}
        self._transport: asyncio.Transport | None = None
        self._is_deaf = False
        self._last_stream: int | None = None
        self._highest_opened = 0
        self._highest_seen = 0
        config = h2.config.H2Configuration(
            client_side=False, header_encoding="utf-8", validate_inbound_headers=False
        )
        self._h2 = h2.connection.H2Connection(config)

    def connection_made(self, transport: Any) -> None:
        """Send the settings."""
        self._transport = transport
        self._h2.local_settings = _settings(self._limit)
        self._h2.initiate_connection()
        # The library would end a connection that opens too many streams before it has seen our settings; a
        # vendor refuses such streams one by one, and so does `_open`.
        self._h2.local_settings = _settings(MAX_STREAMS)
        self._h2.increment_flow_control_window(_WINDOW_BYTES)
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the transport, so that late answers are dropped."""
        del exc
        self._transport = None
        self._streams.clear()

    def data_received(self, data: bytes) -> None:
        """Feed the frames and act on what they say."""
        if self._is_deaf:
            return
        try:
            events = self._h2.receive_data(data)
        except h2.exceptions.ProtocolError:
            self._flush()
            self._close()
            return
        for event in events:
            self._take(event)
        self._flush()

    def goaway(self, reason: str | None, last_stream: int | None, error_code: int = 0) -> None:
        """Announce the end: streams above `last_stream` (all so far, if none is given) were not processed.

        The client closes when it has read its answers. Closed from here at once, they would be lost to a client that is
        still sending: its writes fail before it reads.
        """
        if self._last_stream is not None and last_stream is None:
            return  # it has been said
        wanted = self._highest_opened if last_stream is None else last_stream
        self._last_stream = max(wanted, self._highest_seen)
        frame = GoAwayFrame(0)
        frame.last_stream_id = self._last_stream
        frame.error_code = error_code
        frame.additional_data = orjson.dumps({"reason": reason}) if reason else b""
        self._flush()
        # Written past the library, which would send nothing after a GOAWAY of its own.
        self._write(frame.serialize())
        self._streams = {number: it for number, it in self._streams.items() if number <= self._last_stream}
        asyncio.get_running_loop().call_later(_GOAWAY_GRACE_SECONDS, self._close)

    def limit_streams(self, limit: int) -> None:
        """Change how many streams the client may open."""
        self._limit = limit
        self._h2.update_settings({_STREAM_LIMIT: limit})
        self._flush()

    def blackhole(self) -> None:
        """Fall silent: neither read nor write, not even to a PING; the socket stays open."""
        self._cut_off()
        self._is_deaf = True
        if self._transport is not None:
            self._transport.pause_reading()

    def cut(self) -> None:
        """Reset the TCP connection."""
        self._cut_off()
        if self._transport is not None:
            # Forgotten at once: until it says that it is lost, it fails when it is written to.
            transport, self._transport = self._transport, None
            transport.abort()

    def _cut_off(self) -> None:
        self._forget_read()
        lost = sum(stream.receipts for stream in self._streams.values())
        self._on_cut_off(lost + sum(receipts for _, receipts in self._answered))
        self._answered.clear()

    def _forget_read(self) -> None:
        limit = time.monotonic() - _UNREAD_SECONDS
        while self._answered and self._answered[0][0] < limit:
            self._answered.popleft()

    def _take(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.RequestReceived):
            self._open(event.stream_id, [(str(name), str(value)) for name, value in event.headers])
        elif isinstance(event, h2.events.DataReceived):
            self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            stream = self._streams.get(event.stream_id)
            if stream is not None:
                stream.body += event.data
        elif isinstance(event, h2.events.StreamEnded):
            self._dispatch(event.stream_id)
        elif isinstance(event, h2.events.StreamReset):
            self._settle(event.stream_id)
        elif isinstance(event, h2.events.WindowUpdated):
            self._pump()
        elif isinstance(event, h2.events.ConnectionTerminated):
            self._close()

    def _open(self, stream_id: int, headers: list[tuple[str, str]]) -> None:
        if self._last_stream is not None and stream_id > self._last_stream:
            return
        self._highest_opened = max(self._highest_opened, stream_id)
        if len(self._streams) >= self._limit:
            self._reset(stream_id, h2.errors.ErrorCodes.REFUSED_STREAM)
            return
        self._streams[stream_id] = _Stream(HeaderTable(headers))

    def _dispatch(self, stream_id: int) -> None:
        stream = self._streams.get(stream_id)
        if stream is None:
            return
        headers = stream.headers
        path, _, query = str(headers.get(":path", "")).partition("?")
        request = Request(
            headers.get(":method", ""), path, query, headers, bytes(stream.body), self.connection
        )
        decision = self._handler(request)
        stream.receipts = decision.receipts
        if decision.is_processed:
            self._highest_seen = max(self._highest_seen, stream_id)
        if self._is_warming_up and self.connection.is_authenticated:
            self._is_warming_up = False
            self.limit_streams(MAX_STREAMS)
        delay = self._latency() + decision.delay_seconds
        if delay:
            asyncio.get_running_loop().call_later(delay, self._play_later, stream_id, decision)
        else:
            self._play(stream_id, decision)

    def _play_later(self, stream_id: int, decision: Decision) -> None:
        if not self._is_deaf and self._transport is not None:
            self._play(stream_id, decision)
            self._flush()

    def _play(self, stream_id: int, decision: Decision) -> None:
        if stream_id not in self._streams:
            return
        match decision.effect:
            case Effect.ANSWER:
                self._answer(stream_id, decision)
            case Effect.RESET:
                self._reset(stream_id, decision.error_code)
            case Effect.TRUNCATE:
                self._truncate(stream_id, decision)
            case Effect.GOAWAY:
                self._leave(stream_id, decision)
            case Effect.BLACKHOLE:
                self.blackhole()
            case Effect.CUT:
                self.cut()
            case Effect.SILENCE:
                pass

    def _leave(self, stream_id: int, decision: Decision) -> None:
        """Go away over one request: a processed one is covered by the GOAWAY and never answered."""
        del self._streams[stream_id]
        if not decision.is_processed and stream_id < self._highest_seen:
            # The GOAWAY must cover later requests, so this one is refused by name.
            self._h2.reset_stream(stream_id, h2.errors.ErrorCodes.REFUSED_STREAM)
        last = stream_id if decision.is_processed else stream_id - 2
        self.goaway(decision.goaway_reason, max(0, last), decision.error_code)

    def _answer(self, stream_id: int, decision: Decision) -> None:
        headers = [(":status", str(decision.status)), *decision.headers]
        self._h2.send_headers(stream_id, headers, end_stream=not decision.body)
        if not decision.body:
            self._settle(stream_id)
        else:
            self._streams[stream_id].unsent = decision.body
            self._pump_stream(stream_id)
        if decision.limit_streams is not None:
            self.limit_streams(decision.limit_streams)
        if decision.is_last:
            self.goaway(decision.goaway_reason, None)

    def _truncate(self, stream_id: int, decision: Decision) -> None:
        length = ("content-length", str(len(decision.body)))
        self._h2.send_headers(stream_id, [(":status", str(decision.status)), *decision.headers, length])
        half = decision.body[: len(decision.body) // 2]
        if half and self._h2.local_flow_control_window(stream_id) >= len(half):
            self._h2.send_data(stream_id, half)
        self._reset(stream_id, h2.errors.ErrorCodes.INTERNAL_ERROR)

    def _pump(self) -> None:
        for stream_id in [number for number, stream in self._streams.items() if stream.unsent]:
            self._pump_stream(stream_id)

    def _pump_stream(self, stream_id: int) -> None:
        """Send as much of a body as the client's window lets through."""
        stream = self._streams[stream_id]
        while stream.unsent:
            room = min(self._h2.local_flow_control_window(stream_id), self._h2.max_outbound_frame_size)
            if room <= 0:
                return
            part, stream.unsent = stream.unsent[:room], stream.unsent[room:]
            self._h2.send_data(stream_id, part, end_stream=not stream.unsent)
        self._settle(stream_id)

    def _reset(self, stream_id: int, error_code: int) -> None:
        self._h2.reset_stream(stream_id, error_code)
        self._settle(stream_id)

    def _settle(self, stream_id: int) -> None:
        stream = self._streams.pop(stream_id, None)
        if stream is not None and stream.receipts:
            self._forget_read()
            self._answered.append((time.monotonic(), stream.receipts))

    def _flush(self) -> None:
        self._write(self._h2.data_to_send())

    def _write(self, data: bytes | None) -> None:
        if data and self._transport is not None and not self._is_deaf:
            self._transport.write(data)

    def _close(self) -> None:
        if self._transport is not None and not self._is_deaf:
            self._on_cut_off(sum(stream.receipts for stream in self._streams.values()))
            self._streams.clear()
            transport, self._transport = self._transport, None
            transport.close()


def _settings(limit: int) -> h2.settings.Settings:
    return h2.settings.Settings(
        client=False,
        initial_values={
            _STREAM_LIMIT: limit,
            h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: _WINDOW_BYTES,
            h2.settings.SettingCodes.MAX_HEADER_LIST_SIZE: 65_536,
        },
    )
