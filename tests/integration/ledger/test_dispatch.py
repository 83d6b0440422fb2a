"""What is announced over the broker: a window of each channel and lane, not a backlog."""

from collections import Counter
from collections.abc import Callable
from datetime import timedelta

from events import DirectPush, Lane
from registry import channels, ledger, notifications
from registry.database import Connection
from registry.ledger import FinalOutcome
from tests.integration.ledger.scene import (
    HELLO,
    LEASE,
    Scene,
    await_blocked,
    final,
    in_background,
    news,
    wait,
)

Connect = Callable[[], Connection]


def test_window_is_published_and_not_the_backlog(scene: Scene) -> None:
    """However many chunks wait, no more than `slots` are announced, and none of them twice."""
    scene.set_slots(3)
    scene.broadcast(8, chunk_size=1)
    assert [chunk.positions for chunk in scene.dispatch()] == [1, 1, 1]
    assert scene.dispatch() == []


def test_finishing_one_chunk_makes_room_for_the_next(scene: Scene) -> None:
    """The window moves on as chunks end."""
    scene.set_slots(2)
    scene.broadcast(5, chunk_size=1)
    seen = scene.dispatch()
    while len(seen) < 5:
        scene.finish(scene.claimed(seen[-1].chunk_id))
        (following,) = scene.dispatch()
        seen.append(following)
    assert len({chunk.chunk_id for chunk in seen}) == 5


def test_leased_chunks_fill_the_window_too(scene: Scene) -> None:
    """A chunk that is being worked on takes its slot however long that lasts."""
    scene.set_slots(1)
    scene.broadcast(2, chunk_size=1)
    (chunk,) = scene.dispatch()
    scene.claimed(chunk.chunk_id)
    scene.run("UPDATE pushfan.chunk SET ready_at = now() - interval '1 minute' WHERE owner IS NOT NULL")
    assert scene.dispatch() == []


def test_each_lane_and_channel_has_a_window_of_its_own(scene: Scene) -> None:
    """A bulk backlog does not keep urgent chunks from being announced, nor one channel another's."""
    scene.set_slots(1)
    other = scene.add_channel("other", slots=1)
    users = ["a", "b"]
    scene.install(users)
    scene.install(users, channel_id=other.id)
    scene.subscribe(users)
    for lane in Lane:
        scene.plan(*scene.take_in(news(lane=lane)), chunk_size=1)
    published = [(chunk.channel_id, chunk.lane) for chunk in scene.dispatch()]
    assert Counter(published) == {
        (channel_id, lane): 1
        for channel_id in (scene.channel.id, other.id)
        for lane in ("urgent", "normal", "bulk")
    }


def test_dispatch_of_one_channel_leaves_the_others(scene: Scene) -> None:
    """A worker that finished a chunk fills only that channel's window."""
    other = scene.add_channel("other")
    scene.install(["a"], channel_id=other.id)
    scene.broadcast(1)
    scene.plan(*scene.take_in(DirectPush(app="shop", users=["a"], message=HELLO)))
    published = ledger.dispatch(scene.connection, [other.id])
    assert {chunk.channel_id for chunk in published} == {other.id}


def test_lost_message_is_published_again_with_growing_intervals(scene: Scene) -> None:
    """A chunk that nobody claims is announced again after 5, 10, 20, 40 and then every 80 seconds."""
    scene.broadcast(1)
    intervals = []
    for _ in range(7):
        assert len(scene.dispatch()) == 1
        (row,) = scene.run("SELECT ready_at - published_at AS rest FROM pushfan.chunk")
        intervals.append(row["rest"].total_seconds())
        scene.run("UPDATE pushfan.chunk SET ready_at = now() - interval '1 millisecond'")
    assert intervals == [5, 10, 20, 40, 80, 80, 80]
    claim = scene.claimed(scene.chunk_ids()[0])
    ledger.release(scene.connection, claim, issued=0)
    scene.dispatch()
    (row,) = scene.run("SELECT ready_at - published_at AS rest FROM pushfan.chunk")
    assert row["rest"] == timedelta(seconds=5)


def test_expired_lease_is_published_again(scene: Scene) -> None:
    """A killed worker's chunk is announced as soon as its lease has passed."""
    scene.broadcast(1)
    (chunk,) = scene.dispatch()
    scene.claimed(chunk.chunk_id)
    assert scene.dispatch() == []
    scene.end_lease(chunk.chunk_id)
    assert [again.chunk_id for again in scene.dispatch()] == [chunk.chunk_id]


def test_second_dispatcher_skips_what_the_first_has_picked(scene: Scene, connect: Connect) -> None:
    """Two dispatchers at work at the same instant announce different chunks and do not wait."""
    scene.set_slots(2)
    scene.broadcast(4, chunk_size=1)
    first, second = connect(), connect()
    with first.transaction():
        one = ledger.dispatch(first)
        two = in_background(lambda: ledger.dispatch(second))()
    ids = [chunk.chunk_id for chunk in (*one, *two)]
    assert len(set(ids)) == len(ids)


