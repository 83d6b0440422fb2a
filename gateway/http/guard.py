"""The outermost layer: limits before anything is read, headers on every answer, no error without a problem.

Paths are routed as they were sent, still encoded: a user's id may contain a slash, and `%2F` must not become one before
the path is parted. Routes decode their parameters (`names`).
"""

from __future__ import annotations

import re
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any, Final

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .problem import Problem

log = structlog.get_logger()

_JSON: Final = re.compile(r"application/([\w.-]+\+)?json", re.ASCII)
_HEADERS: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", b"default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"),
    (b"cache-control", b"no-store"),
)
_STORES: Final = "/v1/object-stores"
_STRICT_HEADERS: Final = (*_HEADERS, (b"strict-transport-security", b"max-age=31536000"))
Count = Callable[[Scope, int, float], None]


class Guard:
    """An ASGI application around another. `count` is told of each answer: its status and seconds."""

    def __init__(self, app: ASGIApp, *, body_bytes: int, count: Count) -> None:
        self._app = app
        self._body_bytes = body_bytes
        self._count = count

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope["path"] = (scope.get("raw_path") or scope["path"].encode()).decode("latin-1").partition("?")[0]
        began = time.perf_counter()
        exchange = _Exchange(scope, receive, send, self._body_bytes)
        try:
            exchange.check()
            await self._app(scope, exchange.receive, exchange.send)
        except Problem as problem:
            await exchange.refuse(problem)
        except Exception as error:  # noqa: BLE001  the last who can answer
            # Its text may hold what was sent: a type and a place are enough to find the defect.
            place = traceback.extract_tb(error.__traceback__)[-1]
            log.error("request_failed", error=type(error).__name__, at=f"{place.filename}:{place.lineno}")  # noqa: TRY400
            await exchange.refuse(Problem("internal", "this is a defect in Pushfan; its log says more"))
        finally:
            self._count(scope, exchange.status, time.perf_counter() - began)


class _Exchange:
    """One request and its answer."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, most_bytes: int) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._most_bytes = most_bytes
        self._read = 0
        self.status = 0

    def check(self) -> None:
        """Refuse what the head of the request shows already. Raises `Problem`."""
        headers: Mapping[bytes, bytes] = dict(self._scope["headers"])
        length = headers.get(b"content-length", b"0").decode("latin-1")
        if not length.isdecimal() or int(length[:20]) > self._most_bytes:
            raise self._too_large()
        has_body = length != "0" or b"transfer-encoding" in headers
        content_type = headers.get(b"content-type", b"").decode("latin-1")
        media_type = content_type.partition(";")[0].strip().lower()
        # Amazon SNS sends JSON and calls it text.
        is_text = media_type == "text/plain" and self._scope["path"] == _STORES
        if has_body and not is_text and not _JSON.fullmatch(media_type):
            raise Problem(
                "unsupported-media-type",
                "send JSON, and say so: Content-Type: application/json",
                headers={"accept": "application/json"},
            )

    async def receive(self) -> Message:
        """Read on, up to the limit. Raises `Problem`."""
        message = await self._receive()
        self._read += len(message.get("body", b""))
        if self._read > self._most_bytes:
            raise self._too_large()
        return message

    async def send(self, message: Message) -> None:
        """Send on, with our headers."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            given = message.get("headers", ())
            names = {name for name, _ in given}
            ours = _STRICT_HEADERS if self._scope.get("scheme") == "https" else _HEADERS
            message["headers"] = [*given, *(header for header in ours if header[0] not in names)]
        await self._send(message)

    async def refuse(self, problem: Problem) -> None:
        """Answer with a problem, unless an answer has begun."""
        if not self.status:
            await problem.response()(self._scope, self._receive, self.send)

    def _too_large(self) -> Problem:
        return Problem(
            "too-large", f"at most {self._most_bytes:,} bytes are read; send fewer events at a time"
        )


def route_of(scope: Scope) -> str:
    """Name the route that answered, by its template: never the path, which holds users and tokens."""
    route: Any = scope.get("route")
    return getattr(route, "path", "none")
