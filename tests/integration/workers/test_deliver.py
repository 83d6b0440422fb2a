"""The deliver loop on real PostgreSQL, with a vendor that answers as told."""

import dataclasses
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TypeVar

import psycopg
import pytest

from events import DirectPush, Message, OnUnknown
from providers.outcome import (
    Accepted,
    AnswerUnknown,
    CredentialsRejected,
    NotSent,
    Push,
    Rejected,
    Throttled,
    Unavailable,
    Unregistered,
)
from registry import channels, devices, ledger, notifications
from registry.channels import Circuit, CircuitReason
from registry.database import Connection, Database
from registry.ledger import FinalOutcome
from tests.integration.ledger.scene import Scene, token_of
from tests.integration.workers.fakes import Killed
from tests.integration.workers.floor import Floor
from workers.deliver import SUB_BATCH
from workers.settings import Settings

T = TypeVar("T")


def token(floor: Floor, number: int) -> str:
    """Name the token of one of a broadcast's devices."""
    return token_of(f"u{number:04d}", floor.scene.channel.id)


def one_each(floor: Floor) -> Settings:
    """Give settings with which small chunks stay for themselves."""
    return floor.settings.model_copy(update={"chunk_size": 1})


def the_chunk(scene: Scene) -> int:
    """Give the only chunk."""
    (chunk_id,) = scene.chunk_ids()
    return chunk_id


def retries(scene: Scene) -> list[tuple[int, float]]:
    """List (attempts spent, seconds until due) of waiting deliveries."""
    rows = scene.run("SELECT attempts, due_at - now() AS rest FROM pushfan.retry ORDER BY device_id")
    return [(row["attempts"], row["rest"].total_seconds()) for row in rows]


def test_all_accepted(floor: Floor, scene: Scene) -> None:
    """Every device is sent to once, the chunk is gone, the notification finished, the ids recorded."""
    notification_id = scene.broadcast(250)
    assert floor.deliver(the_chunk(scene)) == {"accepted": 250}
    assert set(floor.vendor.tokens.values()) == {1}
    assert scene.chunks() == []
    found = scene.find(notification_id)
    assert (found.state, found.outcomes[FinalOutcome.ACCEPTED]) == ("finished", 250)
    rows = scene.run(
        "SELECT DISTINCT attempts, reason, provider_id IS NULL AS is_anonymous FROM pushfan.delivery"
    )
    assert rows == [{"attempts": 1, "reason": None, "is_anonymous": False}]
    assert floor.channel().accepted == 250
    scene.assert_conserved()


def test_each_outcome_leads_to_its_row(floor: Floor, scene: Scene) -> None:
    """Final answers end a delivery, temporary ones move it to `retry`, each on its own account."""
    scene.broadcast(8)
    vendor = floor.vendor
    vendor.answer(token(floor, 0), Accepted(message_id="m"))
    vendor.answer(token(floor, 1), Unregistered(reason="UNREGISTERED"))
    vendor.answer(token(floor, 2), Rejected(reason="TooBig"))
    vendor.answer(token(floor, 3), Rejected(reason="BadToken", suspects_token=True))
    vendor.answer(token(floor, 4), Throttled(reason="QUOTA", delay=timedelta(seconds=60)))
    vendor.answer(token(floor, 5), Unavailable(reason="INTERNAL", delay=timedelta(seconds=30)))
    vendor.answer(token(floor, 6), AnswerUnknown("timeout"))
    vendor.answer(token(floor, 7), NotSent("refused"))
    chunk_id = the_chunk(scene)
    assert floor.deliver(chunk_id) == {"accepted": 1, "unregistered": 1, "rejected": 2, "waiting": 4}
    rows = scene.run("SELECT outcome::text, reason, attempts FROM pushfan.delivery ORDER BY device_id")
    assert [(row["outcome"], row["reason"], row["attempts"]) for row in rows] == [
        ("accepted", None, 1),
        ("unregistered", "UNREGISTERED", 1),
        ("rejected", "TooBig", 1),
        ("rejected", "BadToken", 1),
    ]
    assert [(spent, round(rest)) for spent, rest in retries(scene)] == [(0, 60), (1, 30), (1, 0), (1, 0)]
    assert floor.device_states() == {"active": 6, "retired": 1, "suspect": 1}
    assert (floor.channel().accepted, floor.channel().doubted) == (1, 1)
    scene.assert_conserved()


def test_retries_end_in_a_dead_letter_when_attempts_are_spent(floor: Floor, scene: Scene) -> None:
    """Attempts are counted for each delivery; the last failure says why, with the whole history."""
    notification_id = scene.broadcast(3)
    floor.vendor.answer(token(floor, 1), Unavailable(reason="INTERNAL", delay=timedelta(0)))
    found = floor.deliver_to_the_end(notification_id)
    assert (found.outcomes[FinalOutcome.ACCEPTED], found.outcomes[FinalOutcome.DEAD]) == (2, 1)
    assert found.retries == 2
    assert floor.vendor.tokens[token(floor, 1)] == 3
    assert floor.vendor.tokens[token(floor, 0)] == 1
    (row,) = scene.run("SELECT attempts, reason, earlier FROM pushfan.delivery WHERE outcome = 'dead'")
    assert (row["attempts"], row["reason"]) == (3, "INTERNAL")
    assert [entry["attempt"] for entry in row["earlier"]] == [1, 2]
    (letter,) = scene.run("SELECT kind, error, notification_id FROM pushfan.dead_letter")
    assert letter == {"kind": "exhausted", "error": "INTERNAL", "notification_id": notification_id}


