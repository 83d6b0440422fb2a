"""Events that wait on the queue behind the one at hand are taken in with it: each once, none lost."""

import dataclasses
from collections.abc import Iterator

import pytest
import redis

from events import DirectPush, Message, Publisher, encode
from events.names import QUEUE_INTAKE
from registry import apps, notifications
from registry.database import Database
from tests.integration.workers.test_garbage import element
from workers.app import create_app, runtime_of
from workers.intake import Door, take_in_message
from workers.intake_queue import IntakeQueue
from workers.settings import load_settings


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """Give a database with the app `shop`."""
    database = Database(database_url)
    apps.add(database.connection(), "shop")
    yield database
    database.close()


@pytest.fixture
def door(database: Database, broker_url: str) -> Iterator[Door]:
    """Give a worker's door; no worker runs."""
    app = create_app(load_settings({}, database_url=database.url, broker_url=broker_url))
    yield dataclasses.replace(runtime_of(app).door, database=database)
    app.close()


@pytest.fixture
def broker(broker_url: str) -> Iterator[redis.Redis]:
    """Give a client of the broker."""
    with redis.Redis.from_url(broker_url) as client:
        yield client


def push(number: int) -> DirectPush:
    """Make an event."""
    return DirectPush(app="shop", id=f"event-{number}", users=["a"], message=Message(title="hello"))


def publish(broker_url: str, *numbers: int) -> None:
    """Put events on the queue, a message each."""
    with Publisher(broker_url) as publisher:
        for number in numbers:
            publisher.publish(push(number))


def taken_in(database: Database) -> list[str]:
    """List the events that were taken in."""
    rows = database.connection().execute("SELECT key FROM pushfan.notification ORDER BY 1").fetchall()
    return [row["key"] for row in rows]


def take_in(door: Door, number: int) -> dict[str, int]:
    """Take an event in, as a task does."""
    return take_in_message(door, [encode(push(number))], message_id=f"message-{number}")


def die_while_reading(queue: IntakeQueue) -> None:
    """End before anything is committed."""
    with queue.waiting() as waiting:
        assert len(waiting) == 2
        raise KeyboardInterrupt


def test_what_waits_is_taken_along(
    door: Door, database: Database, broker: redis.Redis, broker_url: str
) -> None:
    """One transaction for all, and the queue is empty."""
    publish(broker_url, *range(1, 8))
    assert take_in(door, 0) == {"taken_in": 8}
    assert taken_in(database) == [f"event-{number}" for number in range(8)]
    assert broker.llen(QUEUE_INTAKE) == 0
    assert take_in(door, 0) == {"repeated": 1}


def test_a_hundred_messages_at_most(
    door: Door, database: Database, broker: redis.Redis, broker_url: str
) -> None:
    """The rest is left to others; the same event twice is one."""
    publish(broker_url, *range(1, 121), 120)
    assert sum(take_in(door, 0).values()) == 101
    assert broker.llen(QUEUE_INTAKE) == 21
    while broker.llen(QUEUE_INTAKE):
        take_in(door, 0)
    assert len(taken_in(database)) == 121


def test_message_with_many_events_takes_nothing_along(
    door: Door, database: Database, broker: redis.Redis, broker_url: str
) -> None:
    """It is worth its transaction, and others would only take in the same events at the same time."""
    publish(broker_url, 50)
    counts = take_in_message(door, [encode(push(number)) for number in range(50)], message_id="message")
    assert counts == {"taken_in": 50}
    assert broker.llen(QUEUE_INTAKE) == 1
    assert take_in(door, 51) == {"taken_in": 2}
    assert len(taken_in(database)) == 52


def test_what_is_not_ours_stays(door: Door, broker: redis.Redis, broker_url: str) -> None:
    """Garbage and other tasks are for Celery, which keeps them."""
    others = [b"null", b"{}", element([[], {"events": 7}, {}]).encode(), b"\xff"]
    broker.lpush(QUEUE_INTAKE, *others)
    publish(broker_url, 1)
    assert take_in(door, 0) == {"taken_in": 2}
    assert sorted(broker.lrange(QUEUE_INTAKE, 0, -1)) == sorted(others)


def test_invalid_event_that_waits_is_a_dead_letter(
    door: Door, database: Database, broker: redis.Redis
) -> None:
    """It is kept, and off the queue."""
    broker.lpush(QUEUE_INTAKE, element([[], {"events": [{"app": "shop"}]}, {}]))
    assert take_in(door, 0) == {"taken_in": 1, "invalid": 1}
    assert broker.llen(QUEUE_INTAKE) == 0
    assert database.connection().execute("SELECT FROM pushfan.dead_letter").rowcount == 1


def test_process_that_dies_leaves_what_waits(door: Door, broker: redis.Redis, broker_url: str) -> None:
    """Nothing is off the queue before the commit, and others may read at once."""
    publish(broker_url, 1, 2)
    assert door.queue is not None
    with pytest.raises(KeyboardInterrupt):
        die_while_reading(door.queue)
    assert broker.llen(QUEUE_INTAKE) == 2
    assert take_in(door, 0) == {"taken_in": 3}


def test_one_reads_at_a_time(door: Door, broker_url: str) -> None:
    """Another one has its own message to take in."""
    publish(broker_url, 1, 2)
    assert door.queue is not None
    with door.queue.waiting() as waiting, door.queue.waiting() as second:
        assert (len(waiting), second) == (2, [])


def test_id_that_somebody_holds_delays_nobody(
    door: Door, database: Database, broker: redis.Redis, broker_url: str
) -> None:
    """A producer's open transaction has the id of one that waits: the message at hand is taken in."""
    publish(broker_url, 1, 2)
    other = Database(database.url)
    with other.transaction() as connection:
        notifications.take_in(connection, [encode(push(2))])
        assert take_in(door, 0) == {"taken_in": 1}
        assert broker.llen(QUEUE_INTAKE) == 2
    other.close()
    assert take_in(door, 3) == {"taken_in": 2, "repeated": 1}


def test_broker_that_is_away_changes_nothing(door: Door, database: Database) -> None:
    """The message at hand is taken in."""
    away = create_app(load_settings({}, database_url=database.url, broker_url="redis://127.0.0.1:1/0"))
    assert take_in(dataclasses.replace(door, queue=IntakeQueue(away)), 0) == {"taken_in": 1}
