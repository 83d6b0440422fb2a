"""Merging, refused overrides, sizes, locales and delays: what all dialects share."""

from __future__ import annotations

from copy import deepcopy
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from events import BucketWrite, Change, DirectPush, Event, Message, OnUnknown, Priority, Problem, TopicMessage
from providers import dialect
from providers.engine import Response
from providers.outcome import Content

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)

leaves = (
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=3) | st.lists(st.integers(), max_size=2)
)
keys = st.sampled_from(["a", "b", "c", "data"])
objects = st.recursive(
    st.dictionaries(keys, leaves, max_size=3),
    lambda below: st.dictionaries(keys, leaves | below),
    max_leaves=12,
)


def has_null(value: object) -> bool:
    """Tell whether a null stands anywhere outside arrays."""
    return isinstance(value, dict) and any(member is None or has_null(member) for member in value.values())


def paths(value: dict[str, Any], prefix: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    """All leaves by their path; an empty object is a leaf."""
    found: dict[tuple[str, ...], Any] = {}
    for key, member in value.items():
        if isinstance(member, dict) and member:
            found |= paths(member, (*prefix, key))
        else:
            found[(*prefix, key)] = member
    return found


def test_objects_merge_deeply_arrays_are_replaced_and_null_deletes() -> None:
    """The three rules in one example."""
    portable = {"aps": {"alert": {"title": "a", "body": "b"}, "badge": 1}, "args": [1, 2], "data": {"x": "1"}}
    section = {"aps": {"alert": {"title": "A"}, "badge": None, "sound": "s"}, "args": [3], "data": None}
    assert dialect.merge(portable, section) == {
        "aps": {"alert": {"title": "A", "body": "b"}, "sound": "s"},
        "args": [3],
    }


def test_null_deletes_inside_an_object_that_was_not_there() -> None:
    """Nulls never reach the vendor."""
    assert dialect.merge({}, {"android": {"notification": {"icon": None, "sound": "s"}}}) == {
        "android": {"notification": {"sound": "s"}}
    }


def test_an_object_replaces_a_value_and_a_value_an_object() -> None:
    """Different shapes cannot merge: the section wins."""
    assert dialect.merge({"a": 1, "b": {"c": 1}}, {"a": {"d": 2}, "b": 3}) == {"a": {"d": 2}, "b": 3}


@settings(deadline=None)
@given(objects)
def test_merging_nothing_changes_nothing(portable: dict[str, Any]) -> None:
    """An empty section is as good as none."""
    assert dialect.merge(portable, {}) == portable


@settings(deadline=None)
@given(objects, objects)
def test_merging_twice_is_merging_once(portable: dict[str, Any], section: dict[str, Any]) -> None:
    """A section says how the result shall be, not what to add."""
    once = dialect.merge(portable, section)
    assert dialect.merge(once, section) == once


@settings(deadline=None)
@given(objects, objects)
def test_every_value_of_the_section_wins(portable: dict[str, Any], section: dict[str, Any]) -> None:
    """Each of its values is in the result, each of its nulls is not."""
    merged = paths(dialect.merge(portable, section))
    for path, value in paths(section).items():
        if value is None:
            assert path not in merged
        elif value != {}:
            assert merged[path] == value


@settings(deadline=None)
@given(objects, objects)
def test_merge_changes_neither_argument(portable: dict[str, Any], section: dict[str, Any]) -> None:
    """The portable rendering is shared by many pushes."""
    before = deepcopy([portable, section])
    merged = dialect.merge(portable, section)
    merged["a"] = "changed"
    assert [portable, section] == before


@settings(deadline=None)
@given(objects)
def test_nulls_of_a_section_never_reach_the_vendor(section: dict[str, Any]) -> None:
    """Wherever they stand outside arrays."""
    assert not has_null(dialect.merge({}, section))


@pytest.mark.parametrize(
    ("section", "enabled"),
    [
        (None, True),
        ({}, True),
        ({"enabled": True}, True),
        ({"enabled": False}, False),
        ({"enabled": 0}, True),
    ],
)
def test_only_an_explicit_false_disables(section: dict[str, Any] | None, *, enabled: bool) -> None:
    """A section that is there for other reasons keeps the provider in."""
    assert dialect.is_enabled(section) is enabled


def test_enabled_is_not_sent() -> None:
    """It is our word; vendors refuse unknown fields."""
    assert dialect.overrides({"enabled": True, "android": {}}) == {"android": {}}


def test_forbidden_overrides_are_named_one_by_one_as_they_were_written() -> None:
    """Each with its exact path and its reason; allowed neighbours are not mentioned."""
    section = {"token": "t", "android": {"ttl": "1s"}, "apns": {"headers": {"Apns_Topic": None, "x": "1"}}}
    forbidden = {"token": "we address", "apns.headers.apns-topic": "we know", "audience": "never"}
    assert dialect.forbidden_overrides("fcm", section, forbidden) == [
        Problem("message.fcm.token", "forbidden", "cannot be overridden: we address"),
        Problem("message.fcm.apns.headers.Apns_Topic", "forbidden", "cannot be overridden: we know"),
    ]


@pytest.mark.parametrize("section", [None, {}, {"title": "token"}, {"data": {"token": "harmless"}}])
def test_only_the_exact_path_is_forbidden(section: dict[str, Any] | None) -> None:
    """The same word elsewhere is somebody's data."""
    assert dialect.forbidden_overrides("fcm", section, {"token": "we address"}) == []


def test_a_size_problem_names_size_and_limit() -> None:
    """Over by one byte is over; exactly the limit is not."""
    assert dialect.size_problem("fcm", "the payload", 4096, 4096) is None
    assert dialect.size_problem("fcm", "the payload", 4097, 4096) == Problem(
        "message.fcm", "too_large", "the payload is 4097 bytes, the limit is 4096"
    )


@pytest.mark.parametrize(
    ("available", "wanted", "chosen"),
    [
        (["de", "fr"], "de", "de"),
        (["de", "fr"], "de-AT", "de"),
        (["de", "de-AT"], "de_AT", "de-AT"),
        (["pt", "pt_BR"], "pt-BR", "pt_BR"),
        (["pt-BR"], "pt_BR.UTF-8", "pt-BR"),
        (["pt-BR"], "pt", None),
        (["pt-BR"], "pt-PT", None),
        (["zh-Hans", "zh-Hant"], "zh-Hans-CN", "zh-Hans"),
        (["zh-Hans", "zh-Hant"], "zh-Hant_HK", "zh-Hant"),
        (["zh-Hans", "zh-Hant"], "zh_CN", "zh-Hans"),
        (["zh-Hans", "zh-Hant"], "zh-TW", "zh-Hant"),
        (["zh-CN", "zh-TW"], "zh-Hans-CN", "zh-CN"),
        (["zh", "zh-TW"], "zh-Hant-TW", "zh-TW"),
        (["zh"], "zh-Hans-CN", "zh"),
        (["zh-Hant"], "zh-CN", None),
        (["es-419"], "es-419", "es-419"),
        (["sr-Latn", "sr"], "sr-Latn-RS", "sr-Latn"),
        (["EN-us"], "en-US", "EN-us"),
        (["en"], "en-US-posix", "en"),
        (["en"], "english", None),
        (["de"], "", None),
        (["de"], None, None),
        ([], "de", None),
    ],
)
def test_the_translation_nearest_to_the_device_is_chosen(
    available: list[str], wanted: str | None, chosen: str | None
) -> None:
    """Exact, then ever less specific, else the message's own words; a region is never guessed."""
    assert dialect.choose_locale(available, wanted) == chosen


def test_a_translation_replaces_only_the_words_it_has() -> None:
    """The rest stays in the message's own language."""
    message = Message(title="Hi", body="There", subtitle="!", translations={"de": {"title": "Hallo"}})
    assert dialect.words_for(message, "de-CH") == dialect.Words(title="Hallo", body="There", subtitle="!")
    assert dialect.words_for(message, "fr") == dialect.Words(title="Hi", body="There", subtitle="!")


def content(event: Event, expires_at: datetime = NOW) -> Content:
    """A notification that expires when told."""
    return Content(notification_id=7, event=event, expires_at=expires_at)


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (DirectPush(app="shop", users=("u7",), message=Message(title="x")), '{"n":"7","k":"direct"}'),
        (
            TopicMessage(app="shop", topic="news", scope="group:42", message=Message(title="x")),
            '{"n":"7","k":"topic","t":"news","s":"group:42"}',
        ),
        (
            BucketWrite(app="shop", bucket="orders", object="o1", change=Change.UPDATED),
            '{"n":"7","k":"bucket","b":"orders","o":"o1","c":"updated","s":"app"}',
        ),
    ],
)
def test_the_reserved_key_says_what_a_push_is_about(event: Event, expected: str) -> None:
    """Apps and simulators correlate by it; users are never named in it."""
    assert dialect.correlation(content(event)) == expected


