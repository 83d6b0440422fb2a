"""The three kinds of event: who receives, until when, and what is refused."""

import pickle
from dataclasses import FrozenInstanceError, replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from events import BucketWrite, Change, DirectPush, Event, InvalidEvent, Lane, Message, TopicMessage

HELLO = Message(title="Hello")
NOW = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
MINIMAL: dict[type[Event], dict[str, Any]] = {
    BucketWrite: {"app": "shop", "bucket": "orders", "object": "o1", "change": "updated"},
    TopicMessage: {"app": "shop", "topic": "news", "message": HELLO},
    DirectPush: {"app": "shop", "users": ["u7"], "message": HELLO},
}


def problems_of(kind: type[Event], **fields: Any) -> list[str]:
    """Build an event that is wrong and return its problems as text."""
    with pytest.raises(InvalidEvent) as caught:
        kind(**(MINIMAL[kind] | fields))
    return str(caught.value).splitlines()


_NAME_RULE = "must be of the characters A-Z a-z 0-9 _ - . :"
_SCOPE_RULE = "scope: must be app, group:<id>, user:<id> or thing:<id>"
_INSTANT_RULE = "expires_at: must be a date and time with an offset, such as 2026-01-31T12:00:00Z"

WRONG: list[tuple[type[Event], dict[str, Any], str]] = [
    (DirectPush, {"app": None}, "app: is required"),
    (DirectPush, {"app": "my shop"}, f"app: {_NAME_RULE}"),
    (DirectPush, {"app": "a" * 65}, "app: must have at most 64 characters, has 65"),
    (DirectPush, {"id": ""}, "id: must not be empty"),
    (DirectPush, {"id": 812}, "id: must be a string"),
    (DirectPush, {"id": "x" * 256}, "id: must have at most 255 characters, has 256"),
    (DirectPush, {"id": "a\nb"}, "id: must not contain U+000A"),
    (DirectPush, {"users": None}, "users: is required"),
    (DirectPush, {"users": []}, "users: must not be empty"),
    (DirectPush, {"users": "u7"}, "users: must be a list of strings"),
    (DirectPush, {"users": ["a", "b", "c", ""]}, "users.3: must not be empty"),
    (DirectPush, {"users": ["a", 7]}, "users.1: must be a string"),
    (DirectPush, {"users": ["x" * 256]}, "users.0: must have at most 255 characters, has 256"),
    (DirectPush, {"users": list(map(str, range(10_001)))},
     "users: must have at most 10,000 members, has 10,001"),
    (DirectPush, {"message": None}, "message: is required"),
    (DirectPush, {"message": {"title": "Hi"}}, "message: must be a Message"),
    (DirectPush, {"ttl_seconds": -1}, "ttl_seconds: must be between 0 and 2,419,200"),
    (DirectPush, {"ttl_seconds": 28 * 86400 + 1}, "ttl_seconds: must be between 0 and 2,419,200"),
    (DirectPush, {"ttl_seconds": 3600.0}, "ttl_seconds: must be a whole number"),
    (DirectPush, {"ttl_seconds": timedelta(hours=1)}, "ttl_seconds: must be a whole number"),
    (DirectPush, {"expires_at": "tomorrow"}, _INSTANT_RULE),
    (DirectPush, {"expires_at": 1769860800}, _INSTANT_RULE),
    (DirectPush, {"expires_at": datetime(2026, 1, 31)}, _INSTANT_RULE),  # noqa: DTZ001  that is the mistake
    (DirectPush, {"expires_at": "2026-01-31T12:00:00"}, _INSTANT_RULE),
    (DirectPush, {"expires_at": "0001-01-01T00:00:00+12:00"}, _INSTANT_RULE),
    (DirectPush, {"ttl_seconds": 60, "expires_at": NOW},
     "expires_at: cannot be combined with ttl_seconds: give one of them"),
    (DirectPush, {"lane": "fast"}, "lane: must be one of urgent, normal, bulk"),
    (BucketWrite, {"environment": "test"}, "environment: must be one of production, sandbox"),
    (TopicMessage, {"topic": "breaking news"}, f"topic: {_NAME_RULE}"),
    (TopicMessage, {"topic": "nöws"}, f"topic: {_NAME_RULE}"),
    (TopicMessage, {"topic": "x" * 65}, "topic: must have at most 64 characters, has 65"),
    (TopicMessage, {"scope": "group"}, _SCOPE_RULE),
    (TopicMessage, {"scope": "group:"}, _SCOPE_RULE),
    (TopicMessage, {"scope": "team:42"}, _SCOPE_RULE),
    (TopicMessage, {"scope": "group:" + "x" * 256}, "scope: must have at most 261 characters, has 262"),
    (TopicMessage, {"actor": ""}, "actor: must not be empty"),
    (BucketWrite, {"bucket": "a/b"}, f"bucket: {_NAME_RULE}"),
    (BucketWrite, {"object": None}, "object: is required"),
    (BucketWrite, {"change": None}, "change: is required"),
    (BucketWrite, {"change": "update"},
     ("change: must be one of created, updated, deleted, body_updated, body_deleted, acl_modified"
      " (did you mean updated?)")),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "fields", "expected"), WRONG, ids=[row[2][:70] for row in WRONG])
def test_wrong_field_is_named_with_path_and_reason(
    kind: type[Event], fields: dict[str, Any], expected: str
) -> None:
    """One wrong field yields exactly one problem, in words that say what is right."""
    assert problems_of(kind, **fields) == [expected]


def test_all_problems_are_named_at_once() -> None:
    """An event is corrected once, not once for each mistake."""
    found = problems_of(DirectPush, app="my shop", users=["", 3], ttl_seconds="60", message="Hi")
    assert [problem.split(":")[0] for problem in found] == [
        "app",
        "ttl_seconds",
        "users.0",
        "users.1",
        "message",
    ]


