"""Portable messages in Apple's dialect: each field, the section over it, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from events import BucketWrite, Change, DirectPush, InterruptionLevel, Message, OnUnknown, Priority, Problem
from providers.apns import ApnsProvider, check_event
from providers.outcome import Answer, ChannelConfig, Content, Push, Rejected
from providers.provider import Batch

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
KEY = ec.generate_private_key(ec.SECP256R1()).private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
)
RESERVED = '{"n":"7","k":"direct"}'
TOKEN = "00fc13adff785122b4ad28809a3420982341241421348097878e577c991de8f0"
DELIVERY_ID = "3f1c9c1e-5d44-4b5f-9a0e-0c8f7a1d2b3c"


def provider(**changes: Any) -> ApnsProvider:
    """A channel with a team's key."""
    settings = {"key_id": "ABC123DEFG", "team_id": "DEF123GHIJ", "apns_topic": "com.example.shop"}
    config = ChannelConfig(provider="apns", settings=settings, secrets={"key": KEY}, **changes)
    return ApnsProvider(config, now=lambda: NOW)


def content(message: Message, *, lives: timedelta = timedelta(hours=1), number: int = 7) -> Content:
    """A direct message as a notification."""
    event = DirectPush(app="shop", users=("u7",), message=message)
    return Content(notification_id=number, event=event, expires_at=NOW + lives)


def push_of(content: Content, *, token: str = TOKEN, position: int = 0, locale: str | None = None) -> Push:
    """A push of a notification."""
    return Push(position=position, token=token, content=content, delivery_id=DELIVERY_ID, locale=locale)


def push(message: Message, *, lives: timedelta = timedelta(hours=1), locale: str | None = None) -> Push:
    """A push of a direct message."""
    return push_of(content(message, lives=lives), locale=locale)


def prepared(message: Message, **fields: Any) -> Batch:
    """The request that carries the message."""
    result = provider().prepare([push(message, **fields)])
    assert result.answers == []
    (batch,) = result.batches
    return batch


def payload(message: Message, **fields: Any) -> Any:
    """The body of the request, read as JSON."""
    return json.loads(prepared(message, **fields).body)


def headers(message: Message, **fields: Any) -> Mapping[str, str]:
    """The headers of the request."""
    return dict(line.split(": ", 1) for line in prepared(message, **fields).headers)


def refused(message: Message, **fields: Any) -> str:
    """The reason for which the message is not sent."""
    result = provider().prepare([push(message, **fields)])
    assert result.batches == []
    (answer,) = result.answers
    assert isinstance(answer.outcome, Rejected)
    assert not answer.outcome.suspects_token
    return answer.outcome.reason


def problems(message: Message) -> list[Problem]:
    """What the door says about a message."""
    return check_event(DirectPush(app="shop", users=("u7",), message=message))


def test_a_simple_message() -> None:
    """The whole request: only the path knows the token, and the id is the delivery's."""
    batch = prepared(Message(title="Shipped", body="On its way"))
    assert batch.url == f"https://api.push.apple.com/3/device/{TOKEN}"
    assert dict(line.split(": ", 1) for line in batch.headers) == {
        "content-type": "application/json",
        "apns-push-type": "alert",
        "apns-topic": "com.example.shop",
        "apns-priority": "10",
        "apns-expiration": "1795438800",
        "apns-id": "3f1c9c1e-5d44-4b5f-9a0e-0c8f7a1d2b3c",
    }
    assert json.loads(batch.body) == {
        "aps": {"alert": {"title": "Shipped", "body": "On its way"}},
        "pushfan": RESERVED,
    }
    assert batch.is_resend_allowed
    assert batch.request_tag is None


def test_every_field() -> None:
    """Each portable field is where the table of the module says; those for Android are nowhere."""
    message = Message(
        title="Shipped",
        body="Order 812 is on its way",
        subtitle="Track it",
        image="https://example.com/parcel.png",
        icon="parcel",
        color="#00aaff",
        sound="bell.caf",
        badge=0,
        url="shop://orders/812",
        data={"order": "812"},
        category="ORDER",
        thread_id="orders",
        channel_id="orders",
        tag="order-812",
        collapse_key="order-812",
        interruption_level=InterruptionLevel.TIME_SENSITIVE,
        relevance_score=0.5,
        title_loc_key="SHIPPED",
        title_loc_args=("812",),
        body_loc_key="ON_ITS_WAY",
        body_loc_args=("812", "soon"),
        analytics_label="orders",
    )
    assert payload(message) == {
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
            "badge": 0,
            "category": "ORDER",
            "thread-id": "orders",
            "mutable-content": 1,
            "interruption-level": "time-sensitive",
            "relevance-score": 0.5,
        },
        "order": "812",
        "url": "shop://orders/812",
        "image": "https://example.com/parcel.png",
        "pushfan": RESERVED,
    }
    assert headers(message)["apns-collapse-id"] == "order-812"


