"""Sending events to Pushfan's HTTP API, with the standard library alone.

A request whose answer is lost may have been taken in, so it is sent again with the same ids: the server then says
`repeated`, and nothing was taken in twice. What is refused (4xx) is never sent again.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import ssl
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

SCHEMES: Final = ("http", "https")
CONNECT_TIMEOUT_SECONDS: Final = 5.0
ANSWER_TIMEOUT_SECONDS: Final = 10.0
_ATTEMPTS: Final = 4
_FIRST_REST_SECONDS: Final = 0.2
_LONGEST_REST_SECONDS: Final = 5.0
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})


class ApiFailed(Exception):
    """No answer that says what became of the events; `is_uncertain`: some may have been taken in all the same."""

    def __init__(self, reason: str, *, is_uncertain: bool = True) -> None:
        super().__init__(reason)
        self.reason = reason
        self.is_uncertain = is_uncertain


class ApiRefused(Exception):
    """The server refuses the whole request; `problem` is its RFC 9457 document."""

    def __init__(self, status: int, problem: Mapping[str, Any]) -> None:
        super().__init__(status, problem)
        self.status = status
        self.problem = problem


@dataclass(frozen=True, slots=True)
class _Answered:
    status: int
    retry_after: str
    document: dict[str, Any]


class Api:
    """Pushfan's HTTP API at one address, with one key.

    Safe for threads and forks: each call takes an idle connection or opens one, and a child opens its own.
    """

    def __init__(self, url: str, *, key: str, ca_file: str | None = None) -> None:
        parts = urlsplit(url)
        if parts.scheme not in SCHEMES or not parts.hostname or parts.query or parts.username:
            raise ValueError("the API's URL must be http://host or https://host, and nothing secret in it")
        if parts.scheme == "http" and parts.hostname not in _LOOPBACK:
            raise ValueError("the API's URL must be https://: only on the loopback a key may travel in clear")
        self.name = f"{parts.scheme}://{parts.netloc}"
        self._host, self._port = parts.hostname, parts.port
        self._path = parts.path.rstrip("/") + "/v1/events"
        self._tls = ssl.create_default_context(cafile=ca_file) if parts.scheme == "https" else None
        self._headers = {"content-type": "application/json", "authorization": f"Bearer {key}"}
        self._idle: list[http.client.HTTPConnection] = []
        self._lock = threading.Lock()
        self._process_id = os.getpid()

    def send(self, events: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Send up to 1,000 events in wire form, again after a failure that may pass. One result for each.

        Raises `ApiFailed` when all attempts failed, `ApiRefused` when none of the events was looked at.
        """
        body = json.dumps({"events": list(events)}, separators=(",", ":")).encode()
        is_uncertain, attempt = False, 1
        while True:
            try:
                answered = self._exchange(body)
            except ApiFailed as error:
                is_uncertain |= error.is_uncertain
                reason, wanted = error.reason, ""
            else:
                if not _may_help(answered):
                    return _results(answered)
                reason, wanted = _reason(answered), answered.retry_after
            if attempt == _ATTEMPTS:
                raise ApiFailed(reason, is_uncertain=is_uncertain)
            time.sleep(_rest_seconds(attempt, wanted))
            attempt += 1

    def close(self) -> None:
        """Close all idle connections; the next `send` opens a new one."""
        while (connection := self._take_idle()) is not None:
            connection.close()

    def _exchange(self, body: bytes) -> _Answered:
        """Send one request over an idle connection, or a new one where none is left or the idle one is stale."""
        connection = self._take_idle() or self._connect()
        try:
            connection.request("POST", self._path, body, self._headers)
            response = connection.getresponse()
            content = response.read()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            self.close()  # the other idle connections are no younger
            raise ApiFailed(f"{type(error).__name__}: {error}", is_uncertain=True) from error
        if response.will_close:
            connection.close()
        else:
            self._keep(connection)
        return _Answered(response.status, response.headers.get("retry-after", ""), _document(content))

    def _connect(self) -> http.client.HTTPConnection:
        kind: Any = http.client.HTTPConnection if self._tls is None else http.client.HTTPSConnection
        more = {} if self._tls is None else {"context": self._tls}
        connection: http.client.HTTPConnection = kind(
            self._host, self._port, timeout=CONNECT_TIMEOUT_SECONDS, **more
        )
        try:
            connection.connect()
        except OSError as error:
            raise ApiFailed(f"{type(error).__name__}: {error}", is_uncertain=False) from error
        connection.sock.settimeout(ANSWER_TIMEOUT_SECONDS)
        return connection

    def _take_idle(self) -> http.client.HTTPConnection | None:
        with self._lock:
            if self._process_id != os.getpid():  # forked: these sockets are the parent's, leave them alone
                self._process_id, self._idle = os.getpid(), []
            return self._idle.pop() if self._idle else None

    def _keep(self, connection: http.client.HTTPConnection) -> None:
        with self._lock:
            self._idle.append(connection)


def _rest_seconds(attempt: int, wanted: str) -> float:
    """Rest as long as the server wants, up to a limit; else longer after each attempt, with jitter."""
    if wanted.isdecimal():
        return min(float(wanted), _LONGEST_REST_SECONDS)
    ceiling: float = _FIRST_REST_SECONDS * 2**attempt
    return random.uniform(_FIRST_REST_SECONDS / 2, min(ceiling, _LONGEST_REST_SECONDS))


def _document(content: bytes) -> dict[str, Any]:
    with contextlib.suppress(ValueError):
        document = json.loads(content)
        if isinstance(document, dict):
            return document
    return {}


def _may_help(answered: _Answered) -> bool:
    """Tell whether the same request may succeed later: what a proxy before Pushfan says has no document."""
    return bool(answered.document.get("retry", answered.status >= 500))


def _results(answered: _Answered) -> list[dict[str, Any]]:
    if "results" not in answered.document:
        raise ApiRefused(answered.status, answered.document)
    return list(answered.document["results"])


def _reason(answered: _Answered) -> str:
    return f"HTTP {answered.status}: {answered.document.get('detail', 'no reason was given')}"
