"""The JSON form of events: a public contract, pinned by literals and by properties."""

import json
import os
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from events import (
    BucketWrite,
    Change,
    DirectPush,
    Environment,
    Event,
    InterruptionLevel,
    InvalidEvent,
    Lane,
    Message,
    OnUnknown,
    Priority,
    TopicMessage,
    decode,
    encode,
)
from events.wire import canonical

# `make cases` looks harder.
EXAMPLES = int(os.environ.get("PUSHFAN_TEST_WIRE_EXAMPLES", "300"))
# The examples of the design, as other languages write them.
DIRECT: dict[str, Any] = {
    "version": 1, "kind": "direct", "app": "shop", "id": "order-812-shipped", "users": ["u7"],
    "ttl_seconds": 3600,
    "message": {"title": "Shipped", "body": "Order 812 is on its way", "data": {"order": "812"},
                "collapse_key": "order-812", "url": "shop://orders/812", "channel_id": "orders",
                "apns": {"payload": {"aps": {"target-content-id": "order-812"}}},
                "jpush": {"enabled": False}},
}  # fmt: skip
TOPIC: dict[str, Any] = {
    "version": 1, "kind": "topic", "app": "shop", "id": "t1", "topic": "news", "scope": "group:42",
    "actor": "u3", "lane": "bulk", "expires_at": "2026-01-31T12:00:00+00:00", "message": {"title": "Sale"},
}  # fmt: skip
BUCKET: dict[str, Any] = {
    "version": 1, "kind": "bucket", "app": "shop", "id": "b1", "bucket": "orders", "object": "o1",
    "change": "body_updated",
}  # fmt: skip
EVERY_FIELD: dict[str, Any] = {
    "title": "t", "body": "b", "subtitle": "s", "image": "https://example.com/a.png", "icon": "bell",
    "color": "#00aaff", "sound": "default", "badge": 0, "url": "shop://orders/812", "data": {"a": ""},
    "category": "ORDER", "thread_id": "orders", "channel_id": "orders", "tag": "o", "collapse_key": "k",
    "priority": "high", "mutable_content": True, "interruption_level": "time-sensitive",
    "relevance_score": 0, "title_loc_key": "T", "title_loc_args": ["a"], "body_loc_key": "B",
    "body_loc_args": ["b", ""], "translations": {"de": {"title": "T", "body": "B", "subtitle": "S"}},
    "analytics_label": "spring", "on_unknown": "drop", "fcm": {"a": None}, "apns": {"a": [1, {"b": 0.5}]},
    "jpush": {},
}  # fmt: skip


def problems_of(wire: object) -> list[str]:
    """Decode what is wrong and return its problems as text."""
    with pytest.raises(InvalidEvent) as caught:
        decode(wire)
    return str(caught.value).splitlines()


@pytest.mark.parametrize("wire", [DIRECT, TOPIC, BUCKET, DIRECT | {"message": EVERY_FIELD}])
def test_wire_form_is_kept_to_the_letter(wire: dict[str, Any]) -> None:
    """What another language wrote comes out as it went in: nothing added, nothing renamed."""
    assert encode(decode(wire)) == wire


def test_events_are_decoded_into_their_types() -> None:
    """Literal wire forms and the same events built in Python are equal."""
    assert decode(DIRECT) == DirectPush(
        app="shop", id="order-812-shipped", users=["u7"], ttl_seconds=3600,
        message=Message(
            title="Shipped", body="Order 812 is on its way", data={"order": "812"}, collapse_key="order-812",
            url="shop://orders/812", channel_id="orders",
            apns={"payload": {"aps": {"target-content-id": "order-812"}}}, jpush={"enabled": False},
        ),
    )  # fmt: skip
    assert decode(TOPIC) == TopicMessage(
        app="shop", id="t1", topic="news", scope="group:42", actor="u3", lane=Lane.BULK,
        expires_at=datetime(2026, 1, 31, 12, tzinfo=UTC), message=Message(title="Sale"),
    )  # fmt: skip
    assert decode(BUCKET) == BucketWrite(
        app="shop", id="b1", bucket="orders", object="o1", change=Change.BODY_UPDATED
    )