def test_mutable_content_alone() -> None:
    """The app's service extension is asked for without an image, too."""
    aps = payload(Message(title="Shipped", mutable_content=True))["aps"]
    assert aps == {"alert": {"title": "Shipped"}, "mutable-content": 1}


def test_a_silent_message_is_a_background_push() -> None:
    """It wakes the app, with priority 5 even if urgent: Apple calls 10 an error there."""
    message = Message(silent=True, data={"sync": "1"}, priority=Priority.HIGH)
    assert payload(message) == {"aps": {"content-available": 1}, "sync": "1", "pushfan": RESERVED}
    assert headers(message)["apns-push-type"] == "background"
    assert headers(message)["apns-priority"] == "5"


def test_a_bucket_write_is_a_background_push_about_the_change() -> None:
    """Its bucket is the collapse id, and the reserved key says what changed."""
    event = BucketWrite(app="shop", bucket="orders", object="o1", change=Change.UPDATED, scope="group:42")
    written = Content(notification_id=7, event=event, expires_at=NOW + timedelta(hours=1))
    (batch,) = provider().prepare([push_of(written)]).batches
    body = json.loads(batch.body)
    assert body["aps"] == {"content-available": 1}
    assert json.loads(body["pushfan"]) == {
        "n": "7", "k": "bucket", "b": "orders", "o": "o1", "c": "updated", "s": "group:42",
    }  # fmt: skip
    assert "apns-collapse-id: orders" in batch.headers


@pytest.mark.parametrize(
    ("priority", "expected"), [(None, "10"), (Priority.HIGH, "10"), (Priority.NORMAL, "5")]
)
def test_the_priority_of_what_is_shown(priority: Priority | None, expected: str) -> None:
    """What is shown is urgent unless the message says otherwise."""
    assert headers(Message(title="Shipped", priority=priority))["apns-priority"] == expected


def test_no_time_to_live_is_one_attempt() -> None:
    """Apple shall not store it."""
    assert headers(Message(title="Shipped"), lives=timedelta(0))["apns-expiration"] == "0"


def test_a_badge_alone_is_shown_and_not_background() -> None:
    """Clearing the badge is something that the person sees."""
    message = Message(badge=0)
    assert payload(message)["aps"] == {"badge": 0}
    assert headers(message)["apns-push-type"] == "alert"


def test_a_translation_is_chosen_by_the_device() -> None:
    """Each device gets its own words; what a translation lacks stays."""
    message = Message(title="Shipped", body="On its way", translations={"de": {"title": "Versandt"}})
    result = provider().prepare([push(message, locale=locale) for locale in ("de-AT", "fr", None)])
    alerts = [json.loads(batch.body)["aps"]["alert"] for batch in result.batches]
    assert alerts == [
        {"title": "Versandt", "body": "On its way"},
        {"title": "Shipped", "body": "On its way"},
        {"title": "Shipped", "body": "On its way"},
    ]


def test_one_content_is_rendered_once_for_many_devices() -> None:
    """The same bytes object serves all devices of a language."""
    shipped = content(Message(title="Shipped"))
    pushes = [push_of(shipped, token=f"{n:064x}") for n in range(50)]
    bodies = {id(batch.body) for batch in provider().prepare(pushes).batches}
    assert len(bodies) == 1


def test_a_collapse_key_that_no_header_can_carry_is_replaced_by_a_digest() -> None:
    """Equal keys stay equal, different ones different."""
    one, same, other = (
        headers(Message(title="-", collapse_key=key))["apns-collapse-id"]
        for key in ("订单-1", "订单-1", "订单-2")
    )
    assert one == same != other
    assert one.isascii()
    assert len(one) <= 64


