from datetime import timedelta

import pytest

from events import Message, TopicMessage, encode
from registry import apps, channels, doctor, ledger, notifications, overview, subscriptions
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
    assert (backlog.leased, backlog.leases) == (len(claim), 1)


def test_backlog_is_as_old_as_its_oldest_chunk(shop: Shop) -> None:
    """Retries alone have no age: each has its own time."""
    plan_news(shop, 3)
    shop.connection.execute(
        "UPDATE pushfan.chunk SET queued_at = now() - interval '1 hour' "
        "WHERE id = (SELECT min(id) FROM pushfan.chunk)"
    )
    (backlog,) = overview.backlogs(shop.connection)
    assert backlog.oldest_seconds is not None
    assert 3600 <= backlog.oldest_seconds < 3700


def test_retries_are_counted_up_to_a_limit_for_each_channel(shop: Shop) -> None:
    """After a long outage the exact number of millions is nobody's concern."""
    shop.connection.execute(
        "INSERT INTO pushfan.retry "
        "(notification_id, device_id, app_id, channel_id, lane, attempts, due_at, expires_at, earlier) "
        "SELECT c.id, n, %s, c.id, 'bulk', 1, now(), now(), '[]' FROM pushfan.channel c, generate_series(1, 7) AS n",
        [shop.app_id],
    )
    assert [backlog.waiting for backlog in overview.backlogs(shop.connection, most=5)] == [5, 5]


def test_dead_letters_that_were_replayed_are_not_counted(shop: Shop) -> None:
    """By kind, of all apps."""
    shop.connection.execute(
        "INSERT INTO pushfan.dead_letter (kind, error, replayed_as) VALUES "
        "('invalid', 'x', NULL), ('poison', 'x', NULL), ('poison', 'x', 5)"
    )
    assert overview.dead_letters(shop.connection) == {"invalid": 1, "poison": 1}
    assert overview.dead_letters(shop.connection, most=0) == {}


def test_silent_workers_are_known_for_an_hour(shop: Shop) -> None:
    """One that took its leave is not among them."""
    shop.connection.execute(
        "INSERT INTO pushfan.worker (name, lanes, processes, version, seen_at) VALUES "
        "('alive', '{bulk}', 1, '0', now()), ('silent', '{bulk}', 1, '0', now() - interval '1 minute'), "
        "('gone', '{bulk}', 1, '0', now()), ('forgotten', '{bulk}', 1, '0', now() - interval '2 hours')"
    )
    notifications.take_leave(shop.connection, "gone")
    condition = doctor.examine(shop.connection)
    assert [worker.name for worker in condition.workers] == ["alive"]
    assert [worker.name for worker in condition.silent] == ["silent"]


def test_last_answers_are_summed_up_by_channel(shop: Shop) -> None:
    """Ends that are no answer do not count."""
    device = shop.install("u1", "k1", "token-1").device_id
    for outcome, reason in (
        ("rejected", "A"),
        ("rejected", "B"),
        ("rejected", "B"),
        ("accepted", None),
        ("expired", "C"),
    ):
        shop.connection.execute(
            "INSERT INTO pushfan.delivery (notification_id, device_id, outcome, attempts, reason) "
            "VALUES (pushfan.next_notification_id(), %s, %s, 1, %s)",
            [device, outcome, reason],
        )
    (answers,) = doctor.last_answers(shop.connection).values()
    assert (answers.channel_id, answers.answers, answers.rejected, answers.reason) == (shop.ios.id, 4, 3, "B")


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


def test_retries_of_a_stopped_channel_are_not_overdue(shop: Shop) -> None:
    """They wait for its circuit; those of another channel should have been moved on."""
    shop.connection.execute(
        "INSERT INTO pushfan.retry "
        "(notification_id, device_id, app_id, channel_id, lane, attempts, due_at, expires_at, earlier) "
        "SELECT c.id, 1, %s, c.id, 'bulk', 1, now() - interval '5 minutes', now(), '[]' FROM pushfan.channel c",
        [shop.app_id],
    )
    assert doctor.examine(shop.connection).overdue_retries == 2
    channels.pause(shop.connection, shop.ios.id)
    assert doctor.examine(shop.connection).overdue_retries == 1
