"""Exporting a user and forgetting one."""

import json
from datetime import datetime
from typing import Any

from registry import devices, groups, notifications, pseudo, subscriptions, users
from registry.database import Connection, Database
from registry.subscriptions import Scope, ScopeKind, Target, TargetKind
from tests.integration.registry.shop import Shop

GONE = "user-who-leaves"
NEWS = Target(kind=TargetKind.TOPIC, name="news")
OWN = Target(kind=TargetKind.BUCKET, name="notes", scope=Scope(kind=ScopeKind.USER, id=GONE))


def direct(key: str, to: list[str]) -> dict[str, Any]:
    """Make a direct push in wire form."""
    return {
        "version": 1, "kind": "direct", "app": "shop", "id": key, "users": to, "message": {"title": "Hello"},
    }  # fmt: skip


def populate(shop: Shop) -> dict[str, int]:
    """Let the user, and another, appear everywhere. Returns the notifications by key."""
    connection = shop.connection
    for user in (GONE, "stays"):
        shop.install(user, f"phone of {user}", f"token-1-of-{user}")
        shop.install(user, f"phone of {user}", f"token-2-of-{user}")
        shop.install(user, f"tablet of {user}", f"token-3-of-{user}")
        subscriptions.subscribe(connection, shop.app_id, NEWS, user)
        groups.add_members(connection, shop.app_id, "team", [user])
    subscriptions.subscribe(connection, shop.app_id, OWN, "stays")
    pseudo.promote(connection, shop.app_id, "pseudo:1", GONE)
    to_topic = {"version": 1, "kind": "topic", "app": "shop", "id": "topic", "topic": "news", "actor": GONE,
                "message": {"title": "News"}}  # fmt: skip
    to_bucket = {"version": 1, "kind": "bucket", "app": "shop", "id": "bucket", "bucket": "notes",
                 "scope": f"user:{GONE}", "object": "o", "change": "updated"}  # fmt: skip
    events = [
        direct("one", [GONE]),
        direct("one, ended", [GONE]),
        direct("two", [GONE, "stays"]),
        to_topic,
        to_bucket,
    ]
    taken = {one.event_id: one.notification_id for one in notifications.take_in(connection, events)}
    ids = {key: notification_id for key, notification_id in taken.items() if notification_id is not None}
    connection.execute("UPDATE pushfan.notification SET planned_user = %s", [GONE])
    connection.execute(
        "UPDATE pushfan.notification SET finished_at = now(), planned_at = now() WHERE id = %s",
        [ids["one, ended"]],
    )
    for device in devices.list_by_user(connection, shop.app_id, GONE):
        connection.execute(
            "INSERT INTO pushfan.delivery (notification_id, device_id, outcome, attempts)"
            " VALUES (%s, %s, 'accepted', 1)",
            [ids["two"], device.id],
        )
        connection.execute(
            "INSERT INTO pushfan.receipt_poll (channel_id, message_id, device_ids, tokens, loaded_at, due_at)"
            " VALUES (%s, 'm', ARRAY[%s, 0], ARRAY[%s, 'another'], now(), now())",
            [shop.ios.id, device.id, device.token],
        )
    for app_id, body in (
        (shop.app_id, json.dumps(direct("bad", [GONE, "stays"]))),
        (None, f"not JSON, {GONE}"),
    ):
        connection.execute(
            "INSERT INTO pushfan.dead_letter (app_id, kind, error, body, device_id) VALUES (%s, 'invalid', %s, %s, %s)",
            [app_id, f"users.0: {GONE} is unknown", body, device.id],
        )
    return ids


def everything(connection: Connection) -> dict[str, str]:
    """Read all tables, whole rows as text."""
    tables = connection.execute(
        "SELECT c.relname AS name FROM pg_class c WHERE c.relnamespace = 'pushfan'::regnamespace AND c.relkind = 'r'"
    ).fetchall()
    return {
        table["name"]: "\n".join(
            row["text"]
            for row in connection.execute(f"SELECT t::text AS text FROM pushfan.{table['name']} t")
        )
        for table in tables
    }


def test_forgotten_user_is_named_nowhere(shop: Shop, database: Database) -> None:
    """No row of any table holds the user's id, keys or tokens, and nothing of another user is lost."""
    populate(shop)
    before = everything(shop.connection)
    named = {name for name, text in before.items() if GONE in text}
    assert named == {
        "device",
        "subscription",
        "target",
        "feedback",
        "notification",
        "receipt_poll",
        "dead_letter",
        "group_member",
        "promotion",
    }
    forgotten = users.forget(database, shop.app_id, GONE)
    after = everything(shop.connection)
    assert {name for name, text in after.items() if GONE in text} == set()
    for name in ("device", "feedback"):
        others = [line for line in before[name].splitlines() if GONE not in line]
        assert after[name].splitlines() == others
    assert forgotten == users.Forgotten(
        devices=2, subscriptions=2, targets=1, groups=1, feedback=1, notifications=5, dead_letters=2
    )


def test_forgetting_again_finds_nothing(shop: Shop, database: Database) -> None:
    """A second run, after an interruption or a doubt, is harmless."""
    populate(shop)
    users.forget(database, shop.app_id, GONE)
    assert users.forget(database, shop.app_id, GONE) == users.Forgotten(
        devices=0, subscriptions=0, targets=0, groups=0, feedback=0, notifications=0, dead_letters=0
    )


