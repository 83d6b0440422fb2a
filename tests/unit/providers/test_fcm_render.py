"""Portable messages in FCM's dialect: each field, the section over it, and what is refused."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pyfcm
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from events import BucketWrite, Change, DirectPush, InterruptionLevel, Message, Priority, Problem
from providers.fcm import check_event, payload_sizes, render
from providers.outcome import Content

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
RESERVED = '{"n":"7","k":"direct"}'


def content(message: Message, lives: timedelta = timedelta(hours=1)) -> Content:
    """A notification with the id 7."""
    event = DirectPush(app="shop", users=("u7",), message=message)
    return Content(notification_id=7, event=event, expires_at=NOW + lives)


def rendered(message: Message, locale: str | None = None, **options: Any) -> dict[str, Any]:
    """The rendering as FCM reads it: plain JSON."""
    result: dict[str, Any] = json.loads(json.dumps(render(content(message, **options), locale, NOW)))
    return result


def problems(message: Message) -> list[Problem]:
    """What is wrong with a direct push of this message."""
    return check_event(DirectPush(app="shop", users=("u7",), message=message))


def test_a_simple_message() -> None:
    """Title and body, and what is always there."""
    assert rendered(Message(title="Shipped", body="On its way")) == {
        "notification": {"title": "Shipped", "body": "On its way"},
        "data": {"pushfan": RESERVED},
        "android": {"priority": "HIGH", "ttl": "3600s"},
        "apns": {
            "headers": {
                "apns-push-type": "alert",
                "apns-priority": "10",
                "apns-expiration": "1795438800",
            }
        },
        "webpush": {"headers": {"TTL": "3600", "Urgency": "high"}},
    }


def test_every_field() -> None:
    """Each portable field is where the table of the module says."""
    message = Message(
        title="Shipped",
        body="Order 812 is on its way",
        subtitle="Track it",
        image="https://example.com/parcel.png",
        icon="parcel",
        color="#00aaff",
        sound="bell.caf",
        badge=3,
        url="https://example.com/orders/812",
        data={"order": "812"},
        category="ORDER",
        thread_id="orders",
        channel_id="orders",
        tag="order-812",
        collapse_key="order-812",
        mutable_content=True,
        interruption_level=InterruptionLevel.TIME_SENSITIVE,
        relevance_score=0.5,
        title_loc_key="SHIPPED",
        title_loc_args=("812",),
        body_loc_key="ON_ITS_WAY",
        body_loc_args=("812", "soon"),
        analytics_label="orders",
    )
    assert rendered(message) == {
        "notification": {
            "title": "Shipped",
            "body": "Order 812 is on its way",
            "image": "https://example.com/parcel.png",
        },
        "data": {"order": "812", "url": "https://example.com/orders/812", "pushfan": RESERVED},
        "android": {
            "collapse_key": "order-812",
            "priority": "HIGH",
            "ttl": "3600s",
            "notification": {
                "icon": "parcel",
                "color": "#00aaff",
                "sound": "bell.caf",
                "tag": "order-812",
                "channel_id": "orders",
                "notification_count": 3,
                "title_loc_key": "SHIPPED",
                "title_loc_args": ["812"],
                "body_loc_key": "ON_ITS_WAY",
                "body_loc_args": ["812", "soon"],
            },
        },
        "apns": {
            "headers": {
                "apns-push-type": "alert",
                "apns-priority": "10",
                "apns-expiration": "1795438800",
                "apns-collapse-id": "order-812",
            },
            "payload": {
                "aps": {
                    "alert": {
                        "title": "Shipped",
                        "subtitle": "Track it",
                        "body": "Order 812 is on its way",
                        "title-loc-key": "SHIPPED",
                        "title-loc-args": ["812"],
                        "loc-key": "ON_ITS_WAY",
                        "loc-args": ["812", "soon"],
                    },
                    "sound": "bell.caf",
                    "badge": 3,
                    "category": "ORDER",
                    "thread-id": "orders",
                    "mutable-content": 1,
                    "interruption-level": "time-sensitive",
                    "relevance-score": 0.5,
                }
            },
        },
        "webpush": {
            "headers": {"TTL": "3600", "Urgency": "high", "Topic": "order-812"},
            "notification": {"icon": "parcel", "tag": "order-812"},
            "fcm_options": {"link": "https://example.com/orders/812"},
        },
        "fcm_options": {"analytics_label": "orders"},
    }


def test_a_silent_message_is_data_alone() -> None:
    """No platform shows anything; Apple gets the low priority it demands."""
    assert rendered(Message(silent=True, data={"sync": "1"}, priority=Priority.HIGH)) == {
        "data": {"sync": "1", "pushfan": RESERVED},
        "android": {"priority": "HIGH", "ttl": "3600s"},
        "apns": {
            "headers": {
                "apns-push-type": "background",
                "apns-priority": "5",
                "apns-expiration": "1795438800",
            },
            "payload": {"aps": {"content-available": 1}},
        },
        "webpush": {"headers": {"TTL": "3600", "Urgency": "high"}},
    }


def test_a_bucket_write_tells_its_change() -> None:
    """Silent, normal priority, the bucket as collapse key."""
    event = BucketWrite(app="shop", bucket="orders", object="o1", change=Change.UPDATED)
    result = render(Content(notification_id=7, event=event, expires_at=NOW + timedelta(hours=1)), None, NOW)
    assert result["android"] == {"collapse_key": "orders", "priority": "NORMAL", "ttl": "3600s"}
    assert result["data"] == {
        "bucket": "orders",
        "object": "o1",
        "change": "updated",
        "pushfan": '{"n":"7","k":"bucket","b":"orders","o":"o1","c":"updated","s":"app"}',
    }


@pytest.mark.parametrize("lives", [timedelta(0), timedelta(seconds=-5)])
def test_no_time_left_is_one_attempt_without_storing(lives: timedelta) -> None:
    """On all three platforms."""
    result = rendered(Message(title="x"), lives=lives)
    assert result["android"]["ttl"] == "0s"
    assert result["apns"]["headers"]["apns-expiration"] == "0"
    assert result["webpush"]["headers"]["TTL"] == "0"


def test_a_badge_of_zero_clears_it_where_that_is_possible() -> None:
    """Apple clears; Android has no such thing, and zero there would count up."""
    result = rendered(Message(badge=0))
    assert result["apns"]["payload"]["aps"]["badge"] == 0
    assert "notification" not in result["android"]


@pytest.mark.parametrize(
    "decoration",
    [{"image": "https://example.com/a.png"}, {"tag": "t", "icon": "i", "channel_id": "c"}, {"badge": 3}],
)
def test_without_words_android_and_browsers_show_nothing(decoration: dict[str, Any]) -> None:
    """A notification of a picture, a tag or a count alone would be an empty one."""
    result = rendered(Message(data={"a": "1"}, **decoration))
    assert "notification" not in result
    assert "notification" not in result["android"]
    assert "notification" not in result["webpush"]


@pytest.mark.parametrize(
    "section", [{"notification": {"title": "x"}}, {"apns": {"payload": {"aps": {"alert": "x"}}}}]
)
def test_what_only_the_section_shows_is_no_background_push(section: dict[str, Any]) -> None:
    """Apple would not show it."""
    result = rendered(Message(data={"a": "1"}, fcm=section))
    assert result["apns"]["headers"]["apns-push-type"] == "alert"
    assert result["apns"]["headers"]["apns-priority"] == "10"
    assert "content-available" not in result["apns"].get("payload", {}).get("aps", {})


def test_an_image_needs_an_extension_on_apple() -> None:
    """Without mutable-content the picture would not be fetched."""
    result = rendered(Message(title="x", image="https://example.com/a.png"))
    assert result["apns"]["payload"]["aps"]["mutable-content"] == 1


def test_the_devices_language_is_used_on_every_platform() -> None:
    """In the common notification and in Apple's alert."""
    message = Message(
        title="Shipped",
        subtitle="Track",
        translations={"de": {"title": "Versandt"}, "zh-Hans": {"title": "已发货"}},
    )
    german, chinese, other = (rendered(message, locale) for locale in ("de_AT", "zh-Hans-CN", "fr"))
    assert german["notification"] == {"title": "Versandt"}
    assert german["apns"]["payload"]["aps"]["alert"] == {"title": "Versandt", "subtitle": "Track"}
    assert chinese["notification"] == {"title": "已发货"}
    assert other["notification"] == {"title": "Shipped"}


