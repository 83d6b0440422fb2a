"""Watched tables: whatever writes to them, the right bucket writes are in the outbox, with the same commit."""

from collections.abc import Iterator

import psycopg
import pytest

from events import BucketWrite, Change, decode
from tests.integration.outbox.producer import Producer

MANY = 50_000


@pytest.fixture
def orders(producer: Producer) -> Producer:
    """Give a database whose table `orders` is watched as the bucket `orders`."""
    producer.run("CREATE TABLE orders (id integer PRIMARY KEY, owner text, state text, note json)")
    producer.run("SELECT pushfan.watch('orders', bucket => 'orders', app => 'shop')")
    return producer


@pytest.fixture
def writer(producer: Producer) -> Iterator[str]:
    """Give a role that may write to every table of the backend, and nothing of Pushfan's."""
    producer.run("CREATE ROLE shop_writer")
    producer.run("GRANT INSERT, SELECT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO shop_writer")
    yield "shop_writer"
    producer.run("DROP OWNED BY shop_writer")
    producer.run("DROP ROLE shop_writer")


def test_each_kind_of_statement_writes_its_changes(orders: Producer) -> None:
    """Rows come and go by every statement that SQL has; one that touches no row says nothing."""
    orders.run("INSERT INTO orders (id) VALUES (1), (2), (3)")
    assert orders.writes() == [("created", "1"), ("created", "2"), ("created", "3")]
    orders.run("UPDATE orders SET state = 'paid' WHERE id > 1")
    assert orders.writes() == [("updated", "2"), ("updated", "3")]
    orders.run("INSERT INTO orders (id) VALUES (3), (4) ON CONFLICT (id) DO UPDATE SET state = 'again'")
    assert orders.writes() == [("created", "4"), ("updated", "3")]
    orders.run(
        "WITH gone AS (DELETE FROM orders WHERE id = 1 RETURNING id) INSERT INTO orders SELECT 10 FROM gone"
    )
    assert orders.writes() == [("created", "10"), ("deleted", "1")]
    with orders.connection.cursor() as cursor, cursor.copy("COPY orders (id) FROM STDIN") as copy:
        copy.write("20\n21\n")
    assert orders.writes() == [("created", "20"), ("created", "21")]
    orders.run("UPDATE orders SET id = 5 WHERE id = 4")
    assert orders.writes() == [("created", "5"), ("deleted", "4")]
    orders.run("UPDATE orders SET id = CASE id WHEN 2 THEN 102 ELSE 2 END WHERE id IN (2, 3)")
    assert orders.writes() == [("created", "102"), ("deleted", "3"), ("updated", "2")]
    orders.run("UPDATE orders SET state = 'x' WHERE id = -1")
    orders.run("DELETE FROM orders WHERE id = -1")
    orders.run("INSERT INTO orders SELECT id FROM orders WHERE id = -1")
    assert orders.writes() == []


def test_event_is_a_valid_bucket_write(orders: Producer) -> None:
    """The relay reads from the outbox what a publisher would have written."""
    orders.run("INSERT INTO orders (id) VALUES (7)")
    (event,) = orders.events()
    assert "id" not in event  # the relay makes it, of the row
    assert decode(event, id_if_missing="x") == BucketWrite(
        app="shop", id="x", bucket="orders", object="7", change=Change.CREATED
    )


def test_writes_are_part_of_the_transaction(orders: Producer) -> None:
    """A rollback takes them back, to a savepoint too."""
    with orders.session() as session:
        session.execute("INSERT INTO orders (id) VALUES (1)")
        session.execute("SAVEPOINT before")
        session.execute("INSERT INTO orders (id) VALUES (2)")
        session.execute("ROLLBACK TO before")
        assert orders.events() == []
        session.commit()
    assert orders.writes() == [("created", "1")]
    with orders.session() as session:
        session.execute("DELETE FROM orders")
    assert orders.writes() == []


