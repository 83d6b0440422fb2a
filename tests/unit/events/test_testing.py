"""What backends use in their own tests."""

import pytest

from events import (
    BucketWrite,
    Change,
    Conflict,
    DirectPush,
    Event,
    InvalidEvent,
    Message,
    Publisher,
    PublishFailed,
    TopicMessage,
)
from events.testing import CapturingPublisher

HELLO = Message(title="Hello")
NEWS = TopicMessage(app="shop", id="n1", topic="news", message=HELLO)
PUSH = DirectPush(app="shop", id="p1", users=["u2", "u1"], message=HELLO)
WRITE = BucketWrite(app="shop", id="b1", bucket="orders", object="o1", change=Change.CREATED)


def test_captured_events_are_recorded_in_order() -> None:
    """From all three ways to publish."""
    publisher = CapturingPublisher(app="shop")
    assert publisher.publish(NEWS).id == "n1"
    pair: list[Event] = [PUSH, WRITE]
    assert [queued.id for queued in publisher.publish_many(iter(pair))] == ["p1", "b1"]
    publisher.publish_in_transaction(None, NEWS)
    assert publisher.events == [NEWS, *pair, NEWS]


def test_capturing_publisher_stands_in_for_the_real_one() -> None:
    """Code that is annotated with `Publisher` takes it."""

    def announce(publisher: Publisher) -> str:
        with publisher:
            return publisher.publish(NEWS).id

    assert announce(CapturingPublisher()) == "n1"


def test_capturing_publisher_checks_as_the_real_one_does() -> None:
    """A test sees the mistake that production would see."""
    publisher = CapturingPublisher(app="bank")
    with pytest.raises(InvalidEvent, match="must be bank"):
        publisher.publish(NEWS)
    with pytest.raises(InvalidEvent, match="must be bank"):
        publisher.publish_in_transaction(None, NEWS)
    with pytest.raises(TypeError):
        publisher.publish("news")  # type: ignore[arg-type]  # the very mistake
    assert publisher.events == []


def test_broker_can_be_down() -> None:
    """A backend can test what it does then, and that it repeats."""
    publisher = CapturingPublisher()
    publisher.is_broker_down = True
    with pytest.raises(PublishFailed):
        publisher.publish(NEWS)
    assert publisher.events == []
    publisher.is_broker_down = False
    publisher.publish(NEWS)
    assert publisher.events == [NEWS]


def test_transaction_tells_repeats_and_conflicts() -> None:
    """As the database does: same content is a repeat, other content a conflict."""
    publisher = CapturingPublisher()
    first = publisher.publish_in_transaction(None, NEWS)
    again = publisher.publish_in_transaction(None, NEWS)
    assert (first.is_repeated, again.is_repeated) == (False, True)
    assert first.notification_id == again.notification_id
    assert publisher.publish_in_transaction(None, PUSH).notification_id != first.notification_id
    with pytest.raises(Conflict):
        publisher.publish_in_transaction(
            None, TopicMessage(app="shop", id="n1", topic="news", message=Message(title="Other"))
        )


def test_events_are_found_by_kind_and_fields() -> None:
    """Fields are compared as events keep them: users in any order."""
    publisher = CapturingPublisher()
    publisher.publish_many([NEWS, PUSH, WRITE])
    assert publisher.find(TopicMessage) == [NEWS]
    assert publisher.one(DirectPush, users=["u1", "u2"]) == PUSH
    assert publisher.one(BucketWrite, bucket="orders", change="created") == WRITE
    assert publisher.find(TopicMessage, topic="weather") == []


def test_missing_event_is_explained_by_what_was_published() -> None:
    """The failure of a backend's test can be understood without a debugger."""
    publisher = CapturingPublisher()
    with pytest.raises(AssertionError, match=r"expected one DirectPush .* found 0; published:\n  nothing"):
        publisher.one(DirectPush)
    publisher.publish(NEWS)
    with pytest.raises(AssertionError, match='"topic": "news"'):
        publisher.one(TopicMessage, topic="weather")


def test_recorded_events_can_be_forgotten() -> None:
    """Between the steps of a test."""
    publisher = CapturingPublisher()
    publisher.publish(NEWS)
    publisher.clear()
    assert publisher.events == []