def test_throttling_costs_no_attempt(floor: Floor, scene: Scene) -> None:
    """A vendor may say "slower" more often than there are attempts."""
    notification_id = scene.broadcast(1)
    slower = Throttled(reason="QUOTA", delay=timedelta(0))
    floor.vendor.answer(token(floor, 0), *[slower] * 6, Accepted(message_id="m"))
    found = floor.deliver_to_the_end(notification_id)
    assert found.outcomes[FinalOutcome.ACCEPTED] == 1
    assert scene.run("SELECT attempts FROM pushfan.delivery") == [{"attempts": 1}]


def test_retried_delivery_keeps_its_delivery_id(floor: Floor, scene: Scene) -> None:
    """The vendor sees the same request id at every attempt, and another one for every device."""
    notification_id = scene.broadcast(2)
    floor.vendor.answer(token(floor, 0), AnswerUnknown("timeout"), Accepted(message_id="m"))
    floor.deliver_to_the_end(notification_id)
    ids = {
        name: {push.delivery_id for push in floor.vendor.received if push.token == name}
        for name in floor.vendor.tokens
    }
    assert all(len(found) == 1 for found in ids.values())
    assert len(set.union(*ids.values())) == 2


def test_token_registered_after_its_invalidation_is_kept(floor: Floor, scene: Scene) -> None:
    """A stale "unregistered" does not retire a token that its app has registered since."""
    scene.broadcast(2)
    gone = datetime.now(UTC) - timedelta(hours=1)
    floor.vendor.answer(token(floor, 0), Unregistered(reason="Unregistered", invalidated_at=gone))
    floor.deliver(the_chunk(scene))
    assert (
        scene.deliveries()[scene.run("SELECT min(id) AS id FROM pushfan.device")[0]["id"]] == "unregistered"
    )
    assert floor.device_states() == {"active": 2}


def test_token_replaced_while_it_was_sent_to_is_kept(floor: Floor, scene: Scene) -> None:
    """An answer about a token does not retire the device that has another one by now, whenever the vendor says."""
    scene.broadcast(1)
    ahead = datetime.now(UTC) + timedelta(hours=1)
    floor.vendor.answer(token(floor, 0), Unregistered(reason="Unregistered", invalidated_at=ahead))
    call = devices.Install(
        channel_id=scene.channel.id,
        user_id="u0000",
        device_key=f"key-{scene.channel.id}-u0000",
        token="a-new-token",
    )
    floor.vendor.on_submit = lambda _push: (devices.install(scene.connection, call), None)[1]
    assert floor.deliver(the_chunk(scene)) == {"unregistered": 1}
    assert scene.run("SELECT token, state FROM pushfan.device") == [
        {"token": "a-new-token", "state": "active"}
    ]


def test_new_token_of_the_same_install_is_sent_to(floor: Floor, scene: Scene) -> None:
    """Tokens are loaded when they are needed, not when the fan-out was planned."""
    scene.broadcast(1)
    devices.install(
        scene.connection,
        devices.Install(
            channel_id=scene.channel.id,
            user_id="u0000",
            device_key=f"key-{scene.channel.id}-u0000",
            token="a-new-token",
        ),
    )
    assert floor.deliver(the_chunk(scene)) == {"accepted": 1}
    assert floor.vendor.tokens == {"a-new-token": 1}


def test_device_that_left_is_withdrawn(floor: Floor, scene: Scene) -> None:
    """An uninstalled device is not sent to, in the first sub-batch as in a later one."""
    count = SUB_BATCH + 20
    notification_id = scene.broadcast(count)
    for number in (3, SUB_BATCH + 3):
        devices.uninstall(scene.connection, scene.app_id, token=token(floor, number))
    assert floor.deliver(the_chunk(scene)) == {"accepted": count - 2, "withdrawn": 2}
    assert token(floor, 3) not in floor.vendor.tokens
    assert token(floor, SUB_BATCH + 3) not in floor.vendor.tokens
    assert scene.find(notification_id).state == "finished"


def test_moved_devices_pending_push_is_withdrawn(floor: Floor, scene: Scene) -> None:
    """The next user of a phone does not get what was planned for the last one."""
    scene.broadcast(2)
    devices.install(
        scene.connection,
        devices.Install(
            channel_id=scene.channel.id, user_id="thief", device_key="other", token=token(floor, 0)
        ),
    )
    assert floor.deliver(the_chunk(scene)) == {"accepted": 1, "withdrawn": 1}
    assert token(floor, 0) not in floor.vendor.tokens


def test_expired_before_it_was_sent(floor: Floor, scene: Scene) -> None:
    """What comes too late is not sent at all."""
    notification_id = scene.broadcast(2)
    scene.run("UPDATE pushfan.notification SET expires_at = now() - interval '1 second'")
    assert floor.deliver(the_chunk(scene)) == {"expired": 2}
    assert floor.vendor.received == []
    assert scene.find(notification_id).state == "finished"