def test_fifty_thousand_rows_in_one_statement_are_as_many_writes(orders: Producer) -> None:
    """All of them in the transaction that wrote the rows; afterwards nothing of it is locked, nor was a writer kept."""
    orders.run(f"INSERT INTO orders (id) SELECT generate_series(1, {MANY})")
    orders.run("DELETE FROM pushfan.outbox")
    with orders.session() as session, orders.session() as other:
        session.execute("UPDATE orders SET state = 'paid'")
        assert orders.events() == []
        # While that transaction is open, another writes to the same table and commits.
        other.execute("SET lock_timeout = '2s'")
        other.execute("INSERT INTO orders (id) VALUES (0)")
        other.commit()
        assert orders.writes() == [("created", "0")]
        session.commit()
        locks = "SELECT count(*) AS locks FROM pg_locks WHERE pid = %s AND locktype <> 'virtualxid'"
        pid = session.info.backend_pid
        assert orders.run(locks, pid) == [{"locks": 0}]
    writes = orders.writes()
    assert len(writes) == len(set(writes)) == MANY
    assert {change for change, _ in writes} == {"updated"}


def test_two_writers_commit_in_any_order(orders: Producer) -> None:
    """No row or lock of the outbox makes writers wait for one another."""
    with orders.session() as first, orders.session() as second:
        for session in (first, second):
            session.execute("SET lock_timeout = '2s'")
        first.execute("INSERT INTO orders (id) VALUES (1)")
        second.execute("INSERT INTO orders (id) VALUES (2)")
        second.commit()
        first.commit()
    assert orders.writes() == [("created", "1"), ("created", "2")]


def test_role_that_writes_needs_no_right_on_anything_of_pushfan(orders: Producer, writer: str) -> None:
    """Its search path and its temporary tables change nothing about where the events go."""
    with orders.session(writer) as session:
        session.execute("CREATE TEMP TABLE outbox (event jsonb)")
        session.execute("SET search_path = pg_temp, public")
        session.execute("INSERT INTO orders (id) VALUES (1)")
        assert session.execute("SELECT event FROM pg_temp.outbox").fetchall() == []
        session.commit()
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            session.execute("SELECT id FROM pushfan.outbox")
    assert orders.writes() == [("created", "1")]


def test_scope_is_read_from_a_column(producer: Producer) -> None:
    """A row without one is nobody's; one that changes hands is deleted here and created there."""
    producer.run("CREATE TABLE notes (id integer PRIMARY KEY, owner integer)")
    producer.run(
        "SELECT pushfan.watch('notes', bucket => 'notes', app => 'shop', scope => 'user', scope_column => 'owner')"
    )
    producer.run("INSERT INTO notes VALUES (1, 7), (2, NULL)")
    producer.run("UPDATE notes SET owner = 8")
    producer.run("UPDATE notes SET owner = NULL WHERE id = 2")
    found = [(event["scope"], event["change"], event["object"]) for event in producer.events()]
    assert found[:1] == [("user:7", "created", "1")]
    assert sorted(found[1:4]) == [
        ("user:7", "deleted", "1"),
        ("user:8", "created", "1"),
        ("user:8", "created", "2"),
    ]
    assert found[4:] == [("user:8", "deleted", "2")]


def test_actor_comes_from_the_session_or_else_from_a_column(producer: Producer) -> None:
    """Who made the change is left out of the push; where nobody is known, nobody is."""
    producer.run("CREATE TABLE notes (id integer PRIMARY KEY, editor text)")
    producer.run(
        "SELECT pushfan.watch('notes', bucket => 'notes', app => 'shop',"
        " actor_column => 'editor', actor_setting => 'shop.actor')"
    )
    producer.run("INSERT INTO notes VALUES (1, 'u1'), (2, NULL)")
    producer.run("SELECT set_config('shop.actor', 'u9', false)")
    producer.run("DELETE FROM notes WHERE id = 1")
    actors = [decode(event).actor for event in producer.events()]  # type: ignore[union-attr]
    assert actors == ["u1", None, "u9"]


def test_update_counts_only_when_a_named_column_has_changed(producer: Producer) -> None:
    """Also a column whose type knows no equality."""
    producer.run("CREATE TABLE orders (id integer PRIMARY KEY, state text, note json, seen integer)")
    producer.run(
        "SELECT pushfan.watch('orders', bucket => 'orders', app => 'shop', when_changed => '{state,note}')"
    )
    producer.run("INSERT INTO orders VALUES (1, 'new', '{}', 0), (2, 'paid', NULL, 0)")
    producer.writes()
    producer.run("UPDATE orders SET state = 'paid', seen = 1")
    assert producer.writes() == [("updated", "1")]
    producer.run("UPDATE orders SET note = '[]' WHERE id = 2")
    assert producer.writes() == [("updated", "2")]
    producer.run("UPDATE orders SET seen = 2")
    assert producer.writes() == []


