"""The door to the ledger: each event once for its app and id, from any number of publishers at once."""

import threading
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest

from events import BucketWrite, Change, DirectPush, Event, Lane, TopicMessage, encode
from registry import notifications
from registry.database import Connection
from registry.notifications import Intake, TakenIn
from tests.integration.ledger.scene import HELLO, Scene, in_background, news

Connect = Callable[[], Connection]


def direct(**more: Any) -> DirectPush:
    """Write a direct push to one user."""
    return DirectPush(**{"app": "shop", "users": ["a"], "message": HELLO, **more})


def take_in(connection: Connection, *events: Event) -> list[TakenIn]:
    """Take events in as they come."""
    return notifications.take_in(connection, [encode(event) for event in events])


def count(scene: Scene) -> int:
    """Count notifications."""
    return int(scene.run("SELECT count(*) AS n FROM pushfan.notification")[0]["n"])


def test_event_is_taken_in_once_for_its_id(scene: Scene) -> None:
    """The same event again changes nothing and names the same notification."""
    (first,) = take_in(scene.connection, direct(id="order-1"))
    (again,) = take_in(scene.connection, direct(id="order-1"))
    assert (first.status, again.status) == (Intake.TAKEN_IN, Intake.REPEATED)
    assert first.notification_id == again.notification_id
    assert count(scene) == 1


def test_known_id_with_other_content_is_a_conflict(scene: Scene) -> None:
    """A publisher that reuses an id is told, and nothing of the first event changes."""
    take_in(scene.connection, direct(id="order-1"))
    (answer,) = take_in(scene.connection, direct(id="order-1", users=["b"]))
    assert answer.status is Intake.CONFLICT
    assert scene.run("SELECT recipients FROM pushfan.notification") == [{"recipients": ["a"]}]


def test_order_of_keys_and_of_users_makes_no_other_content(scene: Scene) -> None:
    """Two services that write the same event differently mean the same."""
    wire = encode(direct(id="order-1", users=["a", "b"]))
    notifications.take_in(scene.connection, [wire])
    (again,) = notifications.take_in(scene.connection, [dict(reversed(wire.items()))])
    assert again.status is Intake.REPEATED


def test_unknown_app_is_told_and_leaves_the_others_alone(scene: Scene) -> None:
    """One event for an app that does not exist does not keep its neighbours out."""
    answers = take_in(scene.connection, direct(), direct(app="nowhere"), direct())
    assert [answer.status for answer in answers] == [Intake.TAKEN_IN, Intake.UNKNOWN_APP, Intake.TAKEN_IN]
    assert answers[1].notification_id is None
    assert count(scene) == 2


def test_repeats_within_one_call_are_told_apart(scene: Scene) -> None:
    """Of the same events in one message the first is taken in; another content is a conflict even here."""
    answers = take_in(scene.connection, direct(id="x"), direct(id="x"), direct(id="x", users=["b"]))
    assert [answer.status for answer in answers] == [Intake.TAKEN_IN, Intake.REPEATED, Intake.CONFLICT]
    assert count(scene) == 1


def test_answers_come_in_the_order_of_the_events(scene: Scene) -> None:
    """Whatever order the keys are stored in, each answer is beside its event."""
    ids = ["z", "a", "m", "B"]
    answers = take_in(scene.connection, *(direct(id=event_id) for event_id in ids))
    assert [answer.event_id for answer in answers] == ids
    assert len({answer.notification_id for answer in answers}) == 4


def test_same_id_in_two_apps_is_two_events(scene: Scene) -> None:
    """Idempotency keys belong to an app."""
    scene.run("INSERT INTO pushfan.app (name) VALUES ('other')")
    answers = take_in(scene.connection, direct(id="x"), direct(id="x", app="other"))
    assert [answer.status for answer in answers] == [Intake.TAKEN_IN, Intake.TAKEN_IN]


