"""A Redis broker without memory, with a real Celery worker: it goes on, and nothing that was queued is lost."""

import time
from collections.abc import Iterator

import psycopg
import pytest
import redis
from celery import Celery
from celery.contrib.testing.worker import start_worker

from events import DirectPush, Message, Publisher, PublishFailed, encode
from events.names import QUEUE_INTAKE
from registry import apps
from registry.database import Database
from tests.integration.workers.test_garbage import element
from workers.app import QUEUES, create_app
from workers.settings import load_settings

WAIT_SECONDS = 30

pytestmark = [
    pytest.mark.filterwarnings("ignore::celery.platforms.SecurityWarning"),
    # Celery says at each reconnect that a default will change.
    pytest.mark.filterwarnings("ignore::celery.exceptions.CPendingDeprecationWarning"),
]


@pytest.fixture
def broker(broker_url: str) -> Iterator[redis.Redis]:
    """Give a client of the broker, which has its memory back at the end."""
    with redis.Redis.from_url(broker_url) as client:
        client.config_resetstat()
        yield client
        client.config_set("maxmemory", 0)


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """Give a database with the app `shop`."""
    database = Database(database_url)
    apps.add(database.connection(), "shop")
    yield database
    database.close()


@pytest.fixture
def app(database: Database, broker_url: str) -> Iterator[Celery]:
    """Give an application whose worker runs in a thread, on Valkey."""
    app = create_app(load_settings({}, database_url=database.url, broker_url=broker_url, tick_seconds=0.05))
    with start_worker(app, pool="solo", perform_ping_check=False, queues=list(QUEUES), shutdown_timeout=30):
        yield app


def push(number: int) -> DirectPush:
    """Make an event."""
    return DirectPush(app="shop", id=f"event-{number}", users=["a"], message=Message(title="hello"))


def fill(broker: redis.Redis, *elements: str) -> None:
    """Put elements on the intake queue and take all memory away, before anybody can take one."""
    with broker.pipeline() as pipeline:
        for one in elements:
            pipeline.lpush(QUEUE_INTAKE, one)
        pipeline.config_set("maxmemory", 1)
        pipeline.execute()


def message(number: int) -> str:
    """Write an event as a message on the intake queue."""
    return element([[], {"events": [encode(push(number))]}, {}])


def wait_for(database: Database, statement: str, wanted: int) -> None:
    """Wait until a statement counts so many."""
    deadline = time.monotonic() + WAIT_SECONDS
    found = -1
    while found != wanted:
        assert time.monotonic() < deadline, f"{found} instead of {wanted}"
        row = database.connection().execute(statement.encode()).fetchone()
        assert row is not None
        found = row["count"]


NOTIFICATIONS = "SELECT count(*) FROM pushfan.notification"


def test_what_was_queued_is_worked_on_without_memory(
    app: Celery, broker: redis.Redis, database: Database, broker_url: str
) -> None:
    """Delivering needs a note in the broker; without room for it the events are taken in all the same."""
    fill(broker, message(1), message(2))
    wait_for(database, NOTIFICATIONS, 2)
    with pytest.raises(PublishFailed):
        Publisher(broker_url).publish(push(3))
    broker.config_set("maxmemory", 0)
    Publisher(broker_url).publish(push(3))
    wait_for(database, NOTIFICATIONS, 3)


def test_garbage_that_cannot_be_kept_does_not_end_the_worker(
    app: Celery, broker: redis.Redis, database: Database, broker_url: str
) -> None:
    """A dead letter finds no room; the worker connects again and again, and goes on when the memory is back."""
    fill(broker, element({"a": 1}), message(1))
    wait_for_refusals(broker, "sadd", 10)
    broker.config_set("maxmemory", 0)
    Publisher(broker_url).publish(push(2))
    wait_for(database, NOTIFICATIONS, 2)


def test_worker_that_connects_without_memory_waits_for_it(
    app: Celery, broker: redis.Redis, database: Database, broker_url: str
) -> None:
    """It cannot even declare its queues; it tries again until it can."""
    fill(broker)
    broker.client_kill_filter(_type="normal", skipme=True)
    wait_for_refusals(broker, "sadd", 3)
    broker.config_set("maxmemory", 0)
    Publisher(broker_url).publish(push(1))
    wait_for(database, NOTIFICATIONS, 1)


def test_message_that_must_go_back_waits_for_room(
    app: Celery, broker: redis.Redis, database: Database
) -> None:
    """The database is busy and the broker full: the event is kept by the worker, and taken in when both are well."""
    with psycopg.connect(database.url) as other:
        other.execute("LOCK TABLE pushfan.notification IN ACCESS EXCLUSIVE MODE")
        fill(broker, message(1), message(2))
        wait_for_refusals(broker, "lpush", 2)
    broker.config_set("maxmemory", 0)
    wait_for(database, NOTIFICATIONS, 2)


def wait_for_refusals(broker: redis.Redis, command: str, wanted: int) -> None:
    """Wait until the broker has refused a command so many times for want of memory."""
    deadline = time.monotonic() + WAIT_SECONDS
    while int(broker.info("commandstats").get(f"cmdstat_{command}", {}).get("rejected_calls", 0)) < wanted:
        assert time.monotonic() < deadline
