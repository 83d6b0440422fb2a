"""Resolving recipients to devices: every device once, whatever happens between the pages."""

from collections import Counter
from collections.abc import Callable

import pytest

from events import BucketWrite, Change, DirectPush, Environment, Lane, Message, encode
from registry import devices, ledger, notifications
from registry.database import Connection
from registry.ledger import FinalOutcome
from tests.integration.ledger.scene import HELLO, Scene, await_blocked, in_background, news

Connect = Callable[[], Connection]


def users(count: int) -> list[str]:
    """Name users so that they sort by their number."""
    return [f"u{n:04d}" for n in range(count)]


def planned_devices(scene: Scene) -> Counter[int]:
    """Count in how many positions each device is."""
    return Counter(device_id for chunk in scene.chunks() for device_id in chunk["device_ids"])


def plan_all(scene: Scene, notification_id: int, *, page_size: int) -> int:
    """Plan to the end. Gives the number of pages."""
    pages = 1
    while True:
        page = scene.plan_page(notification_id, page_size=page_size, chunk_size=3)
        assert page is not None
        if page.is_planned:
            return pages
        pages += 1


@pytest.mark.parametrize("page_size", [1, 3, 4, 10, 11])
def test_every_device_is_planned_once_by_pages(scene: Scene, page_size: int) -> None:
    """Pages of any size, also those that the audience divides evenly, cover each device exactly once."""
    ids = scene.install(users(10)) + scene.install(users(10), channel_id=scene.add_channel("two").id)
    scene.subscribe(users(10))
    (notification_id,) = scene.take_in(news())
    plan_all(scene, notification_id, page_size=page_size)
    assert planned_devices(scene) == dict.fromkeys(ids, 1)
    found = scene.find(notification_id)
    assert (found.users, found.devices, found.state) == (10, 20, "sending")
    assert all(len(chunk["device_ids"]) <= 3 for chunk in scene.chunks())
    assert scene.plan_page(notification_id, page_size=page_size) is None
    scene.assert_conserved()


@pytest.mark.parametrize("is_large", [False, True])
@pytest.mark.parametrize("environment", list(Environment))
def test_environment_leaves_out_the_other_ones_devices(
    scene: Scene, *, environment: Environment, is_large: bool
) -> None:
    """Store installs or developers' installs alone, planned at once or by pages; both unless one is named."""
    sandbox = scene.add_channel("dev")
    scene.run("UPDATE pushfan.channel SET environment = 'sandbox' WHERE id = %s", sandbox.id)
    ids = {
        Environment.PRODUCTION: scene.install(users(3)),
        Environment.SANDBOX: scene.install(users(3), channel_id=sandbox.id),
    }
    scene.subscribe(users(3))
    one, both = scene.take_in(news(environment=environment), news())
    assert {row["channel"] for row in notifications.preview(scene.connection, encode(news()))} == {
        "android",
        "dev",
    }
    (counted,) = notifications.preview(scene.connection, encode(news(environment=environment)))
    assert counted["devices"] == 3
    scene.plan(one, page_size=2 if is_large else 100)
    if is_large:
        plan_all(scene, one, page_size=2)
    assert planned_devices(scene) == dict.fromkeys(ids[environment], 1)
    scene.plan(both)
    assert planned_devices(scene) == Counter(
        ids[Environment.PRODUCTION] + ids[Environment.SANDBOX]
    ) + Counter(ids[environment])
    scene.assert_conserved()


def test_churn_at_page_edges_skips_and_repeats_nobody(scene: Scene) -> None:
    """Users who come and go while pages are planned do not move others over a page's edge."""
    stable = dict(zip(users(9), scene.install(users(9)), strict=True))
    scene.subscribe(users(9))
    (notification_id,) = scene.take_in(news())
    scene.plan_page(notification_id, page_size=3)
    # Before, at and after the cursor (u0002): someone joins, someone leaves.
    scene.install(["u0000a", "u0002a", "u0005a"])
    scene.subscribe(["u0000a", "u0002a", "u0005a"])
    scene.run("DELETE FROM pushfan.subscription WHERE user_id IN ('u0001', 'u0003')")
    devices.uninstall(scene.connection, scene.app_id, device_key=f"key-{scene.channel.id}-u0004")
    plan_all(scene, notification_id, page_size=3)
    planned = planned_devices(scene)
    assert set(planned.values()) == {1}
    expected = {device_id for user, device_id in stable.items() if user not in ("u0003", "u0004")}
    assert expected <= set(planned)
    late = {device_id for device_id in planned if device_id not in stable.values()}
    assert len(late) == 2
    scene.assert_conserved()


