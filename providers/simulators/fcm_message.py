"""What FCM refuses in a message, as the reference of `projects.messages` describes it.

https://firebase.google.com/docs/reference/fcm/rest/v1/projects.messages
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

MAX_PAYLOAD_BYTES = 4096
MAX_TTL_SECONDS = 2_419_200
_PLATFORMS = ("android", "apns", "webpush")
TARGETS = ("token", "fid", "topic", "condition")

TOKEN_FORM = re.compile(r"[A-Za-z0-9_:-]{8,4096}")
FID_FORM = re.compile(r"[A-Za-z0-9_-]{8,64}")
_TTL_FORM = re.compile(r"(\d+)(\.\d{1,9})?s")
_COLOR_FORM = re.compile(r"#[0-9A-Fa-f]{6}")
_LABEL_FORM = re.compile(r"[a-zA-Z0-9\-_.~%]{1,50}")

_LABEL = {"analytics_label": "string"}
_ANDROID_NOTIFICATION_STRINGS = (
    "title", "body", "icon", "color", "sound", "tag", "click_action", "body_loc_key", "title_loc_key",
    "channel_id", "ticker", "event_time", "notification_priority", "visibility", "image", "proxy",
)  # fmt: skip
_ANDROID_NOTIFICATION_BOOLS = (
    "sticky", "local_only", "default_sound", "default_vibrate_timings", "default_light_settings",
    "bypass_proxy_notification",
)  # fmt: skip
_ANDROID_NOTIFICATION = {
    **dict.fromkeys(_ANDROID_NOTIFICATION_STRINGS, "string"),
    **dict.fromkeys(_ANDROID_NOTIFICATION_BOOLS, "bool"),
    **dict.fromkeys(("body_loc_args", "title_loc_args", "vibrate_timings"), "strings"),
    "notification_count": "integer",
    "light_settings": "struct",
}
_ANDROID = {
    **dict.fromkeys(("collapse_key", "ttl", "restricted_package_name"), "string"),
    **dict.fromkeys(("direct_boot_ok", "bandwidth_constrained_ok", "restricted_satellite_ok"), "bool"),
    "priority": "priority",
    "data": "string_map",
    "notification": _ANDROID_NOTIFICATION,
    "fcm_options": _LABEL,
}
_APNS = {
    "headers": "string_map",
    "payload": "struct",
    "live_activity_token": "string",
    "fcm_options": {**_LABEL, "image": "string"},
}
_WEBPUSH = {
    "headers": "string_map",
    "data": "string_map",
    "notification": "struct",
    "fcm_options": {**_LABEL, "link": "string"},
}
_MESSAGE: dict[str, Any] = {
    **dict.fromkeys(("name", *TARGETS), "string"),
    "data": "string_map",
    "notification": {"title": "string", "body": "string", "image": "string"},
    "android": _ANDROID,
    "apns": _APNS,
    "webpush": _WEBPUSH,
    "fcm_options": _LABEL,
}
_REQUEST = {"validate_only": "bool", "message": _MESSAGE}


@dataclass(frozen=True, slots=True)
class Violation:
    """One reason to refuse. `is_fcm` tells FCM's own checks from those of Google's JSON front end.

    `field` is empty where the live service names none (an oversized payload).
    """

    field: str
    description: str
    is_fcm: bool = True


def canonical(document: Any) -> tuple[Mapping[str, Any], list[Violation]]:
    """Return the request with snake_case names, and what Google's JSON front end refuses in it."""
    violations: list[Violation] = []
    read = _read_object(document, _REQUEST, "", violations)
    return read, violations


def _read_object(
    value: Any, schema: Mapping[str, Any], path: str, violations: list[Violation]
) -> dict[str, Any]:
    if not isinstance(value, dict):
        violations.append(_invalid(path, "TYPE_MESSAGE", value))
        return {}
    result: dict[str, Any] = {}
    for name, item in value.items():
        field = _snake(name)
        if field not in schema:
            violations.append(_unknown(name, path))
        elif item is not None:
            result[field] = _read_value(item, schema[field], f"{path}.{field}" if path else field, violations)
    return result


def _read_value(value: Any, kind: Any, path: str, violations: list[Violation]) -> Any:
    if isinstance(kind, dict):
        return _read_object(value, kind, path, violations)
    is_right, type_name = _SCALARS[kind]
    if not is_right(value):
        violations.append(_invalid(path, type_name, value))
        return {} if kind in {"string_map", "struct"} else value
    if kind == "string_map":
        wrong = [(index, item) for index, item in enumerate(value.values()) if not isinstance(item, str)]
        violations += [_invalid(f"{path}[{index}].value", "TYPE_STRING", item) for index, item in wrong]
    return value


def _is_strings(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


# Kind of field -> its check, and the name of its type in the front end's complaint.
_SCALARS: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "string": (lambda value: isinstance(value, str), "TYPE_STRING"),
    "bool": (lambda value: isinstance(value, bool), "TYPE_BOOL"),
    "integer": (lambda value: isinstance(value, int) and not isinstance(value, bool), "TYPE_INT32"),
    "strings": (_is_strings, "TYPE_STRING"),
    "string_map": (lambda value: isinstance(value, dict), "TYPE_MESSAGE"),
    "struct": (lambda value: isinstance(value, dict), "type.googleapis.com/google.protobuf.Struct"),
    "priority": (
        lambda value: isinstance(value, str) and value.upper() in {"NORMAL", "HIGH"},
        "type.googleapis.com/google.firebase.fcm.v1.AndroidMessagePriority",
    ),
}