def test_open_circuit_publishes_nothing(scene: Scene) -> None:
    """A stopped channel costs the broker nothing."""
    scene.broadcast(3, chunk_size=1)
    scene.open_circuit()
    assert scene.dispatch() == []
    assert ledger.dispatch_expired(scene.connection) == []


def test_expired_notification_ends_behind_an_open_circuit(scene: Scene) -> None:
    """A stopped channel keeps deliveries until they expire, and not for ever."""
    notification_id = scene.broadcast(3)
    scene.open_circuit()
    scene.run("UPDATE pushfan.chunk SET expires_at = now() - interval '1 second'")
    (chunk,) = ledger.dispatch_expired(scene.connection)
    scene.finish(scene.claimed(chunk.chunk_id), FinalOutcome.EXPIRED)
    assert scene.find(notification_id).outcomes[FinalOutcome.EXPIRED] == 3
    scene.assert_conserved()


def test_cancelled_notification_ends_behind_an_open_circuit(scene: Scene) -> None:
    """What an operator cancelled does not wait for a stopped channel."""
    notification_id = scene.broadcast(3)
    scene.open_circuit()
    assert notifications.cancel(scene.connection, notification_id)
    notifications.hurry(scene.connection, notification_id)
    (chunk,) = ledger.dispatch_expired(scene.connection)
    claim = scene.claimed(chunk.chunk_id)
    assert claim.contents[notification_id].is_cancelled
    scene.finish(claim, FinalOutcome.CANCELLED)
    assert scene.find(notification_id).state == "cancelled"
    scene.assert_conserved()


def test_cancelled_retries_end_behind_an_open_circuit(scene: Scene) -> None:
    """Deliveries that waited for another attempt are cancelled too, apart from those of other notifications."""
    notification_id = scene.broadcast(3)
    (other,) = scene.take_in(news())
    scene.plan(other)
    for chunk_id in scene.chunk_ids():
        put_off(scene, scene.claimed(chunk_id))
    scene.open_circuit()
    notifications.cancel(scene.connection, notification_id)
    notifications.hurry(scene.connection, notification_id)
    scene.run("UPDATE pushfan.retry SET due_at = now()")
    ledger.move_due_retries(scene.connection, chunk_size=500)
    (chunk,) = ledger.dispatch_expired(scene.connection)
    scene.finish(scene.claimed(chunk.chunk_id), FinalOutcome.CANCELLED)
    assert scene.find(notification_id).state == "cancelled"
    assert scene.find(other).state == "sending"
    scene.assert_conserved()


def test_cancelled_chunk_of_retries_ends_behind_an_open_circuit(scene: Scene) -> None:
    """A chunk made of retries names its notification once for each position; it is hurried all the same."""
    notification_id = scene.broadcast(3)
    put_off(scene, scene.claimed(scene.chunk_ids()[0]), timedelta(0))
    ledger.move_due_retries(scene.connection, chunk_size=500)
    scene.open_circuit()
    notifications.cancel(scene.connection, notification_id)
    notifications.hurry(scene.connection, notification_id)
    (chunk,) = ledger.dispatch_expired(scene.connection)
    scene.finish(scene.claimed(chunk.chunk_id), FinalOutcome.CANCELLED)
    assert scene.find(notification_id).state == "cancelled"
    scene.assert_conserved()


def test_cancelled_part_of_a_shared_chunk_ends_behind_an_open_circuit(scene: Scene) -> None:
    """A small push that travels with others ends too when it is cancelled, and the others wait on."""
    cancelled, other = shared_chunk(scene)
    scene.open_circuit()
    notifications.cancel(scene.connection, cancelled)
    notifications.hurry(scene.connection, cancelled)
    (chunk,) = ledger.dispatch_expired(scene.connection)
    scene.finish(scene.claimed(chunk.chunk_id), FinalOutcome.CANCELLED)
    assert (scene.find(cancelled).state, scene.find(other).state) == ("cancelled", "sending")
    scene.assert_conserved()
    channels.resume(scene.connection, scene.channel.id)
    scene.finish_all()
    assert scene.find(other).outcomes[FinalOutcome.ACCEPTED] == 3
    scene.assert_conserved()


def test_cancelled_part_keeps_its_attempts_tags_and_what_is_unsure(scene: Scene) -> None:
    """What a killed owner may have sent stays known as such on both sides of the division."""
    cancelled, other = shared_chunk(scene)
    first = scene.claimed(scene.chunk_ids()[0])
    waits = [wait(first, position, tag="request", attempts=position + 1) for position in range(6)]
    with scene.connection.transaction():
        assert ledger.flush(scene.connection, first, [], waits, lease=LEASE) is not None
        ledger.finish(scene.connection, first)
    ledger.move_due_retries(scene.connection, chunk_size=500)
    (chunk_id,) = scene.chunk_ids()
    killed = scene.claimed(chunk_id, first=4)
    scene.end_lease(chunk_id)
    notifications.cancel(scene.connection, other)
    notifications.hurry(scene.connection, other)
    kept, moved = (scene.claimed(chunk_id) for chunk_id in scene.chunk_ids())
    assert (kept.open_positions(), kept.unsure_positions()) == ([0, 1, 2], [0, 1, 2])
    assert (moved.notification_ids, moved.device_ids) == ([other], killed.device_ids[3:])
    assert (moved.attempts, moved.request_tags) == ([4, 5, 6], ["request"] * 3)
    assert [entry["attempt"] for (entry,) in moved.earlier or []] == [4, 5, 6]
    assert (moved.open_positions(), moved.unsure_positions()) == ([0, 1, 2], [0])
    assert scene.find(cancelled).unsure == 3
    scene.assert_conserved()