@pytest.mark.parametrize(("on_unknown", "is_allowed"), [(OnUnknown.DROP, False), (OnUnknown.RETRY, True)])
def test_a_message_to_be_dropped_is_not_resent_below_us(on_unknown: OnUnknown, *, is_allowed: bool) -> None:
    """What may be repeated silently is the message's choice."""
    assert prepared(Message(title="Shipped", on_unknown=on_unknown)).is_resend_allowed is is_allowed


@pytest.mark.parametrize(
    ("changes", "url"),
    [
        ({}, "https://api.push.apple.com/3/device/"),
        ({"environment": "sandbox"}, "https://api.sandbox.push.apple.com/3/device/"),
        ({"endpoint": "https://apns.example.com:2197/"}, "https://apns.example.com:2197/3/device/"),
    ],
)
def test_the_address_follows_environment_and_endpoint(changes: dict[str, Any], url: str) -> None:
    """An endpoint replaces the environment's address."""
    (batch,) = provider(**changes).prepare([push(Message(title="-"))]).batches
    assert batch.url == url + TOKEN


@pytest.mark.parametrize("token", ["", "xyz", "../../v1/evil", "ab cd", "ab?x", "ab#", "ａｂ", "ab\r\n"])
def test_a_token_that_cannot_be_one_is_refused_without_asking(token: str) -> None:
    """In a path it could address something else; the doubt is about the token, and weak."""
    it = push_of(content(Message(title="-")), token=token)
    result = provider().prepare([it])
    assert result.batches == []
    assert result.answers == [
        Answer(push=it, outcome=Rejected(reason="MalformedDeviceToken", suspects_token=True))
    ]


def test_each_push_ends_in_exactly_one_place() -> None:
    """Good ones, malformed ones and refused ones keep apart."""
    good = content(Message(title="-"))
    large = content(Message(title="-", data={"x": "y" * 4096}), number=8)
    pushes = [
        push_of(large if n % 3 == 0 else good, position=n, token="zz" if n % 2 else TOKEN) for n in range(12)
    ]
    result = provider().prepare(pushes)
    sent = {batch.pushes[0].position for batch in result.batches}
    assert sent == {2, 4, 8, 10}
    assert {answer.push.position for answer in result.answers} == set(range(12)) - sent


# --- the section


def test_the_section_is_merged_over_the_rendering() -> None:
    """Objects deeply, arrays replaced, null deletes, in payload and headers."""
    message = Message(
        title="Shipped",
        body="On its way",
        body_loc_key="WAY",
        body_loc_args=("a", "b"),
        collapse_key="order-812",
        apns={
            "payload": {
                "aps": {"alert": {"body": None, "loc-args": ["c"]}, "target-content-id": "order-812"},
                "extra": {"deep": [1, 2]},
            },
            "headers": {"apns-collapse-id": None, "apns-priority": 1, "Apns-Expiration": "0"},
        },
    )
    assert payload(message) == {
        "aps": {
            "alert": {"title": "Shipped", "loc-key": "WAY", "loc-args": ["c"]},
            "target-content-id": "order-812",
        },
        "extra": {"deep": [1, 2]},
        "pushfan": RESERVED,
    }
    sent = headers(message)
    assert "apns-collapse-id" not in sent
    assert (sent["apns-priority"], sent["apns-expiration"]) == ("1", "0")


@pytest.mark.parametrize(
    ("push_type", "topic"),
    [
        ("alert", "com.example.shop"),
        ("background", "com.example.shop"),
        ("complication", "com.example.shop.complication"),
        ("controls", "com.example.shop.push-type.controls"),
        ("fileprovider", "com.example.shop.pushkit.fileprovider"),
        ("liveactivity", "com.example.shop.push-type.liveactivity"),
        ("location", "com.example.shop.location-query"),
        ("mdm", "com.example.shop"),
        ("pushtotalk", "com.example.shop.voip-ptt"),
        ("voip", "com.example.shop.voip"),
        ("widgets", "com.example.shop.push-type.widgets"),
    ],
)
def test_the_topic_follows_the_push_type(push_type: str, topic: str) -> None:
    """Each type of push has a topic of its own below the bundle id."""
    sent = headers(Message(silent=True, apns={"headers": {"apns-push-type": push_type}}))
    assert sent["apns-topic"] == topic