def test_time_to_live_of_zero_is_one_attempt(floor: Floor, scene: Scene) -> None:
    """An event that is worth nothing later is not tried again."""
    notification_id = scene.broadcast(1, ttl_seconds=0)
    floor.vendor.answer(token(floor, 0), Unavailable(reason="INTERNAL", delay=timedelta(0)))
    assert floor.deliver(the_chunk(scene)) == {"expired": 1}
    assert scene.find(notification_id).state == "finished"


def test_cancelled_before_it_was_sent(floor: Floor, scene: Scene) -> None:
    """A cancelled notification's chunk ends without a push."""
    notification_id = scene.broadcast(2)
    notifications.cancel(scene.connection, notification_id)
    assert floor.deliver(the_chunk(scene)) == {"cancelled": 2}
    assert floor.vendor.received == []
    assert scene.find(notification_id).state == "cancelled"


def test_cancelled_in_the_middle_stops_what_is_not_out(floor: Floor, scene: Scene) -> None:
    """Sub-batches after the flag are not sent; what is out is recorded as it was answered."""
    notification_id = scene.broadcast(10 * SUB_BATCH, chunk_size=10 * SUB_BATCH)
    floor.vendor.on_submit = lambda push: (
        None
        if push.position != SUB_BATCH
        else (notifications.cancel(scene.connection, notification_id), None)[1]
    )
    counts = floor.deliver(the_chunk(scene))
    assert counts is not None
    assert counts["cancelled"] >= 5 * SUB_BATCH
    assert counts["accepted"] == len(floor.vendor.received) == 10 * SUB_BATCH - counts["cancelled"]
    assert scene.find(notification_id).state == "cancelled"
    scene.assert_conserved()


def test_unreadable_content_is_rejected(floor: Floor, scene: Scene) -> None:
    """A stored event that this version cannot read ends its deliveries, with a reason."""
    scene.broadcast(2)
    scene.run("""UPDATE pushfan.notification SET event = '{"version": 99}'""")
    assert floor.deliver(the_chunk(scene)) == {"rejected": 2}
    assert scene.run("SELECT DISTINCT reason FROM pushfan.delivery") == [{"reason": "ContentUnreadable"}]


@pytest.mark.parametrize("order", [[0, 1], [1, 0]], ids=["refused first", "accepted first"])
def test_doubt_that_needs_proof_counts_when_the_message_is_accepted_elsewhere(
    floor: Floor, scene: Scene, order: list[int]
) -> None:
    """Whichever answer comes first: a message that was accepted is not what is at fault."""
    scene.broadcast(2)
    refused, taken = order
    floor.vendor.answers_at_once = 1
    floor.vendor.answer(token(floor, refused), Rejected(reason="1003", suspects_token=True, needs_proof=True))
    assert floor.deliver(the_chunk(scene)) == {"accepted": 1, "rejected": 1}
    assert floor.vendor.tokens[token(floor, taken)] == 1
    assert floor.device_states() == {"active": 1, "suspect": 1}
    assert floor.channel().doubted == 1


def test_message_at_fault_makes_nobody_a_suspect(floor: Floor, scene: Scene) -> None:
    """What is refused for everybody, or accepted in another language only, says nothing about a token."""
    scene.broadcast(4)
    scene.run("UPDATE pushfan.device SET locale = 'de' WHERE user_id = 'u0003'")
    for number in range(3):
        floor.vendor.answer(
            token(floor, number), Rejected(reason="1003", suspects_token=True, needs_proof=True)
        )
    assert floor.deliver(the_chunk(scene)) == {"accepted": 1, "rejected": 3}
    assert floor.device_states() == {"active": 4}
    assert floor.channel().doubted == 0


def test_suspect_that_is_accepted_is_believed_again(floor: Floor, scene: Scene) -> None:
    """An acceptance ends a suspicion."""
    scene.broadcast(1)
    scene.run("UPDATE pushfan.device SET state = 'suspect'")
    floor.deliver(the_chunk(scene))
    assert floor.device_states() == {"active": 1}


def test_provisional_acceptance_is_asked_about_later(floor: Floor, scene: Scene) -> None:
    """A request that a vendor took without saying whom it knew is remembered with its members."""
    scene.broadcast(3)
    floor.vendor.is_provisional, floor.vendor.batch_limit, floor.vendor.makes_tags = True, 1000, True
    floor.vendor.answer(token(floor, 0), *[Accepted(message_id="m", provisional=True)])
    floor.vendor.answer(token(floor, 1), *[Accepted(message_id="m", provisional=True)])
    floor.vendor.answer(token(floor, 2), *[Accepted(message_id="m")])
    floor.deliver(the_chunk(scene))
    (poll,) = scene.run("SELECT message_id, tokens FROM pushfan.receipt_poll")
    assert poll == {"message_id": "m", "tokens": [token(floor, 0), token(floor, 1)]}


def test_chunk_that_is_not_to_be_had_is_left_alone(floor: Floor, scene: Scene) -> None:
    """A repeated message finds the chunk taken and does nothing."""
    scene.broadcast(2)
    chunk_id = the_chunk(scene)
    scene.claimed(chunk_id, owner="another")
    assert floor.deliver(chunk_id) is None
    assert floor.vendor.received == []