def test_owner_that_lost_its_lease_cannot_record_what_a_cancellation_has_moved(scene: Scene) -> None:
    """Nobody claimed the chunk since, but a late flush of its whole vector would end a delivery twice."""
    cancelled, _ = shared_chunk(scene)
    late = scene.claimed(scene.chunk_ids()[0])
    scene.end_lease(late.chunk_id)
    notifications.cancel(scene.connection, cancelled)
    notifications.hurry(scene.connection, cancelled)
    finals = [final(late, position) for position in late.open_positions()]
    assert ledger.flush(scene.connection, late, finals, [], lease=LEASE) is None
    scene.assert_conserved()


def test_parts_of_a_divided_chunk_travel_with_nobody(scene: Scene) -> None:
    """A chunk that took them in would forget what of them has moved and what is unsure."""
    cancelled, other = shared_chunk(scene)
    notifications.cancel(scene.connection, cancelled)
    notifications.hurry(scene.connection, cancelled)
    divided = set(scene.chunk_ids())
    scene.plan(*scene.take_in(DirectPush(app="shop", users=["a"], message=HELLO)))
    (fresh,) = set(scene.chunk_ids()) - divided
    assert len(scene.claimed(fresh, chunk_size=500)) == 1
    assert set(scene.chunk_ids()) == divided | {fresh}
    assert len(divided) == 2
    assert scene.find(other).state == "sending"
    scene.assert_conserved()


def test_cancellation_leaves_a_leased_chunk_to_its_owner(scene: Scene) -> None:
    """The owner sees the flag with its next flush; what it is just recording stays its own."""
    cancelled, _ = shared_chunk(scene)
    claim = scene.claimed(scene.chunk_ids()[0])
    notifications.cancel(scene.connection, cancelled)
    notifications.hurry(scene.connection, cancelled)
    scene.finish(claim)
    assert scene.find(cancelled).state == "cancelled"
    scene.assert_conserved()


def test_shared_chunk_in_which_only_the_cancelled_is_open_is_not_divided(scene: Scene) -> None:
    """A chunk without any open position would never be finished by anybody."""
    cancelled, other = shared_chunk(scene)
    claim = scene.claimed(scene.chunk_ids()[0])
    finals = [final(claim, position) for position in (3, 4, 5)]
    with scene.connection.transaction():
        assert ledger.flush(scene.connection, claim, finals, [], lease=LEASE) is not None
        ledger.release(scene.connection, claim, issued=0)
    scene.open_circuit()
    notifications.cancel(scene.connection, cancelled)
    notifications.hurry(scene.connection, cancelled)
    (chunk,) = ledger.dispatch_expired(scene.connection)
    assert chunk.chunk_id == claim.chunk_id
    scene.finish(scene.claimed(chunk.chunk_id), FinalOutcome.CANCELLED)
    assert (scene.find(cancelled).state, scene.find(other).state) == ("cancelled", "finished")
    scene.assert_conserved()


def test_claims_of_one_channel_take_turns(scene: Scene, connect: Connect) -> None:
    """A claim waits for another one's transaction, since counting leases needs to see it."""
    scene.set_slots(1)
    scene.broadcast(2, chunk_size=1)
    scene.run("UPDATE pushfan.chunk SET published_at = now()")
    one, two = scene.chunk_ids()
    first, second = connect(), connect()
    with first.transaction():
        claimed = ledger.claim(
            first,
            chunk_id=one,
            channel_id=scene.channel.id,
            owner="one",
            lease=LEASE,
            first=9,
            probe=5,
            chunk_size=1,
        )
        assert claimed is not None
        waiting = in_background(lambda: scene.claim(two, connection=second))
        await_blocked(scene.connection, second.info.backend_pid)
    assert waiting() is None


def put_off(scene: Scene, claim: ledger.Claim, delay: timedelta = timedelta(hours=1)) -> None:
    """Let every position wait for another attempt."""
    waits = [wait(claim, position, delay=delay) for position in claim.open_positions()]
    with scene.connection.transaction():
        assert ledger.flush(scene.connection, claim, [], waits, lease=LEASE) is not None
        ledger.finish(scene.connection, claim)


def shared_chunk(scene: Scene) -> tuple[int, int]:
    """Plan two direct pushes to three users each into one chunk. Gives their ids, in the chunk's order."""
    scene.install(list("abcdef"))
    events = (DirectPush(app="shop", users=list(users), message=HELLO) for users in ("abc", "def"))
    first, second = sorted(scene.take_in(*events))
    scene.plan(first, second)
    return first, second
