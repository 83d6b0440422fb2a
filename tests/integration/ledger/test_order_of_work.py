from datetime import timedelta

import pytest

from events import DirectPush
from registry import ledger
from registry.statements import load
from tests.integration.ledger.scene import HELLO, Scene


def test_chunk_of_a_dead_worker_comes_before_everything_that_waits(scene: Scene) -> None:
    """In a long broadcast it would otherwise be taken over only when the whole backlog is sent."""
    scene.broadcast(5, chunk_size=1)
    scene.set_slots(1)
    (first,) = ledger.dispatch(scene.connection)
    scene.claimed(first.chunk_id, owner="host/1/dead")
    ledger.release_dead(scene.connection, ["host/1/dead"])
    (again,) = ledger.dispatch(scene.connection)
    assert again.chunk_id == first.chunk_id


def test_chunk_whose_lease_ended_comes_before_everything_that_waits(scene: Scene) -> None:
    """A machine that is gone releases nothing: its chunks keep their place and are taken over first."""
    scene.broadcast(5, chunk_size=1)
    scene.set_slots(1)
    (first,) = ledger.dispatch(scene.connection)
    scene.claimed(first.chunk_id, owner="gone/1/1")
    scene.run("UPDATE pushfan.chunk SET lease_until = now() - interval '1 ms' WHERE owner IS NOT NULL")
    (again,) = ledger.dispatch(scene.connection)
    assert again.chunk_id == first.chunk_id


def test_begun_chunk_whose_announcement_was_lost_comes_before_everything_that_waits(scene: Scene) -> None:
    """Announced at a later time than the backlog was planned, it would otherwise come after it."""
    scene.broadcast(5, chunk_size=1)
    scene.set_slots(1)
    (first,) = ledger.dispatch(scene.connection)
    scene.claimed(first.chunk_id, owner="host/1/dead")
    ledger.release_dead(scene.connection, ["host/1/dead"])
    ledger.dispatch(scene.connection)
    scene.run("UPDATE pushfan.chunk SET ready_at = now() - interval '1 ms' WHERE published_at IS NOT NULL")
    ledger.recall(scene.connection)
    (again,) = ledger.dispatch(scene.connection)
    assert again.chunk_id == first.chunk_id
    (row,) = scene.run(
        "SELECT ready_at - published_at AS rest FROM pushfan.chunk WHERE published_at IS NOT NULL"
    )
    assert row["rest"] == timedelta(seconds=10)


@pytest.mark.parametrize("statement", ["plan_small", "plan_page"])
def test_devices_of_a_recipient_are_looked_up_by_index_without_statistics(
    scene: Scene, statement: str
) -> None:
    """After a bulk load and before the first ANALYZE, planning must not read all devices of the app."""
    scene.run("ALTER TABLE pushfan.device SET (autovacuum_enabled = off)")
    scene.install([f"u{number}" for number in range(5_000)])
    (notification_id,) = scene.take_in(DirectPush(app="shop", users=("u1", "u2"), message=HELLO))
    parameters = {"ids": [notification_id], "id": notification_id, "chunk_size": 500, "page_size": 2_000}
    rows = scene.connection.execute(b"EXPLAIN " + load("notifications")[statement], parameters)
    plan = [row["QUERY PLAN"] for row in rows]
    (at,) = [index for index, line in enumerate(plan) if "on device " in line]
    assert "Index Scan" in plan[at]
    assert "user_id = " in plan[at + 1]