@pytest.mark.parametrize("key", ["with space", "x" * 33, "订单"])
def test_a_collapse_key_that_is_no_web_topic_is_left_out_there(key: str) -> None:
    """A push service answers 400 to a bad Topic."""
    result = rendered(Message(title="x", collapse_key=key))
    assert "Topic" not in result["webpush"]["headers"]
    assert result["android"]["collapse_key"] == key
    assert result["apns"]["headers"]["apns-collapse-id"].isascii()


def test_a_link_that_is_not_https_is_no_web_link() -> None:
    """FCM demands https there; the app still gets it in data."""
    result = rendered(Message(title="x", url="shop://orders/812"))
    assert "fcm_options" not in result["webpush"]
    assert result["data"]["url"] == "shop://orders/812"


def test_the_section_is_merged_over_the_message() -> None:
    """Deeply, with null deleting; in either of FCM's spellings, and never in both."""
    message = Message(
        title="Shipped",
        collapse_key="order-812",
        color="#00aaff",
        fcm={
            "enabled": True,
            "notification": {"body": "added"},
            "android": {"collapseKey": "mine", "notification": {"color": None, "clickAction": "OPEN"}},
            "apns": {"payload": {"aps": {"target-content-id": "o812", "customKey": 1}, "camelKey": "kept"}},
            "webpush": {"notification": {"requireInteraction": True}},
            "data": {"camelKey": "kept"},
        },
    )
    result = rendered(message)
    assert result["notification"] == {"title": "Shipped", "body": "added"}
    assert result["android"]["collapse_key"] == "mine"
    assert "collapseKey" not in result["android"]
    assert result["android"]["notification"] == {"click_action": "OPEN"}
    assert result["apns"]["payload"] == {
        "aps": {"target-content-id": "o812", "customKey": 1},
        "camelKey": "kept",
    }
    assert result["webpush"]["notification"] == {"requireInteraction": True}
    assert result["data"]["camelKey"] == "kept"
    assert "enabled" not in result


