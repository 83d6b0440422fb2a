"""Ways to PostgreSQL and the broker that are gone without a word: everybody notices, in the time that is promised."""

import sys
import threading
import time
from collections.abc import Iterator

import psycopg
import pytest

from registry.database import Database
from tests.chaos.proxy import Proxy

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.skipif(sys.platform != "linux", reason="packets are dropped by a filter of Linux"),
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