def test_a_topic_below_the_channels_own_can_be_chosen() -> None:
    """For an app's own extensions."""
    message = Message(title="-", apns={"headers": {"apns-topic": "com.example.shop.watchkitapp"}})
    assert headers(message)["apns-topic"] == "com.example.shop.watchkitapp"


@pytest.mark.parametrize(
    "topic", ["com.example.bank", "com.example.shopping", "com.example.shopping.voip", "com"]
)
def test_a_foreign_topic_is_refused_by_name(topic: str) -> None:
    """The start of a name is not enough: it must end at a dot."""
    reason = refused(Message(title="-", apns={"headers": {"apns-topic": topic}}))
    assert reason.startswith("ForbiddenOverride: message.apns.headers.apns-topic: ")
    assert topic in reason
    assert "com.example.shop" in reason


def test_the_push_type_follows_what_the_section_left() -> None:
    """A section that shows something is no background push, and one that hides everything is."""
    shown = Message(silent=True, apns={"payload": {"aps": {"alert": "Hello"}}})
    hidden = Message(title="-", apns={"payload": {"aps": {"alert": None, "content-available": 1}}})
    assert headers(shown)["apns-push-type"] == "alert"
    assert headers(hidden)["apns-push-type"] == "background"
    assert headers(hidden)["apns-priority"] == "5"


FORBIDDEN: dict[str, dict[str, Any]] = {
    "message.apns.headers.authorization": {"headers": {"authorization": "bearer x"}},
    "message.apns.headers.Authorization": {"headers": {"Authorization": "bearer x"}},
    "message.apns.headers.apns-id": {"headers": {"apns-id": DELIVERY_ID}},
    "message.apns.headers.Apns_Id": {"headers": {"Apns_Id": DELIVERY_ID}},
    "message.apns.headers.apns-channel-id": {"headers": {"apns-channel-id": "dHN0LXNyY2gtY2hubA=="}},
    "message.apns.payload.pushfan": {"payload": {"pushfan": "mine"}},
    "message.apns.headers.:path": {"headers": {":path": "/3/device/00"}},
    "message.apns.headers.host": {"headers": {"host": "evil.example.com"}},
    "message.apns.headers.content-length": {"headers": {"content-length": "3"}},
    "message.apns.token": {"token": "00"},
    "message.apns.topic": {"topic": "com.example.bank"},
    "message.apns.headers": {"headers": "apns-id: 1"},
    "message.apns.payload": {"payload": ["aps"]},
    "message.apns.payload.aps": {"payload": {"aps": None}},
    "message.apns.headers.apns-priority": {"headers": {"apns-priority": "11"}},
    "message.apns.headers.apns-expiration": {"headers": {"apns-expiration": "tomorrow"}},
    "message.apns.headers.apns-push-type": {"headers": {"apns-push-type": "shout"}},
    "message.apns.headers.apns-collapse-id": {"headers": {"apns-collapse-id": "x" * 65}},
    "message.apns.headers.apns-topic": {"headers": {"apns-topic": "com.example.shop\nx: y"}},
}


@pytest.mark.parametrize("path", FORBIDDEN)
def test_each_forbidden_override_is_refused_by_name(path: str) -> None:
    """At the door and again when it is sent."""
    message = Message(title="Shipped", apns=FORBIDDEN[path])
    assert path in [problem.path for problem in problems(message)]
    assert f"{path}: " in refused(message)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("authorization", "cannot be overridden: credentials belong to the channel"),
        ("apns-id", "cannot be overridden: Pushfan gives it, the same at every attempt"),
        (
            "host",
            "cannot be set; only apns-collapse-id, apns-expiration, apns-priority, apns-push-type, apns-topic",
        ),
    ],
)
def test_a_refused_header_says_why(name: str, text: str) -> None:
    """A producer reads what to do instead."""
    message = Message(title="-", apns={"headers": {name: "x"}})
    assert [str(problem) for problem in problems(message)] == [f"message.apns.headers.{name}: {text}"]


def test_a_background_push_cannot_be_urgent() -> None:
    """Apple calls that an error, so the door does."""
    message = Message(silent=True, apns={"headers": {"apns-priority": "10"}})
    assert [(problem.path, problem.code) for problem in problems(message)] == [
        ("message.apns.headers.apns-priority", "conflict")
    ]


