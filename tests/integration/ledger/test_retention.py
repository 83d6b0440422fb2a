"""What is old goes: whole days of deliveries, and their notifications."""

from datetime import timedelta

from registry import ledger, notifications
from registry.ledger import FinalOutcome
from tests.integration.ledger.scene import Scene

DAYS = 35


def partitions(scene: Scene) -> list[str]:
    """List the days that have a partition."""
    rows = scene.run(
        "SELECT relname FROM pg_class WHERE relname ~ '^delivery_[0-9]{8}$' AND relkind = 'r' ORDER BY relname"
    )
    return [row["relname"] for row in rows]


def keep_house(scene: Scene) -> None:
    """Do what the dispatcher does once a minute."""
    notifications.keep_house(
        scene.connection, content_age=timedelta(hours=24), key_age=timedelta(days=7), days=DAYS
    )


def test_old_days_go_and_young_ones_stay(scene: Scene) -> None:
    """A partition that is older than the retention is dropped; today's deliveries and notifications are kept."""
    notification_id = scene.broadcast(2)
    (chunk,) = ledger.dispatch(scene.connection)
    scene.finish(scene.claimed(chunk.chunk_id), FinalOutcome.ACCEPTED)
    scene.run(
        "CREATE TABLE pushfan.delivery_20200101 (LIKE pushfan.delivery INCLUDING DEFAULTS);"
        "ALTER TABLE pushfan.delivery ATTACH PARTITION pushfan.delivery_20200101"
        " FOR VALUES FROM (1577836800000::bigint * 1048576) TO (1577923200000::bigint * 1048576);"
        "INSERT INTO pushfan.notification"
        " (id, app_id, key, kind, lane, is_lane_fixed, expires_at, planned_at, finished_at)"
        " SELECT 1577836800000::bigint * 1048576 + 1, app_id, 'old', kind, lane, false, now(), now(), now()"
        " FROM pushfan.notification LIMIT 1"
    )
    before = partitions(scene)
    keep_house(scene)
    assert "delivery_20200101" in before
    assert partitions(scene) == [name for name in before if name != "delivery_20200101"]
    assert [row["key"] != "old" for row in scene.run("SELECT key FROM pushfan.notification")] == [True]
    assert scene.find(notification_id).outcomes[FinalOutcome.ACCEPTED] == 2
