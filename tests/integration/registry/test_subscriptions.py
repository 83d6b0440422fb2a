"""Who receives what a target says."""

from functools import partial

import pytest

from registry import subscriptions
from registry.database import Connection
from registry.errors import InvalidRegistration
from registry.subscriptions import Scope, ScopeKind, Target, TargetKind
from tests.integration.registry.shop import Shop, open_shop

NEWS = Target(kind=TargetKind.TOPIC, name="news")
ORDERS = Target(kind=TargetKind.BUCKET, name="orders", scope=Scope(kind=ScopeKind.GROUP, id="42"))


def test_first_subscription_makes_the_target(shop: Shop, connection: Connection) -> None:
    """Nobody needs to declare a topic or a bucket."""
    assert subscriptions.list_targets(connection, shop.app_id) == []
    assert subscriptions.subscribe(connection, shop.app_id, NEWS, "ann") is True
    assert subscriptions.subscribe(connection, shop.app_id, NEWS, "ann") is False
    assert [(found.target, found.users) for found in subscriptions.list_targets(connection, shop.app_id)] == [
        (NEWS, 1)
    ]


def test_unsubscribed_user_is_gone_and_the_target_stays(shop: Shop, connection: Connection) -> None:
    """A target that somebody was subscribed to is known, with nobody in it."""
    subscriptions.subscribe(connection, shop.app_id, NEWS, "ann")
    assert subscriptions.is_subscribed(connection, shop.app_id, NEWS, "ann")
    assert subscriptions.unsubscribe(connection, shop.app_id, NEWS, "ann") is True
    assert subscriptions.unsubscribe(connection, shop.app_id, NEWS, "ann") is False
    assert not subscriptions.is_subscribed(connection, shop.app_id, NEWS, "ann")
    assert [found.users for found in subscriptions.list_targets(connection, shop.app_id)] == [0]


def test_scopes_kinds_and_apps_are_apart(shop: Shop, connection: Connection) -> None:
    """The same name in another scope, of another kind or of another app is another target."""
    other = open_shop(connection, "other")
    targets = [
        Target(kind=kind, name="news", scope=scope)
        for kind in TargetKind
        for scope in (Scope(), Scope(kind=ScopeKind.GROUP, id="1"), Scope(kind=ScopeKind.USER, id="1"))
    ]
    for number, target in enumerate(targets):
        subscriptions.subscribe(connection, shop.app_id, target, f"u{number}")
    listed = partial(subscriptions.list_subscribers, connection)
    assert [listed(shop.app_id, target) for target in targets] == [[f"u{n}"] for n in range(len(targets))]
    assert [listed(other.app_id, target) for target in targets] == [[]] * len(targets)


def test_thousands_are_subscribed_at_once(shop: Shop, connection: Connection) -> None:
    """A set of pairs is stored by sets, repeats and known ones aside."""
    subscriptions.subscribe(connection, shop.app_id, NEWS, "u7")
    pairs = [(target, f"u{number}") for number in range(6_000) for target in (NEWS, ORDERS)]
    assert subscriptions.subscribe_many(connection, shop.app_id, pairs + pairs[:10]) == 11_999
    assert subscriptions.subscribe_many(connection, shop.app_id, pairs) == 0
    assert [
        (found.target.name, found.users) for found in subscriptions.list_targets(connection, shop.app_id)
    ] == [
        ("orders", 6_000),
        ("news", 6_000),
    ]


def test_targets_are_listed_by_pages(shop: Shop, connection: Connection) -> None:
    """Going on after the last of each page shows every target once, and a kind alone on demand."""
    wanted = [Target(kind=kind, name=f"n{number:02}") for kind in TargetKind for number in range(5)]
    subscriptions.subscribe_many(connection, shop.app_id, [(target, "ann") for target in wanted])
    seen: list[Target] = []
    while page := subscriptions.list_targets(
        connection, shop.app_id, after=seen[-1] if seen else None, limit=3
    ):
        seen += [found.target for found in page]
    assert seen == wanted
    topics = subscriptions.list_targets(connection, shop.app_id, kind=TargetKind.TOPIC)
    assert [found.target for found in topics] == wanted[5:]


def test_subscribers_are_listed_by_pages(shop: Shop, connection: Connection) -> None:
    """Users come in the order of their ids' bytes, each once."""
    users = sorted(["ann", "Bob", "\xe9mile", "zoe", "a-1", "a_1"])
    subscriptions.subscribe_many(connection, shop.app_id, [(NEWS, user) for user in users])
    seen: list[str] = []
    while page := subscriptions.list_subscribers(
        connection, shop.app_id, NEWS, after=seen[-1] if seen else "", limit=2
    ):
        seen += page
    assert seen == users


def test_subscriptions_of_a_user_are_listed(shop: Shop, connection: Connection) -> None:
    """What a user receives, with scope, by pages."""
    subscriptions.subscribe_many(connection, shop.app_id, [(NEWS, "ann"), (ORDERS, "ann"), (NEWS, "bob")])
    first = subscriptions.list_by_user(connection, shop.app_id, "ann", limit=1)
    rest = subscriptions.list_by_user(connection, shop.app_id, "ann", after=first[-1].target)
    assert [found.target for found in (*first, *rest)] == [ORDERS, NEWS]


@pytest.mark.parametrize(
    ("target", "user", "expected"),
    [
        (Target(kind=TargetKind.TOPIC, name=""), "ann", "name: must not be empty"),
        (
            Target(kind=TargetKind.TOPIC, name="a b"),
            "ann",
            "name: must be of the characters A-Z a-z 0-9 _ - . :",
        ),
        (NEWS, "", "user: must not be empty"),
        (
            Target(kind=TargetKind.TOPIC, name="n", scope=Scope(kind=ScopeKind.GROUP)),
            "ann",
            "scope: must not be empty",
        ),
    ],
)
def test_subscription_of_another_shape_is_refused(
    shop: Shop, connection: Connection, target: Target, user: str, expected: str
) -> None:
    """What no event could name is not stored."""
    with pytest.raises(InvalidRegistration) as caught:
        subscriptions.subscribe(connection, shop.app_id, target, user)
    assert str(caught.value) == expected
    assert subscriptions.list_targets(connection, shop.app_id) == []
