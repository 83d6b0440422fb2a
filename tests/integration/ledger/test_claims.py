"""Who may work on a chunk: leases, fences, slots, and the races around them."""

import threading
from collections.abc import Callable
from functools import partial

import pytest

from events import DirectPush
from registry import ledger
from registry.database import Connection
from registry.ledger import FinalOutcome
from tests.integration.ledger.scene import (
    HELLO,
    LEASE,
    Scene,
    await_blocked,
    final,
    in_background,
    wait,
)

Connect = Callable[[], Connection]


def test_claimed_chunk_is_not_claimed_again(scene: Scene) -> None:
    """While a lease holds, nobody else gets the chunk."""
    scene.broadcast(3)
    (chunk_id,) = scene.chunk_ids()
    assert scene.claim(chunk_id, owner="one") is not None
    assert scene.claim(chunk_id, owner="two") is None


def test_claim_of_a_finished_chunk_gives_nothing(scene: Scene) -> None:
    """A broker message that comes late or twice finds nothing to do."""
    scene.broadcast(3)
    (chunk_id,) = scene.chunk_ids()
    scene.finish(scene.claimed(chunk_id))
    assert scene.claim(chunk_id) is None
    scene.assert_conserved()


def test_of_many_simultaneous_claims_one_succeeds(scene: Scene, connect: Connect) -> None:
    """One message repeated five times, at once, is worked on once."""
    scene.broadcast(3)
    (chunk_id,) = scene.chunk_ids()
    channel_id = scene.channel.id
    barrier = threading.Barrier(5)

    def claim(connection: Connection, owner: str) -> bool:
        barrier.wait()
        with connection.transaction():
            return (
                ledger.claim(
                    connection,
                    chunk_id=chunk_id,
                    channel_id=channel_id,
                    owner=owner,
                    lease=LEASE,
                    first=9,
                    probe=5,
                    chunk_size=1,
                )
                is not None
            )

    results = [in_background(partial(claim, connect(), f"owner-{n}")) for n in range(5)]
    assert sorted(result() for result in results) == [False, False, False, False, True]
    assert scene.chunks()[0]["fence"] == 1


def test_slots_limit_holds_with_simultaneous_claims(scene: Scene, connect: Connect) -> None:
    """Eight claims at once get no more than two of a channel's chunks."""
    scene.set_slots(2)
    scene.broadcast(8, chunk_size=1)
    scene.run("UPDATE pushfan.chunk SET published_at = now()")
    channel_id = scene.channel.id
    barrier = threading.Barrier(8)

    def claim(connection: Connection, chunk_id: int) -> bool:
        barrier.wait()
        with connection.transaction():
            return (
                ledger.claim(
                    connection,
                    chunk_id=chunk_id,
                    channel_id=channel_id,
                    owner="x",
                    lease=LEASE,
                    first=9,
                    probe=5,
                    chunk_size=1,
                )
                is not None
            )

    results = [in_background(partial(claim, connect(), chunk_id)) for chunk_id in scene.chunk_ids()]
    assert sum(result() for result in results) == 2


def test_expired_lease_is_taken_over_with_a_higher_fence(scene: Scene) -> None:
    """A silent owner loses its chunk to the next claim."""
    scene.broadcast(3)
    (chunk_id,) = scene.chunk_ids()
    old = scene.claimed(chunk_id, owner="old")
    scene.end_lease(chunk_id)
    new = scene.claimed(chunk_id, owner="new")
    assert (old.fence, new.fence) == (1, 2)
    assert new.issued_before == 3


def test_flush_of_a_stale_owner_changes_and_inserts_nothing(scene: Scene) -> None:
    """After a takeover the old owner's answers are nobody's: no vector, no delivery, no retry."""
    scene.broadcast(3)
    (chunk_id,) = scene.chunk_ids()
    old = scene.claimed(chunk_id, owner="old")
    scene.end_lease(chunk_id)
    scene.claimed(chunk_id, owner="new")
    before = scene.chunks()
    finals, waits = [final(old, 0)], [wait(old, 1)]
    assert ledger.flush(scene.connection, old, finals, waits, lease=LEASE) is None
    assert scene.chunks() == before
    assert scene.deliveries() == {}
    assert scene.run("SELECT 1 FROM pushfan.retry") == []
    owned = ledger.holds(scene.connection, old)
    assert (owned.is_owner, owned.is_recorded) == (False, False)
    scene.assert_conserved()