def test_data_carries_the_url_unless_the_message_has_its_own() -> None:
    """The message's own data wins over what we add for it."""
    message = Message(title="x", data={"a": "1"}, url="shop://orders/812")
    event = DirectPush(app="shop", users=("u7",), message=message)
    assert dialect.data_of(content(event), message) == {
        "a": "1",
        "url": "shop://orders/812",
        "pushfan": '{"n":"7","k":"direct"}',
    }
    own = Message(title="x", data={"url": "mine"}, url="shop://orders/812")
    assert dialect.data_of(content(event), own)["url"] == "mine"


@pytest.mark.parametrize(
    ("left", "seconds"),
    [
        (timedelta(hours=1), 3600),
        (timedelta(seconds=1.9), 1),
        (timedelta(0), 0),
        (timedelta(seconds=-5), 0),
        (timedelta(days=400), 28 * 86400),
    ],
)
def test_the_time_to_live_is_what_is_left(left: timedelta, seconds: int) -> None:
    """Never negative, never over the vendor's limit, never rounded up."""
    event = DirectPush(app="shop", users=("u7",), message=Message(title="x"))
    assert dialect.seconds_to_live(content(event, NOW + left), NOW, timedelta(days=28)) == seconds


@pytest.mark.parametrize(
    ("value", "delay"),
    [
        ("17", timedelta(seconds=17)),
        (" 17 ", timedelta(seconds=17)),
        ("0", timedelta(seconds=1)),
        ("Mon, 23 Nov 2026 12:00:30 GMT", timedelta(seconds=30)),
        ("Mon, 23 Nov 2026 12:00:30 -0000", timedelta(seconds=30)),
        ("Mon, 23 Nov 2026 11:00:00 GMT", timedelta(seconds=1)),
        ("Sun, 06 Nov 2094 08:49:37 GMT", timedelta(days=28)),
        ("999999999999999999999999", timedelta(days=28)),
        ("", None),
        ("-5", None),
        ("1.5", None),
        ("soon", None),
        ("²", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str, delay: timedelta | None) -> None:
    """Anything else is as if it had not been said; absurd delays are bounded."""
    response = Response(status=429, headers={"retry-after": value})
    assert dialect.retry_after(response, NOW) == delay


def test_no_retry_after_is_no_delay() -> None:
    """The documented default then applies."""
    assert dialect.retry_after(Response(status=429), NOW) is None


@settings(deadline=None)
@given(st.binary(max_size=40) | st.text(max_size=40).map(str.encode))
def test_any_body_can_be_read(body: bytes) -> None:
    """HTML, broken JSON, arrays and nothing become an empty object."""
    assert isinstance(dialect.json_object(body), dict)


@settings(deadline=None)
@given(st.text(min_size=1, max_size=64))
def test_a_collapse_key_always_fits_a_header(key: str) -> None:
    """Plain ASCII stays itself; anything else becomes a digest that is the same every time."""
    fitted = dialect.ascii_key(key)
    assert fitted.isascii()
    assert fitted.isprintable()
    assert 0 < len(fitted) <= 64
    assert fitted == dialect.ascii_key(key)
    assert (fitted == key) is (key.isascii() and key.isprintable())


@pytest.mark.parametrize(
    ("message", "is_background"),
    [
        (Message(title="x"), False),
        (Message(badge=0), False),
        (Message(sound="default"), False),
        (Message(body_loc_key="K"), False),
        (Message(data={"a": "1"}), True),
        (Message(silent=True), True),
    ],
)
def test_a_push_is_in_the_background_if_a_person_notices_nothing(
    message: Message, *, is_background: bool
) -> None:
    """Apple demands a low priority of these, and only of these."""
    assert dialect.is_background(message) is is_background


@pytest.mark.parametrize(
    ("message", "is_urgent"),
    [
        (Message(title="x"), True),
        (Message(silent=True), False),
        (Message(title="x", priority=Priority.NORMAL), False),
        (Message(silent=True, priority=Priority.HIGH), True),
    ],
)
def test_what_is_shown_is_urgent_unless_said_otherwise(message: Message, *, is_urgent: bool) -> None:
    """Silent messages save the battery by default."""
    assert dialect.is_urgent(message) is is_urgent


def test_only_drop_forbids_a_silent_resend() -> None:
    """The default prefers a repetition to a loss."""
    assert dialect.is_resend_allowed(Message(title="x"))
    assert not dialect.is_resend_allowed(Message(title="x", on_unknown=OnUnknown.DROP))
