"""What a message may say, field by field."""

import json
import math
from enum import IntEnum, StrEnum
from typing import Any

import pytest

from events import InterruptionLevel, InvalidEvent, Message, OnUnknown, Priority


def problems_of(**fields: Any) -> list[str]:
    """Build a message that is wrong and return its problems as text."""
    with pytest.raises(InvalidEvent) as caught:
        Message(**fields)
    return str(caught.value).splitlines()


def deep(levels: int) -> dict[str, Any]:
    """Nest objects that many levels deep."""
    innermost: dict[str, Any] = {}
    for _ in range(levels):
        innermost = {"a": innermost}
    return innermost


# One row for each way a field can be wrong; the expected words are what a producer reads.
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"title": 3}, "message.title: must be a string"),
    ({"title": b"Hi"}, "message.title: must be a string"),
    ({"title": ""}, "message.title: must not be empty"),
    ({"title": " \n"}, "message.title: must not be empty"),
    ({"body": "x" * 4097}, "message.body: must have at most 4,096 characters, has 4,097"),
    ({"title": "a\0b"}, "message.title: must not contain U+0000"),
    ({"title": "a\x1b[31m"}, "message.title: must not contain U+001B"),
    ({"title": "a\x7f"}, "message.title: must not contain U+007F"),
    ({"title": "a\x85b"}, "message.title: must not contain U+0085"),
    ({"title": "a\ud83d"}, "message.title: must not contain U+D83D"),
    ({"sound": "a\nb"}, "message.sound: must not contain U+000A"),
    ({"sound": "x" * 256}, "message.sound: must have at most 255 characters, has 256"),
    ({"image": "pic.png"}, "message.image: must be an http or https URL"),
    ({"image": "ftp://host/pic.png"}, "message.image: must be an http or https URL"),
    ({"image": "https:///pic.png"}, "message.image: must be an http or https URL"),
    ({"image": "https://host/a b"}, "message.image: must be an http or https URL"),
    ({"url": "orders/812"}, "message.url: must be a URL with its scheme"),
    ({"url": "shop://" + "x" * 2048}, "message.url: must have at most 2,048 characters, has 2,055"),
    ({"color": "red"}, "message.color: must be a colour such as #00aaff"),
    ({"color": "#00aaff00"}, "message.color: must be a colour such as #00aaff"),
    ({"badge": -1}, "message.badge: must be between 0 and 2,147,483,647"),
    ({"badge": 2**31}, "message.badge: must be between 0 and 2,147,483,647"),
    ({"badge": True}, "message.badge: must be a whole number"),
    ({"badge": "+1"}, "message.badge: must be a whole number"),
    ({"badge": 1.0}, "message.badge: must be a whole number"),
    ({"data": "order=812"}, "message.data: must be an object"),
    ({"data": {"count": 3}}, "message.data.count: must be a string"),
    ({"data": {"nested": {"a": "b"}}}, "message.data.nested: must be a string"),
    ({"data": {"none": None}}, "message.data.none: must be a string"),
    ({"data": {3: "a"}}, "message.data.3: the key must be a string"),
    ({"data": {"": "a"}}, "message.data.: the key must not be empty"),
    ({"data": {"a\nb": "a"}}, "message.data.a\N{REPLACEMENT CHARACTER}b: the key must not contain U+000A"),
    ({"data": {"pushfan": "x"}}, "message.data.pushfan: is reserved for Pushfan"),
    ({"data": {str(n): "x" for n in range(257)}}, "message.data: must have at most 256 members, has 257"),
    ({"collapse_key": "x" * 65}, "message.collapse_key: must have at most 64 characters, has 65"),
    ({"collapse_key": "é" * 33}, "message.collapse_key: must have at most 64 bytes, has 66"),
    ({"priority": "urgent"}, "message.priority: must be one of normal, high"),
    ({"priority": 10}, "message.priority: must be a string"),
    ({"interruption_level": "timesensitive"},
     ("message.interruption_level: must be one of passive, active, time-sensitive, critical"
      " (did you mean time-sensitive?)")),
    ({"on_unknown": "dropp"}, "message.on_unknown: must be one of retry, drop (did you mean drop?)"),
    ({"relevance_score": 1.01}, "message.relevance_score: must be between 0 and 1"),
    ({"relevance_score": math.nan},
     "message.relevance_score: must be a finite number: JSON has no NaN and no infinity"),
    ({"relevance_score": "0.5"}, "message.relevance_score: must be a number"),
    ({"relevance_score": True}, "message.relevance_score: must be a number"),
    ({"mutable_content": 1}, "message.mutable_content: must be true or false"),
    ({"mutable_content": "false"}, "message.mutable_content: must be true or false"),
    ({"title_loc_key": "K", "title_loc_args": "abc"}, "message.title_loc_args: must be a list of strings"),
    ({"title_loc_key": "K", "title_loc_args": ["a", 3]}, "message.title_loc_args.1: must be a string"),
    ({"body_loc_key": "K", "body_loc_args": ["a"] * 33},
     "message.body_loc_args: must have at most 32 members, has 33"),
    ({"title_loc_args": ["a"]}, "message.title_loc_args: needs title_loc_key"),
    ({"body_loc_args": ["a"]}, "message.body_loc_args: needs body_loc_key"),
    ({"title": None, "badge": 1, "translations": {"de": {"title": "Hallo"}}},
     "message.translations: needs title or body"),
    ({"translations": {"deutsch!": {"title": "Hallo"}}},
     "message.translations.deutsch!: the key must be a locale such as de or pt-BR"),
    ({"translations": {"de": "Hallo"}}, "message.translations.de: must be an object"),
    ({"translations": {"de": {}}}, "message.translations.de: must not be empty"),
    ({"translations": {"de": {"sound": "x"}}},
     "message.translations.de.sound: the key must be title, body or subtitle"),
    ({"translations": {"de": {"title": ""}}}, "message.translations.de.title: must not be empty"),
    ({"analytics_label": "spring sale"},
     "message.analytics_label: must be 1 to 50 of the characters A-Z a-z 0-9 - _ . ~ %"),
    ({"fcm": []}, "message.fcm: must be an object"),
    ({"apns": "x"}, "message.apns: must be an object"),
    ({"jpush": {"a": math.inf}}, "message.jpush.a: must be a finite number: JSON has no NaN and no infinity"),
    ({"fcm": {"a": {"b": [1, {3}]}}}, "message.fcm.a.b.1: must be a JSON value, is a set"),
    ({"fcm": {"a": {"b": "x\0"}}}, "message.fcm.a.b: must not contain U+0000"),
    ({"fcm": {"a": {1: "x"}}}, "message.fcm.a.1: the key must be a string"),
    ({"fcm": {"a": 2**64}}, "message.fcm.a: must be between -9.22337e+18 and 9.22337e+18"),
    ({"fcm": {"a": 10**400}}, "message.fcm.a: must be between -9.22337e+18 and 9.22337e+18"),
    ({"fcm": deep(18)}, "message.fcm" + ".a" * 17 + ": must be nested at most 16 deep"),
    ({"fcm": {"a": list(range(1000))}}, "message.fcm.a.998: is beyond the 1,000 values that it may hold"),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "expected"), WRONG, ids=[expected[:70] for _, expected in WRONG])
