from datetime import timedelta

import pytest

from events import Message, TopicMessage, encode
from registry import apps, ledger, notifications, overview, subscriptions
from registry.database import Connection, Database
from registry.errors import NotFound, RegistryError
from registry.subscriptions import Target, TargetKind
from tests.integration.registry.shop import Shop

NEWS = Target(kind=TargetKind.TOPIC, name="news")


def plan_news(shop: Shop, users: int) -> None:
    """Let a topic message wait to be sent to some users."""
    for number in range(users):
        shop.install(f"u{number}", f"k{number}", f"token-{number}")
        subscriptions.subscribe(shop.connection, shop.app_id, NEWS, f"u{number}")
    event = TopicMessage(app="shop", topic="news", message=Message(title="Hello"))
    (taken,) = notifications.take_in(shop.connection, [encode(event)])
    assert taken.notification_id is not None
    notifications.plan_new(shop.connection, [taken.notification_id], chunk_size=2, page_size=100)


def test_planned_deliveries_are_the_backlog_of_their_channel_and_lane(shop: Shop) -> None:
    """Chunks and positions that nobody has begun."""
    plan_news(shop, 3)
    (backlog,) = overview.backlogs(shop.connection)
    assert (backlog.channel_id, backlog.lane) == (shop.ios.id, "normal")
    assert (backlog.chunks, backlog.positions, backlog.leased, backlog.waiting) == (2, 3, 0, 0)
    assert overview.leases(shop.connection) == []


def test_claimed_chunk_is_a_lease_that_names_what_a_kill_would_leave_in_doubt(shop: Shop) -> None:
    """The owner, and the positions issued without a recorded answer."""
    plan_news(shop, 3)
    chunk = ledger.dispatch(shop.connection)[0]
    claim = ledger.claim(
        shop.connection,
        chunk_id=chunk.chunk_id,
        channel_id=chunk.channel_id,
        owner="vm/1/42-7",
        lease=timedelta(seconds=10),
        first=1,
        probe=1,
        chunk_size=1,
    )
    assert claim is not None
    (lease,) = overview.leases(shop.connection)
    assert (lease.chunk_id, lease.owner, lease.fence) == (chunk.chunk_id, "vm/1/42-7", claim.fence)
    assert (lease.positions, lease.issued, lease.unrecorded) == (len(claim), 1, 1)
    (backlog,) = overview.backlogs(shop.connection)
    assert backlog.leased == len(claim)


def test_app_with_waiting_deliveries_is_not_removed(shop: Shop, database: Database) -> None:
    """What was taken in is not dropped silently."""
    plan_news(shop, 1)
    with pytest.raises(RegistryError, match="have not ended"):
        apps.remove(database, shop.app_id)


def test_removed_app_takes_everything_of_its_own_along(
    shop: Shop, database: Database, connection: Connection
) -> None:
    """Devices, subscriptions and feedback go; those of another app stay."""
    other = apps.add(connection, "other")
    shop.install("u1", "k1", "token-1")
    shop.install("u2", "k1", "token-1")
    subscriptions.subscribe(connection, shop.app_id, NEWS, "u1")
    subscriptions.subscribe(connection, other.id, NEWS, "u1")
    apps.remove(database, shop.app_id)
    with pytest.raises(NotFound):
        apps.get(connection, "shop")
    assert shop.feedback() == []
    assert shop.tokens() == {}
    assert subscriptions.is_subscribed(connection, other.id, NEWS, "u1")
