"""Recording answers: once, for the right positions, and adding up."""

from collections import Counter

import pytest

from events import DirectPush
from registry import ledger, overview
from registry.ledger import FinalOutcome
from tests.integration.ledger.scene import HELLO, LEASE, Scene, final, news, wait


def test_flush_repeated_after_a_lost_reply_changes_nothing(scene: Scene) -> None:
    """The same vector under the same fence is recognised: no second row, no error."""
    scene.broadcast(3)
    (chunk_id,) = scene.chunk_ids()
    claim = scene.claimed(chunk_id)
    finals, waits = [final(claim, 0)], [wait(claim, 1)]
    assert ledger.flush(scene.connection, claim, finals, waits, lease=LEASE) is not None
    before = scene.chunks(), scene.deliveries(), scene.run("SELECT * FROM pushfan.retry")
    assert ledger.flush(scene.connection, claim, finals, waits, lease=LEASE) is None
    assert (scene.chunks(), scene.deliveries(), scene.run("SELECT * FROM pushfan.retry")) == before
    owned = ledger.holds(scene.connection, claim)
    assert (owned.is_owner, owned.is_recorded) == (True, True)
    scene.assert_conserved()


def test_finish_repeated_after_a_lost_reply_counts_once(scene: Scene) -> None:
    """Counters are added when the chunk's row goes, and it goes once."""
    notification_id = scene.broadcast(3)
    (chunk_id,) = scene.chunk_ids()
    claim = scene.claimed(chunk_id)
    scene.finish(claim)
    ledger.finish(scene.connection, claim)
    assert ledger.flush(scene.connection, claim, [], [], lease=LEASE) is None
    assert ledger.holds(scene.connection, claim).is_recorded
    assert scene.find(notification_id).outcomes[FinalOutcome.ACCEPTED] == 3
    scene.assert_conserved()


def test_end_of_a_chunk_is_counted_once(scene: Scene) -> None:
    """A repeated flush must not make a channel look healthier, or busier, than it is."""
    scene.broadcast(2)
    claim = scene.claimed(scene.chunk_ids()[0])
    finals = [final(claim, 0), final(claim, 1)]
    for _ in range(2):
        ledger.count_ended(scene.connection, claim, accepted=2, doubted=1)
        ledger.flush(scene.connection, claim, finals, [], lease=LEASE)
    row = scene.run("SELECT accepted, doubted, outcomes FROM pushfan.channel")
    assert row == [{"accepted": 2, "doubted": 1, "outcomes": [2, 0, 0, 0, 0, 0, 0, 0]}]


def test_every_end_counts_for_the_channel_whose_credentials_changed_meanwhile(scene: Scene) -> None:
    """Health is about the present credentials; outcomes are about deliveries. Who waits has not ended."""
    notification_id = scene.broadcast(4)
    claim = scene.claimed(scene.chunk_ids()[0])
    scene.run("UPDATE pushfan.channel SET circuit_generation = circuit_generation + 1 RETURNING id")
    ends = (FinalOutcome.ACCEPTED, FinalOutcome.DEAD, FinalOutcome.EXPIRED)
    finals = [final(claim, position, outcome) for position, outcome in enumerate(ends)]
    waits = [wait(claim, 3)]
    ledger.count_ended(scene.connection, claim, accepted=1, doubted=0)
    ledger.flush(scene.connection, claim, finals, waits, lease=LEASE)
    ledger.finish(scene.connection, claim)
    (row,) = scene.run("SELECT id, accepted FROM pushfan.channel")
    counted = overview.outcomes(scene.connection)[row["id"]]
    assert row["accepted"] == 0
    assert counted == scene.find(notification_id).outcomes
    assert {outcome for outcome, number in counted.items() if number} == set(ends)


def test_waiting_delivery_leaves_its_neighbours_untouched(scene: Scene) -> None:
    """Temporary answers move their own position to `retry`; the others stay where they are."""
    notification_id = scene.broadcast(4)
    (chunk_id,) = scene.chunk_ids()
    claim = scene.claimed(chunk_id)
    ledger.flush(scene.connection, claim, [final(claim, 0)], [wait(claim, 2)], lease=LEASE)
    (chunk,) = scene.chunks()
    assert list(chunk["result"]) == [1, 0, ledger.WAITING, 0]
    assert scene.deliveries() == {claim.device_ids[0]: "accepted"}
    (retry,) = scene.run("SELECT notification_id, device_id, attempts FROM pushfan.retry")
    assert retry == {"notification_id": notification_id, "device_id": claim.device_ids[2], "attempts": 1}
    assert claim.open_positions() == [1, 3]
    scene.assert_conserved()


