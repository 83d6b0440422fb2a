"""Portable messages in JPush's dialect: each field, the section over it, and what is refused."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from events import BucketWrite, Change, DirectPush, InterruptionLevel, Message, Priority, Problem
from providers.jpush import check_event, problems_with, render
from providers.outcome import Content

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
RESERVED = '{"n":"7","k":"direct"}'


def content(message: Message) -> Content:
    """A direct message as a notification."""
    event = DirectPush(app="shop", users=("u7",), message=message)
    return Content(notification_id=7, event=event, expires_at=NOW + timedelta(hours=1))


def rendered(message: Message, locale: str | None = None, *, is_production: bool = True) -> Any:
    """The push object as JPush reads it: plain JSON."""
    return json.loads(
        json.dumps(render(content(message), locale, time_to_live=3600, is_production=is_production))
    )


def problems(message: Message) -> list[Problem]:
    """What the door says about a message."""
    return check_event(DirectPush(app="shop", users=("u7",), message=message))


def test_a_simple_message() -> None:
    """Words for both platforms, and what is always there."""
    assert rendered(Message(title="Shipped", body="On its way")) == {
        "platform": "all",
        "notification": {
            "android": {
                "alert": "On its way",
                "title": "Shipped",
                "priority": 1,
                "extras": {"pushfan": RESERVED},
            },
            "ios": {
                "alert": {"title": "Shipped", "body": "On its way"},
                "extras": {"pushfan": RESERVED},
            },
        },
        "options": {"apns_production": True, "time_to_live": 3600},
    }


def test_every_field() -> None:
    """Each portable field is where the table of the module says; what JPush cannot say is nowhere."""
    message = Message(
        title="Shipped",
        body="Order 812 is on its way",
        subtitle="Track it",
        image="https://example.com/parcel.png",
        icon="parcel",
        color="#00aaff",
        sound="bell",
        badge=0,
        url="shop://orders/812",
        data={"order": "812"},
        category="ORDER",
        thread_id="orders",
        channel_id="orders",
        tag="order-812",
        collapse_key="order-812",
        priority=Priority.NORMAL,
        interruption_level=InterruptionLevel.TIME_SENSITIVE,
        relevance_score=0.5,
        title_loc_key="SHIPPED",
        title_loc_args=("812",),
        body_loc_key="ON_ITS_WAY",
        body_loc_args=("812", "soon"),
        analytics_label="orders",
    )
    extras = {"order": "812", "url": "shop://orders/812", "pushfan": RESERVED}
    assert rendered(message) == {
        "platform": "all",
        "notification": {
            "android": {
                "alert": "Order 812 is on its way",
                "title": "Shipped",
                "large_icon": "parcel",
                "icon_bg_color": "#00aaff",
                "style": 3,
                "big_pic_path": "https://example.com/parcel.png",
                "sound": "bell",
                "badge_set_num": 0,
                "channel_id": "orders",
                "priority": 0,
                "intent": {"url": "shop://orders/812"},
                "extras": extras,
            },
            "ios": {
                "alert": {
                    "title": "Shipped",
                    "subtitle": "Track it",
                    "body": "Order 812 is on its way",
                    "title-loc-key": "SHIPPED",
                    "title-loc-args": ["812"],
                    "loc-key": "ON_ITS_WAY",
                    "loc-args": ["812", "soon"],
                },
                "sound": "bell",
                "badge": 0,
                "category": "ORDER",
                "thread-id": "orders",
                "mutable-content": True,
                "interruption-level": "time-sensitive",
                "extras": {**extras, "image": "https://example.com/parcel.png"},
            },
        },
        "options": {"apns_production": True, "time_to_live": 3600, "apns_collapse_id": "order-812"},
    }


@pytest.mark.parametrize("message", [Message(silent=True, data={"sync": "1"}), Message(data={"sync": "1"})])
def test_what_shows_nothing_is_a_message_to_the_app(message: Message) -> None:
    """JPush's `message` never reaches the person; its required content is never empty."""
    assert rendered(message) == {
        "platform": "all",
        "message": {"msg_content": "direct", "extras": {"sync": "1", "pushfan": RESERVED}},
        "options": {"apns_production": True, "time_to_live": 3600},
    }


def test_a_bucket_write_is_a_message_about_the_change() -> None:
    """The reserved key says what changed."""
    event = BucketWrite(app="shop", bucket="orders", object="o1", change=Change.DELETED)
    written = Content(notification_id=7, event=event, expires_at=NOW)
    push = render(written, None, time_to_live=0, is_production=True)
    assert push["message"]["msg_content"] == "bucket"
    assert json.loads(push["message"]["extras"]["pushfan"]) == {
        "n": "7", "k": "bucket", "b": "orders", "o": "o1", "c": "deleted", "s": "app",
    }  # fmt: skip


