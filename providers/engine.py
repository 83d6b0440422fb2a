"""Sends many HTTP requests at once over few HTTP/2 connections, with libcurl. Knows no vendor.

1. `submit` takes an easy handle from the pool, changes only the options that differ, and gives it to libcurl.
2. `poll` lets libcurl work first, and waits on its sockets only when nothing has finished.
3. Whatever ends comes back once, with the tag it was submitted with: a `Response`, or why there is none.

Sockets are watched by a selector and not by `CurlMulti.select`, which ignores descriptors from 1,024 on and
then spins. libcurl by itself sends refused and never-processed streams again on another connection, unless
`Request.is_resend_allowed` is false; the engine itself never sends anything twice.
"""

from __future__ import annotations

import os
import select
import selectors
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from io import BytesIO
from typing import Any, Generic, Literal, TypeVar
from urllib.parse import urlsplit

import certifi
import pycurl

from providers.outcome import AnswerUnknown, NotSent
from providers.reach import Reach

CONNECT_TIMEOUT = timedelta(seconds=5)
MAX_RESPONSE_BYTES = 4 * 1024 * 1024
# POLLRDHUP tells of a close even while its last bytes are unread; Linux alone has it.
HANG_UP = select.POLLHUP | select.POLLERR | getattr(select, "POLLRDHUP", 0)
LOOPBACK_HOSTS = frozenset({"127.0.0.1", "::1", "localhost"})

# https://curl.se/libcurl/c/libcurl-errors.html, the names without their prefix CURLE_
ERROR_NAMES: Mapping[int, str] = {
    1: "UNSUPPORTED_PROTOCOL",
    2: "FAILED_INIT",
    3: "URL_MALFORMAT",
    5: "COULDNT_RESOLVE_PROXY",
    6: "COULDNT_RESOLVE_HOST",
    7: "COULDNT_CONNECT",
    8: "WEIRD_SERVER_REPLY",
    16: "HTTP2",
    18: "PARTIAL_FILE",
    23: "WRITE_ERROR",
    26: "READ_ERROR",
    27: "OUT_OF_MEMORY",
    28: "OPERATION_TIMEDOUT",
    35: "SSL_CONNECT_ERROR",
    52: "GOT_NOTHING",
    55: "SEND_ERROR",
    56: "RECV_ERROR",
    58: "SSL_CERTPROBLEM",
    59: "SSL_CIPHER",
    60: "PEER_FAILED_VERIFICATION",
    63: "FILESIZE_EXCEEDED",
    65: "SEND_FAIL_REWIND",
    66: "SSL_ENGINE_INITFAILED",
    77: "SSL_CACERT_BADFILE",
    83: "SSL_ISSUER_ERROR",
    90: "SSL_PINNEDPUBKEYNOTMATCH",
    91: "SSL_INVALIDCERTSTATUS",
    92: "HTTP2_STREAM",
    98: "SSL_CLIENTCERT",
}

# Failures to resolve, connect or agree on TLS, and those found before any of it. Certain only while libcurl
# also says that no byte of the request went out: after a silent resend the second connection may fail so.
BEFORE_THE_REQUEST = frozenset({1, 2, 3, 5, 6, 7, 27, 28, 35, 58, 59, 60, 66, 77, 83, 90, 91, 98})


@dataclass(slots=True, kw_only=True)
class Request:
    """One HTTP request. `headers` are complete "name: value" lines, without content-length.

    Not frozen: one is made for each push, and freezing costs time.
    `timeout` covers everything from submission to the last byte of the answer, waiting for a stream included.
    With `is_resend_allowed` false the body can be read only once, so that libcurl cannot repeat it silently.
    """

    url: str
    headers: tuple[str, ...] = field(repr=False, default=())
    body: bytes = field(repr=False, default=b"")
    timeout: timedelta
    method: Literal["POST", "GET"] = "POST"
    is_resend_allowed: bool = True


