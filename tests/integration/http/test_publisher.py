"""`HttpPublisher` and the real server."""

from __future__ import annotations

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from events import (
    Conflict,
    DirectPush,
    HttpPublisher,
    Message,
    PublishFailed,
    Refused,
    TopicMessage,
    UnknownApp,
)
from registry.database import Database
from tests.integration.http.house import House, serve, settings_for
from tests.integration.http.relay import Relay
from tests.integration.http.server import Server


@pytest.fixture
def house(database_url: str, tmp_path: Path) -> Iterator[House]:
    """Give the house, and its secrets."""
    settings = settings_for(database_url, tmp_path)
    database = Database(database_url)
    yield House(settings=settings, database=database, client=serve(settings))
    database.close()


@pytest.fixture
def server(house: House, tmp_path: Path) -> Iterator[Server]:
    """Give a real server on the house's database."""
    with Server(house.database.url, tmp_path) as server:
        yield server


def push(id_: str, app: str = "shop", title: str = "Hello") -> DirectPush:
    """Make an event."""
    return DirectPush(app=app, id=id_, users=["u7"], message=Message(title=title))


def test_server_killed_between_commit_and_reply_takes_in_once(house: House, server: Server) -> None:
    """The client sees a broken connection, repeats with the same id, and there is one notification."""

    def kill_and_start() -> None:
        assert len(house.notifications()) == 1  # committed: the answer is on its way
        house.database.close()  # the relay's thread had one of its own
        server.kill()
        server.start()

    with Relay(server.port) as relay, HttpPublisher(relay.url, key=house.secrets["shop"]) as publisher:
        relay.on_answer = kill_and_start
        taken_in = publisher.publish(push("order-812"))
        publisher.close()
    assert relay.lost == 1
    assert taken_in.is_repeated
    assert [row["id"] for row in house.notifications()] == [taken_in.notification_id]


def test_publisher_says_what_became_of_events(house: House, server: Server) -> None:
    """The same types and errors as the other ways to publish."""
    with HttpPublisher(server.url, key=house.secrets["shop"]) as publisher:
        first = publisher.publish(push("a"))
        assert not first.is_repeated
        assert publisher.publish(push("a")).is_repeated
        with pytest.raises(Conflict):
            publisher.publish(push("a", title="Other"))
        with pytest.raises(UnknownApp):
            publisher.publish(push("b", app="nowhere"))
        topic = TopicMessage(app="shop", id="t", topic="news", message=Message(title="Hi"))
        with pytest.raises(Refused, match="event a: ") as some:
            publisher.publish_many([push("c"), push("a", title="Other"), topic])
        assert [one.id for one in some.value.taken_in] == ["c", "t"]
        assert set(some.value.problems) == {"a"}
        many = publisher.publish_many(push(f"m{number}") for number in range(1200))
        assert len({one.notification_id for one in many}) == 1200
    with HttpPublisher(server.url, key="pfk_wrong") as stranger, pytest.raises(Refused, match="key"):
        stranger.publish(push("d"))
    assert house.secrets["shop"] not in repr(publisher)


def test_duplicates_that_come_at_once_are_one_notification_each(house: House, server: Server) -> None:
    """Concurrent clients with the same ids make one notification of each."""

    def publish(number: int) -> int:
        with HttpPublisher(server.url, key=house.secrets["shop"]) as publisher:
            return [
                publisher.publish(push(f"e{(number + step) % 20}")).is_repeated for step in range(20)
            ].count(False)

    with ThreadPoolExecutor(16) as pool:
        fresh = sum(pool.map(publish, range(16)))
    assert fresh == 20
    assert len(house.notifications()) == 20


def test_ten_thousand_duplicates_of_a_hundred_events(house: House, server: Server) -> None:
    """Lists of all of them, each in an order of its own, sixteen at a time."""
    events = [push(f"e{number}") for number in range(100)]

    def publish(seed: int) -> int:
        mixed = random.Random(seed).sample(events, k=len(events))
        with HttpPublisher(server.url, key=house.secrets["shop"]) as publisher:
            return [taken.is_repeated for taken in publisher.publish_many(mixed)].count(False)

    with ThreadPoolExecutor(16) as pool:
        fresh = sum(pool.map(publish, range(100)))
    assert fresh == 100
    rows = house.database.connection().execute("SELECT key FROM pushfan.notification").fetchall()
    assert sorted(row["key"] for row in rows) == sorted(event.id for event in events)


def test_server_that_is_away_is_a_failure_that_may_be_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing was sent, so nothing can have been taken in."""
    monkeypatch.setattr("time.sleep", lambda _seconds: None)
    with pytest.raises(PublishFailed, match="safe") as failed:
        HttpPublisher("http://127.0.0.1:1", key="k").publish(push("a"))
    assert not failed.value.is_uncertain


@pytest.mark.parametrize(
    "url", ["http://push.example.com", "ftp://localhost", "https://", "https://u:p@host"]
)
def test_key_never_travels_in_clear(url: str) -> None:
    """Without TLS only this machine is spoken to."""
    with pytest.raises(ValueError, match="API's URL"):
        HttpPublisher(url, key="k")