def test_counters_add_up_over_all_outcomes(scene: Scene) -> None:
    """Each final outcome has its counter; together they are the planned devices."""
    notification_id = scene.broadcast(len(FinalOutcome) + 1)
    (chunk_id,) = scene.chunk_ids()
    claim = scene.claimed(chunk_id)
    finals = [final(claim, position, outcome) for position, outcome in enumerate(FinalOutcome)]
    waiting = [wait(claim, len(FinalOutcome))]
    with scene.connection.transaction():
        ledger.flush(scene.connection, claim, finals, waiting, lease=LEASE)
        ledger.finish(scene.connection, claim)
    found = scene.find(notification_id)
    assert set(found.outcomes.values()) == {1}
    assert (found.retries, found.finished_at) == (1, None)
    scene.assert_conserved()
    ledger.move_due_retries(scene.connection, chunk_size=10)
    scene.finish_all(FinalOutcome.DEAD)
    found = scene.find(notification_id)
    assert found.outcomes[FinalOutcome.DEAD] == 2
    assert sum(found.outcomes.values()) == found.devices
    assert found.finished_at is not None
    scene.assert_conserved()


def test_counters_of_a_shared_chunk_go_to_each_notification(scene: Scene) -> None:
    """A chunk that bundles small pushes adds every outcome to the notification it belongs to."""
    scene.install(["a", "b", "c"])
    ids = scene.take_in(
        DirectPush(app="shop", users=["a", "b"], message=HELLO),
        DirectPush(app="shop", users=["b", "c"], message=HELLO),
    )
    scene.plan(*ids)
    (chunk_id,) = scene.chunk_ids()
    claim = scene.claimed(chunk_id)
    first, second = sorted(ids)
    finals = [
        final(
            claim,
            position,
            FinalOutcome.ACCEPTED if claim.notification_id(position) == first else FinalOutcome.REJECTED,
        )
        for position in range(4)
    ]
    with scene.connection.transaction():
        ledger.flush(scene.connection, claim, finals, [], lease=LEASE)
        ledger.finish(scene.connection, claim)
    assert scene.find(first).outcomes[FinalOutcome.ACCEPTED] == 2
    assert scene.find(second).outcomes[FinalOutcome.REJECTED] == 2
    scene.assert_conserved()


def test_flush_tells_which_notifications_were_cancelled(scene: Scene) -> None:
    """A sender learns of a cancellation with its next flush."""
    notification_id = scene.broadcast(3)
    claim = scene.claimed(scene.chunk_ids()[0])
    scene.run("UPDATE pushfan.notification SET cancelled_at = now()")
    flushed = ledger.flush(scene.connection, claim, [final(claim, 0)], [], lease=LEASE)
    assert flushed is not None
    assert flushed.cancelled == {notification_id}


def test_due_retries_become_chunks_with_their_own_attempts(scene: Scene) -> None:
    """Deliveries whose time has come travel together again, each with its history; the others wait."""
    scene.broadcast(5)
    claim = scene.claimed(scene.chunk_ids()[0])
    waits = [wait(claim, position, attempts=position + 1) for position in range(4)]
    waits.append(wait(claim, 4, delay=LEASE))
    with scene.connection.transaction():
        ledger.flush(scene.connection, claim, [], waits, lease=LEASE)
        ledger.finish(scene.connection, claim)
    channel_ids, moved = ledger.move_due_retries(scene.connection, chunk_size=3)
    assert (channel_ids, moved) == ({scene.channel.id}, 4)
    chunks = [scene.claimed(chunk_id) for chunk_id in scene.chunk_ids()]
    assert sorted(len(chunk) for chunk in chunks) == [1, 3]
    spent = {
        chunk.device_ids[position]: (
            chunk.attempts_spent(position),
            chunk.earlier_answers(position)[0]["attempt"],
        )
        for chunk in chunks
        for position in range(len(chunk))
    }
    assert spent == {claim.device_ids[n]: (n + 1, n + 1) for n in range(4)}
    assert len(scene.run("SELECT 1 FROM pushfan.retry")) == 1
    scene.assert_conserved()


def test_due_retries_keep_the_members_of_a_request_together(scene: Scene) -> None:
    """A vendor recognises a repeated request by its tag only if its members meet again, and alone."""
    scene.broadcast(6)
    claim = scene.claimed(scene.chunk_ids()[0])
    tags = ["x", "y", None, "x", "y", None]
    waits = [wait(claim, position, tag=tag) for position, tag in enumerate(tags)]
    with scene.connection.transaction():
        ledger.flush(scene.connection, claim, [], waits, lease=LEASE)
        ledger.finish(scene.connection, claim)
    ledger.move_due_retries(scene.connection, chunk_size=100)
    members = {
        frozenset(chunk["request_tags"] or []): frozenset(chunk["device_ids"]) for chunk in scene.chunks()
    }
    ids = claim.device_ids
    assert members == {
        frozenset({"x"}): {ids[0], ids[3]},
        frozenset({"y"}): {ids[1], ids[4]},
        frozenset(): {ids[2], ids[5]},
    }
    scene.assert_conserved()


