"""What JSON Schema cannot say of a valid request, told to schemathesis.

No check is switched off for that. Only cases that are meant to be valid are touched, and only where one part of them
speaks about another, about the content of a text, or about what the server has.
"""

from __future__ import annotations

import json
from typing import Any, Final
from urllib.parse import unquote

import schemathesis

# What the text within a notification of Amazon SNS has to be.
_TOLD: Final = json.dumps(
    {
        "Records": [
            {"eventName": "ObjectCreated:Put", "s3": {"bucket": {"name": "b"}, "object": {"key": "k%2B1"}}}
        ]
    }
)
# The rules of these are the vendor's, and hold where an app's devices use the vendor.
_SECTIONS: Final = {
    "fcm": {"android": {"restricted_package_name": "shop"}},
    "apns": {"payload": {"aps": {"content-available": 1}}},
    "jpush": {"options": {"sendno": 1}},
}
# What a token looks like is the word of the channel's provider; this one is good for each.
_TOKEN: Final = "0123456789abcdef0123456789abcdef"
_LONGEST_ID: Final = 255
# Credentials that the test has laid where the server reads them.
_WAY: Final = {
    "provider": "jpush",
    "secrets": {"app_key": "file:key", "master_secret": "file:master"},
    "settings": {},
    "endpoint": None,
    "report_endpoint": None,
}


@schemathesis.hook
def filter_case(_context: Any, case: Any) -> bool:
    """Leave out ids that schemathesis holds for too long, counting their percent-encoding: as sent they are not."""
    if case.meta is None or not case.meta.generation.mode.is_negative:
        return True
    values = [it for it in (case.path_parameters or {}).values() if isinstance(it, str)]
    return not any(len(unquote(value)) <= _LONGEST_ID < len(value) for value in values)


@schemathesis.hook
def before_call(_context: Any, case: Any, _kwargs: dict[str, Any]) -> None:
    """Make a valid case mean something."""
    if case.meta is None or not case.meta.generation.mode.is_positive:
        return
    _choose_sections(case.body)
    if not isinstance(case.body, dict):
        return
    # Two ids for one event: Pushfan refuses to guess which is meant.
    if case.body.get("id") is not None and case.headers:
        case.headers.pop("Idempotency-Key", None)
    if case.operation.path == "/v1/object-stores" and case.body.get("Type") == "Notification":
        case.body = case.body | {"Message": _TOLD}
    if case.operation.label == "PUT /v1/users/{user}/devices/{device_key}":
        case.body = case.body | {"token": _TOKEN}
    if case.operation.label == "POST /v1/channels":
        case.body = case.body | _WAY


def _choose_sections(body: Any) -> None:
    """Replace vendors' sections in all messages, however they are wrapped."""
    if isinstance(body, list):
        for one in body:
            _choose_sections(one)
    elif isinstance(body, dict):
        for name in ("events", "data"):
            _choose_sections(body.get(name))
        message = body.get("message")
        if isinstance(message, dict):
            message |= {name: it for name, it in _SECTIONS.items() if message.get(name) is not None}