def test_a_title_alone_is_what_android_alerts() -> None:
    """JPush demands an alert there, and a title beside it only repeats it."""
    android = rendered(Message(title="Shipped"))["notification"]["android"]
    assert android["alert"] == "Shipped"
    assert "title" not in android


@pytest.mark.parametrize("message", [Message(badge=3), Message(title_loc_key="SHIPPED")])
def test_what_has_no_words_goes_to_ios_alone(message: Message) -> None:
    """An Android notification without words is an error with JPush."""
    assert set(rendered(message)["notification"]) == {"ios"}


def test_a_badge_alone_alerts_nothing() -> None:
    """JPush requires the alert; an empty one shows nothing."""
    ios = rendered(Message(badge=3))["notification"]["ios"]
    assert (ios["alert"], ios["badge"]) == ("", 3)


def test_a_large_badge_is_cut_on_android() -> None:
    """JPush sets up to 99 there."""
    notification = rendered(Message(title="-", badge=1000))["notification"]
    assert (notification["android"]["badge_set_num"], notification["ios"]["badge"]) == (99, 1000)


def test_the_environment_is_always_said() -> None:
    """JPush's own default differs between its API and its libraries."""
    assert rendered(Message(title="-"), is_production=False)["options"]["apns_production"] is False


def test_a_translation_is_chosen_by_the_device() -> None:
    """On both platforms."""
    message = Message(title="Shipped", body="On its way", translations={"de": {"body": "Unterwegs"}})
    notification = rendered(message, "de-AT")["notification"]
    assert notification["android"]["alert"] == "Unterwegs"
    assert notification["ios"]["alert"] == {"title": "Shipped", "body": "Unterwegs"}


# --- the section


def test_the_section_is_merged_over_the_push_object() -> None:
    """Objects deeply, arrays and values replaced, null deletes."""
    message = Message(
        title="Shipped",
        body="On its way",
        jpush={
            "notification": {
                "android": {"title": None, "inbox": {"a": "b"}, "extras": {"more": [1, 2]}},
                "ios": {"alert": "Hello"},
                "hmos": {"alert": "Hello", "category": "IM"},
            },
            "options": {"time_to_live": 60, "third_party_channel": {"vivo": {"distribution": "jpush"}}},
            "sms_message": {"temp_id": 1},
        },
    )
    assert problems(message) == []
    assert rendered(message) == {
        "platform": "all",
        "notification": {
            "android": {
                "alert": "On its way",
                "priority": 1,
                "inbox": {"a": "b"},
                "extras": {"more": [1, 2], "pushfan": RESERVED},
            },
            "ios": {"alert": "Hello", "extras": {"pushfan": RESERVED}},
            "hmos": {"alert": "Hello", "category": "IM", "extras": {"pushfan": RESERVED}},
        },
        "options": {
            "apns_production": True,
            "time_to_live": 60,
            "third_party_channel": {"vivo": {"distribution": "jpush"}},
        },
        "sms_message": {"temp_id": 1},
    }


def test_the_reserved_key_survives_a_section_that_deletes_what_held_it() -> None:
    """Apps and simulators correlate by it."""
    message = Message(
        title="-", jpush={"notification": {"android": {"extras": None}, "ios": {"extras": "x"}}}
    )
    notification = rendered(message)["notification"]
    assert notification["android"]["extras"] == {"pushfan": RESERVED}
    assert notification["ios"]["extras"] == {"pushfan": RESERVED}


FORBIDDEN: dict[str, dict[str, Any]] = {
    "message.jpush.audience": {"audience": "all"},
    "message.jpush.Audience": {"Audience": "all"},
    "message.jpush.platform": {"platform": ["android"]},
    "message.jpush.cid": {"cid": "0-1"},
    "message.jpush.callback": {"callback": {"url": "https://evil.example.com"}},
    "message.jpush.options.apns_production": {"options": {"apns_production": False}},
    "message.jpush.options.apnsProduction": {"options": {"apnsProduction": False}},
    "message.jpush.notification.android.extras.pushfan": {
        "notification": {"android": {"extras": {"pushfan": "mine"}}}
    },
    "message.jpush.notification.ios.extras.pushfan": {"notification": {"ios": {"extras": {"pushfan": None}}}},
    "message.jpush.notification.hmos.extras.pushfan": {"notification": {"hmos": {"extras": {"pushfan": ""}}}},
    "message.jpush.message.extras.pushfan": {"message": {"extras": {"pushfan": "mine"}}},
    "message.jpush.target": {"target": "1a0018970a8d"},
    "message.jpush.pushlist": {"pushlist": {}},
    "message.jpush.live_activity": {"live_activity": {}},
    "message.jpush.notification": {"notification": "Hello"},
    "message.jpush.notification.android": {"notification": {"android": "Hello"}},
    "message.jpush.options": {"options": [1]},
    "message.jpush": {"notification": None},
}


