"""Pseudo users who log in: whatever they had is theirs, and no push is lost or repeated."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable

import pytest

from events import DirectPush
from registry import devices, groups, notifications, pseudo, subscriptions
from registry.database import Connection
from registry.devices import Install
from registry.errors import AlreadyPromoted, Busy, InvalidRegistration
from registry.pseudo import Promotion
from registry.subscriptions import Scope, Target, TargetKind
from tests.integration.ledger.scene import HELLO, Scene, await_blocked, in_background, news

Connect = Callable[[], Connection]
P = f"{pseudo.PREFIX}4f0a6c"
NEWS = Target(kind=TargetKind.TOPIC, name="news")


def promote(scene: Scene, user: str, *, who: str = P, connection: Connection | None = None) -> Promotion:
    """Promote the pseudo user, on the scene's connection or another."""
    return pseudo.promote(connection or scene.connection, scene.app_id, who, user)


def install(scene: Scene, user: str, token: str = "token-of-phone") -> Install:
    """Write an install of the phone."""
    return Install(channel_id=scene.channel.id, user_id=user, device_key="phone", token=token)


def planned(scene: Scene) -> Counter[int]:
    """Count in how many positions each device is."""
    return Counter(device_id for chunk in scene.chunks() for device_id in chunk["device_ids"])


def plan_to_the_end(scene: Scene, notification_id: int) -> None:
    """Plan by pages of two."""
    page = scene.plan_page(notification_id, page_size=2)
    while page is not None and not page.is_planned:
        page = scene.plan_page(notification_id, page_size=2)


def test_ids_are_new_each_time() -> None:
    """Nobody can be handed another's, nor guess one."""
    assert len({pseudo.new_id() for _ in range(100)}) == 100
    assert pseudo.is_pseudo(pseudo.new_id())
    assert not pseudo.is_pseudo("u7")


def test_promotion_moves_everything_once(scene: Scene) -> None:
    """Devices, subscriptions, memberships, own targets; what the user has already stays one."""
    mine = Target(kind=TargetKind.BUCKET, name="notes", scope=Scope.parse(f"user:{P}"))
    (phone,) = scene.install([P])
    scene.install(["u7", "u8"])
    scene.subscribe([P, "u7", "u8"])
    scene.subscribe([P], "sport")
    subscriptions.subscribe(scene.connection, scene.app_id, mine, P)
    groups.add_members(scene.connection, scene.app_id, "team", [P])
    assert promote(scene, "u7") == Promotion(devices=1, subscriptions=2, groups=1, targets=1)
    assert phone in [device.id for device in devices.list_by_user(scene.connection, scene.app_id, "u7")]
    assert devices.list_by_user(scene.connection, scene.app_id, P) == []
    found = subscriptions.list_by_user(scene.connection, scene.app_id, "u7")
    told = [(one.target.name, str(one.target.scope)) for one in found]
    assert told == [("notes", "user:u7"), ("news", "app"), ("sport", "app")]
    assert subscriptions.list_by_user(scene.connection, scene.app_id, P) == []
    assert groups.list_members(scene.connection, scene.app_id, "team") == ["u7"]
    assert promote(scene, "u7") == Promotion(devices=0, subscriptions=0, groups=0, targets=0)
    with pytest.raises(AlreadyPromoted):
        promote(scene, "u8")


@pytest.mark.parametrize(("who", "user"), [("u7", "u8"), (P, P), (P, "")])
def test_only_pseudo_users_are_promoted_to_users(scene: Scene, who: str, user: str) -> None:
    """A person is never merged into another."""
    with pytest.raises(InvalidRegistration):
        promote(scene, user, who=who)


def test_push_on_its_way_arrives(scene: Scene) -> None:
    """Planned before, sent after: the device is the same, so it is accepted and not withdrawn."""
    (phone,) = scene.install([P])
    (notification_id,) = scene.take_in(DirectPush(app="shop", users=[P], message=HELLO))
    scene.plan(notification_id)
    promote(scene, "u7")
    (token,) = scene.run("SELECT user_id, state FROM pushfan.device WHERE id = %s", phone)
    assert token == {"user_id": "u7", "state": "active"}
    scene.finish_all()
    assert scene.deliveries() == {phone: "accepted"}
    scene.assert_conserved()


@pytest.mark.parametrize("user", ["a", "z"])
def test_event_that_waits_for_its_planner_goes_to_the_user(scene: Scene, user: str) -> None:
    """Taken in for the pseudo user, planned after: each device once, and an actor gets no push of its own."""
    ids = scene.install([P, user, "m"])
    scene.subscribe([P, user, "m"])
    direct = DirectPush(app="shop", users=[P, user, "m"], message=HELLO)
    to_all, to_topic, by_pseudo = scene.take_in(direct, news(), news(actor=P))
    promote(scene, user)
    plan_to_the_end(scene, to_all)
    assert planned(scene) == dict.fromkeys(ids, 1)
    plan_to_the_end(scene, to_topic)
    assert planned(scene) == dict.fromkeys(ids, 2)
    plan_to_the_end(scene, by_pseudo)
    assert planned(scene)[ids[0]] == 2
    assert planned(scene)[ids[2]] == 3
    scene.assert_conserved()


