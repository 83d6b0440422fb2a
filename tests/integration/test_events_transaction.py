"""Events taken in by the caller's own PostgreSQL transaction, and what jsonb makes of them."""

import json
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row, namedtuple_row

from events import Conflict, DirectPush, Event, Message, Publisher, TakenIn, UnknownApp, decode, encode

HELLO = Message(title="Hello")
PUSH = DirectPush(app="shop", id="p1", users=["u7"], message=HELLO)


@pytest.fixture
def publisher(connection: psycopg.Connection) -> Publisher:
    """Give a publisher without a broker, and an app that it may push to."""
    connection.execute("INSERT INTO pushfan.app (name) VALUES ('shop')")
    return Publisher(app="shop")


def stored_events(connection: psycopg.Connection) -> list[Event]:
    """Return the events of all notifications, as the planner will read them."""
    rows = connection.execute("SELECT event FROM pushfan.notification ORDER BY id").fetchall()
    return [decode(event) for (event,) in rows]


def test_event_is_taken_in_with_the_callers_commit(
    publisher: Publisher, connection: psycopg.Connection, database_url: str
) -> None:
    """Not before: another connection sees nothing until the caller commits."""
    with psycopg.connect(database_url) as caller:
        taken_in = publisher.publish_in_transaction(caller, PUSH)
        assert stored_events(connection) == []
        caller.commit()
    assert stored_events(connection) == [PUSH]
    ids = connection.execute("SELECT id FROM pushfan.notification").fetchall()
    assert [taken_in] == [TakenIn(id="p1", notification_id=number) for (number,) in ids]


def test_event_is_gone_with_the_callers_rollback(
    publisher: Publisher, connection: psycopg.Connection, database_url: str
) -> None:
    """Nobody is told of an order that was never placed."""
    with psycopg.connect(database_url) as caller:
        publisher.publish_in_transaction(caller, PUSH)
        caller.rollback()
    assert stored_events(connection) == []
    assert not publisher.publish_in_transaction(connection, PUSH).is_repeated


def test_repeated_event_changes_nothing(publisher: Publisher, connection: psycopg.Connection) -> None:
    """The same id and content is the same notification, users in any order."""
    event = DirectPush(app="shop", id="p1", users=["u1", "u2"], message=HELLO)
    again = DirectPush(app="shop", id="p1", users=["u2", "u1", "u2"], message=HELLO)
    first = publisher.publish_in_transaction(connection, event)
    second = publisher.publish_in_transaction(connection, again)
    assert (first.is_repeated, second.is_repeated) == (False, True)
    assert first.notification_id == second.notification_id
    assert stored_events(connection) == [event]


def test_conflict_leaves_the_transaction_usable(publisher: Publisher, connection: psycopg.Connection) -> None:
    """The first content stays, and the caller decides about the rest of its work."""
    other = DirectPush(app="shop", id="p1", users=["u7"], message=Message(title="Other"))
    publisher.publish_in_transaction(connection, PUSH)
    with connection.transaction():
        with pytest.raises(Conflict, match="p1"):
            publisher.publish_in_transaction(connection, other)
        assert connection.execute("SELECT 1").fetchone() == (1,)
    assert stored_events(connection) == [PUSH]


def test_unknown_app_is_told_with_what_to_do(connection: psycopg.Connection) -> None:
    """It is not created by accident."""
    with pytest.raises(UnknownApp, match="pushfan app add shop"):
        Publisher().publish_in_transaction(connection, PUSH)


@pytest.mark.parametrize("row_factory", [dict_row, namedtuple_row])
def test_rows_may_be_of_the_callers_kind(
    publisher: Publisher, connection: psycopg.Connection, row_factory: Any
) -> None:
    """Applications set their connections to dictionaries or named tuples."""
    connection.row_factory = row_factory
    assert publisher.publish_in_transaction(connection, PUSH).notification_id


AWKWARD: list[dict[str, Any]] = [
    {"body": "ß 漢字 🎉 \u2028 \ufffe \"quoted\" \\u0000 \\ / 'x' %s $1"},
    {"body": "lines\n\tand tabs\r"},
    {"title": "t", "relevance_score": 0.1},
    {"title": "t", "fcm": {"big": 9e18, "small": 5e-324, "neg": -0.5, "exp": 1.5e17, "int": 2**63 - 1}},
    {"title": "t", "apns": {"null": None, "list": [[], {}, [None]], "": {"": ""}}},
    {"title": "t", "jpush": {"b": 1, "a": True, "aa": 1.0}},
]


@pytest.mark.parametrize("message", AWKWARD)
def test_event_is_read_from_the_database_as_it_was_published(
    publisher: Publisher, connection: psycopg.Connection, message: dict[str, Any]
) -> None:
    """The type jsonb stores every valid event and gives it back unchanged."""
    event = DirectPush(app="shop", id="ä/%s", users=["u7", "%", "\\"], message=Message(**message))
    publisher.publish_in_transaction(connection, event)
    (stored,) = stored_events(connection)
    assert stored == event
    assert json.loads(json.dumps(encode(stored))) == encode(event)
