"""How much a channel may do at a time: its share of the processes, its rate, and the budget of its retries."""

from datetime import timedelta

import pytest

from events import Lane
from registry import channels, ledger, notifications
from tests.integration.ledger.scene import LEASE, Scene, news, wait


def run_workers(scene: Scene, processes: int, *lanes: Lane, name: str = "w") -> None:
    """Let a worker say that it runs."""
    notifications.heartbeat(
        scene.connection, name=name, lanes=[lane.value for lane in lanes], processes=processes, version="0"
    )


def set_rate(scene: Scene, rate_per_second: int) -> None:
    """Say how many pushes a second the channel may send."""
    scene.run("UPDATE pushfan.channel SET rate_per_second = %s", rate_per_second)


def ahead_seconds(scene: Scene, column: str) -> float:
    """Tell how far a budget is used up in advance."""
    (row,) = scene.run(
        f"SELECT extract(epoch FROM {column} - clock_timestamp())::float AS ahead FROM pushfan.channel"
    )
    return float(row["ahead"])


def wait_for_retry(scene: Scene, devices: int) -> None:
    """Let so many deliveries wait for a retry that is due."""
    scene.broadcast(devices, chunk_size=devices)
    claim = scene.claimed(scene.chunk_ids()[0])
    waits = [wait(claim, position, delay=timedelta(0)) for position in range(devices)]
    with scene.connection.transaction():
        ledger.flush(scene.connection, claim, [], waits, lease=LEASE)
        ledger.finish(scene.connection, claim)


def test_channel_has_a_third_of_the_processes_of_a_lane(scene: Scene) -> None:
    """A provider that hangs holds no more of them; the others are left to other channels."""
    scene.broadcast(9, chunk_size=1)
    run_workers(scene, 4, Lane.NORMAL, Lane.BULK)
    run_workers(scene, 5, Lane.NORMAL, name="v")
    run_workers(scene, 90, Lane.URGENT, name="u")
    assert len(scene.dispatch()) == 3


def test_even_one_process_works(scene: Scene) -> None:
    """A share is never less than one chunk."""
    scene.broadcast(2, chunk_size=1)
    run_workers(scene, 1, *Lane)
    assert len(scene.dispatch()) == 1


def test_silent_worker_counts_no_more(scene: Scene) -> None:
    """Where nobody was heard of lately, the channel's own slots are the limit."""
    scene.broadcast(9, chunk_size=1)
    run_workers(scene, 3, Lane.NORMAL)
    scene.run("UPDATE pushfan.worker SET seen_at = now() - interval '11 seconds'")
    scene.set_slots(5)
    assert len(scene.dispatch()) == 5


def test_claim_beyond_the_share_goes_back_to_its_place(scene: Scene) -> None:
    """Messages may be repeated: what has no slot now is published again as soon as there is one."""
    scene.broadcast(2, chunk_size=1)
    first, second = scene.chunk_ids()
    scene.dispatch()
    run_workers(scene, 3, Lane.NORMAL)
    claim = scene.claimed(first)
    assert scene.claim(second) is None
    assert scene.dispatch() == []
    scene.finish(claim)
    assert [chunk.chunk_id for chunk in scene.dispatch()] == [second]


def test_claim_spends_the_rate(scene: Scene) -> None:
    """Each position costs its part of a second."""
    set_rate(scene, 100)
    scene.broadcast(50)
    scene.claimed(scene.chunk_ids()[0])
    assert ahead_seconds(scene, "budget_at") == pytest.approx(0.5, abs=0.2)


def test_used_up_rate_holds_bulk_and_not_urgent(scene: Scene) -> None:
    """Bulk waits until the rate allows it, and is not even published before; urgent overdraws."""
    set_rate(scene, 10)
    users = [f"u{n:04d}" for n in range(20)]
    scene.install(users)
    scene.subscribe(users)
    for lane in (Lane.BULK, Lane.BULK, Lane.URGENT):
        scene.plan(*scene.take_in(news(lane=lane)))
    bulk, later, urgent = scene.chunk_ids()
    assert scene.claim(bulk) is not None
    assert [chunk.lane for chunk in scene.dispatch()] == ["urgent"]
    assert scene.claim(later) is None
    (row,) = scene.run("SELECT ready_at - now() AS rest FROM pushfan.chunk WHERE id = %s", later)
    assert timedelta(seconds=1) < row["rest"] < timedelta(seconds=2)
    assert scene.claim(urgent) is not None
    assert ahead_seconds(scene, "budget_at") == pytest.approx(4, abs=0.3)


