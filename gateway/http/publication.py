"""What a request publishes, whichever way it says so: one event or many, JSON or CloudEvents 1.0.

Everything becomes events in wire form, each with the pointer to where it stands in the body. CloudEvents:
https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md (structured and batch). Their
`type` is `pushfan.direct`, `pushfan.topic` or `pushfan.bucket`, their `data` the event; an event's id there is unique
for its `source` only, so both together are the idempotency key, unless `data` has an `id`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from .pointer import pointer
from .problem import Fault, Problem, invalid

CLOUD_EVENT: Final = "application/cloudevents+json"
CLOUD_EVENTS: Final = "application/cloudevents-batch+json"
PLAIN: Final = "application/json"
MOST_EVENTS: Final = 1_000
_LONGEST_ID: Final = 255
_TYPE: Final = "pushfan."
_KINDS: Final = ("direct", "topic", "bucket")
_ATTRIBUTES: Final = ("specversion", "id", "source", "type")


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """One event as it was sent: `wire` is complete, as far as can be, `pointer` is where it stands in the body."""

    wire: Any
    pointer: str
    faults: Sequence[Fault] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """The events of one request. `is_single`: it was one event, not a list of one."""

    drafts: Sequence[Draft]
    is_single: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What a request says outside its body: the id, and what the path fixes."""

    idempotency_key: str | None = None
    app: str | None = None
    fixed: Mapping[str, Any] = field(default_factory=dict)


def parse(body: bytes) -> Any:
    """Read JSON. Raises `Problem`."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Problem("malformed", f"the body is not JSON: {error.msg} at character {error.pos:,}") from None


def read(content_type: str, body: bytes, given: Given) -> Publication:
    """Read a request's events. Raises `Problem` when no event can be told apart."""
    media_type = content_type.partition(";")[0].strip().lower()
    document = parse(body)
    if media_type == CLOUD_EVENT:
        return Publication(drafts=[_from_cloud(document, (), given, None)], is_single=True)
    if media_type == CLOUD_EVENTS:
        members = _members(document, "")
        drafts = [_from_cloud(one, (index,), given, index) for index, one in enumerate(members)]
        return Publication(drafts=drafts, is_single=False)
    if media_type != PLAIN:
        raise Problem("unsupported-media-type", f"events come as {PLAIN}, {CLOUD_EVENT} or {CLOUD_EVENTS}")
    if isinstance(document, Mapping) and "events" in document and not given.fixed:
        _refuse_others(document)
        members = _members(document["events"], "/events")
        drafts = [_draft(one, ("events", index), given, index) for index, one in enumerate(members)]
        return Publication(drafts=drafts, is_single=False)
    return Publication(drafts=[_draft(document, (), given, None)], is_single=True)


def _refuse_others(document: Mapping[str, Any]) -> None:
    others = [name for name in document if name != "events"]
    if others:
        raise invalid(
            Fault(pointer=pointer(name), code="unknown", detail="is not a field beside events")
            for name in others
        )


def _members(events: Any, place: str) -> list[Any]:
    if not isinstance(events, list):
        raise invalid([Fault(pointer=place, code="type", detail="must be a list of events")])
    if not events:
        raise invalid([Fault(pointer=place, code="empty", detail="must not be empty")])
    if len(events) > MOST_EVENTS:
        detail = f"must have at most {MOST_EVENTS:,} members, has {len(events):,}"
        raise invalid([Fault(pointer=place, code="too_many", detail=detail)])
    return events


def _draft(wire: Any, steps: Sequence[object], given: Given, index: int | None) -> Draft:
    """Complete an event by what the request says elsewhere."""
    place = pointer(*steps)
    if not isinstance(wire, dict):
        return Draft(wire=wire, pointer=place)
    faults = list(_contradictions(wire, place, given, index))
    completed = {"version": 1, "app": given.app} | {name: it for name, it in wire.items() if it is not None}
    completed |= given.fixed
    key = given.idempotency_key
    if key is not None and completed.get("id") is None:
        completed["id"] = key if index is None else f"{key}.{index}"
    return Draft(wire=completed, pointer=place, faults=faults)


def _contradictions(wire: Mapping[str, Any], place: str, given: Given, index: int | None) -> Iterator[Fault]:
    for name, value in given.fixed.items():
        if wire.get(name) not in (None, value):
            yield Fault(
                pointer=f"{place}/{name}", code="conflict", detail="must be as in the path, or left out"
            )
    key, id_ = given.idempotency_key, wire.get("id")
    if key is not None and index is None and id_ is not None and id_ != key:
        yield Fault(pointer=f"{place}/id", code="conflict", detail="must be as Idempotency-Key, or left out")


def _from_cloud(document: Any, steps: Sequence[object], given: Given, index: int | None) -> Draft:
    place = pointer(*steps)
    faults = list(_cloud_faults(document, place))
    if faults:
        return Draft(wire=None, pointer=place, faults=faults)
    data, kind = document["data"], document["type"].removeprefix(_TYPE)
    wire = {"kind": kind, "id": _cloud_id(document["source"], document["id"])} | data
    given = Given(app=given.app, fixed={**given.fixed, "kind": kind})
    return _draft(wire, (*steps, "data"), given, index)


def _cloud_faults(document: Any, place: str) -> Iterator[Fault]:
    if not isinstance(document, Mapping):
        yield Fault(pointer=place, code="type", detail="must be a CloudEvent, an object")
        return
    for name in _ATTRIBUTES:
        value = document.get(name)
        if not isinstance(value, str) or not value:
            yield Fault(pointer=f"{place}/{name}", code="required", detail="is required: a string")
    if document.get("specversion") not in (None, "1.0"):
        yield Fault(pointer=f"{place}/specversion", code="choice", detail="must be 1.0")
    kinds = [_TYPE + kind for kind in _KINDS]
    if isinstance(document.get("type"), str) and document["type"] not in kinds:
        yield Fault(pointer=f"{place}/type", code="choice", detail=f"must be one of {', '.join(kinds)}")
    if not isinstance(document.get("data"), Mapping):
        yield Fault(pointer=f"{place}/data", code="type", detail="must be an object: the event")


def _cloud_id(source: str, id_: str) -> str:
    """Name an event by its source and id; by their hash where they are too long or hold what an id may not."""
    name = f"{source}#{id_}"
    if len(name) <= _LONGEST_ID and name.isprintable():
        return name
    return hashlib.sha256(name.encode()).hexdigest()
