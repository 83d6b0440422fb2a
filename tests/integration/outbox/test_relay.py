"""The relay between a backend's database and Pushfan's: each event once, in order, whatever ends in between."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest

from events import DirectPush, Message, Publisher, TopicMessage, encode
from registry import apps, outbox
from registry.database import Database
from tests.integration.cli.terminal import ROOT, Terminal
from tests.integration.ledger.scene import Scene, open_scene
from tests.integration.outbox.producer import Producer
from tests.integration.workers.floor import Floor, build_floor
from workers.relay import Relay

DEADLINE_SECONDS = 60
HELLO = Message(title="Hello")


@pytest.fixture
def scene(database_url: str) -> Iterator[Scene]:
    """Give Pushfan's database with the app `shop`."""
    database = Database(database_url)
    yield open_scene(database)
    database.close()


@pytest.fixture
def floor(scene: Scene, tmp_path: Path) -> Iterator[Floor]:
    """Give what a process of Pushfan's works with."""
    floor = build_floor(scene, tmp_path)
    yield floor
    floor.close()


@pytest.fixture
def relay(floor: Floor, producer: Producer) -> Iterator[Relay]:
    """Give a relay that moves when it is told to."""
    relay = create(floor, producer, "one")
    yield relay
    relay.close()


def create(floor: Floor, producer: Producer, name: str, apps: tuple[str, ...] = ()) -> Relay:
    """Make a relay with connections of its own."""
    return Relay(floor.door(), Database(producer.url), name=name, apps=apps)


def put(producer: Producer, *events: dict[str, Any]) -> None:
    """Write events in wire form into the outbox."""
    producer.run(
        "INSERT INTO pushfan.outbox (event) SELECT jsonb_array_elements(%s::jsonb)", json.dumps(events)
    )


def push(number: int, **more: Any) -> dict[str, Any]:
    """Write a direct push in wire form."""
    return encode(DirectPush(app="shop", id=f"p{number}", users=["u7"], message=HELLO)) | more


def keys(scene: Scene) -> list[str]:
    """List the ids of the events taken in, in the order of their notifications."""
    return [row["key"] for row in scene.run("SELECT key FROM pushfan.notification ORDER BY id")]


def letters(scene: Scene) -> list[tuple[str, str]]:
    """List kind and error of dead letters."""
    rows = scene.run("SELECT kind, error FROM pushfan.dead_letter ORDER BY id")
    return [(row["kind"], row["error"]) for row in rows]


def move_all(relay: Relay) -> int:
    """Move until nothing is left that can be moved."""
    moved = 0
    while step := relay.step():
        moved += step
    return moved


def until(condition: Callable[[], bool], reason: str) -> None:
    """Look again and again until something is so."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, reason
        time.sleep(0.02)


def test_events_are_taken_in_once_and_in_order(relay: Relay, producer: Producer, scene: Scene) -> None:
    """What was moved is gone from the outbox, and the app's devices get it."""
    scene.install(["u7"])
    put(producer, *(push(number) for number in range(1200)))
    assert move_all(relay) == 1200
    assert keys(scene) == [f"p{number}" for number in range(1200)]
    assert (producer.events(), letters(scene)) == ([], [])
    scene.assert_conserved()


def test_published_in_a_transaction_and_moved(relay: Relay, producer: Producer, scene: Scene) -> None:
    """The same event arrives whichever way it was published; the same id is one event by all of them."""
    event = TopicMessage(app="shop", id="n1", topic="news", message=HELLO)
    for _ in range(2):
        Publisher(app="shop").publish_in_transaction(producer.connection, event)
    Publisher(app="shop").publish_in_transaction(scene.connection, event)
    assert move_all(relay) == 2
    assert keys(scene) == ["n1"]
    assert letters(scene) == []


