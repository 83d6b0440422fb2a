"""Groups, their members, and the access rules that ask for members."""

from contextlib import closing
from functools import partial

import pytest

from registry import groups, rules, subscriptions
from registry.database import Connection, Database
from registry.errors import InvalidRegistration, NotFound
from registry.subscriptions import Rules, Scope, Target, TargetKind
from tests.integration.ledger.scene import await_blocked, in_background
from tests.integration.registry.shop import Shop, open_shop


def topic(scope: str, name: str = "talk") -> Target:
    """Name a topic."""
    return Target(kind=TargetKind.TOPIC, name=name, scope=Scope.parse(scope))


def test_group_begins_and_counts_its_members(shop: Shop, connection: Connection) -> None:
    """By name or with its first member; a member twice is one."""
    put = partial(groups.put, connection, shop.app_id)
    assert (put("a"), put("a")) == (True, False)
    assert groups.add_members(connection, shop.app_id, "b", ["u7", "u8", "u7"]) == 2
    assert groups.add_members(connection, shop.app_id, "b", ["u8", "u9"]) == 1
    listed = groups.list_all(connection, shop.app_id)
    assert [(found.id, found.members) for found in listed] == [("a", 0), ("b", 3)]
    assert [found.id for found in groups.list_all(connection, shop.app_id, after="a", limit=1)] == ["b"]
    assert groups.list_members(connection, shop.app_id, "b", after="u7", limit=1) == ["u8"]
    assert groups.list_by_user(connection, shop.app_id, "u8") == ["b"]
    with pytest.raises(InvalidRegistration):
        groups.add_members(connection, shop.app_id, "b", [""])


def test_leaving_ends_what_the_group_said_and_nothing_else(shop: Shop, connection: Connection) -> None:
    """Subscriptions of this user to this group's targets end; others', and those elsewhere, stay."""
    kept = [(topic("app"), "u7"), (topic("group:other"), "u7"), (topic("group:team"), "u8")]
    groups.add_members(connection, shop.app_id, "team", ["u7", "u8"])
    subscriptions.subscribe_many(connection, shop.app_id, [*kept, (topic("group:team"), "u7")])
    assert groups.remove_member(connection, shop.app_id, "team", "u7") is True
    assert groups.remove_member(connection, shop.app_id, "team", "u7") is False
    assert not subscriptions.is_subscribed(connection, shop.app_id, topic("group:team"), "u7")
    assert all(subscriptions.is_subscribed(connection, shop.app_id, *pair) for pair in kept)


def test_removed_group_takes_its_targets_along(
    shop: Shop, connection: Connection, database: Database
) -> None:
    """Nothing of it is left, and nothing of another group, or of another app's group of that name, is lost."""
    other = open_shop(connection, "other")
    for app_id in (shop.app_id, other.app_id):
        for name in ("team", "rest"):
            groups.add_members(connection, app_id, name, ["u7"])
            subscriptions.subscribe(connection, app_id, topic(f"group:{name}"), "u7")
    assert groups.remove(database, shop.app_id, "team") is True
    assert groups.remove(database, shop.app_id, "team") is False
    for app_id, left in ((shop.app_id, ["rest"]), (other.app_id, ["rest", "team"])):
        assert [found.id for found in groups.list_all(connection, app_id)] == left
        targets = subscriptions.list_targets(connection, app_id)
        assert [(found.target.scope.id, found.users) for found in targets] == [(name, 1) for name in left]


@pytest.mark.parametrize(
    ("scope", "rule", "allowed"),
    [
        ("app", "backend", set()),
        ("app", "members", {"u7", "u8", "thing:t1"}),
        ("app", "group:team", {"u8"}),
        ("group:team", "members", {"u8"}),
        ("group:none", "members", set()),
        ("group:team", "users", {"u7", "u8", "thing:t1"}),
        ("user:u7", "members", {"u7"}),
        ("user:u7", "group:team", {"u8"}),
        ("thing:t1", "members", {"thing:t1"}),
        ("thing:u7", "members", set()),
    ],
)
def test_rules_allow_whom_they_name(
    shop: Shop, connection: Connection, scope: str, rule: str, allowed: set[str]
) -> None:
    """Each rule in each scope; subscribing and sending are asked apart."""
    other = open_shop(connection, "other")
    groups.add_members(connection, shop.app_id, "team", ["u8"])
    groups.add_members(connection, other.app_id, "team", ["u7"])
    for ask, given in (
        (rules.may_subscribe, Rules(admits=rule, senders="backend")),
        (rules.may_send, Rules(admits="backend", senders=rule)),
    ):
        subscriptions.put_target(connection, shop.app_id, topic(scope), given)
        users = ("u7", "u8", "thing:t1")
        assert {user for user in users if ask(connection, shop.app_id, topic(scope), user)} == allowed
        with pytest.raises(NotFound):
            ask(connection, shop.app_id, topic(scope, "none"), "u7")


def test_target_of_a_first_subscription_is_its_backends(shop: Shop, connection: Connection) -> None:
    """Nobody opened it: no user subscribes itself, and in nobody's name is sent."""
    subscriptions.subscribe(connection, shop.app_id, topic("app"), "u7")
    assert subscriptions.get_rules(connection, shop.app_id, topic("app")) == Rules(
        admits="backend", senders="backend"
    )


def test_member_who_subscribes_while_being_removed_is_not_left_subscribed(
    shop: Shop, connection: Connection, database_url: str
) -> None:
    """Removing waits for the subscription, and ends it."""
    groups.add_members(connection, shop.app_id, "team", ["u7"])
    subscriptions.put_target(
        connection, shop.app_id, topic("group:team"), Rules(admits="members", senders="backend")
    )
    theirs, observer = Database(database_url), Database(database_url)
    other = theirs.connection()
    pid = other.info.backend_pid
    with closing(observer), closing(theirs):
        with connection.transaction():
            assert rules.may_subscribe(connection, shop.app_id, topic("group:team"), "u7")
            gone = in_background(lambda: groups.remove_member(other, shop.app_id, "team", "u7"))
            await_blocked(observer.connection(), pid)
            subscriptions.subscribe(connection, shop.app_id, topic("group:team"), "u7")
        assert gone() is True
    assert not subscriptions.is_subscribed(connection, shop.app_id, topic("group:team"), "u7")
