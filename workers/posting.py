"""One request to an address that an app chose: over TLS, to a checked address, within limits.

PostFailed
└── Gone       the receiver says that it will never be there again (410)
ValueError
└── NotAllowed  an address that an operator would have to allow
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import certifi
import pycurl

from providers.reach import LOOPBACK, Network, Reach

from .settings import Settings

_CONNECT_MILLISECONDS: Final = 5_000
_MOST_ANSWER_BYTES: Final = 16 * 1024
_MOST_HEADER_BYTES: Final = 16 * 1024
_LONGEST_URL: Final = 2_048
_LONGEST_REST: Final = timedelta(hours=1)
_LOOPBACK_HOSTS: Final = frozenset({"127.0.0.1", "::1", "localhost"})
_GONE: Final = 410


class PostFailed(Exception):
    """The receiver did not say that it has the message. `retry_after`: it asked for this much time."""

    def __init__(self, reason: str, *, retry_after: timedelta = timedelta(0)) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_after = retry_after


class NotAllowed(ValueError):
    """An address that is one, and that this system does not send to."""


class Gone(PostFailed):
    """The receiver does not want to hear of this any more."""


class Poster:
    """Sends to receivers. Safe for threads.

    `resolve` gives the addresses of a host; without it libcurl asks the system.
    """

    def __init__(
        self,
        *,
        networks: Sequence[Network] = (),
        hosts: Sequence[str] = ("*",),
        timeout: timedelta = timedelta(seconds=10),
        ca_file: Path | None = None,
        resolve: Callable[[str], Sequence[str]] | None = None,
    ) -> None:
        self._networks = tuple(networks)
        self._hosts = tuple(hosts)
        self._reach = Reach(networks)
        self._timeout = timeout
        self._ca_file = str(ca_file or certifi.where())
        self._resolve = resolve

    @classmethod
    def of(cls, settings: Settings) -> Poster:
        """Make the one that the settings describe."""
        return cls(
            networks=settings.networks,
            hosts=settings.webhook_host_names,
            timeout=timedelta(seconds=settings.webhook_timeout_seconds),
            ca_file=settings.webhook_ca_file,
        )

    def check(self, url: str) -> None:
        """Refuse an address that can never be sent to. Raises `ValueError`, or `NotAllowed`, with what to do.

        What its name resolves to is not asked here: that is checked whenever it is connected to.
        """
        if len(url) > _LONGEST_URL or not url.isascii() or not url.isprintable() or " " in url:
            raise ValueError(f"must be printable ASCII without spaces, {_LONGEST_URL:,} characters at most")
        parts = urlsplit(url)
        host = (parts.hostname or "").lower()
        if not host or parts.username is not None or "#" in url or "\\" in url:
            raise ValueError("must be https://host/path, without a user and without a fragment")
        _ = parts.port  # raises for what is no port
        if parts.scheme != "https" and not (parts.scheme == "http" and self._is_loopback(host)):
            raise NotAllowed("must be https (http to loopback, where PUSHFAN_ALLOWED_NETWORKS lists that)")
        if not any(_fits(host, pattern) for pattern in self._hosts):
            raise NotAllowed("its host is not allowed: an operator lists it in PUSHFAN_WEBHOOK_HOSTS")
        if _is_address(host) and not self._reach.allows(host):
            raise NotAllowed("its address is private: an operator lists it in PUSHFAN_ALLOWED_NETWORKS")

    def post(self, url: str, headers: Mapping[str, str], body: bytes) -> None:
        """Send JSON and wait for a 2xx. Follows no redirect, uses no proxy. Raises `PostFailed` and `Gone`."""
        try:
            self.check(url)
        except ValueError as error:
            raise PostFailed(f"the address {error}") from error
        answer = _Answer()
        curl = pycurl.Curl()
        try:
            self._set_up(curl, url, headers, body, answer)
            curl.perform()
        except pycurl.error as error:
            # Cut off by us: what matters came before.
            if not (answer.is_cut_off and curl.getinfo(pycurl.RESPONSE_CODE)):
                raise PostFailed(_reason(error, answer)) from error
        finally:
            status = curl.getinfo(pycurl.RESPONSE_CODE)
            curl.close()
        _judge(status, answer)

    def _set_up(
        self, curl: pycurl.Curl, url: str, headers: Mapping[str, str], body: bytes, answer: _Answer
    ) -> None:
        def open_socket(purpose: int, address: object) -> object:
            opened = self._reach.open_socket(purpose, address)
            answer.was_refused = answer.was_refused or opened == pycurl.SOCKET_BAD
            return opened

        lines = [f"{name}: {value}" for name, value in headers.items()]
        curl.setopt(pycurl.URL, url)
        curl.setopt(pycurl.NOSIGNAL, 1)
        curl.setopt(pycurl.PROTOCOLS, pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS)
        curl.setopt(pycurl.FOLLOWLOCATION, 0)
        curl.setopt(pycurl.PROXY, "")
        curl.setopt(pycurl.CAINFO, self._ca_file)
        curl.setopt(pycurl.CONNECTTIMEOUT_MS, _CONNECT_MILLISECONDS)
        curl.setopt(pycurl.TIMEOUT_MS, round(self._timeout.total_seconds() * 1000))
        curl.setopt(pycurl.OPENSOCKETFUNCTION, open_socket)
        if self._resolve is not None:
            parts = urlsplit(url)
            port = parts.port or (443 if parts.scheme == "https" else 80)
            addresses = ",".join(self._resolve(parts.hostname or ""))
            curl.setopt(pycurl.RESOLVE, [f"{parts.hostname}:{port}:{addresses}"])
        curl.setopt(pycurl.USERAGENT, "pushfan")
        # Without `Expect`, libcurl would wait a second for a receiver that does not know it.
        curl.setopt(pycurl.HTTPHEADER, ["Content-Type: application/json", "Expect:", *lines])
        curl.setopt(pycurl.POST, 1)
        curl.setopt(pycurl.POSTFIELDS, body)
        curl.setopt(pycurl.HEADERFUNCTION, answer.take_header)
        curl.setopt(pycurl.WRITEFUNCTION, answer.take_body)

    def _is_loopback(self, host: str) -> bool:
        return host in _LOOPBACK_HOSTS and any(
            network.version == one.version and network.overlaps(one)
            for network in self._networks
            for one in LOOPBACK
        )


class _Answer:
    """What comes back, as far as it is read."""

    def __init__(self) -> None:
        self.retry_after = timedelta(0)
        self.is_cut_off = False
        self.was_refused = False
        self._header_bytes = 0
        self._body_bytes = 0

    def take_header(self, line: bytes) -> int:
        """Read a header line; nothing after too many."""
        self._header_bytes += len(line)
        name, _, value = line.decode("latin-1").partition(":")
        if name.lower() == "retry-after" and value.strip().isdecimal() and len(value.strip()) < 9:
            self.retry_after = min(timedelta(seconds=int(value)), _LONGEST_REST)
        return self._go_on(len(line), self._header_bytes <= _MOST_HEADER_BYTES)

    def take_body(self, part: bytes) -> int:
        """Skip the body; end the transfer when it is long."""
        self._body_bytes += len(part)
        return self._go_on(len(part), self._body_bytes <= _MOST_ANSWER_BYTES)

    def _go_on(self, length: int, does: bool) -> int:  # noqa: FBT001
        if does:
            return length
        self.is_cut_off = True
        return 0


def _judge(status: int, answer: _Answer) -> None:
    if 200 <= status < 300:
        return
    if status == _GONE:
        raise Gone("the receiver answered 410 Gone")
    followed = ", a redirect, which is not followed" if 300 <= status < 400 else ""
    raise PostFailed(f"the receiver answered {status}{followed}", retry_after=answer.retry_after)


def _reason(error: pycurl.error, answer: _Answer) -> str:
    """Say what failed, without the address: it may hold a secret."""
    if answer.was_refused:
        return "the host's address is not allowed (private, or see PUSHFAN_ALLOWED_NETWORKS)"
    return {
        pycurl.E_COULDNT_RESOLVE_HOST: "the host has no address",
        pycurl.E_COULDNT_CONNECT: "nobody listens there",
        pycurl.E_OPERATION_TIMEDOUT: "no answer in time",
        pycurl.E_PEER_FAILED_VERIFICATION: "its certificate is not trusted",
        pycurl.E_SSL_CONNECT_ERROR: "TLS failed",
        pycurl.E_GOT_NOTHING: "the connection was closed without an answer",
        pycurl.E_WRITE_ERROR: "the answer is too long",
    }.get(error.args[0], f"curl error {error.args[0]}")


def _fits(host: str, pattern: str) -> bool:
    """Tell whether a host is the one named, or below `*.example.com`, or any: `*`."""
    return pattern in ("*", host) or (pattern.startswith("*.") and host.endswith(pattern[1:]))


def _is_address(host: str) -> bool:
    return ":" in host or host.replace(".", "").isdecimal()