def test_wrong_field_is_named_with_path_and_reason(fields: dict[str, Any], expected: str) -> None:
    """One wrong field yields exactly one problem, in words that say what is right."""
    assert problems_of(**({"title": "Hi"} | fields)) == [expected]


def test_all_problems_are_named_at_once() -> None:
    """A producer corrects a message once, not once for each mistake."""
    assert problems_of(title=3, badge=-1, data={"count": 3, "pushfan": "x"}, color="red", silent="yes") == [
        "message.title: must be a string",
        "message.color: must be a colour such as #00aaff",
        "message.badge: must be between 0 and 2,147,483,647",
        "message.data.pushfan: is reserved for Pushfan",
        "message.data.count: must be a string",
        "message.silent: must be true or false",
    ]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("title", "Hi"),
        ("body", "Hi"),
        ("subtitle", "Hi"),
        ("image", "https://example.com/a.png"),
        ("icon", "bell"),
        ("color", "#00aaff"),
        ("sound", "default"),
        ("badge", 0),
        ("url", "shop://orders"),
        ("category", "ORDER"),
        ("thread_id", "orders"),
        ("channel_id", "orders"),
        ("tag", "order-1"),
        ("mutable_content", True),
        ("interruption_level", "active"),
        ("relevance_score", 0),
        ("title_loc_key", "K"),
        ("body_loc_key", "K"),
    ],
)
def test_silent_message_refuses_what_would_be_shown(field: str, value: object) -> None:
    """Apple throttles and drops a background push that also alerts: it is refused by name here."""
    assert problems_of(silent=True, **{field: value}) == [
        f"message.{field}: has no meaning in a silent message"
    ]