def test_encoded_event_has_plain_json_types_only() -> None:
    """Any JSON library can write it, not only ours."""

    def plain(value: Any) -> bool:
        if type(value) is dict:
            return all(type(key) is str and plain(member) for key, member in value.items())
        if type(value) is list:
            return all(map(plain, value))
        return value is None or type(value) in (str, int, float, bool)

    assert plain(encode(decode(DIRECT | {"message": EVERY_FIELD, "lane": "urgent"})))
    assert plain(encode(decode(TOPIC)))


def test_null_means_not_set() -> None:
    """Many serialisers write null for what is unset."""
    nulls = {"lane": None, "expires_at": None}
    assert encode(decode(DIRECT | nulls | {"message": {"title": "Hi", "badge": None, "data": None}})) == (
        DIRECT | {"message": {"title": "Hi"}}
    )
    assert decode(BUCKET | {"message": None, "scope": None}) == decode(BUCKET)


def test_whole_number_may_be_written_as_a_float() -> None:
    """To JSON 60.0 and 60 are the same number; 60.5 is no whole one, however it is written."""
    assert decode(DIRECT | {"ttl_seconds": 60.0, "message": {"title": "Hi", "badge": 2.0}}) == (
        decode(DIRECT | {"ttl_seconds": 60, "message": {"title": "Hi", "badge": 2}})
    )
    for number in (60.5, float("inf"), float("nan"), 1e300):
        assert len(problems_of(DIRECT | {"ttl_seconds": number})) == 1


def test_null_in_a_section_is_kept() -> None:
    """There it deletes a field from a vendor's body."""
    wire = DIRECT | {"message": {"title": "Hi", "fcm": {"android": {"ttl": None}}}}
    assert encode(decode(wire)) == wire


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"version": None}, "version: is required: 1"),
        ({"version": 2}, "version: must be 1, the only version there is"),
        ({"version": "1"}, "version: must be 1, the only version there is"),
        ({"version": True}, "version: must be 1, the only version there is"),
        ({"kind": None}, "kind: is required: one of bucket, topic, direct"),
        ({"kind": "topics"}, "kind: must be one of bucket, topic, direct (did you mean topic?)"),
        ({"kind": ["direct"]}, "kind: must be one of bucket, topic, direct (did you mean direct?)"),
        ({"user": "u7"}, "user: is not a field (did you mean users?)"),
        ({"zzz": 1}, "zzz: is not a field"),
        ({"topic": "news"}, "topic: is not a field"),
        ({"users": None}, "users: is required"),
        ({"message": None}, "message: is required"),
        ({"message": "Hi"}, "message: must be an object"),
        ({"message": {"titel": "Hi", "body": "b"}}, "message.titel: is not a field (did you mean title?)"),
        ({"message": {"title": "Hi", "data": {"count": 3}}}, "message.data.count: must be a string"),
    ],
)
def test_wrong_wire_form_is_named_with_path_and_reason(change: dict[str, Any], expected: str) -> None:
    """One mistake yields exactly one problem."""
    assert problems_of(DIRECT | change) == [expected]


@pytest.mark.parametrize("wire", [None, [], "direct", 1, [DIRECT]])
def test_anything_but_an_object_is_refused(wire: object) -> None:
    """A list of events is not an event."""
    assert problems_of(wire) == ["event: must be an object"]


def test_all_problems_of_envelope_event_and_message_are_named_at_once() -> None:
    """Whoever writes the JSON by hand corrects it once."""
    wire = {
        "version": 2, "kind": "direct", "user": ["u7"], "ttl_seconds": "60",
        "message": {"titel": "Hi", "data": {"count": 3}, "badge": -1},
    }  # fmt: skip
    assert problems_of(wire) == [
        "version: must be 1, the only version there is",
        "message.titel: is not a field (did you mean title?)",
        "message.badge: must be between 0 and 2,147,483,647",
        "message.data.count: must be a string",
        "user: is not a field (did you mean users?)",
        "app: is required",
        "ttl_seconds: must be a whole number",
        "users: is required",
    ]