def test_finished_chunk_makes_room_for_the_next(floor: Floor, scene: Scene) -> None:
    """Who finishes a chunk announces the next, without waiting for a dispatcher."""
    scene.set_slots(1)
    scene.broadcast(3, chunk_size=1)
    (first,) = scene.dispatch()
    assert floor.notes.tasks == []
    floor.deliver(first.chunk_id, tools=floor.tools(settings=one_each(floor)))
    (announced,) = floor.notes.kwargs("pushfan.deliver")
    assert announced["chunk"] in scene.chunk_ids()


def test_chunks_of_a_channel_share_a_client(floor: Floor, scene: Scene) -> None:
    """A client for each chunk would shake hands with the vendor anew each time."""
    tools = floor.tools()
    for _ in range(3):
        scene.broadcast(1)
        assert floor.deliver(the_chunk(scene), tools=tools) == {"accepted": 1}
    assert (len(floor.vendor.configs), floor.vendor.closed) == (1, 0)


def test_no_more_than_a_window_is_out(floor: Floor, scene: Scene) -> None:
    """However large a chunk is, and however slow the vendor: memory and connections are bounded."""
    count = 6 * SUB_BATCH
    scene.broadcast(count, chunk_size=count)
    floor.vendor.answers_at_once = 7
    answered = 0
    most = 0

    def look(_seconds: float) -> None:
        nonlocal answered, most
        most = max(most, len(floor.vendor.received) - answered)
        answered = min(len(floor.vendor.received), answered + floor.vendor.answers_at_once)

    floor.vendor.on_poll = look
    assert floor.deliver(the_chunk(scene)) == {"accepted": count}
    assert SUB_BATCH <= most <= 3 * SUB_BATCH


def test_waiting_for_answers_does_not_spin(floor: Floor, scene: Scene) -> None:
    """With a full window there is nothing to do but wait: polls take their time."""
    scene.broadcast(5 * SUB_BATCH)
    # One answer at a time leaves room that is smaller than a sub-batch for a long while.
    floor.vendor.answers_at_once = 1
    floor.deliver(the_chunk(scene))
    immediate = [seconds for seconds in floor.vendor.polls if seconds == 0]
    assert len(immediate) <= 5


def test_issued_is_committed_before_anything_is_sent(floor: Floor, scene: Scene) -> None:
    """At the moment a push goes out the database knows it: that is the bound of what a kill can repeat."""
    scene.broadcast(3 * SUB_BATCH)
    chunk_id = the_chunk(scene)
    late: list[int] = []

    def look(push: Push) -> None:
        (row,) = scene.run("SELECT issued FROM pushfan.chunk WHERE id = %s", chunk_id)
        if row["issued"] <= push.position:
            late.append(push.position)

    floor.vendor.on_submit = look
    assert floor.deliver(chunk_id) == {"accepted": 3 * SUB_BATCH}
    assert late == []


@pytest.mark.parametrize("answers_at_once", [7, 1000])
def test_kill_after_sending_repeats_only_what_was_issued_and_not_recorded(
    floor: Floor, scene: Scene, answers_at_once: int
) -> None:
    """After a kill everything is sent; twice at most what the dead owner had issued and not recorded."""
    count = 4 * SUB_BATCH
    notification_id = scene.broadcast(count)
    chunk_id = the_chunk(scene)
    floor.vendor.answers_at_once = answers_at_once

    def kill(_seconds: float) -> None:
        if len(floor.vendor.received) >= 3 * SUB_BATCH:
            raise Killed

    floor.vendor.on_poll = kill
    with pytest.raises(Killed):
        floor.deliver(chunk_id)
    floor.vendor.on_poll = lambda _seconds: None
    (chunk,) = scene.chunks()
    unsure = {position for position in range(chunk["issued"]) if chunk["result"][position] == 0}
    assert {push.position for push in floor.vendor.received} <= set(range(chunk["issued"]))
    scene.assert_conserved()
    assert floor.deliver(chunk_id) is None
    scene.end_lease(chunk_id)
    assert floor.deliver(chunk_id) == {"accepted": count}
    repeated = {name for name, times in floor.vendor.tokens.items() if times > 1}
    assert repeated <= {token(floor, position) for position in unsure}
    assert len(floor.vendor.tokens) == count
    found = scene.find(notification_id)
    assert (found.unsure, found.state) == (len(unsure), "finished")
    scene.assert_conserved()


def test_kill_after_issue_and_before_sending_loses_nothing(floor: Floor, scene: Scene) -> None:
    """Issued positions that were never sent are sent by the next owner; nothing is sent twice."""
    count = 3 * SUB_BATCH
    scene.broadcast(count)
    chunk_id = the_chunk(scene)

    def kill(push: Push) -> None:
        if push.position == SUB_BATCH:
            raise Killed

    floor.vendor.on_submit = kill
    with pytest.raises(Killed):
        floor.deliver(chunk_id)
    floor.vendor.on_submit = lambda _push: None
    first = len(floor.vendor.received)
    scene.end_lease(chunk_id)
    assert floor.deliver(chunk_id) == {"accepted": count}
    assert len(floor.vendor.received) <= first + count
    assert len(floor.vendor.tokens) == count
    scene.assert_conserved()


