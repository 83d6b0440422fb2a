"""The JSON form of events: a public contract between producers and Pushfan, version 1."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from datetime import datetime
from enum import StrEnum
from functools import cache
from typing import Any, Final

from .event import BucketWrite, DirectPush, Event, TopicMessage
from .frozen import thaw
from .message import Message
from .validation import InvalidEvent, Problems, check_names, did_you_mean

VERSION: Final = 1
_KINDS: Final[Mapping[str, type[Event]]] = {
    kind.kind: kind for kind in (BucketWrite, TopicMessage, DirectPush)
}
_ENVELOPE: Final = frozenset({"version", "kind"})


def encode(event: Event) -> dict[str, Any]:
    """Write an event as plain JSON types (`dict`, `list`, `str`, numbers, `bool`): only what is set."""
    wire = {"version": VERSION, "kind": event.kind} | _encode_fields(event)
    if not (isinstance(event, BucketWrite) and event.message == event.default_message()):
        wire["message"] = _encode_fields(event.message)
    return wire


def _encode_fields(instance: Event | Message) -> dict[str, Any]:
    wire = {}
    for name, default in _fields_of(type(instance)).items():  # type: ignore[arg-type]  # see _rules_of
        value = getattr(instance, name)
        if value is not default and value != default and name != "message":
            wire[name] = _encode_value(value)
    return wire


@cache
def _fields_of(kind: type) -> Mapping[str, object]:
    """Name a kind's fields, each with its default, `MISSING` without one."""
    return {item.name: item.default for item in fields(kind)}


def _encode_value(value: object) -> Any:
    if isinstance(value, StrEnum):
        return value.value
    if isinstance(value, datetime):
        return value.isoformat()
    return thaw(value)


def decode(wire: object, *, id_if_missing: str | None = None) -> Event:
    """Read an event from its JSON form, as `json.loads` returns it; `null` means not set.

    Raises `InvalidEvent` with all problems: of the envelope, the event and its message. An event without an
    id gets `id_if_missing`, or a random one: a reader that may see the same bytes again must name one itself.
    """
    problems = Problems()
    if not isinstance(wire, Mapping):
        problems.add("event", "type", "must be an object")
        raise InvalidEvent(problems.found)
    _check_version(wire.get("version"), problems)
    message = _decode_message(wire.get("message"), problems)
    kind = _find_kind(wire.get("kind"), problems)
    event = None if kind is None else _decode_event(kind, wire, message, id_if_missing, problems)
    if event is None or problems.found:
        raise InvalidEvent(problems.found)
    return event


def canonical(event: Event) -> bytes:
    """Write an event as bytes that are equal for equal events, for digests."""
    return json.dumps(encode(event), sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _check_version(version: object, problems: Problems) -> None:
    if version is None:
        problems.add("version", "required", f"is required: {VERSION}")
    elif version is True or version != VERSION:
        problems.add("version", "choice", f"must be {VERSION}, the only version there is")


def _decode_message(wire: object, problems: Problems) -> Message | None:
    if wire is None:
        return None
    if not isinstance(wire, Mapping):
        problems.add("message", "type", "must be an object")
        return _STAND_IN
    names = _fields_of(Message)
    check_names(wire, names, "message", problems)
    said = {name: value for name, value in wire.items() if name in names}
    if isinstance(said.get("badge"), float):
        said["badge"] = _whole(said["badge"])
    try:
        return Message(**said)
    except InvalidEvent as error:
        problems.found += error.problems
        return _STAND_IN


# Takes the place of a message whose problems are already known, while the rest of the event is checked.
_STAND_IN: Final = Message(silent=True)


def _decode_event(
    kind: type[Event],
    wire: Mapping[Any, object],
    message: Message | None,
    id_if_missing: str | None,
    problems: Problems,
) -> Event | None:
    names = _fields_of(kind)  # type: ignore[arg-type]
    check_names(wire, _ENVELOPE | names.keys(), "", problems)
    values: dict[str, Any] = {name: wire.get(name) for name in names} | {"message": message}
    if isinstance(values["ttl_seconds"], float):
        values["ttl_seconds"] = _whole(values["ttl_seconds"])
    if values["id"] is None:
        values["id"] = id_if_missing
    try:
        return kind(**values)
    except InvalidEvent as error:
        problems.found += error.problems
        return None


def _whole(value: float) -> float:
    """Read 60.0 as 60: to JSON they are the same number, and some languages write all numbers so."""
    return int(value) if value.is_integer() else value


def _find_kind(kind: object, problems: Problems) -> type[Event] | None:
    if kind is None:
        problems.add("kind", "required", f"is required: one of {', '.join(_KINDS)}")
    elif not isinstance(kind, str) or kind not in _KINDS:
        hint = did_you_mean(str(kind), list(_KINDS))
        problems.add("kind", "choice", f"must be one of {', '.join(_KINDS)}{hint}")
    else:
        return _KINDS[kind]
    return None