def test_planner_killed_between_pages_repeats_nothing(scene: Scene) -> None:
    """A page is one transaction: without its commit neither its chunks nor its cursor exist."""
    ids = scene.install(users(6))
    scene.subscribe(users(6))
    (notification_id,) = scene.take_in(news())
    scene.plan_page(notification_id, page_size=2)
    with scene.connection.transaction(force_rollback=True):
        scene.plan_page(notification_id, page_size=2)
    plan_all(scene, notification_id, page_size=2)
    assert planned_devices(scene) == dict.fromkeys(ids, 1)
    scene.assert_conserved()


def test_two_planners_at_once_plan_each_page_once(scene: Scene, connect: Connect) -> None:
    """The second planner waits for the first one's page and goes on behind it."""
    ids = scene.install(users(6))
    scene.subscribe(users(6))
    (notification_id,) = scene.take_in(news())
    first, second = connect(), connect()

    def plan(connection: Connection) -> notifications.Page | None:
        return notifications.plan_page(connection, notification_id, chunk_size=9, page_size=3)

    with first.transaction():
        one = plan(first)
        waiting = in_background(lambda: plan(second))
        await_blocked(scene.connection, second.info.backend_pid)
    two = waiting()
    assert one is not None
    assert two is not None
    assert (one.devices, two.devices) == (3, 3)
    assert planned_devices(scene) == dict.fromkeys(ids, 1)
    plan_all(scene, notification_id, page_size=3)
    scene.assert_conserved()


def test_planning_ends_with_a_cancellation(scene: Scene) -> None:
    """What was not planned when the flag was raised never is."""
    scene.install(users(4))
    scene.subscribe(users(4))
    (notification_id,) = scene.take_in(news())
    scene.plan_page(notification_id, page_size=2)
    notifications.cancel(scene.connection, notification_id)
    assert scene.plan_page(notification_id, page_size=2) is None
    assert notifications.due_plans(scene.connection) == []
    scene.finish_all(FinalOutcome.CANCELLED)
    found = scene.find(notification_id)
    assert (found.devices, found.state) == (2, "cancelled")
    scene.assert_conserved()


def test_cancelling_before_planning_finishes_at_once(scene: Scene) -> None:
    """Nothing was planned, so nothing has to end."""
    (notification_id,) = scene.take_in(news())
    assert notifications.cancel(scene.connection, notification_id)
    assert scene.find(notification_id).state == "cancelled"
    assert not notifications.cancel(scene.connection, notification_id)


def test_finished_by_the_last_page_when_all_chunks_are_gone(scene: Scene) -> None:
    """Chunks may end before planning does; the last page, empty here, then finishes the notification."""
    scene.install(users(4))
    scene.subscribe(users(4))
    (notification_id,) = scene.take_in(news())
    for _ in range(2):
        scene.plan_page(notification_id, page_size=2)
        scene.finish_all()
        assert scene.find(notification_id).finished_at is None
    page = scene.plan_page(notification_id, page_size=2)
    assert page is not None
    assert (page.users, page.is_planned) == (0, True)
    assert scene.find(notification_id).state == "finished"
    scene.assert_conserved()


def test_finished_by_the_last_chunk_when_planning_is_done(scene: Scene) -> None:
    """The usual order: the last chunk's removal finishes the notification, and no chunk before it."""
    notification_id = scene.broadcast(3, chunk_size=1)
    for chunk_id in scene.chunk_ids():
        assert scene.find(notification_id).finished_at is None
        scene.finish(scene.claimed(chunk_id))
    assert scene.find(notification_id).state == "finished"
    scene.assert_conserved()


