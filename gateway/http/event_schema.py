"""The wire form of events as JSON Schema, for the OpenAPI document.

The rules themselves are in `events`; this tells them to people and generators. A test compares the names of the fields.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from . import problem
from .publication import CLOUD_EVENT, CLOUD_EVENTS, MOST_EVENTS, PLAIN

Schema = dict[str, Any]

# As `events.validation` has it: no control characters, and not blank; content may have lines.
_FIT: Final = r"[^\x00-\x1f\x7f-\x9f]"
_SEEN: Final = r"[^\s\x00-\x1f\x7f-\x9f]"
_FIT_IN_LINES: Final = r"[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]"
LINE: Final = f"^{_FIT}*{_SEEN}{_FIT}*$"
_LINES: Final = f"^{_FIT_IN_LINES}*{_SEEN}{_FIT_IN_LINES}*$"
_MAYBE_LINES: Final = f"^{_FIT_IN_LINES}*$"
# At most 64 bytes of UTF-8, as far as characters tell.
_COLLAPSE_KEY: Final = (
    rf"^([!-~][ -~]{{0,63}}|[!-~\xa1-\u07ff][ -~\xa0-\u07ff]{{0,31}}|{_SEEN}{_FIT}{{0,15}})$"
)


def _text(longest: int, description: str = "", **more: Any) -> Schema:
    about = {"description": description} if description else {}
    return {"type": "string", "minLength": 1, "maxLength": longest, "pattern": LINE, **about, **more}


def _content(description: str) -> Schema:
    return _text(4096, description, pattern=_LINES)


def _matching(pattern: str, longest: int, description: str = "") -> Schema:
    return {"type": "string", "pattern": f"^({pattern})$", "maxLength": longest, "description": description}


def _or_null(schema: Schema) -> Schema:
    """Let a field be null, which means that it is left out: many serialisers write that."""
    if "type" in schema:
        return {**schema, "type": [schema["type"], "null"]}
    if "$ref" in schema:
        return {"anyOf": [schema, {"type": "null"}]}
    options = schema["enum"] if "enum" in schema else [schema["const"]]
    return {"enum": [*options, None], **{name: it for name, it in schema.items() if name == "description"}}


def _has(name: str, said: Schema) -> Schema:
    return {"required": [name], "properties": {name: said}}


def _arguments(of: str) -> Schema:
    member = {"type": "string", "maxLength": 4096, "pattern": _MAYBE_LINES}
    return {"type": "array", "maxItems": 32, "items": member, "description": f"What fills {of}."}


def _section(vendor: str) -> Schema:
    return {
        "type": "object",
        "description": f"Merged over the body for {vendor}; `enabled: false` leaves {vendor} out. "
        "Addresses and credentials cannot be overridden.",
    }


_ID: Final = _text(255)
_NAME: Final = _matching("[A-Za-z0-9_.:-]+", 64)
_SCOPE: Final = _matching(
    f"app|(group|user|thing):{_SEEN}{_FIT}*", 261, "app, group:<id>, user:<id> or thing:<id>; app if left out"
)
_TRANSLATION: Final[Schema] = {
    "type": "object",
    "minProperties": 1,
    "additionalProperties": False,
    "properties": {name: _content("") for name in ("title", "body", "subtitle")},
}

MESSAGE_FIELDS: Final[dict[str, Schema]] = {
    "title": _content("The first line that a person reads."),
    "body": _content("The text."),
    "subtitle": _content("Between the two, on Apple's devices."),
    "image": _matching(rf"https?://[^/\s\x00-\x1f\x7f-\x9f]+{_SEEN}*", 2048, "A picture's address."),
    "icon": _text(255),
    "color": _matching("#[0-9A-Fa-f]{6}", 7),
    "sound": _text(255),
    "badge": {"type": "integer", "minimum": 0, "maximum": 2**31 - 1, "description": "0 clears it."},
    "url": _matching(f"[A-Za-z][A-Za-z0-9+.-]*:{_SEEN}+", 2048, "What a tap opens."),
    "data": {
        "type": "object",
        "maxProperties": 256,
        "propertyNames": {**_text(255), "not": {"const": "pushfan"}},
        "additionalProperties": {"type": "string", "maxLength": 4096, "pattern": _MAYBE_LINES},
        "description": "For the app; flat. The key `pushfan` is Pushfan's own.",
    },
    "category": _text(255),
    "thread_id": _text(255),
    "channel_id": _text(255, "Android's notification channel."),
    "tag": _text(255),
    "collapse_key": {
        "type": "string",
        "pattern": _COLLAPSE_KEY,
        "description": "At most 64 bytes. Of several with one key a device that was away shows the last.",
    },
    "priority": {"enum": ["normal", "high"]},
    "silent": {"type": "boolean", "description": "Wakes the app and shows nothing."},
    "mutable_content": {"type": "boolean"},
    "interruption_level": {"enum": ["passive", "active", "time-sensitive", "critical"]},
    "relevance_score": {"type": "number", "minimum": 0, "maximum": 1},
    "title_loc_key": _text(255),
    "title_loc_args": _arguments("title_loc_key"),
    "body_loc_key": _text(255),
    "body_loc_args": _arguments("body_loc_key"),
    "translations": {
        "type": "object",
        "maxProperties": 200,
        "propertyNames": _matching("[A-Za-z]{2,8}([-_][A-Za-z0-9]{1,8})*", 35),
        "additionalProperties": _TRANSLATION,
        "description": "By locale, for devices of that locale.",
    },
    "analytics_label": _matching("[A-Za-z0-9_.~%-]{1,50}", 50),
    "on_unknown": {"enum": ["retry", "drop"], "description": "What becomes of a push whose answer was lost."},
    "fcm": _section("FCM"),
    "apns": _section("APNs"),
    "jpush": _section("JPush"),
}
_SHARED: Final[dict[str, Schema]] = {
    "version": {"const": 1, "description": "Of this form; 1 if left out."},
    "app": {**_NAME, "description": "The key's app, if left out."},
    "id": _text(255, "The idempotency key; made, and returned, if left out."),
    "ttl_seconds": {"type": "integer", "minimum": 0, "maximum": 2_419_200},
    "expires_at": {"type": "string", "format": "date-time", "description": "Instead of ttl_seconds."},
    "lane": {"enum": ["urgent", "normal", "bulk"]},
    "environment": {
        "enum": ["production", "sandbox"],
        "description": "Only devices on channels of this environment; both if left out.",
    },
}
_MESSAGE: Final[Schema] = {"$ref": "#/components/schemas/Message"}
_USERS: Final[Schema] = {"type": "array", "items": _ID, "minItems": 1, "maxItems": 10_000}
_CHANGES: Final = ("created", "updated", "deleted", "body_updated", "body_deleted", "acl_modified")
KIND_FIELDS: Final[dict[str, dict[str, Schema]]] = {
    "direct": {"users": _USERS, "message": _MESSAGE},
    "topic": {"topic": _NAME, "scope": _SCOPE, "actor": _text(255, "Gets no push."), "message": _MESSAGE},
    "bucket": {
        "bucket": _NAME,
        "scope": _SCOPE,
        "object": _text(255, "What changed."),
        "change": {"enum": list(_CHANGES)},
        "actor": _text(255, "Who changed it, and gets no push."),
        "message": _MESSAGE,
    },
}
_REQUIRED: Final = {
    "direct": ("users", "message"),
    "topic": ("topic", "message"),
    "bucket": ("bucket", "object", "change"),
}
# By the path, where a kind has a path of its own.
_FIXED: Final = {"direct": ("users",), "topic": ("topic", "scope"), "bucket": ("bucket", "scope")}
_TITLES: Final = {"direct": "DirectPush", "topic": "TopicMessage", "bucket": "BucketWrite"}


def _event(kind: str) -> Schema:
    return {"title": _TITLES[kind]} | _event_of(
        {"kind": {"const": kind}, **_SHARED, **KIND_FIELDS[kind]}, required=["kind", *_REQUIRED[kind]]
    )


def _event_of(properties: dict[str, Schema], *, required: Sequence[str]) -> Schema:
    return {
        "type": "object",
        "required": list(required),
        "properties": {name: it if name in required else _or_null(it) for name, it in properties.items()},
        "additionalProperties": False,
        "not": {
            "required": ["ttl_seconds", "expires_at"],
            "properties": {"ttl_seconds": {"type": "integer"}, "expires_at": {"type": "string"}},
        },
    }


def _body_of(kind: str) -> Schema:
    fixed = _FIXED[kind]
    properties = {**_SHARED, **{name: it for name, it in KIND_FIELDS[kind].items() if name not in fixed}}
    return _event_of(properties, required=[name for name in _REQUIRED[kind] if name not in fixed])


def _cloud(kind: str) -> Schema:
    data = _event(kind)
    data["required"] = [name for name in data["required"] if name != "kind"]
    del data["properties"]["kind"]
    attributes = {
        "specversion": {"const": "1.0"},
        "id": _text(100),
        "source": _text(100, format="uri-reference"),
        "type": {"const": f"pushfan.{kind}"},
        "datacontenttype": {"const": PLAIN},
        "subject": {"type": "string"},
        "time": {"type": "string", "format": "date-time"},
        "data": data,
    }
    return {
        "type": "object",
        "required": ["specversion", "id", "source", "type", "data"],
        "properties": attributes,
    }


_WORDS: Final = ("title", "body", "title_loc_key", "body_loc_key", "badge", "sound")
_SILENT: Final[Schema] = {"properties": {"silent": {"const": True}}, "required": ["silent"]}
# Each of these alone is a message, and so is a section that does more than choose its provider.
_SAYS: Final = (
    *(_has(name, {"type": MESSAGE_FIELDS[name]["type"]}) for name in _WORDS),
    _has("data", {"type": "object", "minProperties": 1}),
    _SILENT,
    *(
        _has(name, {"type": "object", **more})
        for name in ("fcm", "apns", "jpush")
        for more in ({"minProperties": 2}, {"minProperties": 1, "properties": {"enabled": False}})
    ),
)
# What means something when nothing is shown; everything else must then be left out, or say nothing.
_FITS_SILENCE: Final = (
    "silent", "data", "collapse_key", "priority", "analytics_label", "on_unknown", "fcm", "apns", "jpush",
)  # fmt: skip
_NOTHING: Final[dict[str, Schema]] = {
    "mutable_content": {"enum": [False, None]},
    "title_loc_args": {"type": ["array", "null"], "maxItems": 0},
    "body_loc_args": {"type": ["array", "null"], "maxItems": 0},
    "translations": {"type": ["object", "null"], "maxProperties": 0},
}
_NEEDS: Final = {
    "title_loc_args": ({"type": "array", "minItems": 1}, ("title_loc_key",)),
    "body_loc_args": ({"type": "array", "minItems": 1}, ("body_loc_key",)),
    "translations": ({"type": "object", "minProperties": 1}, ("title", "body")),
}
MESSAGE: Final[Schema] = {
    "type": "object",
    "title": "Message",
    "description": "What a notification says, in words that all providers understand. Null means left out.",
    "properties": {name: _or_null(schema) for name, schema in MESSAGE_FIELDS.items()},
    "additionalProperties": False,
    "anyOf": list(_SAYS),
    "if": _SILENT,
    "then": {
        "properties": {
            name: _NOTHING.get(name, {"type": "null"}) for name in MESSAGE_FIELDS if name not in _FITS_SILENCE
        }
    },
    "allOf": [
        {"if": _has(name, used), "then": {"anyOf": [_has(other, {"type": "string"}) for other in needed]}}
        for name, (used, needed) in _NEEDS.items()
    ],
}

COMPONENTS: Final[dict[str, Any]] = {
    "Message": MESSAGE,
    "Event": {"oneOf": [_event(kind) for kind in KIND_FIELDS]},
    "CloudEvent": {"oneOf": [_cloud(kind) for kind in KIND_FIELDS]},
    "Problem": dict(problem.SCHEMA),
    "TakenIn": {
        "type": "object",
        "required": ["id", "status", "notification_id"],
        "properties": {
            "id": {"type": "string", "description": "The event's id."},
            "status": {"enum": ["taken_in", "repeated"], "description": "New, or known with this content."},
            "notification_id": {"type": "string"},
        },
    },
    "Results": {
        "type": "object",
        "required": ["results"],
        "properties": {
            "results": {
                "type": "array",
                "description": "One for each event, in the same order.",
                "items": {
                    "anyOf": [
                        {"$ref": "#/components/schemas/TakenIn"},
                        {
                            "type": "object",
                            "required": ["id", "status", "problem"],
                            "properties": {
                                "id": {"type": ["string", "null"]},
                                "status": {"const": "refused"},
                                "problem": {"$ref": "#/components/schemas/Problem"},
                            },
                        },
                    ]
                },
            }
        },
    },
}


def _content_of(schema: Schema, *, media_type: str = PLAIN) -> Schema:
    return {media_type: {"schema": schema}}


def _request(*contents: Schema) -> Schema:
    merged: Schema = {}
    for content in contents:
        merged |= content
    return {"requestBody": {"required": True, "content": merged}}


_EVENT: Final[Schema] = {"$ref": "#/components/schemas/Event"}
_CLOUD_EVENT: Final[Schema] = {"$ref": "#/components/schemas/CloudEvent"}


def _list_of(schema: Schema) -> Schema:
    return {"type": "array", "items": schema, "minItems": 1, "maxItems": MOST_EVENTS}


_MANY: Final[Schema] = {
    "type": "object",
    "title": "Events",
    "required": ["events"],
    "properties": {"events": _list_of(_EVENT)},
    "additionalProperties": False,
}
EVENTS: Final = _request(
    _content_of({"anyOf": [_EVENT, _MANY]}),
    _content_of(_CLOUD_EVENT, media_type=CLOUD_EVENT),
    _content_of(_list_of(_CLOUD_EVENT), media_type=CLOUD_EVENTS),
)
DIRECT: Final = _request(_content_of(_body_of("direct")))
TOPIC: Final = _request(_content_of(_body_of("topic")))
BUCKET: Final = _request(_content_of(_body_of("bucket")))

_TAKEN_IN: Final[Schema] = {"$ref": "#/components/schemas/TakenIn"}
_RESULTS: Final[Schema] = {"$ref": "#/components/schemas/Results"}
_LOCATION: Final[Schema] = {
    "location": {"description": "Where its progress is told.", "schema": {"type": "string"}}
}
ANSWER: Final[dict[int | str, Any]] = {
    202: {"description": "Taken in", "content": _content_of(_TAKEN_IN), "headers": _LOCATION}
}
ANSWERS: Final[dict[int | str, Any]] = {
    202: {
        "description": "All are taken in; one alone is at Location",
        "content": _content_of({"anyOf": [_TAKEN_IN, _RESULTS]}),
    },
    207: {"description": "Some are taken in, some refused", "content": _content_of(_RESULTS)},
}