class HeaderLines(Mapping[str, str]):
    """The headers of a response by lower-case name, parsed when first asked: most never are."""

    __slots__ = ("_lines", "_values")

    def __init__(self, lines: list[bytes]) -> None:
        self._lines = lines
        self._values: dict[str, str] | None = None

    def _parsed(self) -> dict[str, str]:
        if self._values is None:
            self._values = {}
            for line in self._lines:
                if line.startswith(
                    b"HTTP/"
                ):  # an interim response (1xx) came before: its headers do not count
                    self._values.clear()
                    continue
                name, colon, value = line.decode("latin-1").partition(":")
                if colon:
                    self._values[name.strip().lower()] = value.strip()
        return self._values

    def __getitem__(self, name: str) -> str:
        return self._parsed()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._parsed())

    def __len__(self) -> int:
        return len(self._parsed())


@dataclass(slots=True, kw_only=True)
class Response:
    """What came back, not frozen either: any status is an answer. Header names are lower-case."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


Tag = TypeVar("Tag")

Ended = Response | NotSent | AnswerUnknown


class _Transfer(Generic[Tag]):
    """One easy handle with the options it has now, so that only differences are set again."""

    __slots__ = (
        "body_chunks",
        "curl",
        "header_lines",
        "headers",
        "multi",
        "pool",
        "submitted_at",
        "tag",
        "timeout",
        "url",
    )

    def __init__(self, curl: Any, pool: list[_Transfer[Tag]]) -> None:
        self.curl = curl
        self.pool = pool
        self.multi: _Multi | None = None
        self.tag: Tag
        self.url = ""
        self.headers: tuple[str, ...] = ()
        self.timeout = timedelta(0)
        self.submitted_at = 0.0
        self.header_lines: list[bytes] = []
        self.body_chunks: list[bytes] = []
        # The lists' own methods: no frame of ours for each header line.
        curl.setopt(pycurl.HEADERFUNCTION, self.header_lines.append)
        curl.setopt(pycurl.WRITEFUNCTION, self.body_chunks.append)

    def load(self, request: Request, tag: Tag) -> None:
        """Set what differs from the handle's last request."""
        curl = self.curl
        self.tag = tag
        self.submitted_at = time.monotonic()
        if request.url != self.url:
            curl.setopt(pycurl.URL, request.url)
            self.url = request.url
        if request.headers is not self.headers:
            if request.headers:
                curl.setopt(pycurl.HTTPHEADER, request.headers)
            else:  # an empty sequence would leave the last request's headers in place
                curl.unsetopt(pycurl.HTTPHEADER)
            self.headers = request.headers
        if request.timeout is not self.timeout:
            curl.setopt(pycurl.TIMEOUT_MS, max(1, round(request.timeout.total_seconds() * 1000)))
            self.timeout = request.timeout
        if request.method == "GET":
            return
        if request.is_resend_allowed:
            curl.setopt(pycurl.POSTFIELDS, request.body)
            return
        curl.setopt(pycurl.POSTFIELDSIZE_LARGE, len(request.body))
        curl.setopt(pycurl.READFUNCTION, BytesIO(request.body).read)

    def unload(self) -> Response:
        """Take the response out and leave the handle empty for the next request."""
        response = Response(
            status=self.curl.getinfo(pycurl.RESPONSE_CODE),
            headers=HeaderLines(self.header_lines.copy()),
            body=b"".join(self.body_chunks),
        )
        self.clear()
        return response

    def clear(self) -> None:
        """Forget the last request's answer and tag."""
        self.header_lines.clear()
        self.body_chunks.clear()
        del self.tag
        self.multi = None


