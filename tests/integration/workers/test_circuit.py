"""Circuits on real PostgreSQL: what stops a channel, what tries it again, and what it costs the deliveries."""

import time
from datetime import timedelta

import pytest

from providers.outcome import (
    Accepted,
    AnswerUnknown,
    NotSent,
    Outcome,
    Rejected,
    SendError,
    Throttled,
    Unavailable,
)
from registry import channels
from registry.channels import Circuit, CircuitReason
from registry.ledger import FinalOutcome
from tests.integration.ledger.scene import Scene, token_of
from tests.integration.workers.floor import Floor
from workers.deliver import PROBE, SUB_BATCH

DOWN = Unavailable(reason="UNAVAILABLE", delay=timedelta(0))


def answer_all(floor: Floor, outcome: Outcome | SendError) -> None:
    """Let the vendor say the same to everybody."""
    floor.vendor.to_all = outcome


def stop_for_outage(floor: Floor, scene: Scene, devices: int) -> int:
    """Meet an outage with a broadcast. Gives the notification's id."""
    notification_id = scene.broadcast(devices, chunk_size=devices)
    answer_all(floor, DOWN)
    floor.deliver_all()
    assert floor.channel().circuit_reason is CircuitReason.OUTAGE
    return notification_id


def deliver_one_by_one(floor: Floor) -> None:
    """Work on every chunk for itself, in one process."""
    tools = floor.tools(settings=floor.settings.model_copy(update={"chunk_size": 1}))
    for chunk_id in floor.scene.chunk_ids():
        floor.deliver(chunk_id, tools=tools)


def end_rest(scene: Scene) -> None:
    """Let time pass until the next probe."""
    scene.run(
        "UPDATE pushfan.channel SET probe_at = now(), ramping_since = ramping_since - interval '1 hour'"
    )
    scene.run("UPDATE pushfan.channel SET budget_at = '-infinity'")


def test_outage_stops_the_channel_and_leaves_the_rest_unsent(floor: Floor, scene: Scene) -> None:
    """Attempts are spent on what was out, no more: the rest of the chunk waits as it was."""
    count = 6 * SUB_BATCH
    scene.broadcast(count, chunk_size=count)
    floor.vendor.answers_at_once = 20
    answer_all(floor, DOWN)
    counts = floor.deliver_all()
    channel = floor.channel()
    assert (channel.circuit, channel.circuit_reason) == (Circuit.OPEN, CircuitReason.OUTAGE)
    assert channel.probe_at is not None
    assert counts["waiting"] == len(floor.vendor.received) <= 4 * SUB_BATCH
    assert counts["open"] + counts["waiting"] == count
    scene.assert_conserved()


@pytest.mark.parametrize(
    ("outcome", "reason"),
    [
        (NotSent("refused"), CircuitReason.OUTAGE),
        (AnswerUnknown("timeout"), CircuitReason.OUTAGE),
        (Throttled(reason="QUOTA", delay=timedelta(0)), CircuitReason.THROTTLED),
        (Rejected(reason="BadDeviceToken", suspects_token=True), CircuitReason.MASS_INVALIDATION),
    ],
)
def test_channel_met_only_through_single_pushes_is_stopped_too(
    floor: Floor, scene: Scene, outcome: Outcome | SendError, reason: CircuitReason
) -> None:
    """One process remembers the row over many small chunks."""
    scene.broadcast(30, chunk_size=1)
    answer_all(floor, outcome)
    deliver_one_by_one(floor)
    assert floor.channel().circuit_reason is reason
    assert len(floor.vendor.received) == 20
    assert floor.device_states()["retired"] == 0
    scene.assert_conserved()


def test_doubts_stop_no_channel_by_which_others_have_accepted(floor: Floor, scene: Scene) -> None:
    """A process that meets bad tokens first leaves them to the pass over suspects."""
    scene.broadcast(30, chunk_size=1)
    scene.run("UPDATE pushfan.channel SET accepted = 1")
    answer_all(floor, Rejected(reason="BadDeviceToken", suspects_token=True))
    deliver_one_by_one(floor)
    assert floor.channel().circuit is Circuit.CLOSED
    assert floor.device_states() == {"suspect": 30}


def test_failures_between_acceptances_stop_nothing(floor: Floor, scene: Scene) -> None:
    """A provider that answers every other push is served on."""
    scene.broadcast(100)
    for number in range(0, 100, 2):
        floor.vendor.answer(token_of(f"u{number:04d}", scene.channel.id), DOWN)
    assert floor.deliver_all() == {"accepted": 50, "waiting": 50}
    assert floor.channel().circuit is Circuit.CLOSED