def test_target_that_nobody_subscribed_to_finishes_with_a_warning(scene: Scene) -> None:
    """An unknown topic is no error: zero deliveries and a word to the publisher."""
    (notification_id,) = scene.take_in(news(topic="nowhere"))
    scene.plan(notification_id)
    found = scene.find(notification_id)
    assert (found.state, found.devices, found.warning) == (
        "finished",
        0,
        "nobody is subscribed to this topic",
    )


def test_subscribers_without_devices_finish_with_a_warning(scene: Scene) -> None:
    """Users who have no device are told apart from no users."""
    scene.subscribe(["a"])
    ids = scene.take_in(news(), DirectPush(app="shop", users=["nobody"], message=HELLO))
    scene.plan(*ids)
    for notification_id in ids:
        found = scene.find(notification_id)
        assert (found.state, found.warning) == ("finished", "none of the users has a device")


def test_actor_receives_nothing(scene: Scene) -> None:
    """Who made the change knows of it."""
    ids = scene.install(["a", "b"])
    scene.subscribe(["a", "b"])
    scene.plan(*scene.take_in(news(actor="a")))
    assert planned_devices(scene) == {ids[1]: 1}


def test_disabled_provider_is_left_out(scene: Scene) -> None:
    """`enabled: false` in a provider's section plans nothing for its channels, from both planners."""
    apns = scene.add_channel("ios", "apns")
    ids = scene.install(["a"], channel_id=apns.id)
    scene.install(["a"])
    scene.subscribe(["a"])
    message = Message(title="hello", fcm={"enabled": False})
    both = scene.take_in(news(message=message), DirectPush(app="shop", users=["a"], message=message))
    scene.plan(*both)
    assert planned_devices(scene) == {ids[0]: 2}


def test_retired_device_is_not_planned_and_a_suspect_is(scene: Scene) -> None:
    """A doubted token is still used; a dead one is not."""
    gone, doubted = scene.install(["a", "b"])
    scene.subscribe(["a", "b"])
    scene.run("UPDATE pushfan.device SET state = 'retired' WHERE id = %s", gone)
    scene.run("UPDATE pushfan.device SET state = 'suspect' WHERE id = %s", doubted)
    scene.plan(*scene.take_in(news()))
    assert planned_devices(scene) == {doubted: 1}


def test_fan_out_of_more_than_a_page_is_bulk(scene: Scene) -> None:
    """A large audience does not delay others, in every page of it."""
    scene.install(users(5))
    scene.subscribe(users(5))
    (notification_id,) = scene.take_in(news())
    plan_all(scene, notification_id, page_size=2)
    assert {chunk["lane"] for chunk in scene.chunks()} == {"bulk"}
    assert scene.find(notification_id).lane == "bulk"


def test_lane_that_the_publisher_chose_stays(scene: Scene) -> None:
    """A publisher who asks for a lane gets it, however many receive."""
    scene.install(users(5))
    scene.subscribe(users(5))
    (notification_id,) = scene.take_in(news(lane=Lane.URGENT))
    plan_all(scene, notification_id, page_size=2)
    assert {chunk["lane"] for chunk in scene.chunks()} == {"urgent"}


def test_direct_push_to_more_than_a_page_goes_by_pages(scene: Scene) -> None:
    """A direct push with very many users is planned like a topic, each user's devices once."""
    ids = scene.install(users(7))
    (notification_id,) = scene.take_in(DirectPush(app="shop", users=users(7), message=HELLO))
    first = scene.plan(notification_id, page_size=3, chunk_size=2)
    assert first.unplanned == [notification_id]
    plan_all(scene, notification_id, page_size=3)
    assert planned_devices(scene) == dict.fromkeys(ids, 1)
    assert scene.find(notification_id).users == 7
    scene.assert_conserved()


def test_small_direct_pushes_share_chunks(scene: Scene) -> None:
    """Many small notifications to one channel travel in few tasks, each delivery still its own."""
    scene.install(users(6))
    events = [DirectPush(app="shop", users=[user], message=HELLO) for user in users(6)]
    ids = scene.take_in(*events)
    scene.plan(*ids, chunk_size=4)
    assert sorted(len(chunk["device_ids"]) for chunk in scene.chunks()) == [2, 4]
    scene.finish_all()
    assert {scene.find(notification_id).state for notification_id in ids} == {"finished"}
    scene.assert_conserved()