def test_dropped_at_takeover_when_the_message_says_so(floor: Floor, scene: Scene) -> None:
    """`on_unknown: drop` never repeats what may have been accepted, and sends all that was certainly not sent."""
    count = SUB_BATCH + 50
    notification_id = scene.broadcast(count, message=Message(title="code", on_unknown=OnUnknown.DROP))
    chunk_id = the_chunk(scene)

    def kill(push: Push) -> None:
        if push.position == 40:
            raise Killed

    floor.vendor.on_submit = kill
    with pytest.raises(Killed):
        floor.deliver(chunk_id)
    floor.vendor.on_submit = lambda _push: None
    scene.end_lease(chunk_id)
    assert floor.deliver(chunk_id) == {"unknown": SUB_BATCH, "accepted": 50}
    assert set(floor.vendor.tokens.values()) == {1}
    assert scene.find(notification_id).state == "finished"
    scene.assert_conserved()


def test_attempt_that_a_killed_owner_may_have_made_is_counted(floor: Floor, scene: Scene) -> None:
    """A takeover's own attempt is the second, and the history says what happened to the first."""
    scene.broadcast(1)
    chunk_id = the_chunk(scene)
    scene.claimed(chunk_id, owner="dead")
    scene.end_lease(chunk_id)
    floor.deliver(chunk_id)
    (row,) = scene.run("SELECT attempts, earlier FROM pushfan.delivery")
    assert row["attempts"] == 2
    assert [(entry["attempt"], entry["outcome"]) for entry in row["earlier"]] == [(1, "unknown")]


def test_zombie_stops_sending_when_its_chunk_was_taken(floor: Floor, scene: Scene) -> None:
    """A process that slept past its lease looks at its fence before it sends the next sub-batch."""
    count = 6 * SUB_BATCH
    scene.broadcast(count, chunk_size=count)
    chunk_id = the_chunk(scene)
    taken: list[ledger.Claim] = []

    def fall_asleep(push: Push) -> None:
        if push.position == SUB_BATCH and not taken:
            scene.end_lease(chunk_id)
            taken.append(scene.claimed(chunk_id, owner="new", first=0))

    floor.vendor.on_submit = fall_asleep
    floor.deliver(chunk_id)
    assert len(floor.vendor.received) <= 2 * SUB_BATCH
    assert all(code == 0 for code in scene.chunks()[0]["result"][2 * SUB_BATCH :])
    scene.assert_conserved()
    scene.finish(taken[0])
    scene.assert_conserved()


def test_zombie_that_slept_right_after_its_claim_sends_nothing(floor: Floor, scene: Scene) -> None:
    """The first sub-batch was issued with the claim: only the process's own clock tells that this is long ago."""
    scene.broadcast(50)
    chunk_id = the_chunk(scene)
    taken: list[ledger.Claim] = []

    def sleep_past_the_lease() -> None:
        deadline = time.monotonic() + 20
        while not taken and time.monotonic() < deadline:
            taken.extend(filter(None, [scene.claim(chunk_id, owner="new", first=0)]))

    floor.vendor.on_prepare = sleep_past_the_lease
    short = floor.settings.model_copy(update={"lease_seconds": 0.3})
    floor.deliver(chunk_id, tools=floor.tools(settings=short))
    assert floor.vendor.received == []
    scene.finish(taken[0])
    scene.assert_conserved()


def test_process_that_slept_past_its_lease_renews_before_it_sends(floor: Floor, scene: Scene) -> None:
    """If nobody took the chunk meanwhile, a late owner goes on with a lease that holds again."""
    scene.broadcast(2 * SUB_BATCH)
    chunk_id = the_chunk(scene)
    floor.vendor.on_submit = lambda push: scene.end_lease(chunk_id) if push.position == 0 else None
    assert floor.deliver(chunk_id) == {"accepted": 2 * SUB_BATCH}
    assert set(floor.vendor.tokens.values()) == {1}


def test_stop_flag_issues_no_more_and_repeats_nothing(floor: Floor, scene: Scene) -> None:
    """A graceful stop collects what is out and gives the rest back; the next owner repeats nothing."""
    count = 6 * SUB_BATCH
    notification_id = scene.broadcast(count, chunk_size=count)
    chunk_id = the_chunk(scene)
    is_stopping: list[bool] = []
    floor.vendor.on_submit = lambda push: is_stopping.append(True) if push.position == SUB_BATCH else None
    counts = floor.deliver(chunk_id, tools=floor.tools(is_stopping=lambda: bool(is_stopping)))
    assert counts == {"accepted": 2 * SUB_BATCH, "open": 4 * SUB_BATCH}
    (chunk,) = scene.chunks()
    assert (chunk["owner"], chunk["lease_until"], chunk["issued"]) == (None, None, 0)
    scene.assert_conserved()
    floor.vendor.on_submit = lambda _push: None
    assert floor.deliver(chunk_id) == {"accepted": count}
    assert set(floor.vendor.tokens.values()) == {1}
    assert scene.find(notification_id).unsure == 0


def test_stopping_worker_claims_nothing(floor: Floor, scene: Scene) -> None:
    """A message that is still taken from the broker at the end is left for others."""
    scene.broadcast(1)
    assert floor.deliver(the_chunk(scene), tools=floor.tools(is_stopping=lambda: True)) is None
    assert scene.chunks()[0]["fence"] == 0


