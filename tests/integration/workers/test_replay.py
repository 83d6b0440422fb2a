"""Dead letters come in again: once, for those concerned, and only if they can."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest

from events import BucketWrite, Change, DirectPush, Event, encode
from providers.outcome import Unavailable
from registry import apps, dead_letters, notifications
from registry.dead_letters import Letter
from tests.integration.ledger.scene import HELLO, Scene, news, token_of
from tests.integration.workers.floor import Floor
from workers import intake, replay
from workers.replay import NotReplayable, Replayed


def direct(**more: Any) -> Event:
    """Make a direct push."""
    return DirectPush(**{"app": "shop", "users": ["a"], "message": HELLO, **more})


def come_in(floor: Floor, *wires: object) -> None:
    """Let a broker message arrive."""
    intake.take_in_message(floor.door(), list(wires), message_id="message-1")


def letter_of(scene: Scene) -> Letter:
    """Read the newest dead letter."""
    return dead_letters.list_page(scene.connection, limit=1)[0]


def exhaust(floor: Floor, scene: Scene, event: Event, user: str) -> Letter:
    """Take an event in and let the vendor refuse one user's device until all attempts are spent."""
    token = token_of(user, scene.channel.id)
    floor.vendor.answer(token, Unavailable(reason="ServiceUnavailable", delay=timedelta(0)))
    (taken,) = intake.take_in(floor.door(), [event])
    assert taken.notification_id is not None
    floor.deliver_to_the_end(taken.notification_id)
    floor.vendor.answers.clear()
    floor.vendor.received.clear()
    letter = letter_of(scene)
    assert (letter.kind, letter.error) == ("exhausted", "ServiceUnavailable")
    return letter


def again(floor: Floor, letter: Letter, **more: bool) -> Replayed:
    """Replay a letter."""
    return replay.replay(floor.door(), letter, **more)


def test_event_that_is_valid_by_now_is_taken_in_under_its_own_id(floor: Floor, scene: Scene) -> None:
    """The app that was missing is there: the event comes in, and its producer's repetition pushes nothing more."""
    wire = encode(direct(app="bank", id="order-1"))
    come_in(floor, wire)
    letter = letter_of(scene)
    with pytest.raises(NotReplayable, match="pushfan app add"):
        again(floor, letter)
    apps.add(scene.connection, "bank")
    done = again(floor, letter)
    assert done.is_new
    assert scene.find(done.notification_ids[0]).key == "order-1"
    assert intake.take_in_message(floor.door(), [wire], message_id="m") == {"repeated": 1}


def test_letter_replayed_again_leads_to_the_same_notification(floor: Floor, scene: Scene) -> None:
    """Even when the keys are forgotten: the letter knows as what it was taken in."""
    come_in(floor, encode(direct(id="x")), encode(direct(id="x", users=["b"])))
    first = again(floor, letter_of(scene))
    scene.run("DELETE FROM pushfan.event_key")
    second = again(floor, letter_of(scene))
    assert (first.is_new, second.is_new) == (True, False)
    assert second.notification_ids == first.notification_ids
    assert letter_of(scene).replayed_as == first.notification_ids[0]
    assert len(notifications.list_page(scene.connection)) == 2


def test_letter_replayed_by_many_at_once_is_taken_in_once(floor: Floor, scene: Scene) -> None:
    """Everybody read the letter before anybody replayed it: one notification, one push."""
    scene.install(["a", "b"])
    letter = exhaust(floor, scene, direct(users=["a", "b"]), "b")
    start = threading.Barrier(4)

    def hurry(_: int) -> Replayed:
        start.wait(10)
        try:
            return again(floor, letter)
        finally:
            scene.database.close()  # this thread's connection

    with ThreadPoolExecutor(4) as threads:
        done = list(threads.map(hurry, range(4)))
    assert sum(one.is_new for one in done) == 1
    assert len({tuple(one.notification_ids) for one in done}) == 1
    floor.deliver_to_the_end(done[0].notification_ids[0])
    assert floor.vendor.tokens == {token_of("b", scene.channel.id): 1}


def test_conflict_is_taken_in_under_another_id(floor: Floor, scene: Scene) -> None:
    """Its own id is the other event's; who was named in it receives it now."""
    scene.install(["a", "b"])
    come_in(floor, encode(direct(id="x")), encode(direct(id="x", users=["b"])))
    done = again(floor, letter_of(scene))
    floor.deliver_all()
    assert scene.find(done.notification_ids[0]).key == f"dead-letter.{letter_of(scene).id}"
    assert floor.vendor.tokens == {token_of(user, scene.channel.id): 1 for user in ("a", "b")}


def test_id_that_was_taken_meanwhile_needs_a_word(floor: Floor, scene: Scene) -> None:
    """A corrected event came in under the id: the letter is refused, unless a new id is asked for."""
    come_in(floor, encode(direct(app="bank", id="x")))
    letter = letter_of(scene)
    apps.add(scene.connection, "bank")
    come_in(floor, encode(direct(app="bank", id="x", users=["corrected"])))
    with pytest.raises(NotReplayable, match="--new-id"):
        again(floor, letter)
    assert letter_of(scene).replayed_as is None
    assert again(floor, letter, has_new_id=True).is_new