def test_lane_and_lifetime_are_those_of_the_watch(producer: Producer) -> None:
    """A table that is rewritten at night need not stand in the way of others."""
    producer.run("CREATE TABLE stock (id integer PRIMARY KEY)")
    producer.run(
        "SELECT pushfan.watch('stock', bucket => 'stock', app => 'shop', scope => 'group:42',"
        " lane => 'bulk', ttl_seconds => 60)"
    )
    producer.run("INSERT INTO stock VALUES (1)")
    (event,) = producer.events()
    write = decode(event)
    assert isinstance(write, BucketWrite)
    assert (write.lane, write.ttl_seconds, write.scope) == ("bulk", 60, "group:42")


def test_odd_names_and_composite_keys(producer: Producer) -> None:
    """Identifiers are quoted, and the parts of a key cannot be mistaken for one another."""
    producer.run('CREATE SCHEMA "a %s b"')
    producer.run(
        'CREATE TABLE "a %s b"."Or""ders\'" ("I d%" text, "select" date, PRIMARY KEY ("select", "I d%"))'
    )
    producer.run(
        """SELECT pushfan.watch('"a %s b"."Or""ders''"', bucket => 'o', app => 'shop', when_changed => '{I d%}')"""
    )
    producer.run("SET datestyle = 'German'")
    producer.run("""INSERT INTO "a %s b"."Or""ders'" VALUES ('a/b%', '2026-01-31'), ('a', '2026-01-31')""")
    assert producer.writes() == [("created", "2026-01-31/a"), ("created", "2026-01-31/a%2Fb%25")]
    assert producer.run("""SELECT pushfan.unwatch('"a %s b"."Or""ders''"') AS done""") == [{"done": True}]


def test_partitions_are_covered_by_their_table(producer: Producer) -> None:
    """Whether a statement names the whole or a part, each row is written once; moved rows are updated."""
    producer.run("CREATE TABLE log (id integer, day integer, PRIMARY KEY (id, day)) PARTITION BY RANGE (day)")
    producer.run("CREATE TABLE log_1 (day integer NOT NULL, id integer NOT NULL)")
    producer.run("ALTER TABLE log ATTACH PARTITION log_1 FOR VALUES FROM (1) TO (10)")
    producer.run("SELECT pushfan.watch('log', bucket => 'log', app => 'shop')")
    producer.run("CREATE TABLE log_2 PARTITION OF log FOR VALUES FROM (10) TO (20)")
    producer.run("INSERT INTO log VALUES (1, 1), (2, 11)")
    assert producer.writes() == [("created", "1/1"), ("created", "2/11")]
    producer.run("UPDATE log SET day = 12 WHERE id = 1")
    assert producer.writes() == [("created", "1/12"), ("deleted", "1/1")]
    producer.run("INSERT INTO log_1 (id, day) VALUES (3, 3)")
    assert producer.writes() == [("created", "3/3")]
    # A partition that came later is covered from its own side once the table is watched again.
    producer.run("SELECT pushfan.watch('log', bucket => 'log', app => 'shop')")
    producer.run("DELETE FROM log_2 WHERE id = 2")
    assert producer.writes() == [("deleted", "2/11")]
    producer.run("SELECT pushfan.unwatch('log')")
    producer.run("DELETE FROM log")
    producer.run("INSERT INTO log_1 (id, day) VALUES (3, 3)")
    assert producer.writes() == []


def test_cascades_are_written(orders: Producer) -> None:
    """What a foreign key deletes is deleted."""
    orders.run("CREATE TABLE customers (id integer PRIMARY KEY)")
    orders.run("ALTER TABLE orders ADD customer integer REFERENCES customers ON DELETE CASCADE")
    orders.run("INSERT INTO customers VALUES (1)")
    orders.run("INSERT INTO orders (id, customer) VALUES (1, 1), (2, 1)")
    orders.writes()
    orders.run("DELETE FROM customers")
    assert orders.writes() == [("deleted", "1"), ("deleted", "2")]


def test_watching_again_changes_the_words_and_writes_once(orders: Producer) -> None:
    """A migration may run twice; the last call counts."""
    orders.run("SELECT pushfan.watch('orders', bucket => 'orders', app => 'shop')")
    orders.run("SELECT pushfan.watch('public.orders', bucket => 'sales', app => 'shop')")
    orders.run("INSERT INTO orders (id) VALUES (1)")
    assert [event["bucket"] for event in orders.events()] == ["sales"]