def test_simultaneous_duplicates_give_one_notification_each(scene: Scene, connect: Connect) -> None:
    """Twenty publishers with a hundred duplicates of ten events, in different orders: ten notifications."""
    barrier = threading.Barrier(20)
    wires = [encode(direct(id=f"order-{n}")) for n in range(10)]

    def publish(connection: Connection, shift: int) -> list[TakenIn]:
        barrier.wait()
        answers = []
        for start in range(0, 100, 10):
            order = [wires[(shift + start // 10 + n * (1 if shift % 2 else -1)) % 10] for n in range(10)]
            answers += notifications.take_in(connection, order)
        return answers

    results = [in_background(partial(publish, connect(), n)) for n in range(20)]
    answers = [answer for result in results for answer in result()]
    statuses = Counter(answer.status for answer in answers)
    assert statuses == {Intake.TAKEN_IN: 10, Intake.REPEATED: 1990}
    assert len({(answer.event_id, answer.notification_id) for answer in answers}) == 10
    assert count(scene) == 10


@pytest.mark.parametrize(
    ("event", "ttl"),
    [
        (direct(), timedelta(hours=24)),
        (news(), timedelta(hours=24)),
        (BucketWrite(app="shop", bucket="b", object="o", change=Change.CREATED), timedelta(hours=1)),
        (direct(ttl_seconds=90), timedelta(seconds=90)),
        (direct(ttl_seconds=0), timedelta(minutes=1)),
    ],
    ids=["direct", "topic", "bucket", "given", "zero"],
)
def test_time_to_live(scene: Scene, event: Event, ttl: timedelta) -> None:
    """Expiry counts from intake, by kind if the event does not say; 0 leaves a minute for its one attempt."""
    take_in(scene.connection, event)
    (row,) = scene.run("SELECT expires_at - created_at AS ttl FROM pushfan.notification")
    assert abs(row["ttl"] - ttl) < timedelta(seconds=1)


def test_expiry_that_the_event_names_is_kept(scene: Scene) -> None:
    """An instant is an instant, also one that has passed."""
    at = datetime(2020, 1, 1, tzinfo=UTC)
    take_in(scene.connection, direct(expires_at=at))
    assert scene.run("SELECT expires_at FROM pushfan.notification") == [{"expires_at": at}]


def test_expiry_is_never_later_than_28_days(scene: Scene) -> None:
    """Vendors keep a push for 28 days at most, and we keep its records little longer."""
    take_in(scene.connection, direct(expires_at=datetime(2199, 1, 1, tzinfo=UTC)))
    (row,) = scene.run("SELECT expires_at - created_at AS ttl FROM pushfan.notification")
    assert abs(row["ttl"] - timedelta(days=28)) < timedelta(seconds=1)


def test_users_are_stored_sorted_and_once(scene: Scene) -> None:
    """Planning by pages of users needs them so, whatever a producer of another language sends."""
    wire = encode(direct())
    wire["users"] = ["b", "a", "é", "b", "B", "a"]
    notifications.take_in(scene.connection, [wire])
    assert scene.run("SELECT recipients FROM pushfan.notification")[0]["recipients"] == ["B", "a", "b", "é"]


def test_lanes_by_kind_unless_chosen(scene: Scene) -> None:
    """Direct pushes are urgent by kind; a chosen lane is marked as chosen."""
    take_in(
        scene.connection,
        direct(id="1"),
        TopicMessage(app="shop", topic="t", message=HELLO, id="2"),
        direct(id="3", lane=Lane.BULK),
    )
    rows = scene.run("SELECT lane, is_lane_fixed FROM pushfan.notification ORDER BY key")
    assert [(row["lane"], row["is_lane_fixed"]) for row in rows] == [
        ("urgent", False),
        ("normal", False),
        ("bulk", True),
    ]


def test_rolled_back_publisher_leaves_no_key(scene: Scene) -> None:
    """An event published in a transaction that does not commit was never there."""
    with scene.connection.transaction(force_rollback=True):
        take_in(scene.connection, direct(id="x"))
    (answer,) = take_in(scene.connection, direct(id="x"))
    assert answer.status is Intake.TAKEN_IN
    assert count(scene) == 1


def test_notification_ids_grow_with_time(scene: Scene) -> None:
    """Ids sort by the time of intake and lie in their day's partition."""
    first, second = scene.take_in(direct()), scene.take_in(direct())
    assert first[0] < second[0]
    (row,) = scene.run(
        "SELECT pushfan.notification_id_at(now() - interval '1 minute') AS earlier,"
        " pushfan.notification_id_at(now() + interval '1 minute') AS later"
    )
    assert row["earlier"] < first[0] < second[0] < row["later"]


def test_each_event_costs_a_few_looks_however_many_the_app_has_had(scene: Scene) -> None:
    """A session that planned its statements when the tables were empty must not read all keys for each event."""
    for start in range(0, 3_000, 100):
        take_in(scene.connection, *(direct(id=f"{number}") for number in range(start, start + 100)))
    before = _keys_read(scene)
    take_in(scene.connection, *(direct(id=f"late-{number}") for number in range(100)))
    assert _keys_read(scene) - before <= 5 * 100


def _keys_read(scene: Scene) -> int:
    scene.run("SELECT pg_stat_force_next_flush()")
    ((read,),) = (
        row.values()
        for row in scene.run(
            "SELECT (t.seq_tup_read + sum(i.idx_tup_read))::bigint AS read "
            "FROM pg_stat_user_tables t JOIN pg_stat_user_indexes i USING (relid) "
            "WHERE t.relname = 'event_key' GROUP BY t.seq_tup_read"
        )
    )
    return int(read)
