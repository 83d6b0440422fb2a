"""Messages that are not ours to understand, with a real Celery worker: kept for a person, while the queue goes on."""

from typing import Any

import pytest
from kombu import Connection, Exchange, Queue

from events import DirectPush, Message
from events.names import QUEUE_INTAKE
from gateway.rehearsal import Pushfan

HELLO = Message(title="hello")


def send(pushfan: Pushfan, body: Any, **properties: Any) -> None:
    """Put a message into the intake queue as any program could."""
    queue = Queue(QUEUE_INTAKE, Exchange(QUEUE_INTAKE, type="direct"), routing_key=QUEUE_INTAKE)
    with Connection(pushfan.broker_url) as connection, connection.Producer() as producer:
        producer.publish(
            body, exchange=queue.exchange, routing_key=QUEUE_INTAKE, declare=[queue], **properties
        )


@pytest.mark.parametrize(
    ("body", "properties", "word"),
    [
        (b"\xff\x00 no json", {"content_type": "application/json", "content_encoding": "utf-8"}, "decoded"),
        (b"gASVAAAA", {"content_type": "application/x-python-serialize"}, "decoded"),
        ({"events": []}, {}, "no task message"),
        ([[], {}, {}], {"headers": {"task": "shop.unknown", "id": "1", "lang": "py"}}, "shop.unknown"),
    ],
    ids=["bytes", "pickle", "no task", "unknown task"],
)
def test_message_that_is_not_ours_becomes_a_dead_letter(
    pushfan: Pushfan, body: Any, properties: dict[str, Any], word: str
) -> None:
    """It is stored with its error and its body, and the event behind it is pushed."""
    pushfan.install("a")
    send(pushfan, body, **properties)
    pushfan.publisher.publish(DirectPush(app="shop", users=["a"], message=HELLO))
    pushfan.wait()
    assert len(pushfan.received(user="a")) == 1
    (error,) = pushfan.dead_letters()
    assert word in error


def test_event_of_a_service_that_has_only_celery_is_taken_in(pushfan: Pushfan) -> None:
    """The public contract: the task's name, the queue and the wire form are all that a producer needs."""
    pushfan.install("a")
    wire = {"version": 1, "kind": "direct", "app": "shop", "users": ["a"], "message": {"title": "hello"}}
    send(
        pushfan,
        [[], {"events": [wire]}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}],
        headers={"task": "pushfan.intake", "id": "42", "lang": "py"},
        serializer="json",
    )
    pushfan.wait()
    assert [push.title for push in pushfan.received()] == ["hello"]
    assert pushfan.dead_letters() == []