def test_unwatching_leaves_nothing(orders: Producer) -> None:
    """Neither triggers nor functions; a second time there is nothing to do."""
    before = "SELECT proname FROM pg_proc WHERE proname ~ '^watch_[0-9]+$'"
    assert len(orders.run(before)) == 1
    assert orders.run("SELECT pushfan.unwatch('orders') AS done") == [{"done": True}]
    orders.run("INSERT INTO orders (id) VALUES (1)")
    assert (orders.events(), orders.run(before)) == ([], [])
    assert orders.run("SELECT pushfan.unwatch('orders') AS done") == [{"done": False}]


def test_dropped_table_is_forgotten(orders: Producer) -> None:
    """Dropping needs no word to Pushfan; what is left is cleared at the next watch."""
    orders.run("DROP TABLE orders")
    orders.run("CREATE TABLE orders (id integer PRIMARY KEY)")
    orders.run("SELECT pushfan.watch('orders', bucket => 'orders', app => 'shop')")
    assert len(orders.run("SELECT 1 FROM pg_proc WHERE proname ~ '^watch_[0-9]+$'")) == 1
    orders.run("INSERT INTO orders VALUES (1)")
    assert orders.writes() == [("created", "1")]


def test_truncate_says_nothing(orders: Producer) -> None:
    """As the documentation tells: it names no objects."""
    orders.run("INSERT INTO orders (id) VALUES (1)")
    orders.writes()
    orders.run("TRUNCATE orders")
    assert orders.writes() == []


REFUSED = [
    ("CREATE TABLE t (id integer)", "", "no primary key"),
    ("CREATE VIEW t AS SELECT 1 AS id", "", "only tables"),
    ("CREATE TEMP TABLE t (id integer PRIMARY KEY)", "", "no temporary"),
    (
        "CREATE TABLE p (id integer PRIMARY KEY); CREATE TABLE t (PRIMARY KEY (id)) INHERITS (p)",
        "",
        "inherits",
    ),
    ("CREATE TABLE t (id integer PRIMARY KEY); CREATE TABLE c () INHERITS (t)", "", "inherited from"),
    (
        "CREATE TABLE p (id integer PRIMARY KEY) PARTITION BY RANGE (id); CREATE TABLE t PARTITION OF p DEFAULT",
        "",
        "watch the partitioned table",
    ),
    ("CREATE TABLE t (id integer PRIMARY KEY)", ", actor_column => 'nobody'", "no column nobody"),
    ("CREATE TABLE t (id integer PRIMARY KEY)", ", when_changed => '{id,x}'", "no column x"),
    ("CREATE TABLE t (id integer PRIMARY KEY)", ", scope => 'team:1'", "scope must be"),
    ("CREATE TABLE t (id integer PRIMARY KEY)", ", scope_column => 'id'", "scope must be"),
    ("CREATE TABLE t (id integer PRIMARY KEY)", ", lane => 'express'", "lane must be"),
    ("CREATE TABLE t (id integer PRIMARY KEY)", ", ttl_seconds => 99999999", "28 days"),
]


@pytest.mark.parametrize(("tables", "more", "problem"), REFUSED)
def test_what_cannot_be_watched_truly_is_refused(
    producer: Producer, tables: str, more: str, problem: str
) -> None:
    """With what is wrong, and nothing left behind."""
    producer.run(tables)
    with pytest.raises(psycopg.Error, match=problem):
        producer.run(f"SELECT pushfan.watch('t', bucket => 'orders', app => 'shop'{more})")
    assert producer.run("SELECT id FROM pushfan.watched") == []


def test_names_that_events_could_not_have_are_refused(orders: Producer) -> None:
    """Better now than as a dead letter for each row."""
    with pytest.raises(psycopg.Error, match="app and bucket"):
        orders.run("SELECT pushfan.watch('orders', bucket => 'my orders', app => 'shop')")


def test_role_without_rights_watches_nothing(orders: Producer, writer: str) -> None:
    """It could otherwise have its own words run with the owner's rights."""
    orders.run(f"GRANT USAGE ON SCHEMA pushfan TO {writer}")
    with orders.session(writer) as session, pytest.raises(psycopg.errors.InsufficientPrivilege):
        session.execute("SELECT pushfan.watch('orders', bucket => 'orders', app => 'shop')")