@pytest.mark.parametrize("user", ["a", "z"])
def test_half_planned_fan_out_makes_a_promotion_wait(scene: Scene, user: str) -> None:
    """Wherever the two ids lie around the cursor, each device is planned once."""
    others = ["b", "c", "d", "x", "y"]
    ids = scene.install([P, user, *others])
    scene.subscribe([P, user, *others])
    (notification_id,) = scene.take_in(news())
    for _ in range(3):
        page = scene.plan_page(notification_id, page_size=2)
        assert page is not None
        assert not page.is_planned
        with pytest.raises(Busy):
            promote(scene, user)
    plan_to_the_end(scene, notification_id)
    assert promote(scene, user).devices == 1
    assert planned(scene) == dict.fromkeys(ids, 1)
    scene.assert_conserved()


def test_fan_out_to_others_makes_nobody_wait(scene: Scene) -> None:
    """Only a plan that has the pseudo user among its recipients matters."""
    scene.install([P, "a", "b", "c"])
    scene.subscribe(["a", "b", "c"])
    (notification_id,) = scene.take_in(news())
    scene.plan_page(notification_id, page_size=2)
    assert promote(scene, "u7").devices == 1


def test_planner_sees_a_user_on_one_side_of_a_promotion(scene: Scene, connect: Connect) -> None:
    """A page that begins during a promotion waits, and then finds the device under its new user."""
    ids = scene.install([P, "a", "b", "z"])
    scene.subscribe([P, "a", "b", "z"])
    (notification_id,) = scene.take_in(news())
    other = connect()

    def plan() -> notifications.Page | None:
        with other.transaction():
            return notifications.plan_page(other, notification_id, chunk_size=500, page_size=2)

    with scene.connection.transaction():
        promote(scene, "z")
        page = in_background(plan)
        await_blocked(connect(), other.info.backend_pid)
    assert page() is not None
    plan_to_the_end(scene, notification_id)
    assert planned(scene) == dict.fromkeys(ids, 1)


def test_promotion_waits_for_an_install_and_takes_it_along(scene: Scene, connect: Connect) -> None:
    """An app that installs in the very moment of its login is not left behind."""
    other = connect()
    with scene.connection.transaction():
        devices.install(scene.connection, install(scene, P))
        done = in_background(lambda: promote(scene, "u7", connection=other))
        await_blocked(connect(), other.info.backend_pid)
    assert done().devices == 1


def test_target_of_the_same_name_in_this_moment_makes_a_promotion_try_again(
    scene: Scene, connect: Connect
) -> None:
    """The user makes one and has not committed: nothing is moved, and trying again moves all but the target."""
    names = [
        Target(kind=TargetKind.BUCKET, name="notes", scope=Scope.parse(f"user:{who}")) for who in (P, "u7")
    ]
    subscriptions.subscribe(scene.connection, scene.app_id, names[0], P)
    first, other = connect(), connect()
    with first.transaction():
        subscriptions.subscribe(first, scene.app_id, names[1], "u7")
        wait = in_background(lambda: promote(scene, "u7", connection=other))
        await_blocked(connect(), other.info.backend_pid)
    with pytest.raises(Busy, match="try again"):
        wait()
    assert promote(scene, "u7").subscriptions == 1


def test_install_after_its_promotion_is_refused(scene: Scene, connect: Connect) -> None:
    """An app that starts with its old token does not take the phone back, not even in the same moment."""
    devices.install(scene.connection, install(scene, P))
    other = connect()
    with scene.connection.transaction():
        promote(scene, "u7")
        late = in_background(lambda: devices.install(other, install(scene, P)))
        await_blocked(connect(), other.info.backend_pid)
    with pytest.raises(AlreadyPromoted):
        late()
    with pytest.raises(AlreadyPromoted):
        devices.install_many(scene.connection, [install(scene, P, "token-2")])
    with pytest.raises(AlreadyPromoted):
        subscriptions.subscribe(scene.connection, scene.app_id, NEWS, P)
    (device,) = devices.list_by_user(scene.connection, scene.app_id, "u7")
    assert device.token == "token-of-phone"


def test_many_log_in_while_fan_outs_are_planned(scene: Scene, connect: Connect) -> None:
    """Promotions beside a planner in pages of two: every device is planned once in every fan-out."""
    names = [f"{number:02}" for number in range(24)]
    ids = scene.install([f"{pseudo.PREFIX}{name}" for name in names] + [f"u{name}" for name in names[:6]])
    scene.subscribe([f"{pseudo.PREFIX}{name}" for name in names] + [f"u{name}" for name in names[:6]])
    plans = scene.take_in(*(news() for _ in range(4)))
    planner, door = connect(), connect()
    is_done = threading.Event()

    def plan() -> None:
        for notification_id in plans:
            page = None
            while page is None or not page.is_planned:
                with planner.transaction():
                    page = notifications.plan_page(planner, notification_id, chunk_size=5, page_size=2)
                assert page is not None
        is_done.set()

    def log_in() -> int:
        waited = 0
        for number, name in enumerate(names):
            while True:
                try:
                    user = f"u{name}" if number % 2 else f"a{name}"
                    promote(scene, user, who=f"{pseudo.PREFIX}{name}", connection=door)
                    break
                except Busy:
                    waited += 1
                    is_done.wait(0.01)
        return waited

    planning, logging_in = in_background(plan), in_background(log_in)
    planning()
    logging_in()
    assert planned(scene) == dict.fromkeys(ids, len(plans))
    assert scene.run("SELECT 1 FROM pushfan.device WHERE user_id LIKE 'pseudo:%'") == []
    scene.assert_conserved()
