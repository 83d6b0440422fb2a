"""Roles of the database: each connects, does what it is for, and is refused everything else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql
from psycopg.errors import InsufficientPrivilege

from events import BucketWrite, Change, DirectPush, InOutbox, Message, Publisher, TakenIn
from registry import apps, devices, schema, users
from registry.database import Database
from registry.devices import Install
from tests.integration.ledger.scene import Scene, news, open_scene
from tests.integration.workers.floor import build_floor
from workers import intake
from workers.relay import Relay

PASSWORD = "not a secret"
Login = Callable[[str], str]


@pytest.fixture
def scene(database_url: str) -> Iterator[Scene]:
    """Give the app `shop` with one device, made by the owner."""
    database = Database(database_url)
    schema.apply(database)
    scene = open_scene(database)
    scene.install(["a"])
    scene.subscribe(["a"])
    yield scene
    database.close()


@pytest.fixture
def login(scene: Scene) -> Iterator[Login]:
    """Give a function that makes a user of a role and returns the URL to connect as it."""
    made = []

    def make(role: str) -> str:
        name = f"{role}_{uuid4().hex[:8]}"
        with psycopg.connect(scene.database.url, autocommit=True) as owner:
            owner.execute(
                sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(
                    sql.Identifier(name), sql.Literal(PASSWORD)
                )
            )
            if role != "plain":
                owner.execute(sql.SQL("GRANT {} TO {}").format(sql.Identifier(role), sql.Identifier(name)))
        made.append(name)
        parts = urlsplit(scene.database.url)
        host = parts.netloc.rpartition("@")[2]
        return urlunsplit(parts._replace(netloc=f"{name}:{PASSWORD.replace(' ', '%20')}@{host}"))

    yield make
    with psycopg.connect(scene.database.url, autocommit=True) as owner:
        for name in made:
            owner.execute(sql.SQL("DROP OWNED BY {} CASCADE").format(sql.Identifier(name)))
            owner.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))


def refuses(url: str, *statements: str) -> None:
    """Check that a user lacks the right to run each of the statements."""
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            with pytest.raises(InsufficientPrivilege):
                connection.execute(statement.encode())


def test_worker_takes_in_plans_delivers_and_keeps_house(scene: Scene, login: Login, tmp_path: Path) -> None:
    """All that a worker does, its dispatcher and a relay included; but no keys, no apps, no subscribers."""
    url = login("pushfan_worker")
    worker = Database(url)
    theirs = Scene(
        database=worker, connection=worker.connection(), app_id=scene.app_id, channel=scene.channel
    )
    floor = build_floor(theirs, tmp_path)
    intake.take_in(floor.door(), [news(), DirectPush(app="shop", users=["a"], message=Message(title="Hi"))])
    assert floor.deliver_all() == {"accepted": 2}
    dispatcher = floor.dispatcher()
    dispatcher.tick()
    scene.run("INSERT INTO pushfan.outbox (event) VALUES ('{}')")
    relay = Relay(floor.door(), Database(url), name="theirs")
    assert relay.step() == 1
    relay.close()
    floor.close()
    worker.close()
    refuses(
        url,
        "SELECT FROM pushfan.api_key",
        "INSERT INTO pushfan.app (name) VALUES ('mine')",
        "DELETE FROM pushfan.channel",
        "DELETE FROM pushfan.subscription",
        "UPDATE pushfan.schema_version SET version = 0",
        "DROP TABLE pushfan.delivery",
        "UPDATE pushfan.watched SET app = 'other'",
    )


def test_api_registers_takes_in_and_forgets(scene: Scene, login: Login, tmp_path: Path) -> None:
    """It makes apps and keys and devices; it can make up no outcome and no worker."""
    url = login("pushfan_api")
    api = Database(url)
    connection = api.connection()
    apps.add(connection, "other")
    devices.install(
        connection,
        Install(channel_id=scene.channel.id, user_id="b", device_key="b", token="token-of-b"),
    )
    theirs = Scene(database=api, connection=connection, app_id=scene.app_id, channel=scene.channel)
    floor = build_floor(theirs, tmp_path)
    (taken_in,) = intake.take_in(floor.door(), [news()])
    assert taken_in.notification_id is not None
    users.forget(api, scene.app_id, "b")
    floor.close()
    api.close()
    refuses(
        url,
        "INSERT INTO pushfan.delivery (notification_id, device_id, outcome, attempts) VALUES (1, 1, 'accepted', 1)",
        "UPDATE pushfan.delivery SET outcome = 'accepted'",
        "DELETE FROM pushfan.worker",
        "SELECT pushfan.drop_partitions(1)",
        "CREATE TABLE pushfan.mine ()",
    )


def test_outbox_publishes_and_reads_nothing(scene: Scene, login: Login) -> None:
    """In Pushfan's own database it takes in, and could insert into the outbox; it sees neither."""
    url = login("pushfan_outbox")
    event = BucketWrite(app="shop", bucket="orders", object="1", change=Change.CREATED)
    with psycopg.connect(url, autocommit=True) as connection:
        assert isinstance(Publisher().publish_in_transaction(connection, event), TakenIn)
        connection.execute("INSERT INTO pushfan.outbox (event) VALUES ('{}')")
    refuses(
        url,
        "SELECT FROM pushfan.notification",
        "SELECT FROM pushfan.outbox",
        "DELETE FROM pushfan.outbox",
        "SELECT FROM pushfan.device",
        "INSERT INTO pushfan.event_key (app_id, key, notification_id, digest) VALUES (1, 'k', 1, '')",
        "SELECT pushfan.make_partitions(9)",
        "SELECT pushfan.watch('pushfan.app', bucket => 'a', app => 'shop')",
    )