@pytest.mark.parametrize("write", ["renew", "release", "finish"])
def test_stale_owner_neither_renews_nor_releases_nor_finishes(scene: Scene, write: str) -> None:
    """Every write of an owner carries its fence."""
    scene.broadcast(2)
    (chunk_id,) = scene.chunk_ids()
    old = scene.claimed(chunk_id, owner="old")
    scene.end_lease(chunk_id)
    scene.claimed(chunk_id, owner="new")
    before = scene.chunks(), scene.find(old.notification_ids[0])
    if write == "renew":
        assert ledger.renew(scene.connection, old, lease=LEASE) is None
    elif write == "release":
        ledger.release(scene.connection, old, issued=0)
    else:
        old.result[:] = bytes([ledger.CODES[FinalOutcome.ACCEPTED]] * 2)
        ledger.finish(scene.connection, old)
    assert (scene.chunks(), scene.find(old.notification_ids[0])) == before


def test_takeover_waiting_behind_a_late_flush_sees_what_it_recorded(scene: Scene, connect: Connect) -> None:
    """A claim that began before the old owner's flush was committed reads the vector as flushed."""
    scene.broadcast(4)
    (chunk_id,) = scene.chunk_ids()
    old = scene.claimed(chunk_id, owner="old")
    scene.end_lease(chunk_id)
    late, second = connect(), connect()
    with late.transaction():
        assert ledger.flush(late, old, [final(old, 0), final(old, 1)], [], lease=LEASE) is not None
        # The flush renewed the lease: let it pass again, in the same transaction.
        late.execute("UPDATE pushfan.chunk SET lease_until = now() - interval '1 second'")
        takeover = in_background(lambda: scene.claim(chunk_id, owner="new", connection=second))
        await_blocked(scene.connection, second.info.backend_pid)
    new = takeover()
    assert new is not None
    assert new.open_positions() == [2, 3]
    assert new.unsure_positions() == [2, 3]
    scene.finish(new)
    assert len(scene.deliveries()) == 4
    scene.assert_conserved()


def test_takeover_waiting_behind_a_late_flush_that_renewed_gets_nothing(
    scene: Scene, connect: Connect
) -> None:
    """An owner that comes back before its chunk was taken keeps it."""
    scene.broadcast(4)
    (chunk_id,) = scene.chunk_ids()
    old = scene.claimed(chunk_id, owner="old")
    scene.end_lease(chunk_id)
    late, second = connect(), connect()
    with late.transaction():
        assert ledger.flush(late, old, [final(old, 0)], [], lease=LEASE) is not None
        takeover = in_background(lambda: scene.claim(chunk_id, owner="new", connection=second))
        await_blocked(scene.connection, second.info.backend_pid)
    assert takeover() is None
    scene.finish(old)
    scene.assert_conserved()


def test_late_flush_waiting_behind_a_takeover_records_nothing(scene: Scene, connect: Connect) -> None:
    """The old owner's flush, begun before the takeover was committed, finds another fence."""
    scene.broadcast(4)
    (chunk_id,) = scene.chunk_ids()
    old = scene.claimed(chunk_id, owner="old")
    scene.end_lease(chunk_id)
    late, second = connect(), connect()
    finals = [final(old, 0), final(old, 1)]
    with second.transaction():
        new = ledger.claim(
            second,
            chunk_id=chunk_id,
            channel_id=scene.channel.id,
            owner="new",
            lease=LEASE,
            first=100,
            probe=5,
            chunk_size=1,
        )
        assert new is not None
        flush = in_background(lambda: ledger.flush(late, old, finals, [], lease=LEASE))
        await_blocked(scene.connection, late.info.backend_pid)
    assert flush() is None
    assert scene.deliveries() == {}
    scene.finish(new)
    assert len(scene.deliveries()) == 4
    scene.assert_conserved()


def test_open_circuit_refuses_claims(scene: Scene) -> None:
    """While a channel is stopped nothing of it is claimed."""
    scene.broadcast(2)
    (chunk_id,) = scene.chunk_ids()
    scene.open_circuit()
    assert scene.claim(chunk_id) is None