def test_watched_tables_arrive(relay: Relay, producer: Producer, scene: Scene) -> None:
    """Each write is one notification, whose id tells the row of the outbox."""
    producer.run("CREATE TABLE orders (id integer PRIMARY KEY)")
    producer.run(
        "SELECT pushfan.watch('orders', bucket => 'orders', app => 'shop', actor_setting => 'shop.actor')"
    )
    producer.run("INSERT INTO orders VALUES (1), (2)")
    producer.run("DELETE FROM orders WHERE id = 1")
    assert move_all(relay) == 3
    rows = scene.run("SELECT event, key FROM pushfan.notification ORDER BY id")
    assert [(row["event"]["change"], row["event"]["object"]) for row in rows] == [
        ("created", "1"),
        ("created", "2"),
        ("deleted", "1"),
    ]
    (name,) = {row["key"].rpartition("-")[0] for row in rows}
    assert name == f"outbox-{producer.run('SELECT name FROM pushfan.outbox_installation')[0]['name']}"


def test_watched_tables_of_pushfans_own_database_arrive(floor: Floor, scene: Scene) -> None:
    """There the relay is its own neighbour."""
    scene.run("CREATE TABLE orders (id integer PRIMARY KEY)")
    scene.run("SELECT pushfan.watch('orders', bucket => 'orders', app => 'shop')")
    scene.run("INSERT INTO orders VALUES (1)")
    relay = Relay(floor.door(), Database(scene.database.url), name="own")
    assert move_all(relay) == 1
    assert len(keys(scene)) == 1
    relay.close()


def test_invalid_rows_become_dead_letters_and_block_nothing(
    relay: Relay, producer: Producer, scene: Scene
) -> None:
    """Whatever a producer writes that is no event is kept for a person; its neighbours arrive in order."""
    nested = "[" * 5000 + "]" * 5000
    put(producer, push(1), push(2, badge=1), push(3, users=[]))
    producer.run(
        "INSERT INTO pushfan.outbox (event) VALUES ('[]'), ('7'), ('null'), ('{\"app\": 5}'),"
        " (jsonb_build_object('app', 'shop', 'x', %s::jsonb)), (jsonb_build_object('app', repeat('a', 9000)))",
        nested,
    )
    put(producer, push(4), push(1, ttl_seconds=9), push(5, expires_at="9999-12-31T23:59:59+00:00"))
    move_all(relay)
    assert producer.events() == []
    assert keys(scene) == ["p1", "p4", "p5"]
    kinds = [kind for kind, _ in letters(scene)]
    assert (kinds.count("invalid"), kinds.count("conflict"), len(kinds)) == (8, 1, 9)


def test_event_that_the_database_refuses_is_buried_alone(
    relay: Relay, producer: Producer, scene: Scene
) -> None:
    """A row that nobody foresaw is found by halving, and the others of its batch arrive."""
    scene.run("ALTER TABLE pushfan.notification ADD CONSTRAINT unforeseen CHECK (key <> 'p37')")
    put(producer, *(push(number) for number in range(100)))
    assert move_all(relay) == 100
    assert keys(scene) == [f"p{number}" for number in range(100) if number != 37]
    ((kind, error),) = letters(scene)
    assert (kind, "unforeseen" in error) == ("invalid", True)


def test_events_of_an_unknown_app_wait_for_it(relay: Relay, producer: Producer, scene: Scene) -> None:
    """They hinder no other app, and arrive when somebody has added it."""
    put(producer, push(1, app="later"), push(2))
    assert relay.step() == 1
    assert keys(scene) == ["p2"]
    apps.add(scene.connection, "later")
    until(lambda: relay.step() == 1, "the app's rows are tried again")
    assert keys(scene) == ["p2", "p1"]
    assert letters(scene) == []


def test_relay_of_some_apps_leaves_the_others(floor: Floor, producer: Producer, scene: Scene) -> None:
    """Apps can have relays of their own."""
    apps.add(scene.connection, "other")
    put(producer, push(1), push(2, app="other"))
    relay = create(floor, producer, "some", apps=("other",))
    assert move_all(relay) == 1
    assert [event["id"] for event in producer.events()] == ["p1"]
    relay.close()


def test_late_commit_is_not_skipped_and_delays_nobody(relay: Relay, producer: Producer, scene: Scene) -> None:
    """A transaction that wrote first and commits last is found last; until then the others go on."""
    with producer.session() as slow:
        slow.execute("INSERT INTO pushfan.outbox (event) VALUES (%s)", [json.dumps(push(1))])
        put(producer, push(2))
        assert move_all(relay) == 1
        slow.commit()
    assert move_all(relay) == 1
    assert keys(scene) == ["p2", "p1"]