class _Multi:
    """One CurlMulti, its connections, and the sockets and timer it asked us to watch."""

    def __init__(self, selector: selectors.BaseSelector, max_streams: int, max_connections: int) -> None:
        self.in_flight = 0
        self.due_at: float | None = None
        self._selector = selector
        self._idle_sockets: set[int] = set()
        self._curl_multi: Any = pycurl.CurlMulti()
        self._curl_multi.setopt(pycurl.M_PIPELINING, pycurl.PIPE_MULTIPLEX)
        self._curl_multi.setopt(pycurl.M_MAX_CONCURRENT_STREAMS, max_streams)
        self._curl_multi.setopt(pycurl.M_MAX_HOST_CONNECTIONS, max_connections)
        self._curl_multi.setopt(pycurl.M_SOCKETFUNCTION, self._watch)
        self._curl_multi.setopt(pycurl.M_TIMERFUNCTION, self._set_timer)

    def add(self, curl: Any) -> None:
        """Start a transfer at the next `tick`."""
        self._curl_multi.add_handle(curl)
        self.in_flight += 1

    def has_lost_idle_connection(self) -> bool:
        """Tell whether the peer closed a connection while nothing was in flight on any.

        libcurl looks for a goodbye in HTTP/2 before it uses such a connection again, but overlooks a bare
        close; the request would then fail in a way that proves nothing.
        """
        if self.in_flight or not self._idle_sockets:
            return False
        poll = select.poll()
        for descriptor in self._idle_sockets:
            poll.register(descriptor, HANG_UP)
        return any(flags & HANG_UP for _, flags in poll.poll(0))

    def remove(self, curl: Any) -> None:
        """Take a finished (or abandoned) transfer out."""
        self._curl_multi.remove_handle(curl)
        self.in_flight -= 1

    def tick(self) -> None:
        """Do what libcurl's timer is due for; transfers just added start here, together."""
        if self.due_at is not None and self.due_at <= time.monotonic():
            self.due_at = None
            self._curl_multi.socket_action(pycurl.SOCKET_TIMEOUT, 0)

    def advance(self, descriptor: int, events: int) -> None:
        """Let libcurl read or write one socket that is ready."""
        mask = pycurl.CSELECT_IN if events & selectors.EVENT_READ else 0
        if events & selectors.EVENT_WRITE:
            mask |= pycurl.CSELECT_OUT
        self._curl_multi.socket_action(descriptor, mask)

    def finished(self) -> Iterator[tuple[Any, int, str]]:
        """Yield every transfer that has ended: its handle, libcurl's error code (0: none) and text."""
        queued = 1
        while queued:
            queued, succeeded, failed = self._curl_multi.info_read()
            for curl in succeeded:
                yield curl, 0, ""
            yield from failed

    def close(self) -> None:
        """Close the connections. No transfer may be in flight."""
        self._curl_multi.close()

    def _watch(self, event: int, descriptor: int, _multi: object, _data: object) -> None:
        if event == pycurl.POLL_REMOVE:
            self._idle_sockets.add(descriptor)
            if descriptor in self._selector.get_map():
                self._selector.unregister(descriptor)
            return
        self._idle_sockets.discard(descriptor)
        events = selectors.EVENT_READ if event & pycurl.POLL_IN else 0
        if event & pycurl.POLL_OUT:
            events |= selectors.EVENT_WRITE
        if descriptor in self._selector.get_map():
            self._selector.modify(descriptor, events, self)
        else:
            self._selector.register(descriptor, events, self)

    def _set_timer(self, milliseconds: int) -> None:
        self.due_at = None if milliseconds < 0 else time.monotonic() + milliseconds / 1000


class _Forks:
    """Counts how often this process was forked off, its ancestors included: asking for its id is a system call."""

    count = 0

    @classmethod
    def add(cls) -> None:
        cls.count += 1


os.register_at_fork(after_in_child=_Forks.add)


