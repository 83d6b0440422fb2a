"""The outbox in a database that is not Pushfan's: installed, installed again, and written to by a transaction."""

import psycopg
import pytest
from psycopg.rows import dict_row

from events import (
    DirectPush,
    InOutbox,
    Message,
    NotInstalled,
    Publisher,
    TakenIn,
    decode,
    outbox_sql,
)
from registry import outbox
from registry.database import Database
from registry.errors import SchemaMismatch
from tests.integration.outbox.producer import Producer

PUSH = DirectPush(app="shop", id="p1", users=["u7"], message=Message(title="Hello %s"))


@pytest.fixture
def publisher() -> Publisher:
    """Give a publisher without a broker."""
    return Publisher(app="shop")


def test_event_is_in_the_outbox_with_the_callers_commit(publisher: Publisher, producer: Producer) -> None:
    """Where only the outbox is installed the event goes there, as it was published."""
    with producer.session() as caller:
        assert publisher.publish_in_transaction(caller, PUSH) == InOutbox(id="p1")
        assert producer.events() == []
        caller.commit()
    assert [decode(event) for event in producer.events()] == [PUSH]


def test_event_is_gone_with_the_callers_rollback(publisher: Publisher, producer: Producer) -> None:
    """Nobody is told of an order that was never placed."""
    with producer.session() as caller:
        publisher.publish_in_transaction(caller, PUSH)
    assert producer.events() == []


def test_pushfans_own_database_takes_events_in_at_once(
    publisher: Publisher, connection: psycopg.Connection
) -> None:
    """It has an outbox too, for watched tables; who publishes there needs no detour."""
    connection.execute("INSERT INTO pushfan.app (name) VALUES ('shop')")
    assert isinstance(publisher.publish_in_transaction(connection, PUSH), TakenIn)
    assert connection.execute("SELECT id FROM pushfan.outbox").fetchall() == []


def test_database_without_either_is_told_and_its_transaction_goes_on(
    publisher: Publisher, foreign_url: str
) -> None:
    """The error names the command; what the caller did before is not lost."""
    with psycopg.connect(foreign_url) as caller:
        caller.execute("CREATE TABLE orders (id integer PRIMARY KEY)")
        with pytest.raises(NotInstalled, match="pushfan outbox install"):
            publisher.publish_in_transaction(caller, PUSH)
        assert caller.execute("SELECT count(*) FROM orders").fetchone() == (0,)
        # What was not found is looked for again.
        caller.execute(outbox_sql().encode())
        assert publisher.publish_in_transaction(caller, PUSH) == InOutbox(id="p1")


@pytest.mark.parametrize("slots", [("__weakref__",), ()])
def test_connection_may_be_a_proxy_without_weak_references(
    publisher: Publisher, producer: Producer, slots: tuple[str, ...]
) -> None:
    """Pools hand out all kinds of objects; one that cannot be remembered is asked each time."""

    class Proxy:
        __slots__ = slots

        def cursor(self) -> object:
            return producer.connection.cursor(row_factory=dict_row)

    proxy = Proxy()
    for _ in range(2):
        publisher.publish_in_transaction(proxy, PUSH)
    assert len(producer.events()) == 2


def test_installing_again_changes_nothing(foreign_url: str) -> None:
    """Neither what waits nor the installation's name, which is part of ids."""
    database = Database(foreign_url)
    with pytest.raises(SchemaMismatch, match="pushfan outbox install"):
        outbox.check(database)
    name = outbox.install(database)
    database.connection().execute("INSERT INTO pushfan.outbox (event) VALUES ('{}')")
    assert outbox.install(database) == name
    assert len(database.connection().execute("SELECT id FROM pushfan.outbox").fetchall()) == 1
    database.close()


def test_newer_outbox_is_left_alone(producer: Producer) -> None:
    """An older file does not overwrite what a newer one made."""
    producer.run("UPDATE pushfan.outbox_installation SET version = 99")
    with pytest.raises(psycopg.errors.RaiseException, match="newer"):
        producer.connection.execute(outbox_sql().encode())
    database = Database(producer.url)
    with pytest.raises(SchemaMismatch, match="upgrade"):
        outbox.check(database)
    database.close()


def test_owner_of_a_schema_needs_no_right_on_the_database(producer: Producer) -> None:
    """A plain role that was given the schema can apply the file again; roles are then not its business."""
    producer.run("CREATE ROLE plain_owner")
    try:
        producer.run("DROP SCHEMA pushfan CASCADE")
        producer.run("CREATE SCHEMA pushfan AUTHORIZATION plain_owner")
        with producer.session("plain_owner") as owner:
            for _ in range(2):
                owner.execute(outbox_sql().encode())
            owner.commit()
        assert producer.run("SELECT version FROM pushfan.outbox_installation") == [{"version": 1}]
    finally:
        producer.run("DROP OWNED BY plain_owner CASCADE")
        producer.run("DROP ROLE plain_owner")