def test_small_targets_are_planned_together_up_to_a_page(scene: Scene) -> None:
    """What a watched table writes is many events to few subscribers; what exceeds a page goes page by page."""
    scene.install(["a", "b", "c"])
    scene.subscribe(["a", "b", "c"])
    ids = scene.take_in(*(news(actor="b") for _ in range(4)), news(topic="nobody"))
    pages = scene.plan(*ids, page_size=10)
    assert pages.unplanned == []
    found = [scene.find(notification_id) for notification_id in ids]
    assert [(one.users, one.devices) for one in found] == [(3, 2)] * 4 + [(0, 0)]
    assert [one.warning for one in found] == [None] * 4 + ["nobody is subscribed to this topic"]
    positions = scene.run(
        "SELECT notification_ids, cardinality(device_ids) AS devices FROM pushfan.chunk ORDER BY id"
    )
    assert positions[0] == {
        "notification_ids": [ids[0], ids[0], ids[1], ids[1], ids[2], ids[2]],
        "devices": 6,
    }
    assert positions[1] == {"notification_ids": [ids[3]], "devices": 2}
    scene.assert_conserved()


def test_chunk_size_one_gives_one_chunk_for_each_device(scene: Scene) -> None:
    """The smallest chunk is a delivery."""
    scene.broadcast(4, chunk_size=1)
    assert [len(chunk["device_ids"]) for chunk in scene.chunks()] == [1, 1, 1, 1]


def test_bucket_write_reaches_the_subscribers_of_its_scope(scene: Scene) -> None:
    """A bucket of a group and one of the same name of the app are two."""
    ids = scene.install(["a", "b"])
    scene.run(
        "WITH t AS (INSERT INTO pushfan.target (app_id, kind, scope, name)"
        " VALUES (%s, 'bucket', 'group:42', 'orders') RETURNING id, app_id)"
        " INSERT INTO pushfan.subscription (target_id, user_id, app_id) SELECT id, 'b', app_id FROM t",
        scene.app_id,
    )
    events = [
        BucketWrite(app="shop", bucket="orders", object="o1", change=Change.UPDATED, scope=scope)
        for scope in ("group:42", "app")
    ]
    scene.plan(*scene.take_in(*events))
    assert planned_devices(scene) == {ids[1]: 1}


def test_stopped_planner_is_called_for_again(scene: Scene) -> None:
    """A notification whose next page does not come is due again, and not before."""
    scene.install(users(3))
    scene.subscribe(users(3))
    (notification_id,) = scene.take_in(news())
    scene.plan_page(notification_id, page_size=1)
    assert notifications.due_plans(scene.connection) == []
    scene.run("UPDATE pushfan.notification SET plan_due_at = now() - interval '1 millisecond'")
    assert notifications.due_plans(scene.connection) == [(notification_id, "bulk")]
    assert notifications.due_plans(scene.connection) == []


def test_another_apps_users_of_the_same_name_receive_nothing(scene: Scene) -> None:
    """Tenants do not see each other, whatever their users are called."""
    (mine,) = scene.install(["a"])
    scene.run(
        "WITH other AS (INSERT INTO pushfan.app (name) VALUES ('other') RETURNING id),"
        " channel AS (INSERT INTO pushfan.channel (app_id, name, provider, secrets)"
        " SELECT id, 'android', 'fcm', '{}' FROM other RETURNING id, app_id)"
        " INSERT INTO pushfan.device (app_id, channel_id, user_id, device_key, token)"
        " SELECT app_id, id, 'a', 'key', 'token' FROM channel"
    )
    scene.plan(*scene.take_in(DirectPush(app="shop", users=["a"], message=HELLO)))
    assert planned_devices(scene) == {mine: 1}


def test_withdrawn_devices_do_not_finish_a_notification_twice(scene: Scene) -> None:
    """Finishing again, by a chunk that is gone, changes no counter and no time."""
    notification_id = scene.broadcast(2)
    (chunk_id,) = scene.chunk_ids()
    claim = scene.claimed(chunk_id)
    scene.finish(claim, FinalOutcome.WITHDRAWN)
    before = scene.find(notification_id)
    ledger.finish(scene.connection, claim)
    assert scene.find(notification_id) == before