class Engine(Generic[Tag]):
    """Many requests at once over few connections, for one channel of one worker process.

    Owns its connections until `close`. Used by one thread, and never across a fork: a child that touched the
    parent's TLS connections would corrupt them, so every use in another process raises `RuntimeError`.
    Ignores proxy settings of the environment. Follows no redirect. Speaks HTTPS only, except to loopback.
    """

    def __init__(
        self,
        *,
        ca_file: str | None = None,
        max_streams: int = 200,
        max_connections: int = 2,
        client_certificate: bytes | None = None,
        reach: Reach | None = None,
    ) -> None:
        """`client_certificate` is PEM with its private key; `ca_file` replaces the public authorities.

        `reach` judges each address that is about to be connected to; `None` allows any.
        """
        self._forks = _Forks.count
        self._ca_file = ca_file or certifi.where()
        self._client_certificate = client_certificate
        self._reach = reach
        self._max_streams = max_streams
        self._max_connections = max_connections
        self._selector = selectors.DefaultSelector()
        self._multi = self._new_multi()
        self._draining: list[_Multi] = []
        self._answered_at = time.monotonic()
        self._in_flight: dict[Any, _Transfer[Tag]] = {}
        self._pools: dict[str, list[_Transfer[Tag]]] = {"POST": [], "POST once": [], "GET": []}
        self._origins: set[str] = set()

    @property
    def in_flight(self) -> int:
        """How many requests have been submitted and not yet returned by `poll`."""
        return len(self._in_flight)

    def submit(self, request: Request, tag: Tag) -> None:
        """Start a request; `poll` returns its end together with `tag`. Nothing is sent before `poll`.

        Raises `ValueError` for an address that is neither HTTPS nor loopback.
        """
        self._assert_own_process()
        self._assert_safe(request.url)
        if self._multi.has_lost_idle_connection():
            self.reset_connections()
        transfer = self._take_transfer(request)
        transfer.load(request, tag)
        transfer.multi = self._multi
        self._in_flight[transfer.curl] = transfer
        self._multi.add(transfer.curl)

    def poll(self, timeout_seconds: float) -> list[tuple[Tag, Ended]]:
        """Work on the transfers; return those that ended, waiting for the first up to `timeout_seconds`.

        Returns at once, and empty, when nothing is in flight.
        """
        self._assert_own_process()
        self._work(0.0)
        completed = self._collect()
        deadline = time.monotonic() + timeout_seconds
        while not completed and self._in_flight:
            left = deadline - time.monotonic()
            if left <= 0:
                break
            self._work(left)
            completed = self._collect()
        return completed

    def reset_connections(self) -> None:
        """Send what is submitted from now on over new connections; what is in flight ends on the old ones."""
        self._assert_own_process()
        if self._multi.in_flight:
            self._draining.append(self._multi)
        else:
            self._multi.close()
        self._multi = self._new_multi()

    def close(self) -> None:
        """Close all connections. What is still in flight is abandoned, and no `poll` will return it."""
        self._assert_own_process()
        for transfer in self._in_flight.values():
            if transfer.multi is not None:
                transfer.multi.remove(transfer.curl)
            transfer.curl.close()
        self._in_flight.clear()
        for multi in (self._multi, *self._draining):
            multi.close()
        self._draining.clear()
        for pool in self._pools.values():
            for transfer in pool:
                transfer.curl.close()
            pool.clear()
        self._selector.close()

    def _work(self, wait_seconds: float) -> None:
        """Wait for sockets or for libcurl's timers, no longer than told, and do what they ask for."""
        multis = (self._multi, *self._draining) if self._draining else (self._multi,)
        if wait_seconds:
            now = time.monotonic()
            wait_seconds = min(
                wait_seconds, *(m.due_at - now for m in multis if m.due_at is not None), wait_seconds
            )
        for key, events in self._selector.select(max(0.0, wait_seconds)):
            key.data.advance(key.fd, events)
        for multi in multis:
            multi.tick()

    def _collect(self) -> list[tuple[Tag, Ended]]:
        completed: list[tuple[Tag, Ended]] = []
        self._collect_from(self._multi, completed)
        for multi in tuple(self._draining):
            self._collect_from(multi, completed)
            if not multi.in_flight:
                self._draining.remove(multi)
                multi.close()
        return completed

    def _collect_from(self, multi: _Multi, completed: list[tuple[Tag, Ended]]) -> None:
        for curl, code, text in multi.finished():
            multi.remove(curl)
            transfer = self._in_flight.pop(curl)
            tag = transfer.tag
            if code == 0:
                self._answered_at = time.monotonic()
                completed.append((tag, transfer.unload()))
            else:
                ended = failure(code, text, request_bytes=curl.getinfo(pycurl.REQUEST_SIZE))
                completed.append((tag, ended))
                self._leave_silent_connections(transfer, code)
                transfer.clear()
            transfer.pool.append(transfer)

    def _leave_silent_connections(self, transfer: _Transfer[Tag], code: int) -> None:
        """Go on over new connections when nothing was answered for as long as a whole request may take.

        libcurl lets a stream time out alone and keeps its connection; one that is dead without a word, as
        behind a fallen firewall, would swallow everything until the kernel gives up, minutes later.
        """
        is_silent = code == pycurl.E_OPERATION_TIMEDOUT and self._answered_at < transfer.submitted_at
        if is_silent and transfer.multi is self._multi:
            self.reset_connections()

    def _take_transfer(self, request: Request) -> _Transfer[Tag]:
        kind = "GET" if request.method == "GET" else "POST" if request.is_resend_allowed else "POST once"
        pool = self._pools[kind]
        if pool:
            return pool.pop()
        curl = self._new_handle()
        curl.setopt(pycurl.HTTPGET if kind == "GET" else pycurl.POST, 1)
        return _Transfer(curl, pool)

    def _new_handle(self) -> Any:
        curl = pycurl.Curl()
        curl.setopt(pycurl.NOSIGNAL, 1)
        curl.setopt(pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_2TLS)
        curl.setopt(pycurl.PIPEWAIT, 1)
        curl.setopt(pycurl.CONNECTTIMEOUT_MS, round(CONNECT_TIMEOUT.total_seconds() * 1000))
        curl.setopt(pycurl.PROTOCOLS, pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS)
        curl.setopt(pycurl.FOLLOWLOCATION, 0)
        curl.setopt(pycurl.PROXY, "")
        curl.setopt(pycurl.MAXFILESIZE, MAX_RESPONSE_BYTES)
        curl.setopt(pycurl.CAINFO, self._ca_file)
        curl.setopt(pycurl.TCP_KEEPALIVE, 1)
        curl.setopt(pycurl.USERAGENT, "pushfan")
        if self._reach is not None:
            curl.setopt(pycurl.OPENSOCKETFUNCTION, self._reach.open_socket)
        if self._client_certificate is not None:
            curl.setopt(pycurl.SSLCERT_BLOB, self._client_certificate)
            curl.setopt(pycurl.SSLKEY_BLOB, self._client_certificate)
        return curl

    def _new_multi(self) -> _Multi:
        return _Multi(self._selector, self._max_streams, self._max_connections)

    def _assert_own_process(self) -> None:
        if _Forks.count != self._forks:
            raise RuntimeError("an engine cannot be used after a fork: create it in the process that sends")

    def _assert_safe(self, url: str) -> None:
        end = url.find("/", 8)
        origin = url[:end] if end > 0 else url
        if origin not in self._origins:
            assert_safe_address(url)
            self._origins.add(origin)


def assert_safe_address(url: str) -> None:
    """Raise `ValueError` unless the address is HTTPS, or HTTP to this very machine."""
    parts = urlsplit(url)
    if parts.scheme == "https" and parts.hostname:
        return
    if parts.scheme == "http" and parts.hostname in LOOPBACK_HOSTS:
        return
    raise ValueError(
        f"only https addresses can be sent to (http to loopback): {parts.scheme}://{parts.hostname}"
    )


def failure(code: int, text: str, *, request_bytes: int) -> NotSent | AnswerUnknown:
    """Say what libcurl's error means: certain only when it came before any byte of the request went out."""
    reason = f"curl {code} {ERROR_NAMES.get(code, 'OTHER')}"
    if code in BEFORE_THE_REQUEST and request_bytes == 0:
        return NotSent(f"{reason}: {text}" if text else reason)
    return AnswerUnknown(reason)
