"""Refusals, as problem documents.

https://www.rfc-editor.org/rfc/rfc9457 (Problem Details for HTTP APIs).
A problem lists every fault that was found, each with a JSON pointer into the body or the name of a parameter, and says
whether the same request may succeed later. Its `type` never changes; `KINDS` is the whole list.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson
from starlette.responses import Response

MEDIA_TYPE: Final = "application/problem+json"
_TYPE: Final = "urn:pushfan:problem:"


@dataclass(frozen=True, slots=True)
class Kind:
    """What all problems of one type share. `helps`: the same request may succeed later."""

    status: int
    title: str
    helps: bool = False


KINDS: Final[Mapping[str, Kind]] = {
    "malformed": Kind(400, "The body or a header cannot be read"),
    "unauthorized": Kind(401, "A valid key or token is needed"),
    "forbidden": Kind(403, "This key or token may not do that"),
    "insecure": Kind(403, "Administration needs TLS or a loopback address"),
    "not-found": Kind(404, "There is no such thing, or it is another app's"),
    "method-not-allowed": Kind(405, "There is no such call"),
    "id-conflict": Kind(409, "The id was taken in before with other content"),
    "conflict": Kind(409, "What is there already is in the way"),
    "too-large": Kind(413, "The body is too large"),
    "unsupported-media-type": Kind(415, "The body's media type is not one of those accepted"),
    "invalid": Kind(422, "The request is refused, every fault is listed"),
    "too-many-requests": Kind(429, "This key asks too often", helps=True),
    "backlog": Kind(429, "Too much of this app waits to be sent", helps=True),
    "internal": Kind(500, "A defect in Pushfan", helps=True),
    "overloaded": Kind(503, "Too much waits at this server", helps=True),
    "database-away": Kind(503, "The database does not answer", helps=True),
    "busy": Kind(503, "Another transaction holds what is needed", helps=True),
    "not-set-up": Kind(503, "This server is not set up for that"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing that is wrong: at a pointer into the body, or in a parameter of the path, the query or a header."""

    detail: str
    code: str = "invalid"
    pointer: str | None = None
    parameter: str | None = None

    def as_json(self) -> dict[str, str]:
        """Return the member of `errors`."""
        said = {
            "pointer": self.pointer,
            "parameter": self.parameter,
            "code": self.code,
            "detail": self.detail,
        }
        return {name: value for name, value in said.items() if value is not None}


class Problem(Exception):
    """A request is refused, wholly or for one event of several."""

    def __init__(
        self,
        kind: str,
        detail: str,
        faults: Iterable[Fault] = (),
        *,
        retry_after_seconds: int | None = None,
        headers: Mapping[str, str] | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(kind, detail)
        self.kind = kind
        self.detail = detail
        self.faults: Sequence[Fault] = tuple(faults)
        self.retry_after_seconds = retry_after_seconds
        self.headers = dict(headers or {})
        self.more = dict(more or {})

    @property
    def status(self) -> int:
        """The HTTP status."""
        return KINDS[self.kind].status

    def as_json(self) -> dict[str, Any]:
        """Return the problem document."""
        kind = KINDS[self.kind]
        document: dict[str, Any] = {
            "type": _TYPE + self.kind,
            "title": kind.title,
            "status": kind.status,
            "detail": self.detail,
            "retry": kind.helps,
        }
        if self.retry_after_seconds is not None:
            document["retry_after_seconds"] = self.retry_after_seconds
        if self.faults:
            document["errors"] = [fault.as_json() for fault in self.faults]
        return document | self.more

    def response(self) -> Response:
        """Return the answer to send."""
        headers = dict(self.headers)
        if self.retry_after_seconds is not None:
            headers["retry-after"] = str(self.retry_after_seconds)
        return Response(
            orjson.dumps(self.as_json()), status_code=self.status, headers=headers, media_type=MEDIA_TYPE
        )


def not_found(what: str) -> Problem:
    """Refuse what is not there, and in the same words what is another app's."""
    return Problem("not-found", f"there is no {what}")


def invalid(faults: Iterable[Fault]) -> Problem:
    """Refuse a request for what was found in it."""
    found = list(faults)
    plural = "" if len(found) == 1 else "s"
    return Problem("invalid", f"{len(found)} fault{plural} found", found)


SCHEMA: Final[Mapping[str, Any]] = {
    "type": "object",
    "title": "Problem",
    "description": "Why a request was refused (RFC 9457).",
    "required": ["type", "title", "status", "detail", "retry"],
    "properties": {
        "type": {"type": "string", "enum": [_TYPE + name for name in KINDS]},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "retry": {"type": "boolean", "description": "The same request may succeed later."},
        "retry_after_seconds": {"type": "integer"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["code", "detail"],
                "properties": {
                    "pointer": {"type": "string", "description": "JSON pointer into the body (RFC 6901)."},
                    "parameter": {"type": "string", "description": "Of the path, the query or a header."},
                    "code": {"type": "string"},
                    "detail": {"type": "string"},
                },
            },
        },
    },
}