def test_credentials_rejected_stop_the_channel_and_cost_nothing(floor: Floor, scene: Scene) -> None:
    """The circuit opens, deliveries wait without an attempt spent, tokens stay; other credentials are probed."""
    notification_id = scene.broadcast(5)
    for number in range(5):
        floor.vendor.answer(token(floor, number), CredentialsRejected("InvalidProviderToken"), Accepted())
    assert floor.deliver(the_chunk(scene)) == {"waiting": 5}
    channel = floor.channel()
    assert (channel.circuit, channel.circuit_reason) == (Circuit.OPEN, CircuitReason.CREDENTIALS)
    assert {spent for spent, _ in retries(scene)} == {0}
    assert floor.device_states() == {"active": 5}
    dispatcher = floor.dispatcher()
    scene.run("UPDATE pushfan.retry SET due_at = now()")
    dispatcher.tick()
    assert floor.channel().circuit is Circuit.OPEN
    assert floor.notes.kwargs("pushfan.deliver") == []
    floor.write_secret("another secret")
    floor.dispatcher().tick()
    assert floor.channel().circuit is Circuit.PROBING
    found = floor.deliver_to_the_end(notification_id)
    assert found.outcomes[FinalOutcome.ACCEPTED] == 5
    assert floor.channel().circuit is Circuit.CLOSED
    assert scene.run("SELECT DISTINCT attempts FROM pushfan.delivery") == [{"attempts": 1}]


def test_credentials_rejected_in_the_middle_gives_the_rest_back(floor: Floor, scene: Scene) -> None:
    """Nothing more is issued after the first refusal; what was never sent stays open."""
    count = 6 * SUB_BATCH
    scene.broadcast(count, chunk_size=count)
    floor.vendor.answers_at_once = SUB_BATCH
    floor.vendor.answer(token(floor, 5), CredentialsRejected("InvalidProviderToken"))
    counts = floor.deliver(the_chunk(scene))
    assert counts is not None
    assert counts["waiting"] == 1
    assert counts["open"] >= 2 * SUB_BATCH
    assert counts["open"] + len(floor.vendor.received) == count
    scene.assert_conserved()


def test_refusal_of_old_credentials_does_not_stop_a_corrected_channel(floor: Floor, scene: Scene) -> None:
    """News about a state that is over changes nothing."""
    scene.broadcast(1)
    floor.vendor.answer(token(floor, 0), CredentialsRejected("InvalidProviderToken"))

    def correct(_push: Push) -> None:
        channels.credentials_changed(
            scene.connection, scene.channel.id, generation=floor.channel().circuit_generation
        )

    floor.vendor.on_submit = correct
    floor.deliver(the_chunk(scene))
    assert floor.channel().circuit is Circuit.CLOSED


def test_missing_credential_file_stops_the_channel_until_it_is_there(floor: Floor, scene: Scene) -> None:
    """Without its file nothing is claimed; the very same file put back resumes the channel."""
    notification_id = scene.broadcast(2)
    tools = floor.tools()
    floor.remove_secret()
    assert floor.deliver(the_chunk(scene), tools=tools) is None
    assert floor.channel().circuit_reason is CircuitReason.CREDENTIALS
    floor.write_secret("the first secret")
    floor.dispatcher().tick()
    assert floor.channel().circuit is Circuit.PROBING
    assert floor.deliver_to_the_end(notification_id).outcomes[FinalOutcome.ACCEPTED] == 2


def test_credential_file_lost_meanwhile_resumes_with_the_same_content(floor: Floor, scene: Scene) -> None:
    """A file that was away for a moment was never refused: its return is enough, though it was used before."""
    scene.broadcast(2, chunk_size=1)
    tools = floor.tools()
    first, second = scene.chunk_ids()
    floor.deliver(first, tools=tools)
    floor.remove_secret()
    tools.clients.get(scene.channel.id).checked_at = 0.0
    assert floor.deliver(second, tools=tools) is None
    assert floor.channel().circuit is Circuit.OPEN
    floor.write_secret("the first secret")
    floor.dispatcher().tick()
    assert floor.channel().circuit is Circuit.PROBING


def test_unusable_credentials_do_not_flap(floor: Floor, scene: Scene) -> None:
    """A key that can be read and not used stays refused until it is another one."""
    scene.broadcast(1)

    def refuse(_config: object) -> None:
        raise CredentialsRejected("the key is no PEM")

    tools = floor.tools()
    tools.clients._create = refuse  # type: ignore[assignment]  # a provider that refuses its credentials
    assert floor.deliver(the_chunk(scene), tools=tools) is None
    assert floor.channel().circuit is Circuit.OPEN
    floor.dispatcher().tick()
    assert floor.channel().circuit is Circuit.OPEN
    floor.write_secret("another secret")
    floor.dispatcher().tick()
    assert floor.channel().circuit is Circuit.PROBING


def test_expired_chunk_of_a_stopped_channel_ends_without_credentials(floor: Floor, scene: Scene) -> None:
    """What may no longer be sent needs no client to end."""
    notification_id = scene.broadcast(2)
    floor.remove_secret()
    assert floor.deliver(the_chunk(scene)) is None
    scene.run("UPDATE pushfan.notification SET expires_at = now() - interval '1 second'")
    scene.run("UPDATE pushfan.chunk SET expires_at = now() - interval '1 second'")
    assert floor.deliver(the_chunk(scene)) == {"expired": 2}
    assert scene.find(notification_id).state == "finished"
    scene.assert_conserved()


