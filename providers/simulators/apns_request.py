"""What APNs refuses in the headers and the body of a push.

https://developer.apple.com/documentation/usernotifications/sending-notification-requests-to-apns . What APNs
says to a body that is not JSON, or to a topic that does not fit the push type, is on no page: our choice.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import orjson

from .stage import notification_of

MAX_PAYLOAD_BYTES = 4096
MAX_VOIP_PAYLOAD_BYTES = 5120
MAX_COLLAPSE_ID_BYTES = 64

# Push type -> what its topic adds to the bundle id.
TOPIC_SUFFIXES: Mapping[str, str] = {
    "alert": "",
    "background": "",
    "mdm": "",
    "complication": ".complication",
    "controls": ".push-type.controls",
    "fileprovider": ".pushkit.fileprovider",
    "liveactivity": ".push-type.liveactivity",
    "location": ".location-query",
    "pushtotalk": ".voip-ptt",
    "voip": ".voip",
    "widgets": ".push-type.widgets",
}
DEVICE_TOKEN_FORM = re.compile(r"(?:[0-9a-fA-F]{2}){32,100}")
APNS_ID_FORM = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_TOPIC_FORM = re.compile(r"[A-Za-z0-9.-]+")
_EXPIRATION_FORM = re.compile(r"[0-9]{1,12}")


class Options(NamedTuple):
    """The headers that say how to deliver: equal for all pushes of one notification, so checked once."""

    push_type: str | None
    priority: str | None
    expiration: str | None
    collapse_id: str | None
    topic: str | None


def check_options(options: Options, topics: Sequence[str], *, is_topic_optional: bool) -> str | None:
    """Return the reason to refuse these headers, if there is one."""
    push_type, priority = options.push_type, options.priority
    if push_type is not None and push_type not in TOPIC_SUFFIXES:
        return "InvalidPushType"
    # Without the header the priority is 10, which is an error for background pushes.
    if priority not in {None, "10", "5", "1"} or (push_type == "background" and priority in {None, "10"}):
        return "BadPriority"
    if options.expiration is not None and not _EXPIRATION_FORM.fullmatch(options.expiration):
        return "BadExpirationDate"
    if options.collapse_id is not None and not 0 < len(options.collapse_id.encode()) <= MAX_COLLAPSE_ID_BYTES:
        return "BadCollapseId"
    return _check_topic(options.topic, push_type, topics, is_topic_optional=is_topic_optional)


def _check_topic(
    topic: str | None, push_type: str | None, topics: Sequence[str], *, is_topic_optional: bool
) -> str | None:
    if topic is None:
        return None if is_topic_optional else "MissingTopic"
    if not _TOPIC_FORM.fullmatch(topic):
        return "BadTopic"
    suffixes = (TOPIC_SUFFIXES[push_type],) if push_type else tuple(TOPIC_SUFFIXES.values())
    if any(topic == base + suffix for base in topics for suffix in suffixes):
        return None
    is_ours = any(topic == base or topic.startswith(base + ".") for base in topics)
    return "BadTopic" if is_ours else "TopicDisallowed"


def check_payload(body: bytes, push_type: str | None) -> tuple[str | None, str | None]:
    """Return the reason to refuse this body, and the id of the notification in it."""
    if len(body) > (MAX_VOIP_PAYLOAD_BYTES if push_type == "voip" else MAX_PAYLOAD_BYTES):
        return "PayloadTooLarge", None
    try:
        payload: Any = orjson.loads(body)
    except orjson.JSONDecodeError:
        return "PayloadEmpty", None
    if not isinstance(payload, dict) or not ("mdm" in payload if push_type == "mdm" else "aps" in payload):
        return "PayloadEmpty", None
    if push_type == "background" and not _is_background(payload["aps"]):
        return "InvalidPushType", None
    return None, notification_of(payload.get("pushfan"))


def _is_background(aps: Any) -> bool:
    """Tell whether the payload is what its push type says; Apple may drop or refuse others."""
    if not isinstance(aps, dict):
        return False
    return aps.get("content-available") == 1 and not {"alert", "badge", "sound"} & aps.keys()