def test_first_positions_are_issued_with_the_claim(scene: Scene) -> None:
    """What goes to the send engine first is committed as issued by the claim itself."""
    scene.broadcast(5)
    (chunk_id,) = scene.chunk_ids()
    claim = scene.claimed(chunk_id, first=3)
    assert (claim.issued_before, claim.issued) == (0, 3)
    assert sorted(claim.addresses) == [0, 1, 2]
    assert scene.chunks()[0]["issued"] == 3


def test_unsure_positions_are_those_issued_and_not_recorded(scene: Scene) -> None:
    """A takeover counts what a kill may have left accepted: the exact bound of duplicates."""
    notification_id = scene.broadcast(6)
    (chunk_id,) = scene.chunk_ids()
    old = scene.claimed(chunk_id, first=4)
    ledger.flush(scene.connection, old, [final(old, 1)], [], lease=LEASE)
    scene.end_lease(chunk_id)
    new = scene.claimed(chunk_id, first=2)
    assert new.unsure_positions() == [0, 2, 3]
    assert scene.find(notification_id).unsure == 3


def test_released_chunk_is_free_at_once_and_nothing_is_unsure(scene: Scene) -> None:
    """A graceful stop leaves nothing that could be repeated."""
    notification_id = scene.broadcast(6)
    (chunk_id,) = scene.chunk_ids()
    old = scene.claimed(chunk_id, first=4)
    ledger.release(scene.connection, old, issued=0)
    assert [chunk.chunk_id for chunk in scene.dispatch()] == [chunk_id]
    new = scene.claimed(chunk_id)
    assert new.unsure_positions() == []
    assert new.strikes == 1
    assert scene.find(notification_id).unsure == 0


def test_progress_clears_strikes_and_silence_collects_them(scene: Scene) -> None:
    """Only claims without any answer in between count against a chunk."""
    scene.broadcast(3)
    (chunk_id,) = scene.chunk_ids()
    for strikes in (1, 2):
        claim = scene.claimed(chunk_id)
        assert claim.strikes == strikes
        scene.end_lease(chunk_id)
    claim = scene.claimed(chunk_id)
    ledger.flush(scene.connection, claim, [final(claim, 0)], [], lease=LEASE)
    scene.end_lease(chunk_id)
    assert scene.claimed(chunk_id).strikes == 1


def test_leases_of_dead_owners_are_released_and_others_kept(scene: Scene) -> None:
    """A parent that lost a child need not wait for the child's lease."""
    scene.broadcast(2, chunk_size=1)
    dead_chunk, live_chunk = scene.chunk_ids()
    scene.claimed(dead_chunk, owner="host/1/dead")
    scene.claimed(live_chunk, owner="host/1/live")
    assert sorted(ledger.owners(scene.connection, "host/1/")) == ["host/1/dead", "host/1/live"]
    assert ledger.owners(scene.connection, "host/2/") == []
    released = ledger.release_dead(scene.connection, ["host/1/dead"])
    assert [row["chunk_id"] for row in released] == [dead_chunk]
    assert scene.claim(live_chunk, owner="two") is None
    assert scene.claimed(dead_chunk, owner="two").unsure_positions() == [0]


def test_lease_renewal_is_lazy_and_a_hot_update(scene: Scene) -> None:
    """A renewal moves the lease only when less than half is left, and touches no indexed column."""
    scene.broadcast(2)
    (chunk_id,) = scene.chunk_ids()
    claim = scene.claimed(chunk_id)
    before = scene.chunks()[0]
    left = ledger.renew(scene.connection, claim, lease=LEASE)
    assert left is not None
    assert left.lease_left > LEASE / 2
    assert scene.chunks()[0]["lease_until"] == before["lease_until"]
    scene.run("UPDATE pushfan.chunk SET lease_until = clock_timestamp() + interval '4 seconds'")
    ledger.renew(scene.connection, claim, lease=LEASE)
    after = scene.chunks()[0]
    assert after["lease_until"] > before["lease_until"]
    indexed = ("channel_id", "lane", "ready_at", "published_at", "expires_at")
    assert {name: after[name] for name in indexed} == {name: before[name] for name in indexed}