def test_moving_due_retries_is_limited_and_goes_on(scene: Scene) -> None:
    """A flood of due retries moves in bounded portions, losing none."""
    scene.broadcast(5)
    claim = scene.claimed(scene.chunk_ids()[0])
    with scene.connection.transaction():
        ledger.flush(
            scene.connection, claim, [], [wait(claim, position) for position in range(5)], lease=LEASE
        )
        ledger.finish(scene.connection, claim)
    moved = [ledger.move_due_retries(scene.connection, chunk_size=9, limit=2)[1] for _ in range(4)]
    assert moved == [2, 2, 1, 0]
    scene.assert_conserved()


def test_splitting_halves_until_a_single_position_is_left(scene: Scene) -> None:
    """Whatever kills its owners is isolated by halving; every neighbour stays open somewhere."""
    notification_id = scene.broadcast(5)
    sizes = []
    while max(len(chunk["device_ids"]) for chunk in scene.chunks()) > 1:
        chunk = max(scene.chunks(), key=lambda chunk: len(chunk["device_ids"]))
        claim = scene.claimed(chunk["id"], first=0)
        sizes.append(len(claim))
        divide(scene, claim)
        scene.assert_conserved()
    assert Counter(len(chunk["device_ids"]) for chunk in scene.chunks()) == {1: 5}
    assert sizes == [5, 3, 2, 2]
    scene.finish_all()
    assert scene.find(notification_id).outcomes[FinalOutcome.ACCEPTED] == 5
    scene.assert_conserved()


def test_split_keeps_attempts_tags_and_what_is_unsure(scene: Scene) -> None:
    """The halves know all that the whole knew; unsure positions come first, as `issued` says."""
    scene.broadcast(4)
    claim = scene.claimed(scene.chunk_ids()[0], first=0)
    waits = [wait(claim, position, attempts=position + 1, tag="t") for position in range(4)]
    with scene.connection.transaction():
        ledger.flush(scene.connection, claim, [], waits, lease=LEASE)
        ledger.finish(scene.connection, claim)
    ledger.move_due_retries(scene.connection, chunk_size=9)
    (chunk_id,) = scene.chunk_ids()
    scene.claimed(chunk_id, first=1)
    scene.end_lease(chunk_id)
    divide(scene, scene.claimed(chunk_id, first=0))
    first, second = (scene.claimed(half, first=0) for half in scene.chunk_ids())
    assert (first.unsure_positions(), second.unsure_positions()) == ([0], [])
    assert [first.attempts, second.attempts] == [[1, 2], [3, 4]]
    assert first.request_tags == second.request_tags == ["t", "t"]
    assert first.earlier_answers(1)[0]["attempt"] == 2


def test_stale_owner_cannot_split(scene: Scene) -> None:
    """The halves of an owner that lost its chunk are rolled back with its flush."""
    scene.broadcast(4)
    (chunk_id,) = scene.chunk_ids()
    old = scene.claimed(chunk_id)
    scene.end_lease(chunk_id)
    scene.claimed(chunk_id)
    with pytest.raises(AssertionError):
        divide(scene, old)
    assert scene.chunk_ids() == [chunk_id]
    scene.assert_conserved()


def test_flush_of_foreign_positions_cannot_touch_another_notification(scene: Scene) -> None:
    """Two notifications to one device are two deliveries: each chunk records its own."""
    users = ["a", "b"]
    scene.install(users)
    scene.subscribe(users)
    first, second = scene.take_in(news(), news())
    scene.plan(first)
    scene.plan(second)
    one, two = (scene.claimed(chunk_id) for chunk_id in scene.chunk_ids())
    scene.finish(one, FinalOutcome.REJECTED)
    scene.finish(two, FinalOutcome.ACCEPTED)
    assert scene.find(first).outcomes[FinalOutcome.REJECTED] == 2
    assert scene.find(second).outcomes[FinalOutcome.ACCEPTED] == 2
    scene.assert_conserved()


def divide(scene: Scene, claim: ledger.Claim) -> None:
    """Split, flush and finish in one transaction, as the recorder does."""
    positions = claim.open_positions()
    for position in positions:
        claim.result[position] = ledger.SPLIT
    with scene.connection.transaction():
        ledger.split(scene.connection, claim, positions)
        assert ledger.flush(scene.connection, claim, [], [], lease=LEASE) is not None
        ledger.finish(scene.connection, claim)