def test_message_is_checked_even_if_the_kind_is_unknown() -> None:
    """What can be known is told."""
    assert problems_of({"version": 1, "kind": "push", "message": {"title": 3}}) == [
        "message.title: must be a string",
        "kind: must be one of bucket, topic, direct",
    ]


def test_reader_names_events_that_came_without_an_id() -> None:
    """Reading the same bytes twice must give the same event, or a redelivered message pushes twice."""
    wire = {key: value for key, value in BUCKET.items() if key != "id"}
    assert decode(wire, id_if_missing="task-1.0") == decode(wire, id_if_missing="task-1.0")
    assert decode(wire, id_if_missing="task-1.0").id == "task-1.0"
    assert decode(BUCKET, id_if_missing="task-1.0").id == "b1"
    assert re.fullmatch("[0-9a-f]{32}", decode(wire).id)


def test_default_message_of_a_bucket_write_is_not_sent() -> None:
    """Reader and writer derive it from the change; a given message travels."""
    assert "message" not in encode(decode(BUCKET))
    assert encode(decode(BUCKET | {"message": {"title": "Hi"}}))["message"] == {"title": "Hi"}


def test_silent_message_without_data_is_not_taken_for_the_default() -> None:
    """A producer that wants the app woken and nothing said gets just that."""
    wire = BUCKET | {"message": {"silent": True}}
    assert encode(decode(wire)) == wire
    assert decode(wire).message.data == {}


def test_canonical_form_is_the_same_for_equal_events() -> None:
    """The order of fields and of users, and fields that say nothing, do not make another event."""
    one = decode(DIRECT | {"users": ["u1", "u2"], "message": {"title": "T", "data": {"a": "1", "b": "2"}}})
    other = decode(
        dict(reversed(DIRECT.items()))
        | {"users": ["u2", "u1", "u1"], "lane": None}
        | {"message": {"data": {"b": "2", "a": "1"}, "silent": False, "title": "T", "translations": {}}}
    )
    assert canonical(one) == canonical(other)
    assert json.loads(canonical(one)) == encode(one)


def test_canonical_form_differs_with_content() -> None:
    """Another title is another event."""
    assert canonical(decode(DIRECT)) != canonical(decode(DIRECT | {"message": {"title": "Other"}}))


# Everything that the rules allow, not only what people usually write.
_LETTERS = st.characters(exclude_categories=["Cs", "Cc"])
_WORD = st.text(_LETTERS, min_size=1, max_size=20).filter(str.strip)
_CONTENT = st.text(_LETTERS | st.sampled_from("\n\t\r"), min_size=1, max_size=40).filter(str.strip)
_NAME = st.from_regex(r"[A-Za-z0-9_.:-]{1,64}", fullmatch=True)
_SCOPE = st.just("app") | st.builds("{}:{}".format, st.sampled_from(["group", "user", "thing"]), _WORD)
_NUMBER = st.integers(-(2**63), 2**63 - 1) | st.floats(-9e18, 9e18)
_JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | _NUMBER | st.text(_LETTERS, max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_WORD, inner, max_size=3),
    max_leaves=8,
)
_SECTION = st.none() | st.dictionaries(_WORD, _JSON, max_size=3)
_DATA = st.dictionaries(
    _WORD.filter(lambda key: key != "pushfan"), st.text(_LETTERS, max_size=20), max_size=4
)
_TRANSLATION = st.dictionaries(st.sampled_from(["title", "body", "subtitle"]), _CONTENT, min_size=1)
_OPTIONAL_WORD = st.none() | _WORD
_SHOWN: dict[str, st.SearchStrategy[Any]] = {
    "title": _CONTENT, "body": st.none() | _CONTENT, "subtitle": st.none() | _CONTENT,
    "image": st.sampled_from([None, "https://example.com/ä.png"]), "icon": _OPTIONAL_WORD,
    "color": st.sampled_from([None, "#00aaff", "#FFFFFF"]), "sound": _OPTIONAL_WORD,
    "badge": st.none() | st.integers(0, 2**31 - 1), "url": st.sampled_from([None, "shop://a", "tel:1"]),
    "category": _OPTIONAL_WORD, "thread_id": _OPTIONAL_WORD, "channel_id": _OPTIONAL_WORD,
    "tag": _OPTIONAL_WORD, "mutable_content": st.booleans(),
    "interruption_level": st.none() | st.sampled_from(InterruptionLevel),
    "relevance_score": st.none() | st.floats(0, 1) | st.integers(0, 1),
    "title_loc_key": _WORD, "title_loc_args": st.lists(st.text(_LETTERS, max_size=5), max_size=3),
    "body_loc_key": _WORD, "body_loc_args": st.lists(st.text(_LETTERS, max_size=5), max_size=3),
    "translations": st.dictionaries(st.sampled_from(["de", "pt-BR", "zh_Hans_CN"]), _TRANSLATION),
}  # fmt: skip
_OPTIONS: dict[str, st.SearchStrategy[Any]] = {
    "data": _DATA, "collapse_key": st.none() | st.text(_LETTERS, min_size=1, max_size=16).filter(str.strip),
    "priority": st.none() | st.sampled_from(Priority), "on_unknown": st.sampled_from(OnUnknown),
    "analytics_label": st.none() | st.from_regex("[A-Za-z0-9_.~%-]{1,50}", fullmatch=True),
    "fcm": _SECTION, "apns": _SECTION, "jpush": _SECTION,
}  # fmt: skip
MESSAGES = st.builds(Message, **_SHOWN, **_OPTIONS) | st.builds(Message, silent=st.just(True), **_OPTIONS)