def test_claim_for_another_channel_gets_nothing(scene: Scene) -> None:
    """A message that names a wrong channel, perhaps of another app, must not lead a chunk there."""
    scene.broadcast(1)
    (chunk_id,) = scene.chunk_ids()
    with scene.connection.transaction():
        wrong = ledger.claim(
            scene.connection,
            chunk_id=chunk_id,
            channel_id=scene.channel.id + 1,
            owner="one",
            lease=LEASE,
            first=100,
            probe=5,
            chunk_size=1,
        )
    assert wrong is None
    assert scene.claimed(chunk_id).fence == 1


def test_small_chunks_that_wait_travel_together(scene: Scene) -> None:
    """One claim takes in what fits beside it; each position keeps its own notification."""
    users = ["a", "b", "c", "d", "e"]
    devices = scene.install(users)
    ids = [scene.take_in(DirectPush(app="shop", users=[user], message=HELLO))[0] for user in users]
    for notification_id in ids:
        scene.plan(notification_id)
    scene.dispatch()
    first, *_, last = scene.chunk_ids()
    claim = scene.claimed(first, chunk_size=4)
    assert (claim.notification_ids, claim.device_ids) == (ids[:4], devices[:4])
    assert len(claim.addresses) == 4
    assert scene.chunk_ids() == [first, last]
    scene.finish(claim)
    scene.finish(scene.claimed(last, chunk_size=4))
    assert {scene.find(notification_id).state for notification_id in ids} == {"finished"}
    scene.assert_conserved()


def test_only_untouched_small_chunks_of_the_same_lane_and_channel_are_taken_along(scene: Scene) -> None:
    """Not what somebody holds or held, what is tried again, what is large or urgent, or another channel's."""
    other = scene.add_channel("other")
    scene.install(["a"], channel_id=other.id)
    scene.broadcast(7, chunk_size=1)
    scene.plan(*scene.take_in(DirectPush(app="shop", users=["a", "u0000"], message=HELLO)))
    rows = scene.chunks()
    news = [row["id"] for row in rows if row["lane"] == "normal"]
    scene.claimed(news[1])
    scene.run("UPDATE pushfan.chunk SET fence = 1 WHERE id = %s", news[2])
    scene.run("UPDATE pushfan.chunk SET earlier = '[[]]' WHERE id = %s", news[3])
    scene.run("UPDATE pushfan.chunk SET expires_at = now() WHERE id = %s", news[4])
    scene.run("UPDATE pushfan.chunk SET device_ids = '{91, 92}', result = '\\x0000' WHERE id = %s", news[5])
    claim = scene.claimed(news[0], chunk_size=7)
    assert len(claim) == 2
    assert set(scene.chunk_ids()) == {row["id"] for row in rows} - {news[6]}


def test_one_task_for_each_device_stays_so(scene: Scene) -> None:
    """With a chunk size of 1 nothing is put together."""
    scene.broadcast(3, chunk_size=1)
    assert len(scene.claimed(scene.chunk_ids()[0], chunk_size=1)) == 1
    assert len(scene.chunk_ids()) == 3


def test_slot_is_kept_for_a_chunk_that_was_begun(scene: Scene) -> None:
    """Repeated messages let anything be claimed: what a dead owner left goes first, however many come by."""
    scene.set_slots(1)
    scene.broadcast(3, chunk_size=1)
    begun, fresh, _ = scene.chunk_ids()
    scene.dispatch()
    scene.claimed(begun, owner="gone")
    scene.end_lease(begun)
    scene.dispatch()
    assert scene.claim(fresh) is None
    assert scene.claimed(begun).fence == 2


def test_slot_is_not_kept_for_a_message_that_is_lost(scene: Scene) -> None:
    """After five seconds it is not on its way any more, and its channel goes on."""
    scene.set_slots(1)
    scene.broadcast(2, chunk_size=1)
    begun, fresh = scene.chunk_ids()
    scene.dispatch()
    scene.claimed(begun, owner="gone")
    scene.end_lease(begun)
    scene.dispatch()
    scene.run("UPDATE pushfan.chunk SET ready_at = now() - interval '1 millisecond' WHERE id = %s", begun)
    assert scene.claim(fresh) is not None
