"""What JPush refuses in a push object.

https://docs.jiguang.cn/jpush/server/push/rest_api_v3_push ; sizes as of 2019 (jpush/jpush-docs).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import orjson

from .stage import notification_of

MAX_IDS = 1000
MAX_ANDROID_BYTES = 4000
MAX_IOS_NOTIFICATION_BYTES = 2000
MAX_IOS_MESSAGE_BYTES = 4000
MAX_LIFE_SECONDS = 864_000
MAX_COLLAPSE_ID_BYTES = 64

ID_FORM = re.compile(r"[0-9A-Za-z]{11}|[0-9A-Za-z]{19}")
_CID_TAIL = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_PLATFORMS = frozenset({"android", "ios", "winphone", "hmos", "quickapp"})
_KEYS = frozenset({
    "cid", "platform", "audience", "notification", "message", "sms_message", "options", "notification_3rd",
    "callback", "inapp_message", "live_activity",
})  # fmt: skip
_AUDIENCE_KEYS = {
    "tag": 20, "tag_and": 20, "tag_not": 20, "alias": 1000, "registration_id": MAX_IDS, "segment": 1,
    "abtest": 1,
}  # fmt: skip
_NOTIFICATION_KEYS = frozenset({"alert", *_PLATFORMS, "ai_opportunity"})
_MESSAGE_KEYS = frozenset({"msg_content", "title", "content_type", "extras"})
_OPTION_KEYS = frozenset({
    "sendno", "time_to_live", "override_msg_id", "apns_production", "apns_collapse_id", "big_push_duration",
    "multi_language", "third_party_channel", "classification", "target_event", "test_message", "receipt_id",
    "active_push", "need_backup", "business_operation_code", "group_id", "portal_extra", "live_activity_id",
})  # fmt: skip


class Refused(ValueError):
    """JPush refuses the push object with 400 and this code."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


def check_push(push: Mapping[str, Any], app_key: str) -> str | None:
    """Check a push object in JPush's way, first mistake first, and return its cid; raises `Refused`."""
    _refuse_unknown(push, _KEYS, "push object")
    for name in ("platform", "audience"):
        if name not in push:
            raise Refused(1002, f"{name} is missing")
    if "notification" not in push and "message" not in push:
        raise Refused(1002, "notification or message is missing")
    _check_platform(push["platform"])
    _check_audience(push["audience"])
    _check_content(push)
    _check_options(push.get("options", {}))
    _check_sizes(push)
    return _check_cid(push.get("cid"), app_key)


def notification_in(push: Mapping[str, Any]) -> str | None:
    """Return the notification id from the extras of the message or of a platform's notification."""
    notification = push.get("notification")
    parts = [push.get("message"), *(notification.values() if isinstance(notification, dict) else ())]
    for part in parts:
        extras = part.get("extras") if isinstance(part, dict) else None
        if isinstance(extras, dict) and "pushfan" in extras:
            return notification_of(extras["pushfan"])
    return None


def _check_platform(platform: Any) -> None:
    if platform == "all":
        return
    if not isinstance(platform, list) or not platform or not set(map(str, platform)) <= _PLATFORMS:
        raise Refused(1003, "platform must be all or a list of platforms")


def _check_audience(audience: Any) -> None:
    if audience == "all":
        return
    if not isinstance(audience, dict) or not audience:
        raise Refused(1003, "audience must be all or an object")
    _refuse_unknown(audience, _AUDIENCE_KEYS, "audience")
    for name, limit in _AUDIENCE_KEYS.items():
        if name not in audience:
            continue
        values = audience[name]
        if (
            not isinstance(values, list)
            or not values
            or not all(isinstance(value, str) and value for value in values)
        ):
            raise Refused(1003, f"audience.{name} must be a list of strings, not empty")
        if len(values) > limit:
            raise Refused(1003, f"audience.{name} has more than {limit} values")
    for token in audience.get("registration_id", []):
        if not ID_FORM.fullmatch(token):
            raise Refused(1003, "registration_id is invalid")


def _check_content(push: Mapping[str, Any]) -> None:
    notification, message = push.get("notification", {}), push.get("message")
    if not isinstance(notification, dict):
        raise Refused(1003, "notification must be an object")
    _refuse_unknown(notification, _NOTIFICATION_KEYS, "notification")
    for name, part in notification.items():
        if name != "alert" and not isinstance(part, dict):
            raise Refused(1003, f"notification.{name} must be an object")
    if message is None:
        return
    if not isinstance(message, dict):
        raise Refused(1003, "message must be an object")
    _refuse_unknown(message, _MESSAGE_KEYS, "message")
    if "msg_content" not in message:
        raise Refused(1002, "message.msg_content is missing")


def _check_options(options: Any) -> None:
    if not isinstance(options, dict):
        raise Refused(1003, "options must be an object")
    _refuse_unknown(options, _OPTION_KEYS, "options")
    _check_integer(options, "sendno", 1, 2**31 - 1)
    _check_integer(options, "time_to_live", 0, MAX_LIFE_SECONDS)
    _check_integer(options, "big_push_duration", 0, 1400)
    if not isinstance(options.get("apns_production", True), bool):
        raise Refused(1003, "options.apns_production must be true or false")
    if "override_msg_id" in options:
        raise Refused(1003, "options.override_msg_id is not found")
    collapse_id = options.get("apns_collapse_id", "")
    if not isinstance(collapse_id, str) or len(collapse_id.encode()) > MAX_COLLAPSE_ID_BYTES:
        raise Refused(
            1003, f"options.apns_collapse_id must be a string of at most {MAX_COLLAPSE_ID_BYTES} bytes"
        )


def _check_integer(options: Mapping[str, Any], name: str, least: int, most: int) -> None:
    value = options.get(name, least)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise Refused(1003, f"options.{name} must be an integer from {least} to {most}")


def _check_sizes(push: Mapping[str, Any]) -> None:
    notification, message = push.get("notification", {}), push.get("message", {})
    platforms = _PLATFORMS if push["platform"] == "all" else set(push["platform"])
    message_size = len(orjson.dumps(message)) if message else 0
    if "android" in platforms:
        shown = {name: notification[name] for name in ("alert", "android") if name in notification}
        if (len(orjson.dumps(shown)) if shown else 0) + message_size > MAX_ANDROID_BYTES:
            raise Refused(1005, f"the Android notification and message exceed {MAX_ANDROID_BYTES} bytes")
    if "ios" in platforms:
        if len(orjson.dumps(notification.get("ios", {}))) > MAX_IOS_NOTIFICATION_BYTES:
            raise Refused(1005, f"the iOS notification exceeds {MAX_IOS_NOTIFICATION_BYTES} bytes")
        if message_size > MAX_IOS_MESSAGE_BYTES:
            raise Refused(1005, f"the iOS message exceeds {MAX_IOS_MESSAGE_BYTES} bytes")


def _check_cid(cid: Any, app_key: str) -> str | None:
    if cid is None:
        return None
    if not isinstance(cid, str):
        raise Refused(1003, "cid must be a string")
    owner, _, tail = cid.partition("-")
    if owner != app_key or not _CID_TAIL.fullmatch(tail):
        raise Refused(1003, "cid is invalid")
    return cid


def _refuse_unknown(
    content: Mapping[str, Any], known: Mapping[str, Any] | frozenset[str], place: str
) -> None:
    for name in content:
        if name not in known:
            raise Refused(1009, f"unknown key in {place}: {name}")