@pytest.mark.parametrize("name", ["news", "News_2", "a.b:c-d", "x" * 64])
def test_names_of_other_systems_are_kept(name: str) -> None:
    """Kii's names, and dots and colons beside them."""
    topic = TopicMessage(app=name, topic=name, message=HELLO)
    assert (topic.app, topic.topic) == (name, name)


@pytest.mark.parametrize("kind", MINIMAL)
def test_id_is_made_once_if_missing(kind: type[Event]) -> None:
    """Every event has an idempotency key; two events do not share one by accident."""
    one, other = kind(**MINIMAL[kind]), kind(**MINIMAL[kind])
    assert len(one.id) == 32
    assert one.id != other.id


def test_users_are_a_set() -> None:
    """The same users in another order are the same event, so that repeating it is no conflict."""
    one = DirectPush(app="shop", id="1", users=["u2", "u1", "u2"], message=HELLO)
    other = DirectPush(app="shop", id="1", users={"u1", "u2"}, message=HELLO)
    assert one == other
    assert one.users == ("u1", "u2")


def test_ten_thousand_users_are_allowed() -> None:
    """The documented limit itself is inside."""
    users = [f"u{n}" for n in range(10_000)]
    assert len(DirectPush(app="shop", users=users, message=HELLO).users) == 10_000


@pytest.mark.parametrize(
    ("kind", "ttl"),
    [
        (BucketWrite, timedelta(hours=1)),
        (TopicMessage, timedelta(hours=24)),
        (DirectPush, timedelta(hours=24)),
    ],
)
def test_lifetime_defaults_by_kind(kind: type[Event], ttl: timedelta) -> None:
    """A change is stale sooner than a message to a person."""
    event = kind(**MINIMAL[kind])
    assert event.ttl == ttl
    assert event.expiry(NOW) == NOW + ttl


def test_ttl_counts_from_intake() -> None:
    """Zero is a lifetime too: one attempt."""
    assert DirectPush(**MINIMAL[DirectPush], ttl_seconds=90).expiry(NOW) == NOW + timedelta(seconds=90)
    assert DirectPush(**MINIMAL[DirectPush], ttl_seconds=0).expiry(NOW) == NOW


def test_expiry_is_at_most_28_days_ahead() -> None:
    """No provider stores longer."""
    event = DirectPush(**MINIMAL[DirectPush], expires_at=NOW + timedelta(days=29))
    assert event.expiry(NOW) == NOW + timedelta(days=28)


def test_past_expiry_is_told_as_it_is() -> None:
    """An event that comes too late is for intake to finish, not for us to revive."""
    event = DirectPush(**MINIMAL[DirectPush], expires_at=NOW - timedelta(days=1))
    assert event.expiry(NOW) == NOW - timedelta(days=1)


def test_instants_are_kept_in_utc() -> None:
    """The same instant written with other offsets, or as text, is the same event."""
    there = timezone(timedelta(hours=2))
    given = [NOW, NOW.astimezone(there), "2026-01-31T12:00:00Z", "2026-01-31T14:00:00+02:00"]
    kept = {DirectPush(**MINIMAL[DirectPush], expires_at=instant).expires_at for instant in given}  # type: ignore[arg-type]  # text, as JSON gives it
    assert kept == {NOW}
    assert {instant.tzinfo for instant in kept if instant} == {UTC}


def test_bucket_write_without_message_tells_the_app_what_changed() -> None:
    """Silent, the change in data, and only the newest change of a bucket kept for a sleeping phone."""
    event = BucketWrite(app="shop", bucket="orders", object="o1", change=Change.UPDATED, scope="group:42")
    assert event.message == Message(
        silent=True,
        data={"bucket": "orders", "object": "o1", "change": "updated", "scope": "group:42"},
        collapse_key="orders",
    )


def test_bucket_write_keeps_the_message_given() -> None:
    """A producer may say more than the change."""
    assert BucketWrite(**MINIMAL[BucketWrite], message=HELLO).message == HELLO
    same_as_placeholder = Message(silent=True)
    assert BucketWrite(**MINIMAL[BucketWrite], message=same_as_placeholder).message == same_as_placeholder


def test_text_becomes_enumerations() -> None:
    """Readers compare members, producers may write text."""
    event = BucketWrite(**MINIMAL[BucketWrite], lane="bulk")  # type: ignore[arg-type]  # text, as untyped callers give it
    assert event.lane is Lane.BULK
    assert event.change is Change.UPDATED


@pytest.mark.parametrize("kind", MINIMAL)
def test_events_cannot_be_changed_and_can_be_shared(kind: type[Event]) -> None:
    """Frozen, hashable and picklable: they pass between threads and processes."""
    event = kind(**MINIMAL[kind])
    with pytest.raises(FrozenInstanceError):
        event.app = "other"  # type: ignore[misc]  # the very mistake
    assert pickle.loads(pickle.dumps(event)) == event
    assert len({event, replace(event)}) == 1


def test_kinds_have_their_wire_names() -> None:
    """The three words of the wire form."""
    assert {kind.__name__: kind.kind for kind in MINIMAL} == {
        "BucketWrite": "bucket",
        "TopicMessage": "topic",
        "DirectPush": "direct",
    }


def test_invalid_event_survives_pickling() -> None:
    """The error crosses process boundaries (Celery, multiprocessing) with its problems."""
    with pytest.raises(InvalidEvent) as caught:
        DirectPush(app="", users=[], message=HELLO)
    revived = pickle.loads(pickle.dumps(caught.value))
    assert revived.problems == caught.value.problems
    assert [problem.code for problem in revived.problems] == ["empty", "empty"]