def test_what_expired_needs_neither_rate_nor_slot(scene: Scene) -> None:
    """Nothing of it is sent: it only ends."""
    scene.broadcast(2, chunk_size=1)
    first, second = scene.chunk_ids()
    scene.set_slots(1)
    scene.claimed(first)
    scene.run("UPDATE pushfan.channel SET budget_at = now() + interval '1 hour'")
    scene.run("UPDATE pushfan.chunk SET expires_at = now()")
    assert scene.claim(second) is not None
    assert ahead_seconds(scene, "budget_at") == pytest.approx(3600, abs=5)


@pytest.mark.parametrize(
    ("seconds", "rate"), [(0, 200), (1, 400), (3, 1600), (6, 10_000), (1_000_000, 10_000)]
)
def test_traffic_grows_after_a_stop(scene: Scene, seconds: int, rate: int) -> None:
    """From 200 a second, twice as much every second, up to the channel's rate."""
    (row,) = scene.run(
        "SELECT pushfan.channel_rate(10000, clock_timestamp() - make_interval(secs => %s)) AS rate", seconds
    )
    assert row["rate"] == pytest.approx(rate, rel=0.05)


def test_channel_that_flows_again_ramps_up(scene: Scene) -> None:
    """Its first chunk costs as much as at the slow pace."""
    scene.broadcast(100)
    scene.open_circuit()
    channels.resume(scene.connection, scene.channel.id)
    scene.claimed(scene.chunk_ids()[0])
    assert ahead_seconds(scene, "budget_at") == pytest.approx(0.5, abs=0.2)


def test_retries_take_a_fifth_of_the_rate(scene: Scene) -> None:
    """What is over the budget waits where it is, and moves when there is budget again."""
    wait_for_retry(scene, 50)
    set_rate(scene, 100)
    assert ledger.move_due_retries(scene.connection, chunk_size=500)[1] == 20
    assert ledger.move_due_retries(scene.connection, chunk_size=500)[1] <= 1
    scene.run("UPDATE pushfan.channel SET retry_budget_at = retry_budget_at - interval '1 second'")
    assert 19 <= ledger.move_due_retries(scene.connection, chunk_size=500)[1] <= 21
    scene.assert_conserved()


def test_retries_of_one_channel_do_not_hold_back_anothers(scene: Scene) -> None:
    """However many are due at a channel without budget."""
    wait_for_retry(scene, 5)
    other = scene.add_channel("other")
    scene.run(
        "UPDATE pushfan.channel SET retry_budget_at = now() + interval '1 hour' WHERE id = %s",
        scene.channel.id,
    )
    assert ledger.move_due_retries(scene.connection, chunk_size=500)[1] == 0
    scene.run(
        "UPDATE pushfan.retry SET channel_id = %s, due_at = now()"
        " WHERE device_id = (SELECT max(device_id) FROM pushfan.retry)",
        other.id,
    )
    assert ledger.move_due_retries(scene.connection, chunk_size=500) == ({other.id}, 1)


def test_retries_of_a_stopped_channel_wait_unless_they_have_expired(scene: Scene) -> None:
    """They end when their time is over, whatever the circuit and the budget say."""
    wait_for_retry(scene, 5)
    scene.open_circuit()
    assert ledger.move_due_retries(scene.connection, chunk_size=500)[1] == 0
    scene.run(
        "UPDATE pushfan.retry SET expires_at = now() WHERE device_id = (SELECT max(device_id) FROM pushfan.retry)"
    )
    assert ledger.move_due_retries(scene.connection, chunk_size=500)[1] == 1
    scene.assert_conserved()