def test_answered_probe_closes_the_circuit_and_traffic_ramps_up(floor: Floor, scene: Scene) -> None:
    """A few positions are enough; the others follow at a growing pace."""
    notification_id = stop_for_outage(floor, scene, 600)
    sent = len(floor.vendor.received)
    answer_all(floor, Accepted())
    end_rest(scene)
    dispatcher = floor.dispatcher()
    dispatcher.tick()
    assert floor.channel().circuit is Circuit.PROBING
    (task,) = floor.notes.kwargs("pushfan.deliver")
    floor.deliver(task["chunk"])
    assert len(floor.vendor.received) == sent + PROBE
    channel = floor.channel()
    assert (channel.circuit, channel.circuit_reason, channel.failed_probes) == (Circuit.CLOSED, None, 0)
    assert channel.ramping_since is not None
    end_rest(scene)
    found = floor.deliver_to_the_end(notification_id)
    assert found.outcomes[FinalOutcome.ACCEPTED] == 600


def test_failed_probe_costs_no_attempt_and_rests_longer(floor: Floor, scene: Scene) -> None:
    """However long the outage, it spends the attempts of what was out when it began, and no others."""
    stop_for_outage(floor, scene, 600)
    spent = scene.run("SELECT count(*) AS n FROM pushfan.retry WHERE attempts > 0")[0]["n"]
    for number in range(1, 6):
        end_rest(scene)
        scene.run("UPDATE pushfan.retry SET due_at = now() + interval '1 hour'")
        floor.dispatcher().tick()
        floor.deliver_all()
        channel = floor.channel()
        assert (channel.circuit, channel.failed_probes) == (Circuit.OPEN, number)
        assert scene.run("SELECT count(*) AS n FROM pushfan.retry WHERE attempts > 0") == [{"n": spent}]
        scene.assert_conserved()
    assert "a probe failed: UNAVAILABLE" in (floor.channel().circuit_detail or "")


def test_probe_is_one_chunk_at_a_time(floor: Floor, scene: Scene) -> None:
    """Whatever the lanes: a second claim waits for the probe's end."""
    scene.broadcast(2, chunk_size=1)
    scene.run("UPDATE pushfan.chunk SET lane = 'urgent' WHERE id = (SELECT min(id) FROM pushfan.chunk)")
    scene.open_circuit()
    channels.probe(scene.connection, scene.channel.id)
    first, second = scene.chunk_ids()
    assert scene.claimed(first).is_probe
    assert scene.claim(second) is None
    assert floor.vendor.received == []


def test_probe_of_positions_that_may_not_be_sent_goes_on(floor: Floor, scene: Scene) -> None:
    """Devices that left answer nothing about the provider: the next ones are tried."""
    scene.broadcast(20)
    scene.open_circuit()
    channels.probe(scene.connection, scene.channel.id)
    scene.run(
        "UPDATE pushfan.device SET state = 'retired' WHERE id IN (SELECT id FROM pushfan.device ORDER BY id LIMIT 12)"
    )
    floor.deliver_all()
    assert floor.channel().circuit is Circuit.CLOSED
    assert 0 < len(floor.vendor.received) <= PROBE


def test_provider_named_wait_is_respected(floor: Floor, scene: Scene) -> None:
    """Nobody probes before the time that the provider itself gave."""
    scene.broadcast(30)
    answer_all(floor, Throttled(reason="QUOTA", delay=timedelta(minutes=7), is_vendor_delay=True))
    floor.deliver_all()
    probe_at = floor.channel().probe_at
    assert probe_at is not None
    rest = scene.run("SELECT %s::timestamptz - now() AS rest", probe_at)[0]["rest"]
    assert timedelta(minutes=6, seconds=50) < rest <= timedelta(minutes=7)


def test_silent_provider_is_left_before_its_time_outs(floor: Floor, scene: Scene) -> None:
    """Nothing is answered for half of the time-out: what is out is waited for, nothing more is fed."""
    count = 6 * SUB_BATCH
    scene.broadcast(count, chunk_size=count)
    tools = floor.tools(settings=floor.settings.model_copy(update={"provider_timeout_seconds": 0.4}))
    floor.vendor.answers_at_once = 0

    def pass_time(seconds: float) -> None:
        time.sleep(min(seconds, 0.05))
        if floor.channel().circuit is Circuit.OPEN:
            floor.vendor.answers_at_once = count

    floor.vendor.on_poll = pass_time
    floor.deliver(scene.chunk_ids()[0], tools=tools)
    assert floor.channel().circuit_reason is CircuitReason.OUTAGE
    assert len(floor.vendor.received) == 3 * SUB_BATCH
    scene.assert_conserved()


def test_stopped_channel_is_fed_no_further_by_others(floor: Floor, scene: Scene) -> None:
    """Who works on a chunk learns with the next write that somebody stopped the channel."""
    count = 10 * SUB_BATCH
    scene.broadcast(count, chunk_size=count)
    floor.vendor.answers_at_once = SUB_BATCH
    floor.vendor.on_poll = lambda _seconds: channels.pause(scene.connection, scene.channel.id)
    counts = floor.deliver(scene.chunk_ids()[0])
    assert counts is not None
    assert counts["open"] >= 5 * SUB_BATCH
    assert counts["open"] + counts["accepted"] == count