def test_role_that_may_only_insert_is_served_by_the_outbox(scene: Scene, login: Login) -> None:
    """Without the right to take in, in Pushfan's own database, its events go the longer way."""
    url = login("plain")
    name = urlsplit(url).username
    scene.run(f"GRANT USAGE ON SCHEMA pushfan TO {name}")
    scene.run(f"GRANT INSERT ON pushfan.outbox TO {name}")
    event = BucketWrite(app="shop", bucket="orders", object="1", change=Change.CREATED)
    with psycopg.connect(url, autocommit=True) as connection:
        assert isinstance(Publisher().publish_in_transaction(connection, event), InOutbox)
    refuses(url, "SELECT pushfan.take_in('[]')", "SELECT pushfan.drop_partitions(0)")


def test_reader_reads_everything_but_tokens_and_secrets(scene: Scene, login: Login) -> None:
    """For dashboards and support; it changes nothing and pushes nothing."""
    url = login("pushfan_reader")
    with psycopg.connect(url, autocommit=True) as connection:
        assert connection.execute("SELECT user_id FROM pushfan.device").fetchall() == [("a",)]
        tables = connection.execute(
            "SELECT relname FROM pg_class WHERE relnamespace = 'pushfan'::regnamespace AND relkind IN ('r', 'p')"
            " AND NOT relispartition"
        ).fetchall()
        for (table,) in tables:
            connection.execute(sql.SQL("SELECT count(*) FROM pushfan.{}").format(sql.Identifier(table)))
    refuses(
        url,
        "SELECT token FROM pushfan.device",
        "SELECT tokens FROM pushfan.receipt_poll",
        "SELECT hash FROM pushfan.api_key",
        "SELECT secrets FROM pushfan.channel",
        "SELECT * FROM pushfan.device",
        "UPDATE pushfan.channel SET slots = 1",
        "DELETE FROM pushfan.notification",
        "SELECT pushfan.take_in('[]')",
        "SELECT pushfan.make_partitions(9)",
        "INSERT INTO pushfan.outbox (event) VALUES ('{}')",
    )


def test_owner_without_the_right_to_make_roles_applies_all_the_same(scene: Scene, login: Login) -> None:
    """A managed database gives no superuser: the schema comes, grants go to the roles that there are."""
    url = login("plain")
    name = sql.Identifier(urlsplit(url).username or "")
    with psycopg.connect(scene.database.url, autocommit=True) as owner:
        owner.execute("DROP SCHEMA pushfan CASCADE")
        owner.execute(
            sql.SQL("GRANT CREATE ON DATABASE {} TO {}").format(sql.Identifier(owner.info.dbname), name)
        )
    plain = Database(url)
    for _ in range(2):
        assert schema.apply(plain) == schema.VERSION
    plain.close()
    reader = login("pushfan_reader")
    with psycopg.connect(reader) as connection:
        assert connection.execute("SELECT name FROM pushfan.app").fetchall() == []