def test_undecodable_message_gives_all_its_events_or_none(floor: Floor, scene: Scene) -> None:
    """A task message with two events of ours gives both, and the letter names the first."""
    wires = [encode(direct(id="one")), {**encode(direct()), "id": None}]
    body = json.dumps([[], {"events": wires}, {"callbacks": None}])
    letter = notifications.DeadLetter(kind="undecodable", error="names the unknown task x", body=body)
    notifications.store_dead_letter(scene.connection, letter)
    done = again(floor, letter_of(scene))
    keys = [scene.find(notification_id).key for notification_id in done.notification_ids]
    assert keys == ["one", f"dead-letter.{letter_of(scene).id}.1"]
    assert letter_of(scene).replayed_as == done.notification_ids[0]


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("<xml/>", "no JSON"),
        ("[1, 2]", "no event"),
        (None, "no JSON"),
        ("[" + "x" * 70_000, "too long"),
        ('{"kind": "direct", "version": 1}', "message: is required"),
    ],
)
def test_what_is_no_event_is_refused_with_what_to_do(
    floor: Floor, scene: Scene, body: str | None, why: str
) -> None:
    """The letter stays as it was."""
    letter = notifications.DeadLetter(kind="undecodable", error="x", body=body)
    notifications.store_dead_letter(scene.connection, letter)
    with pytest.raises(NotReplayable, match=why) as refusal:
        again(floor, letter_of(scene))
    assert "drop" in str(refusal.value)
    assert letter_of(scene).replayed_as is None


@pytest.mark.parametrize("event", [news(), direct(users=["a", "b"])])
def test_delivery_is_sent_again_to_its_device_alone(floor: Floor, scene: Scene, event: Event) -> None:
    """Neither the other recipients nor the user's other devices are pushed a second time; the event's kind stays."""
    other = scene.add_channel("other")
    scene.install(["a", "b"])
    scene.install(["b"], channel_id=other.id)
    scene.subscribe(["a", "b"])
    letter = exhaust(floor, scene, event, "b")
    done = again(floor, letter)
    found = floor.deliver_to_the_end(done.notification_ids[0])
    assert floor.vendor.tokens == {token_of("b", scene.channel.id): 1}
    assert (found.kind, found.users, found.devices, found.key) == (
        event.kind,
        1,
        1,
        f"dead-letter.{letter.id}",
    )
    scene.assert_conserved()


def test_replayed_delivery_of_a_bucket_keeps_what_changed(floor: Floor, scene: Scene) -> None:
    """An app correlates by the change that the payload carries: it is the original one's."""
    scene.install(["a"])
    write = BucketWrite(app="shop", bucket="orders", object="o1", change=Change.UPDATED)
    scene.run("INSERT INTO pushfan.target (app_id, kind, name) VALUES (%s, 'bucket', 'orders')", scene.app_id)
    scene.run(
        "INSERT INTO pushfan.subscription (target_id, user_id, app_id) SELECT id, 'a', app_id FROM pushfan.target"
    )
    floor.deliver_to_the_end(again(floor, exhaust(floor, scene, write, "a")).notification_ids[0])
    (push,) = floor.vendor.received
    assert isinstance(push.content.event, BucketWrite)
    assert (push.content.event.object, push.content.event.change) == ("o1", Change.UPDATED)


CHANGES = {
    "retired": ("UPDATE pushfan.device SET state = 'retired'", "nobody to send it to"),
    "forgotten": ("UPDATE pushfan.dead_letter SET device_id = NULL", "nobody to send it to"),
    "cancelled": ("UPDATE pushfan.notification SET cancelled_at = now()", "cancelled"),
    "cleared": ("UPDATE pushfan.notification SET event = NULL", "PUSHFAN_CONTENT_HOURS"),
    "pruned": ("DELETE FROM pushfan.notification", "PUSHFAN_CONTENT_HOURS"),
    "too late": (
        """UPDATE pushfan.notification SET expires_at = now() - interval '1 s',
           event = event || '{"expires_at": "2020-01-01T00:00:00+00:00"}'""",
        "deadline",
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_delivery_that_cannot_be_sent_again_is_refused(floor: Floor, scene: Scene, name: str) -> None:
    """It says why, and nothing was taken in."""
    change, why = CHANGES[name]
    scene.install(["a"])
    letter = exhaust(floor, scene, direct(), "a")
    scene.run(change)
    with pytest.raises(NotReplayable, match=why):
        again(floor, letter)
    rows = scene.run("SELECT count(*) AS letters FROM pushfan.event_key WHERE key LIKE 'dead-letter%'")
    assert rows[0]["letters"] == 0


def test_device_that_leaves_in_this_moment_undoes_the_replay(floor: Floor, scene: Scene) -> None:
    """Between the look at the device and its planning it was retired: nothing is taken in, nothing noted."""
    scene.install(["a"])
    letter = exhaust(floor, scene, direct(), "a")
    scene.run(
        "CREATE FUNCTION retire() RETURNS trigger LANGUAGE plpgsql AS "
        "'BEGIN UPDATE pushfan.device SET state = ''retired''; RETURN NULL; END'"
    )
    scene.run("CREATE TRIGGER retire AFTER INSERT ON pushfan.event_key EXECUTE FUNCTION retire()")
    with pytest.raises(NotReplayable, match="nobody to send it to"):
        again(floor, letter)
    assert letter_of(scene).replayed_as is None
    assert len(notifications.list_page(scene.connection)) == 1


def test_rehearsal_leaves_nothing_behind(floor: Floor, scene: Scene) -> None:
    """It says what a replay would do, refusals included, and nothing is there afterwards."""
    scene.install(["a"])
    letter = exhaust(floor, scene, direct(), "a")
    assert again(floor, letter, is_rehearsal=True).is_new
    assert letter_of(scene).replayed_as is None
    assert scene.chunk_ids() == []
    assert again(floor, letter).is_new
    assert not again(floor, letter_of(scene), is_rehearsal=True).is_new
