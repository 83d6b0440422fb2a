"""What passes between a transport and a vendor: a request in, a decision out."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Protocol

HeaderList = list[tuple[str, str]]


class Headers(Protocol):
    """Request headers by lower-case name."""

    def get(self, key: str, default: Any = None, /) -> Any:
        """Return the value of a header, the first one if it is repeated."""

    def items(self) -> HeaderList:
        """Return all headers, repeated ones as often as they came."""


@dataclass(slots=True)
class Connection:
    """What a vendor remembers about one client connection (only APNs does).

    `certificate_topic` is set when a verified client certificate came with the connection.
    """

    certificate_topic: str | None = None
    is_sandbox: bool = False
    key_id: str | None = None
    credential: str | None = None
    updated_at: float | None = None
    is_authenticated: bool = False
    bad_requests: int = 0


@dataclass(slots=True)
class Request:
    """One request, read completely. Not frozen: one is made for each push, and freezing costs time."""

    method: str
    path: str
    query: str
    headers: Headers
    body: bytes
    connection: Connection


class Effect(Enum):
    """What a transport does with a decision."""

    ANSWER = "answer"
    SILENCE = "silence"  # no answer, ever; the connection stays usable for others
    RESET = "reset"  # RST_STREAM; over HTTP/1.1 the connection is cut
    CUT = "cut"  # TCP reset of the whole connection
    GOAWAY = "goaway"
    BLACKHOLE = "blackhole"  # the connection neither reads nor writes any more, like a silent dead peer
    TRUNCATE = "truncate"  # headers and half of the body, then RST_STREAM


FRAME_EFFECTS = frozenset({Effect.RESET, Effect.CUT, Effect.GOAWAY, Effect.BLACKHOLE, Effect.TRUNCATE})


@dataclass(slots=True)
class Decision:
    """What the vendor does about a request: an answer, or the lack of one.

    `delay_seconds` comes on top of the simulator's general latency. `is_processed` tells a GOAWAY whether its
    last stream id includes this request; `limit_streams` and `is_last` (GOAWAY) follow an answer; `receipts` is
    how many pushes it says were accepted. Not frozen,
    like `Request`.
    """

    status: int
    headers: HeaderList
    body: bytes
    effect: Effect = Effect.ANSWER
    delay_seconds: float = 0.0
    error_code: int = 2
    is_processed: bool = True
    goaway_reason: str | None = None
    limit_streams: int | None = None
    is_last: bool = False
    receipts: int = 0


@dataclass(slots=True)
class HeaderTable:
    """Headers as the asyncio transports keep them: a list for the repeated ones, a table to look one up."""

    pairs: HeaderList
    table: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        self.table = dict(reversed(self.pairs))

    def get(self, key: str, default: Any = None, /) -> Any:
        """Return the value of a header, the first one if it is repeated."""
        return self.table.get(key, default)

    def items(self) -> HeaderList:
        """Return all headers, repeated ones as often as they came."""
        return self.pairs
