"""RabbitMQ with its memory alarm on, and behind a way that is gone: workers go on. Only where it is installed."""

import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from celery.contrib.testing.worker import start_worker

from events import DirectPush, Message, Publisher, PublishFailed
from registry import apps
from registry.database import Database
from tests.chaos.proxy import Proxy
from tests.chaos.rabbit import RabbitServer, is_installed, start_rabbit
from workers.announce import Announcer
from workers.app import QUEUES, create_app, create_bare_app
from workers.settings import load_settings

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.timeout(600),  # on a busy machine a node is up in minutes
    pytest.mark.skipif(not is_installed(), reason="RabbitMQ is not installed here"),
    pytest.mark.filterwarnings("ignore::celery.platforms.SecurityWarning"),
    # Celery says at each reconnect that a default will change.
    pytest.mark.filterwarnings("ignore::celery.exceptions.CPendingDeprecationWarning"),
    # And it leaves a lost connection's socket to the collector.
    pytest.mark.filterwarnings("ignore:.*unclosed <socket:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:.*<socket.socket:pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def rabbit() -> Iterator[RabbitServer]:
    """Give a node. It runs as another user, who may not enter pytest's directories."""
    with tempfile.TemporaryDirectory(prefix="pushfan-rabbit-") as directory:
        Path(directory).chmod(0o755)
        with start_rabbit(Path(directory) / "node") as server:
            yield server


@pytest.fixture
def road(rabbit: RabbitServer) -> Iterator[Proxy]:
    """Give a proxy before the node, whose queues are empty."""
    rabbit.purge()
    with Proxy(rabbit.url) as proxy:
        yield proxy


@pytest.fixture
def shop(database_url: str) -> Iterator[Database]:
    """Give a database with the app `shop`."""
    database = Database(database_url)
    apps.add(database.connection(), "shop")
    yield database
    database.close()


@contextmanager
def worker(database: Database, url: str) -> Iterator[None]:
    """Run a worker in a thread."""
    app = create_app(load_settings({}, database_url=database.url, broker_url=url, tick_seconds=0.5))
    with start_worker(app, pool="solo", perform_ping_check=False, queues=list(QUEUES), shutdown_timeout=60):
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


def test_what_was_queued_is_worked_on_under_a_memory_alarm(shop: Database, rabbit: RabbitServer) -> None:
    """Nobody may publish, and the worker's own events find no ear; it takes in what is there all the same."""
    rabbit.purge()
    with Publisher(rabbit.url) as publisher:
        for number in range(5):
            publisher.publish(push(f"event-{number}"))
    rabbit.limit_memory(has_memory=False)
    try:
        with worker(shop, rabbit.url):
            wait_until_taken_in(shop, 5, within_seconds=40)
            rabbit.limit_memory(has_memory=True)
    finally:
        rabbit.limit_memory(has_memory=True)


def test_announcements_give_up_soon_under_a_memory_alarm(rabbit: RabbitServer) -> None:
    """A confirmation does not come: whoever announces is soon free again, and announces again later."""
    app = create_bare_app(
        load_settings({}, database_url="postgresql://nobody/nothing", broker_url=rabbit.url)
    )
    announcer = Announcer(app)
    announcer.plans([1])
    rabbit.limit_memory(has_memory=False)
    try:
        began = time.monotonic()
        announcer.plans([2])
        assert time.monotonic() - began < 10
    finally:
        rabbit.limit_memory(has_memory=True)
    rabbit.purge()
    deadline = time.monotonic() + 20
    while not rabbit.purge():
        assert time.monotonic() < deadline
        announcer.plans([3])
        time.sleep(0.2)
    app.pool.force_close_all()


@pytest.mark.skipif(sys.platform != "linux", reason="packets are dropped by a filter of Linux")
def test_consumer_is_back_after_its_broker_vanished(
    shop: Database, rabbit: RabbitServer, road: Proxy
) -> None:
    """Heartbeats notice that sockets are half open: a minute later events are taken in."""
    with worker(shop, road.url), Publisher(road.url) as publisher:
        publisher.publish(push("before"))
        wait_until_taken_in(shop, 1, within_seconds=30)
        road.black_hole()
        began = time.monotonic()
        with pytest.raises(PublishFailed):
            publisher.publish(push("lost"))
        assert time.monotonic() - began < 10
        road.heal()
        with Publisher(rabbit.url) as another:
            another.publish(push("after"))
        wait_until_taken_in(shop, 2, within_seconds=60)