def test_silent_message_takes_what_an_app_reads() -> None:
    """Data, collapsing, priority, labels and sections mean something without being shown."""
    message = Message(
        silent=True, data={"a": "b"}, collapse_key="k", priority=Priority.HIGH, analytics_label="sync",
        on_unknown=OnUnknown.DROP, fcm={"x": 1}, apns={"x": 1}, jpush={"x": 1},
    )  # fmt: skip
    assert message.silent


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"collapse_key": "k", "priority": "high", "on_unknown": "drop", "channel_id": "orders"},
        {"data": {}, "title_loc_args": []},
        {"apns": {"enabled": False}, "fcm": {}},
    ],
)
def test_message_that_says_nothing_is_refused(fields: dict[str, Any]) -> None:
    """Options alone are a mistake: no provider would show or hand over anything."""
    assert "message: says nothing: give it a title, a body or data, or make it silent" in problems_of(
        **fields
    )


@pytest.mark.parametrize(
    "fields",
    [
        {"title": "Hi"},
        {"body": "Hi"},
        {"title_loc_key": "K"},
        {"body_loc_key": "K"},
        {"badge": 0},
        {"sound": "default"},
        {"data": {"a": ""}},
        {"silent": True},
        {"apns": {"payload": {"aps": {"alert": "Hi"}}}},
    ],
)
def test_one_thing_said_is_a_message(fields: dict[str, Any]) -> None:
    """Each of these alone reaches a person or an app; badge 0 clears the badge."""
    assert Message(**fields) == Message(**fields)


def test_values_of_enumerations_may_be_given_as_text() -> None:
    """A producer without the enumerations at hand writes their values."""
    message = Message(
        title="Hi", priority="high", interruption_level="time-sensitive", on_unknown="drop"  # type: ignore[arg-type]  # text, as untyped callers give it
    )  # fmt: skip
    assert message.priority is Priority.HIGH
    assert message.interruption_level is InterruptionLevel.TIME_SENSITIVE
    assert message.on_unknown is OnUnknown.DROP


def test_kinds_of_text_and_number_become_plain() -> None:
    """Enumerations of a backend's own do not travel into JSON libraries and databases."""

    class Sound(StrEnum):
        BELL = "bell"

    class Count(IntEnum):
        TWO = 2

    message = Message(title="Hi", sound=Sound.BELL, badge=Count.TWO, data={Sound.BELL: Sound.BELL})
    assert (type(message.sound), type(message.badge)) == (str, int)
    assert [(type(key), type(value)) for key, value in message.data.items()] == [(str, str)]


def test_lines_and_tabs_are_content() -> None:
    """A body of several lines is what people write."""
    assert Message(body="one\n\ttwo\r\nthree").body == "one\n\ttwo\r\nthree"


def test_message_keeps_its_own_copy() -> None:
    """What a producer does to its dictionaries afterwards changes no event."""
    section: dict[str, Any] = {"payload": {"aps": {"alert": ["a"]}}}
    data = {"order": "812"}
    message = Message(title="Hi", data=data, apns=section)
    section["payload"]["aps"]["alert"].append("b")
    data["order"] = "813"
    assert message == Message(title="Hi", data={"order": "812"}, apns={"payload": {"aps": {"alert": ["a"]}}})


def test_section_that_contains_itself_is_refused() -> None:
    """A cycle ends as a problem, not as a hang."""
    section: dict[str, Any] = {}
    section |= {str(n): section for n in range(200)}
    assert len(problems_of(title="Hi", fcm=section)) == 1


def test_sections_are_json_as_they_are() -> None:
    """Providers write sections with any JSON library."""
    message = Message(title="Hi", apns={"a": [1, {"b": None}], "c": {"d": 0.5}})
    assert json.dumps(message.apns) == '{"a": [1, {"b": null}], "c": {"d": 0.5}}'