def _unknown(name: str, path: str) -> Violation:
    place = f" at '{path}'" if path else ""
    text = f'Invalid JSON payload received. Unknown name "{name}"{place}: Cannot find field.'
    return Violation(path, text, is_fcm=False)


def _invalid(path: str, kind: str, value: Any) -> Violation:
    shown = f'"{value}"' if isinstance(value, str) else orjson.dumps(value).decode()
    return Violation(path, f"Invalid value at '{path}' ({kind}), {shown}", is_fcm=False)


def _snake(name: str) -> str:
    return re.sub(r"[A-Z]", lambda match: "_" + match.group().lower(), name)


def check_message(message: Mapping[str, Any]) -> list[Violation]:
    """Return what FCM itself refuses in a well-typed message, its target apart."""
    violations = [
        *_check_data(message),
        *_check_android(message.get("android", {})),
        *_check_apns(message),
        *_check_labels(message),
    ]
    if not violations and max(_sizes(message)) > MAX_PAYLOAD_BYTES:
        violations.append(Violation("", "Request contains an invalid argument."))
    return violations


def check_target(message: Mapping[str, Any]) -> Violation | None:
    """Return what is wrong with the addressing: exactly one target, and a token or id that can be one."""
    targets = [name for name in TARGETS if message.get(name)]
    if not targets:
        return Violation("message", "Recipient of the message is not set.")
    if len(targets) > 1:
        return Violation("message", "Only one of the targets token, fid, topic and condition may be set.")
    target = targets[0]
    form = {"token": TOKEN_FORM, "fid": FID_FORM}.get(target)
    if form is not None and not form.fullmatch(message[target]):
        return Violation(f"message.{target}", "The registration token is not a valid FCM registration token")
    return None


def _check_data(message: Mapping[str, Any]) -> Iterator[Violation]:
    for path in ("message", "message.android"):
        source = message if path == "message" else message.get("android", {})
        for key in source.get("data", {}):
            if key in {"from", "message_type"} or key.startswith(("google.", "gcm.")):
                yield Violation(f"{path}.data", f"Invalid data payload key: {key}")


def _check_android(android: Mapping[str, Any]) -> Iterator[Violation]:
    ttl = android.get("ttl")
    if ttl is not None:
        match = _TTL_FORM.fullmatch(ttl)
        if match is None or int(match[1]) > MAX_TTL_SECONDS:
            yield Violation("message.android.ttl", f"Invalid TTL: {ttl}")
    notification = android.get("notification", {})
    color = notification.get("color")
    if color is not None and not _COLOR_FORM.fullmatch(color):
        yield Violation("message.android.notification.color", "Invalid notification color")
    for part in ("title", "body"):
        if notification.get(f"{part}_loc_args") and not notification.get(f"{part}_loc_key"):
            yield Violation(f"message.android.notification.{part}_loc_args", f"{part}_loc_key is required")


def _check_apns(message: Mapping[str, Any]) -> Iterator[Violation]:
    apns = message.get("apns", {})
    headers = {name.lower(): value for name, value in apns.get("headers", {}).items()}
    priority = headers.get("apns-priority")
    if priority is not None and priority not in {"1", "5", "10"}:
        yield Violation("message.apns.headers", f"Invalid apns-priority: {priority}")
    aps = apns.get("payload", {}).get("aps", {})
    if not isinstance(aps, dict):
        yield Violation("message.apns.payload.aps", "aps must be an object")
        return
    is_silent = aps.get("content-available") == 1 and not message.get("notification") and "alert" not in aps
    if is_silent and priority == "10":
        yield Violation("message.apns.headers", "apns-priority must be 5 for a data message")


def _check_labels(message: Mapping[str, Any]) -> Iterator[Violation]:
    parts = {"message": message, **{f"message.{name}": message.get(name, {}) for name in _PLATFORMS}}
    for path, part in parts.items():
        label = part.get("fcm_options", {}).get("analytics_label")
        if label is not None and not _LABEL_FORM.fullmatch(label):
            yield Violation(f"{path}.fcm_options.analytics_label", "Invalid analytics label")


def _sizes(message: Mapping[str, Any]) -> tuple[int, int, int]:
    """Return the payload's size as Android, Apple and web devices get it: names and values."""
    common = _weight(message.get("notification", {}))
    android, apns, webpush = (message.get(name, {}) for name in _PLATFORMS)
    data = message.get("data", {})
    return (
        common + _weight(android.get("data", data)) + _weight(android.get("notification", {})),
        common + _weight(data) + _length(apns.get("payload")),
        common + _weight(webpush.get("data", data)) + _length(webpush.get("notification")),
    )


def _length(content: Mapping[str, Any] | None) -> int:
    return len(orjson.dumps(content)) if content else 0


def _weight(values: Mapping[str, Any]) -> int:
    return sum(
        len(name.encode()) + (len(value.encode()) if isinstance(value, str) else len(orjson.dumps(value)))
        for name, value in values.items()
    )