@pytest.mark.parametrize("path", FORBIDDEN)
def test_each_forbidden_override_is_refused_by_name(path: str) -> None:
    """Nobody reaches more devices than were resolved, nor other credentials."""
    found = problems(Message(title="Shipped", jpush=FORBIDDEN[path]))
    assert path in [problem.path for problem in found]


@pytest.mark.parametrize("value", ["all", None, {}, {"registration_id": ["1"]}, ["all"]], ids=repr)
def test_no_value_of_audience_is_possible(value: object) -> None:
    """Not even deleting it."""
    found = problems(Message(title="Shipped", jpush={"audience": value}))
    assert [str(problem) for problem in found] == [
        "message.jpush.audience: cannot be overridden: Pushfan addresses the devices"
    ]


def test_all_problems_are_named_at_once() -> None:
    """Not the first one alone."""
    message = Message(
        title="x" * 4096,
        jpush={"audience": "all", "cid": "1", "novel": 1, "options": {"apns_production": True}},
    )
    assert [problem.path.removeprefix("message.jpush") for problem in problems(message)] == [
        ".audience",
        ".cid",
        ".options.apns_production",
        ".novel",
        "",
        "",
    ]


def test_a_disabled_section_is_not_checked() -> None:
    """What is not sent to JPush need not fit JPush."""
    assert problems(Message(title="x" * 4096, jpush={"enabled": False, "audience": "all"})) == []


# --- sizes


def texts(message: Message) -> list[str]:
    """The problems with one rendering."""
    push = render(content(message), None, time_to_live=0, is_production=True)
    return [str(problem) for problem in problems_with(message, push)]


def test_the_largest_notification_for_ios_passes_and_one_byte_more_does_not() -> None:
    """2,000 bytes of what JPush measures, and the refusal names both numbers."""
    ios = rendered(Message(title="-", data={"x": ""}))["notification"]["ios"]
    room = 2000 - len(json.dumps(ios, separators=(",", ":")).encode())
    assert texts(Message(title="-", data={"x": "y" * room})) == []
    assert texts(Message(title="-", data={"x": "y" * (room + 1)})) == [
        "message.jpush: the iOS notification is 2001 bytes, the limit is 2000"
    ]


def test_android_is_measured_with_the_message_beside_the_notification() -> None:
    """4,000 bytes together."""
    hidden_ios: dict[str, Any] = {"ios": None}
    section = {"notification": hidden_ios, "message": {"msg_content": ""}}
    push = rendered(Message(title="-", jpush=section))
    parts = [{"android": push["notification"]["android"]}, push["message"]]
    room = 4000 - sum(len(json.dumps(part, separators=(",", ":")).encode()) for part in parts)
    for more, expected in (
        (0, []),
        (1, ["message.jpush: the Android payload is 4001 bytes, the limit is 4000"]),
    ):
        section = {"notification": hidden_ios, "message": {"msg_content": "x" * (room + more)}}
        assert texts(Message(title="-", jpush=section)) == expected


def test_a_silent_message_is_measured() -> None:
    """4,000 bytes on both platforms."""
    found = texts(Message(silent=True, data={"x": "y" * 4000}))
    assert [text.split(" is ")[0] for text in found] == [
        "message.jpush: the Android payload",
        "message.jpush: the iOS message",
    ]


def test_the_door_measures_the_longest_language() -> None:
    """A message that fits in one language and not in another is refused as a whole."""
    message = Message(title="-", translations={"zh": {"title": "长" * 700}})
    assert [problem.code for problem in problems(message)] == ["too_large"]


TEXTS = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=1200)


@given(
    title=TEXTS.filter(str.strip),
    data=st.dictionaries(st.sampled_from(["order", "链接", "q\"'\\"]), TEXTS, max_size=3),
    is_silent=st.booleans(),
)
def test_what_passes_the_door_fits_in_jpushs_limits(
    title: str, data: dict[str, str], *, is_silent: bool
) -> None:
    """Whatever the message: either it is refused, or each platform's part is within its limit."""
    message = Message(silent=True, data=data) if is_silent else Message(title=title, data=data)
    push = rendered(message)
    notification, to_app = push.get("notification", {}), push.get("message")

    def size(*parts: Any) -> int:
        return sum(
            len(json.dumps(part, ensure_ascii=False, separators=(",", ":")).encode())
            for part in parts
            if part
        )

    fits = (
        size({"android": notification.get("android")}, to_app) <= 4000
        and size(notification.get("ios")) <= 2000
    ) or (not notification and size(to_app) <= 4000)
    if not problems(message):
        assert fits