def test_forgetting_keeps_counts_explainable(shop: Shop, database: Database) -> None:
    """Planned = open + waiting + final holds before and after, since deliveries name devices by number."""
    ids = populate(shop)
    notifications.plan_new(shop.connection, [ids["one"], ids["topic"]], chunk_size=100, page_size=1000)
    shop.connection.execute("DELETE FROM pushfan.delivery")
    before = notifications.conservation(shop.connection)
    assert before["planned"] == before["open"] + before["waiting"] + before["final"] > 0
    users.forget(database, shop.app_id, GONE)
    assert notifications.conservation(shop.connection) == before


def test_event_to_the_user_alone_is_cleared_when_it_has_ended(shop: Shop, database: Database) -> None:
    """What was said to this user alone goes; what a worker may still read keeps its form without the user."""
    ids = populate(shop)
    users.forget(database, shop.app_id, GONE)

    def event(key: str) -> Any:
        row = shop.connection.execute(
            "SELECT event FROM pushfan.notification WHERE id = %s", [ids[key]]
        ).fetchone()
        assert row is not None
        return row["event"]

    assert event("one, ended") is None
    assert event("one") == direct("one", ["forgotten"])
    assert event("two") == direct("two", ["stays"])
    assert "actor" not in event("topic")
    assert event("topic")["message"] == {"title": "News"}
    assert event("bucket")["scope"] == "user:forgotten"


def test_forgetting_does_not_lose_the_planners_place(shop: Shop, database: Database) -> None:
    """A planner that stood at the forgotten user goes on with the next, and repeats nobody."""
    names = ["a", "b", GONE, "z"]
    subscriptions.subscribe_many(shop.connection, shop.app_id, [(NEWS, name) for name in names])
    ids = populate(shop)
    users.forget(database, shop.app_id, GONE)
    rows = shop.connection.execute("SELECT id, planned_user, recipients FROM pushfan.notification").fetchall()
    places = {row["id"]: row["planned_user"] for row in rows}
    assert places[ids["topic"]] == "stays"
    assert places[ids["two"]] == "stays"
    assert places[ids["one"]] == ""
    assert {row["id"]: row["recipients"] for row in rows}[ids["two"]] == ["stays"]


def test_forgetting_is_the_apps_own(shop: Shop, database: Database) -> None:
    """The same user id in another app is another person."""
    shop.install(GONE, "phone", "t1")
    users.forget(database, shop.app_id + 1, GONE)
    assert shop.tokens() == {"t1": GONE}


def test_export_holds_what_is_stored_as_plain_json(shop: Shop) -> None:
    """Devices without their tokens, subscriptions, feedback and deliveries with what they said."""
    populate(shop)
    found = users.export(shop.connection, shop.app_id, GONE)
    text = json.dumps(found)
    assert "token-" not in text
    assert found["user"] == GONE
    assert found["is_complete"] is True
    assert [device["token_hash"] for device in found["devices"]] == [
        devices.token_hash(f"token-{number}-of-{GONE}") for number in (2, 3)
    ]
    assert [(one["kind"], one["scope"], one["name"]) for one in found["subscriptions"]] == [
        ("topic", "app", "news")
    ]
    assert [(one["kind"], one["reason"]) for one in found["feedback"]] == [("replaced", "new_token")]
    assert [(one["event_id"], one["outcome"], one["message"]) for one in found["deliveries"]] == [
        ("two", "accepted", {"title": "Hello"})
    ] * 2
    assert datetime.fromisoformat(found["devices"][0]["registered_at"]).tzinfo is not None


def test_export_says_when_it_is_cut(shop: Shop) -> None:
    """A list that reached its limit may have more."""
    populate(shop)
    assert users.export(shop.connection, shop.app_id, GONE, limit=2)["is_complete"] is False
    assert users.export(shop.connection, shop.app_id, "nobody")["is_complete"] is True


def test_forgotten_thing_takes_its_own_targets_along(shop: Shop, database: Database) -> None:
    """A thing's user id is its scope, too; a user of the same name is somebody else."""
    connection = shop.connection
    shop.install("thing:t1", "lamp", "token-of-lamp")
    scopes = [Scope.parse("thing:t1"), Scope.parse("user:t1")]
    for scope in scopes:
        subscriptions.subscribe(
            connection, shop.app_id, Target(kind=TargetKind.TOPIC, name="n", scope=scope), "u7"
        )
    forgotten = users.forget(database, shop.app_id, "thing:t1")
    assert (forgotten.devices, forgotten.targets, forgotten.subscriptions) == (1, 1, 1)
    (left,) = subscriptions.list_targets(connection, shop.app_id)
    assert left.target.scope == scopes[1]


def test_forgotten_user_is_forgotten_under_its_pseudo_ids_too(shop: Shop, database: Database) -> None:
    """Whatever still names the id from before the login goes, and who was who."""
    shop.install("pseudo:1", "phone", "token-1")
    notifications.take_in(shop.connection, [direct("d", ["pseudo:1", "stays"])])
    shop.connection.execute("UPDATE pushfan.notification SET planned_at = now()")
    pseudo.promote(shop.connection, shop.app_id, "pseudo:1", GONE)
    forgotten = users.forget(database, shop.app_id, GONE)
    assert (forgotten.devices, forgotten.notifications) == (1, 1)
    assert "pseudo:1" not in "".join(everything(shop.connection).values())