def test_an_older_transaction_that_writes_later_comes_later(
    relay: Relay, producer: Producer, scene: Scene
) -> None:
    """Two writes of one row are told in the order in which they happened, whatever their transactions' numbers."""
    producer.run("CREATE TABLE orders (id integer PRIMARY KEY, state text)")
    producer.run("INSERT INTO orders VALUES (1)")
    producer.run("SELECT pushfan.watch('orders', bucket => 'orders', app => 'shop')")
    with producer.session() as older:
        older.execute("CREATE TABLE anything ()")  # it has its number now
        producer.run("UPDATE orders SET state = 'paid' WHERE id = 1")
        older.execute("DELETE FROM orders WHERE id = 1")
        older.commit()
    move_all(relay)
    rows = scene.run("SELECT event ->> 'change' AS change FROM pushfan.notification ORDER BY id")
    assert [row["change"] for row in rows] == ["updated", "deleted"]


def test_two_relays_move_each_event_once(floor: Floor, producer: Producer, scene: Scene) -> None:
    """Copies share the work by app and never reorder one."""
    for name in ("a", "b", "c"):
        apps.add(scene.connection, name)
    put(producer, *(push(number, app="abc"[number % 3]) for number in range(1500)))
    both = [create(floor, producer, name) for name in ("one", "two")]
    stop = threading.Event()
    threads = [threading.Thread(target=relay.run, args=[stop]) for relay in both]
    for thread in threads:
        thread.start()
    try:
        until(lambda: producer.events() == [], "the outbox becomes empty")
    finally:
        stop.set()
        for thread in threads:
            thread.join(DEADLINE_SECONDS)
    for place, name in enumerate("abc"):
        rows = scene.run(
            "SELECT key FROM pushfan.notification n JOIN pushfan.app a ON a.id = n.app_id"
            " WHERE a.name = %s ORDER BY n.id",
            name,
        )
        assert [row["key"] for row in rows] == [f"p{number}" for number in range(place, 1500, 3)]
    assert letters(scene) == []


def test_app_that_another_relay_is_at_is_left_to_it(
    floor: Floor, relay: Relay, producer: Producer, scene: Scene
) -> None:
    """Until its transaction ends, which a dead relay's does by itself."""
    put(producer, push(1))
    with producer.session() as other:
        assert outbox.reserve(other, "shop")
        assert relay.step() == 0
    assert relay.step() == 1


def test_relay_may_be_idle_while_it_takes_in_elsewhere(producer: Producer) -> None:
    """Its transaction outlasts what ends others, or a slow database would never get past the same rows."""
    source = Database(producer.url)
    with source.transaction() as connection:
        assert outbox.reserve(connection, "shop")
        shown = connection.execute(
            "SELECT current_setting('idle_in_transaction_session_timeout') AS it"
        ).fetchone()
    source.close()
    assert shown == {"it": "30s"}


def test_waiting_relay_is_told_of_new_rows(floor: Floor, producer: Producer, scene: Scene) -> None:
    """It need not be told while it does not wait: then writers notify nobody."""
    relay = create(floor, producer, "one")
    stop = threading.Event()
    thread = threading.Thread(target=relay.run, args=[stop])
    with psycopg.connect(producer.url, autocommit=True) as listener:
        listener.execute("LISTEN pushfan_outbox")
        put(producer, push(1))
        assert list(listener.notifies(timeout=0)) == []
        thread.start()
        try:
            until(lambda: _is_waiting(producer), "the relay waits")
            put(producer, push(2))
            assert len(list(listener.notifies(timeout=DEADLINE_SECONDS, stop_after=1))) == 1
            until(lambda: len(keys(scene)) == 2, "both are taken in")
        finally:
            stop.set()
            thread.join(DEADLINE_SECONDS)
    assert producer.run("SELECT name FROM pushfan.outbox_relay") == []


def _has_taken_in(scene: Scene, count: int) -> bool:
    return len(keys(scene)) >= count


def _is_waiting(producer: Producer) -> bool:
    database = Database(producer.url)
    try:
        return any(one.is_waiting for one in outbox.relays(database.connection()))
    finally:
        database.close()


