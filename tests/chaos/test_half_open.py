"""Ways to PostgreSQL and the broker that are gone without a word: everybody notices, in the time that is promised."""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest
from celery.contrib.testing.worker import start_worker

from events import DirectPush, Message, Publisher, PublishFailed
from registry import apps
from registry.database import Database
from tests.chaos.proxy import Proxy
from workers.app import QUEUES, create_app
from workers.settings import load_settings

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.skipif(sys.platform != "linux", reason="packets are dropped by a filter of Linux"),
    pytest.mark.filterwarnings("ignore::celery.platforms.SecurityWarning"),
    # Celery says at each reconnect that a default will change.
    pytest.mark.filterwarnings("ignore::celery.exceptions.CPendingDeprecationWarning"),
]


@pytest.fixture
def road(database_url: str) -> Iterator[Proxy]:
    """Give a proxy before this test's database."""
    with Proxy(database_url) as proxy:
        yield proxy


def test_lost_answer_of_postgres_is_given_up(road: Proxy) -> None:
    """The question was acknowledged and the answer never comes: keepalives notice before a task is over."""
    database = Database(road.url)
    connection = database.connection()
    threading.Timer(0.5, road.black_hole).start()
    began = time.monotonic()
    with pytest.raises(psycopg.OperationalError):
        connection.execute("SELECT pg_sleep(1)")
    assert 1 < time.monotonic() - began < 30
    database.close()


def test_work_goes_on_when_a_new_way_to_postgres_is_found(road: Proxy) -> None:
    """A question that is not acknowledged is asked again on a new connection."""
    database = Database(road.url)
    assert database.run(lambda connection: connection.execute("SELECT 1").fetchall())
    road.black_hole()
    threading.Timer(2, road.heal).start()
    began = time.monotonic()
    assert database.run(lambda connection: connection.execute("SELECT 1").fetchall())
    assert time.monotonic() - began < 20
    database.close()


@pytest.fixture
def broker_road(broker_url: str) -> Iterator[Proxy]:
    """Give a proxy before the broker."""
    with Proxy(broker_url) as proxy:
        yield proxy


@pytest.fixture
def shop(database_url: str) -> Iterator[Database]:
    """Give a database with the app `shop`."""
    database = Database(database_url)
    apps.add(database.connection(), "shop")
    yield database
    database.close()


@contextmanager
def worker(database: Database, broker: Proxy) -> Iterator[None]:
    """Run a worker in a thread, behind the proxy of its broker."""
    app = create_app(load_settings({}, database_url=database.url, broker_url=broker.url, tick_seconds=0.5))
    with start_worker(app, pool="solo", perform_ping_check=False, queues=list(QUEUES), shutdown_timeout=30):
        yield


def push(name: str) -> DirectPush:
    """Make an event."""
    return DirectPush(app="shop", id=name, users=["a"], message=Message(title="hello"))


def wait_until_taken_in(database: Database, number: int, *, within_seconds: float) -> None:
    """Wait until there are so many notifications."""
    deadline = time.monotonic() + within_seconds
    count = -1
    while count != number:
        assert time.monotonic() < deadline
        row = database.connection().execute("SELECT count(*) FROM pushfan.notification").fetchone()
        assert row is not None
        count = row["count"]
        time.sleep(0.05)


def test_consumer_is_back_after_its_broker_vanished(
    shop: Database, broker_road: Proxy, broker_url: str
) -> None:
    """Its sockets stay half open; a minute after new connections pass it takes events in, and publishers fail soon."""
    with worker(shop, broker_road):
        Publisher(broker_url).publish(push("before"))
        wait_until_taken_in(shop, 1, within_seconds=20)
        publisher = Publisher(broker_road.url)
        publisher.publish(push("kept"))
        wait_until_taken_in(shop, 2, within_seconds=20)
        broker_road.black_hole()
        began = time.monotonic()
        with pytest.raises(PublishFailed):
            publisher.publish(push("lost"))
        assert time.monotonic() - began < 10
        broker_road.heal()
        Publisher(broker_url).publish(push("after"))
        wait_until_taken_in(shop, 3, within_seconds=60)


def test_worker_waits_for_its_broker_at_its_start(
    shop: Database, broker_road: Proxy, broker_url: str
) -> None:
    """It neither ends nor forgets to consume."""
    broker_road.refuse()
    threading.Timer(3, broker_road.heal).start()
    Publisher(broker_url).publish(push("waiting"))
    with worker(shop, broker_road):
        wait_until_taken_in(shop, 1, within_seconds=60)