@pytest.mark.parametrize(
    "section",
    [
        {"data": None},
        {"data": {"a": "1"}},
        {"android": {"data": {"a": "1"}}},
        {"webpush": {"data": {"a": "1"}}},
    ],
)
def test_the_reserved_key_survives_every_section(section: dict[str, Any]) -> None:
    """A platform's own data replaces the common data as a whole, so it gets the key too."""
    result = rendered(Message(title="x", fcm=section))
    assert result["data"]["pushfan"] == RESERVED
    for platform in ("android", "webpush"):
        if "data" in result[platform]:
            assert result[platform]["data"] == {"a": "1", "pushfan": RESERVED}


FORBIDDEN = [
    {"token": "t"},
    {"fid": "f"},
    {"topic": "all"},
    {"condition": "'a' in topics"},
    {"name": "n"},
    {"validate_only": True},
    {"validateOnly": True},
    {"data": {"pushfan": "forged"}},
    {"android": {"data": {"pushfan": "forged"}}},
    {"webpush": {"data": {"pushfan": "forged"}}},
    {"apns": {"payload": {"pushfan": "forged"}}},
    {"apns": {"live_activity_token": "t"}},
    {"apns": {"liveActivityToken": "t"}},
    {"apns": {"headers": {"authorization": "bearer x"}}},
    {"apns": {"headers": {"Authorization": "bearer x"}}},
    {"apns": {"headers": {"apns-topic": "com.example.other"}}},
    {"apns": {"headers": {"apns-id": "x"}}},
    {"webpush": {"headers": {"Authorization": "vapid x"}}},
    {"webpush": {"headers": {"Crypto-Key": "x"}}},
    {"token": None},
]


def path_of(section: dict[str, Any]) -> str:
    """The dotted path to the first leaf."""
    (key, value), *_ = section.items()
    return f"{key}.{path_of(value)}" if isinstance(value, dict) else key


@pytest.mark.parametrize("section", FORBIDDEN, ids=path_of)
def test_addressing_and_credentials_cannot_be_overridden(section: dict[str, Any]) -> None:
    """Each is refused by its own path, however it is spelt."""
    (problem,) = problems(Message(title="x", fcm=section))
    assert problem.path == f"message.fcm.{path_of(section)}"
    assert problem.code == "forbidden"
    assert problem.message.startswith("cannot be overridden: ")