def test_relay_outlives_its_connections(floor: Floor, producer: Producer, scene: Scene) -> None:
    """Both databases cut all connections; it comes back and goes on."""
    relay = create(floor, producer, "one")
    stop = threading.Event()
    thread = threading.Thread(target=relay.run, args=[stop])
    thread.start()
    try:
        for number in range(3):
            put(producer, push(number))
            until(partial(_has_taken_in, scene, number + 1), "the event is taken in")
            scene.run(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE pid <> pg_backend_pid() AND datname IN (%s, current_database())",
                producer.url.rpartition("/")[2],
            )
            producer.connection.close()
            producer.connection = Producer(producer.url).connection
    finally:
        stop.set()
        thread.join(DEADLINE_SECONDS)
    assert keys(scene) == ["p0", "p1", "p2"]


def start_process(pushfan: Terminal, producer: Producer) -> subprocess.Popen[bytes]:
    """Start `pushfan relay` as an operator would."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PUSHFAN_")}
    ours = {name: value for name, value in pushfan.environ.items() if value is not None}
    return subprocess.Popen(
        [sys.executable, "-c", "from gateway.cli import main; main()", "relay"],
        env={**environ, **ours, "PUSHFAN_OUTBOX_URL": producer.url},
        cwd=ROOT,
        stderr=subprocess.DEVNULL,
    )


@pytest.fixture
def pushfan(scene: Scene, tmp_path: Path) -> Terminal:
    """Give a terminal on Pushfan's database, without a broker."""
    return Terminal({"PUSHFAN_DATABASE_URL": scene.database.url, "PUSHFAN_HOME": str(tmp_path)})


def test_killed_relays_repeat_and_lose_nothing(pushfan: Terminal, producer: Producer, scene: Scene) -> None:
    """SIGKILL in mid-batch, again and again: each event is one notification, in order, and one that stays ends it."""
    count = 4000
    put(producer, *(push(number) for number in range(count)))
    kills = 0
    while kills < 2:
        before = len(keys(scene))
        process = start_process(pushfan, producer)
        try:
            until(partial(_has_taken_in, scene, before + 1), "the relay moves something")
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
        kills += 1
    assert len(producer.events()) > 0, "it was killed while there was work"
    process = start_process(pushfan, producer)
    try:
        until(lambda: producer.events() == [], "the outbox becomes empty")
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE_SECONDS) == 0
    finally:
        process.kill()
        process.wait()
    assert keys(scene) == [f"p{number}" for number in range(count)]
    assert letters(scene) == []


def test_status_tells_what_waits_and_who_moves_it(pushfan: Terminal, producer: Producer) -> None:
    """For a person and for programs."""
    put(producer, push(1), push(2), push(3, app="other"))
    pushfan.environ["PUSHFAN_OUTBOX_URL"] = producer.url
    told = pushfan.ok("relay", "--status", "--json").json
    assert (told["rows"], told["relays"]) == (3, [])
    assert [(app["app"], app["rows"]) for app in told["apps"]] == [("other", 1), ("shop", 2)]
    assert told["oldest_seconds"] > 0
    assert pushfan.ok("relay", "--status", "--app", "other", "--json").json["rows"] == 1
    assert "no relay runs" in pushfan.ok("relay", "--status").err


def test_relay_without_an_outbox_says_what_to_do(pushfan: Terminal, foreign_url: str) -> None:
    """Installing is a command, and then there is one."""
    ended = pushfan("relay", "--outbox-url", foreign_url, "--json")
    assert (ended.code, ended.error["code"], "outbox install" in ended.error["message"]) == (
        1,
        "schema",
        True,
    )
    name = pushfan.ok("outbox", "install", "--url", foreign_url, "--json").json["installation"]
    assert pushfan.ok("outbox", "install", "--url", foreign_url, "--json").json["installation"] == name
    assert pushfan.ok("relay", "--status", "--outbox-url", foreign_url, "--json").json["rows"] == 0


def test_printed_statements_are_those_that_are_installed(pushfan: Terminal, foreign_url: str) -> None:
    """For migrations of one's own."""
    statements = pushfan.ok("outbox", "sql").out
    with psycopg.connect(foreign_url) as connection:
        connection.execute(statements.encode())
        assert connection.execute("SELECT version FROM pushfan.outbox_installation").fetchone() == (1,)