def test_poisoned_chunk_is_halved_until_one_delivery_is_left(floor: Floor, scene: Scene) -> None:
    """Whatever kills its process becomes a dead letter alone; every neighbour is delivered."""
    count = 9
    notification_id = scene.broadcast(count)
    poison = token(floor, 4)

    def die(push: Push) -> None:
        if push.token == poison:
            raise Killed

    floor.vendor.on_submit = die
    kills = 0
    for _ in range(100):
        if not scene.chunks():
            break
        for chunk_id in scene.chunk_ids():
            try:
                floor.deliver(chunk_id)
            except Killed:
                kills += 1
                scene.end_lease(chunk_id)
        scene.assert_conserved()
    # Two strikes of the whole, one for each half of it (of 5, 3 and 2), five of what is left.
    assert kills <= 2 + 3 + 5
    found = scene.find(notification_id)
    assert found.outcomes[FinalOutcome.DEAD] == 1
    assert found.outcomes[FinalOutcome.ACCEPTED] == count - 1
    assert [row["kind"] for row in scene.run("SELECT kind FROM pushfan.dead_letter")] == ["poison"]
    assert poison not in floor.vendor.tokens


def test_single_delivery_survives_kills_that_are_not_its_fault(floor: Floor, scene: Scene) -> None:
    """Workers are killed for other reasons, too: a lone delivery is not given up after two."""
    notification_id = scene.broadcast(1)

    def die(_push: Push) -> None:
        raise Killed

    floor.vendor.on_submit = die
    for _ in range(3):
        with pytest.raises(Killed):
            floor.deliver(the_chunk(scene))
        scene.end_lease(the_chunk(scene))
    floor.vendor.on_submit = lambda _push: None
    floor.deliver(the_chunk(scene))
    assert scene.find(notification_id).outcomes[FinalOutcome.ACCEPTED] == 1


def test_members_of_a_request_meet_again(floor: Floor, scene: Scene) -> None:
    """A request without an answer is repeated with the same members and the same tag."""
    notification_id = scene.broadcast(6)
    vendor = floor.vendor
    vendor.batch_limit, vendor.makes_tags = 3, True
    for number in range(6):
        vendor.answer(token(floor, number), AnswerUnknown("timeout"), Accepted(message_id="m"))
    draws = iter(range(100))
    tools = floor.tools(jitter=lambda ceiling: ceiling * next(draws) / 100)
    floor.deliver(the_chunk(scene), tools=tools)
    first = {(push.token, tag) for push, tag in zip(vendor.received, vendor.tags, strict=True)}
    rows = scene.run("SELECT request_tag, count(DISTINCT due_at) AS times FROM pushfan.retry GROUP BY 1")
    assert [row["times"] for row in rows] == [1, 1]
    vendor.received.clear()
    vendor.tags.clear()
    floor.deliver_to_the_end(notification_id)
    again = {(push.token, tag) for push, tag in zip(vendor.received, vendor.tags, strict=True)}
    assert again == first
    assert len({tag for _, tag in first}) == 2


def test_request_tag_is_stored_before_the_request_goes_out(floor: Floor, scene: Scene) -> None:
    """A takeover must repeat a lost request under its own tag, so the tag is committed first."""
    scene.broadcast(4)
    chunk_id = the_chunk(scene)
    vendor = floor.vendor
    vendor.batch_limit, vendor.makes_tags = 1000, True

    def kill(_seconds: float) -> None:
        raise Killed

    vendor.on_poll = kill
    with pytest.raises(Killed):
        floor.deliver(chunk_id)
    assert scene.chunks()[0]["request_tags"] == vendor.tags
    vendor.on_poll = lambda _seconds: None
    scene.end_lease(chunk_id)
    floor.deliver(chunk_id)
    assert len(set(vendor.tags)) == 1


def test_connection_cut_in_the_middle_of_a_flush_loses_nothing(floor: Floor, scene: Scene) -> None:
    """A flush whose connection is cut is done again, once; counters and health are counted once."""
    count = 3 * SUB_BATCH
    notification_id = scene.broadcast(count)
    tools = floor.tools()
    cuts: list[int] = []

    def cut(_seconds: float) -> None:
        if len(cuts) < 4:
            pid = tools.database.connection().info.backend_pid
            cuts.append(pid)
            scene.run("SELECT pg_terminate_backend(%s, 5000)", pid)

    floor.vendor.on_poll = cut
    assert floor.deliver(the_chunk(scene), tools=tools) == {"accepted": count}
    assert len(set(cuts)) > 1
    assert set(floor.vendor.tokens.values()) == {1}
    assert scene.find(notification_id).outcomes[FinalOutcome.ACCEPTED] == count
    assert floor.channel().accepted == count
    scene.assert_conserved()