def test_all_forbidden_overrides_are_named_at_once() -> None:
    """Nobody finds them one deployment after another."""
    found = problems(Message(title="x", fcm={"token": "t", "topic": "all", "condition": "c"}))
    assert [problem.path for problem in found] == [
        "message.fcm.token",
        "message.fcm.topic",
        "message.fcm.condition",
    ]


def test_a_disabled_section_is_not_checked() -> None:
    """Nothing of it will be sent."""
    assert problems(Message(title="x", data={"from": "x"}, fcm={"enabled": False, "token": "t"})) == []


def test_data_keys_that_fcm_keeps_for_itself_are_named_where_they_stand() -> None:
    """In the message's own data, and in the section's."""
    message = Message(
        title="x",
        data={"from": "a", "google.x": "b", "gcm.y": "c", "fromage": "ok", "googly": "ok"},
        fcm={"data": {"message_type": "d"}, "android": {"data": {"from": "e"}}},
    )
    assert [(problem.path, problem.code) for problem in problems(message)] == [
        ("message.data.from", "reserved"),
        ("message.data.google.x", "reserved"),
        ("message.data.gcm.y", "reserved"),
        ("message.fcm.data.message_type", "reserved"),
        ("message.fcm.android.data.from", "reserved"),
    ]


def test_shapes_that_fcm_would_refuse_are_named() -> None:
    """Objects are objects, data are strings."""
    message = Message(title="x", fcm={"android": "x", "apns": [], "data": {"count": 5}})
    assert problems(message) == [
        Problem("message.fcm.android", "type", "must be an object"),
        Problem("message.fcm.apns", "type", "must be an object"),
        Problem("message.fcm.data.count", "type", "must be a string"),
    ]


def test_a_payload_at_the_limit_passes_and_one_byte_more_does_not() -> None:
    """The error names the size and the limit."""
    free = 4096 - payload_sizes(render(content(Message(title="x", data={"text": "."})), None, NOW))["iOS"]
    longest_id_needs = len(str(2**63 - 1)) - 1
    room = free - longest_id_needs
    assert problems(Message(title="x", data={"text": "." * (1 + room)})) == []
    assert problems(Message(title="x", data={"text": "." * (2 + room)})) == [
        Problem("message.fcm", "too_large", "the iOS payload is 4097 bytes, the limit is 4096")
    ]


def test_each_translation_is_measured() -> None:
    """The longest language decides; the same problem is told once."""
    long = "ü" * 2100
    message = Message(title="x", body="y", translations={"de": {"body": long}, "fr": {"body": long}})
    (problem,) = problems(message)
    assert problem.code == "too_large"
    assert problem.path == "message.fcm"


@settings(deadline=None)  # two busy cores
@given(
    st.dictionaries(st.text("abü", min_size=1, max_size=5), st.text("xü", max_size=900), max_size=6),
    st.text("xü", min_size=1, max_size=500),
)
def test_the_size_counts_every_byte_that_reaches_a_device(data: dict[str, str], body: str) -> None:
    """Keys and values in UTF-8; not the address, and not what only steers the delivery."""
    sizes = payload_sizes(render(content(Message(body=body, data=data, collapse_key="k")), None, NOW))
    payload = {**data, "pushfan": RESERVED, "body": body}
    size = sum(len(key.encode()) + len(value.encode()) for key, value in payload.items())
    assert sizes == {"Android": size, "iOS": size + len("{}"), "web": size + len("{}")}


def test_a_second_opinion_on_the_body() -> None:
    """The package pyfcm builds the same message for what both can say."""
    client = pyfcm.FCMNotification(project_id="shop", credentials=object())
    theirs = json.loads(
        client.parse_payload(
            fcm_token=None,
            notification_title="Shipped",
            notification_body="On its way",
            notification_image="https://example.com/a.png",
            data_payload={"order": "812"},
            android_config={"priority": "HIGH", "ttl": "3600s", "collapse_key": "order-812"},
            fcm_options={"analytics_label": "orders"},
        )
    )["message"]
    ours = rendered(
        Message(
            title="Shipped",
            body="On its way",
            image="https://example.com/a.png",
            data={"order": "812"},
            collapse_key="order-812",
            analytics_label="orders",
        )
    )
    del ours["data"]["pushfan"], ours["apns"], ours["webpush"]
    assert ours == theirs