@pytest.mark.parametrize(
    "value", ["5\r\napns-id: 1", "5\n", "\n5", "5\0", True, 5.0, ["5"], {"apns-priority": "5"}], ids=repr
)
@pytest.mark.parametrize(
    "name", ["apns-priority", "apns-expiration", "apns-collapse-id", "apns-topic", "apns-push-type"]
)
def test_no_header_value_breaks_out_of_its_line(name: str, value: object) -> None:
    """Whatever is refused by the message itself, by the door or at sending: it is refused."""
    try:
        message = Message(title="-", apns={"headers": {name: value}})
    except ValueError:
        return
    assert problems(message)
    refused(message)


def test_data_cannot_take_apples_own_key() -> None:
    """The key under which Apple reads the notification."""
    message = Message(title="-", data={"aps": "x"})
    assert [str(problem) for problem in problems(message)] == [
        "message.data.aps: is the key under which Apple reads the notification"
    ]


def test_all_problems_are_named_at_once() -> None:
    """Not the first one alone."""
    message = Message(
        title="-",
        data={"aps": "x"},
        apns={"token": "1", "headers": {"apns-id": "2", "x-y": "3", "apns-priority": "4"}},
    )
    assert {problem.path for problem in problems(message)} == {
        "message.data.aps",
        "message.apns.token",
        "message.apns.headers.apns-id",
        "message.apns.headers.x-y",
        "message.apns.headers.apns-priority",
    }


def test_a_disabled_section_is_not_checked() -> None:
    """What is not sent to Apple need not fit Apple."""
    assert problems(Message(title="-", data={"x": "y" * 4096}, apns={"enabled": False})) == []
    assert refused(Message(title="-", apns={"enabled": False})) == "DisabledForProvider"


# --- sizes


def size_of(message: Message) -> int:
    """The bytes of the body that would be sent."""
    result = provider().prepare([push(message)])
    return len(result.batches[0].body) if result.batches else 0


def test_the_largest_payload_is_sent_and_one_byte_more_is_not() -> None:
    """4,096 bytes of what is really sent, and the refusal names both numbers."""
    room = 4096 - size_of(Message(title="-", data={"x": ""}))
    assert size_of(Message(title="-", data={"x": "y" * room})) == 4096
    reason = refused(Message(title="-", data={"x": "y" * (room + 1)}))
    assert reason == "PayloadTooLarge: message.apns: the payload is 4097 bytes, the limit is 4096"


def test_a_voip_push_may_be_larger() -> None:
    """Apple allows 5,120 bytes there."""
    voip = {"headers": {"apns-push-type": "voip"}, "payload": {"y": "z" * 1000}}
    room = 5120 - size_of(Message(title="-", data={"x": ""}, apns=voip))
    assert size_of(Message(title="-", data={"x": "y" * room}, apns=voip)) == 5120
    assert "is 5121 bytes, the limit is 5120" in refused(
        Message(title="-", data={"x": "y" * (room + 1)}, apns=voip)
    )


def test_the_door_measures_the_longest_language() -> None:
    """A message that fits in one language and not in another is refused as a whole."""
    message = Message(title="-", translations={"de": {"title": "ü" * 2200}})
    assert [problem.code for problem in problems(message)] == ["too_large"]


TEXTS = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=1500)
MESSAGES = st.builds(
    Message,
    title=TEXTS.filter(str.strip),
    body=st.none() | TEXTS.filter(str.strip),
    data=st.dictionaries(st.sampled_from(["order", "链接", "q\"'\\"]), TEXTS, max_size=3),
    collapse_key=st.none()
    | st.text(min_size=1, max_size=16).filter(lambda key: key.isprintable() and key.strip()),
    apns=st.none() | st.builds(lambda text: {"payload": {"extra": text}}, TEXTS),
)


@given(MESSAGES)
def test_what_passes_the_door_fits_when_it_is_sent(message: Message) -> None:
    """The door measures at least as strictly as sending, and what is sent is never too large."""
    found = problems(message)
    result = provider().prepare([push(message)])
    if not found:
        assert result.answers == []
    for batch in result.batches:
        assert len(batch.body) <= 4096
        assert json.loads(batch.body)["pushfan"] == RESERVED
        assert all(line.isascii() and line.isprintable() for line in batch.headers)