@pytest.mark.parametrize("number", range(6))
def test_lost_reply_to_any_commit_repeats_and_loses_nothing(floor: Floor, scene: Scene, number: int) -> None:
    """A transaction that was committed although its connection broke is recognised when it is done again."""
    count = 3 * SUB_BATCH
    notification_id = scene.broadcast(count)
    tools = floor.tools()
    chunk_id = the_chunk(scene)
    losing = Losing(floor.settings.require_database_url(), number)
    floor.databases.append(losing)
    counts = floor.deliver(chunk_id, tools=dataclasses.replace(tools, database=losing))
    # Without the reply to its claim, the process does not know that it has the chunk.
    assert counts == (None if number == 0 else {"accepted": count})
    for rest in scene.chunk_ids():
        scene.end_lease(rest)
    floor.deliver_to_the_end(notification_id)
    assert set(floor.vendor.tokens.values()) == {1}
    assert floor.channel().accepted == count
    scene.assert_conserved()


class Losing(Database):
    """Commits everything, and loses the reply to one of the commits."""

    def __init__(self, url: str, number: int) -> None:
        super().__init__(url)
        self._left = number

    def _once(self, work: Callable[[Connection], T], *, is_one_statement: bool) -> T:
        result = super()._once(work, is_one_statement=is_one_statement)
        self._left -= 1
        if self._left == -1:
            self.connection().close()
            raise psycopg.OperationalError("the reply to COMMIT was lost")
        return result


def test_last_flush_cut_in_the_middle_is_undone_as_a_whole(floor: Floor, scene: Scene) -> None:
    """Outcomes, health and the chunk's end are one transaction: cut at the end, all of it happens again, once."""
    notification_id = scene.broadcast(4)
    cut_first(scene, "DELETE ON pushfan.chunk")
    assert floor.deliver(the_chunk(scene)) == {"accepted": 4}
    assert scene.run("SELECT last_value FROM changes") == [{"last_value": 2}]
    assert scene.chunk_ids() == []
    assert scene.find(notification_id).finished_at is not None
    assert floor.channel().accepted == 4
    scene.assert_conserved()


def test_flush_cut_before_its_news_is_undone_as_a_whole(floor: Floor, scene: Scene) -> None:
    """In the middle of a chunk, too: a dead token leaves the registry with the outcome that says so."""
    scene.broadcast(3 * SUB_BATCH)
    floor.vendor.answer(token(floor, 1), Unregistered(reason="UNREGISTERED"))
    cut_first(scene, "UPDATE ON pushfan.device")
    assert floor.deliver(the_chunk(scene)) == {"accepted": 3 * SUB_BATCH - 1, "unregistered": 1}
    assert scene.run("SELECT count(*) FROM pushfan.device WHERE state = 'retired'") == [{"count": 1}]
    scene.assert_conserved()


def cut_first(scene: Scene, change: str) -> None:
    """Let the first change of its kind cut its own connection, before anything is committed."""
    scene.run("CREATE SEQUENCE changes")
    scene.run(
        "CREATE FUNCTION cut() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " IF nextval('changes') = 1 THEN PERFORM pg_terminate_backend(pg_backend_pid()); END IF;"
        " RETURN CASE TG_OP WHEN 'DELETE' THEN old ELSE new END; END $$"
    )
    scene.run(f"CREATE TRIGGER cut BEFORE {change} FOR EACH ROW EXECUTE FUNCTION cut()")


def test_division_cut_in_the_middle_loses_nothing(floor: Floor, scene: Scene) -> None:
    """A chunk whose division is rolled back and done again still has all its positions."""
    scene.broadcast(4)
    chunk_id = the_chunk(scene)
    for _ in range(2):
        scene.claimed(chunk_id, owner="dead")
        scene.end_lease(chunk_id)
    cut_first(scene, "DELETE ON pushfan.chunk")
    assert floor.deliver(chunk_id) == {"split": 4}
    assert scene.run("SELECT last_value FROM changes") == [{"last_value": 2}]
    scene.assert_conserved()
    assert [len(chunk["device_ids"]) for chunk in scene.chunks()] == [2, 2]


def test_many_small_pushes_in_one_chunk_end_for_themselves(floor: Floor, scene: Scene) -> None:
    """Notifications that share a chunk have their own content, expiry and cancellation."""
    scene.install(["a", "b", "c"])
    ids = scene.take_in(
        *(DirectPush(app="shop", users=[user], message=Message(title=user)) for user in "abc")
    )
    scene.plan(*ids)
    notifications.cancel(scene.connection, ids[0])
    scene.run("UPDATE pushfan.notification SET expires_at = now() WHERE id = %s", ids[1])
    assert floor.deliver(the_chunk(scene)) == {"cancelled": 1, "expired": 1, "accepted": 1}
    assert [push.content.event.message.title for push in floor.vendor.received] == ["c"]
    assert [scene.find(notification_id).state for notification_id in ids] == [
        "cancelled",
        "finished",
        "finished",
    ]


def test_chunk_is_given_back_when_its_time_is_up(floor: Floor, scene: Scene) -> None:
    """A slow vendor does not keep a task for ever: what was not sent is given back in time."""
    count = 6 * SUB_BATCH
    scene.broadcast(count, chunk_size=count)
    tight = floor.settings.model_copy(
        update={"task_soft_limit_seconds": 1e-9 + floor.settings.provider_timeout_seconds}
    )
    counts = floor.deliver(the_chunk(scene), tools=floor.tools(settings=tight))
    assert counts == {"open": count}
    scene.assert_conserved()