def _events(kind: Callable[..., Event], **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Event]:
    common = {
        "app": _NAME,
        "id": _WORD,
        "lane": st.none() | st.sampled_from(Lane),
        "environment": st.none() | st.sampled_from(Environment),
    }
    moments = st.datetimes(timezones=st.timezones() | st.just(UTC), allow_imaginary=False)
    inside = moments.filter(lambda moment: 1 < moment.year < 9999)
    return st.one_of(
        st.builds(kind, **common, **fields, ttl_seconds=st.none() | st.integers(0, 28 * 86400)),
        st.builds(kind, **common, **fields, expires_at=inside),
    )


_BY_TARGET: dict[str, st.SearchStrategy[Any]] = {"scope": _SCOPE, "actor": _OPTIONAL_WORD}
_CHANGED: dict[str, st.SearchStrategy[Any]] = {
    "bucket": _NAME,
    "object": _WORD,
    "change": st.sampled_from(Change),
}
EVENTS = st.one_of(
    _events(DirectPush, users=st.lists(_WORD, min_size=1, max_size=5), message=MESSAGES),
    _events(TopicMessage, **_BY_TARGET, topic=_NAME, message=MESSAGES),
    _events(BucketWrite, **_BY_TARGET, **_CHANGED),
    _events(BucketWrite, **_BY_TARGET, **_CHANGED, message=MESSAGES),
)


@given(EVENTS)
@settings(max_examples=EXAMPLES, deadline=None)
def test_every_event_survives_the_wire(event: Event) -> None:
    """Through real JSON text and back nothing changes, and what is equal has equal bytes and hashes."""
    revived = decode(json.loads(json.dumps(encode(event))))
    assert revived == event
    assert hash(revived) == hash(event)
    assert canonical(revived) == canonical(event)


_ANY_JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
_FIELDS = st.sampled_from([*DIRECT, *TOPIC, *BUCKET, "surplus"])


@given(
    st.sampled_from([DIRECT, TOPIC, BUCKET]),
    st.dictionaries(_FIELDS, _ANY_JSON, max_size=3),
    st.dictionaries(st.sampled_from([*EVERY_FIELD, "silent", "surplus"]), _ANY_JSON, max_size=3),
)
@settings(max_examples=EXAMPLES, deadline=None)
def test_no_input_breaks_the_reader(
    wire: dict[str, Any], changes: dict[str, Any], message_changes: dict[str, Any]
) -> None:
    """Any JSON is either an event, which can be sent on, or problems that can be stored and shown."""
    message = {"title": "Hi"} | message_changes
    try:
        event = decode(wire | {"message": message} | changes)
    except InvalidEvent as error:
        problems = str(error)
    else:
        assert decode(json.loads(canonical(event))) == event
        return
    assert not re.search("[\x00\ud800-\udfff]", problems)
    assert problems
