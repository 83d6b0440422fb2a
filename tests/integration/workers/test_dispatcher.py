"""The dispatcher's tick: from the tables alone it keeps windows full and clocks running."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import timedelta

import pytest

from gateway.local import start_valkey
from registry import doctor, ledger
from registry.channels import Circuit
from registry.ledger import FinalOutcome
from tests.integration.ledger.scene import LEASE, Scene, news, wait
from tests.integration.workers.floor import Floor, build_floor
from workers import processes
from workers.announce import Announcer
from workers.app import create_bare_app
from workers.settings import as_environ


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """Give a process that does nothing."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


def owner_of(process: subprocess.Popen[bytes]) -> str:
    """Name another process of this machine as it would name itself."""
    return f"{processes.machine()}{process.pid}-{processes._birth(process.pid)}"


def test_announces_a_window_of_chunks(floor: Floor, scene: Scene) -> None:
    """A tick announces what has room, the next one nothing."""
    scene.set_slots(2)
    scene.broadcast(5, chunk_size=1)
    dispatcher = floor.dispatcher()
    dispatcher.tick()
    assert len(floor.notes.kwargs("pushfan.deliver")) == 2
    dispatcher.tick()
    assert len(floor.notes.kwargs("pushfan.deliver")) == 2


def test_chunk_size_one_is_one_task_for_each_device(scene: Scene, floor: Floor) -> None:
    """With the smallest chunks every device has a Celery task of its own, in any number of ticks."""
    scene.set_slots(3)
    notification_id = scene.broadcast(8, chunk_size=1)
    dispatcher = floor.dispatcher()
    for _ in range(20):
        dispatcher.tick()
        for chunk_id in scene.chunk_ids():
            if any(task["chunk"] == chunk_id for task in floor.notes.kwargs("pushfan.deliver")):
                scene.finish(scene.claimed(chunk_id))
    announced = [task["chunk"] for task in floor.notes.kwargs("pushfan.deliver")]
    assert len(announced) == len(set(announced)) == 8
    assert scene.find(notification_id).state == "finished"


def test_dead_process_loses_its_leases_at_once(
    floor: Floor, scene: Scene, child: subprocess.Popen[bytes]
) -> None:
    """A killed child's chunk is announced again long before its lease would have ended."""
    scene.broadcast(1)
    (chunk,) = scene.dispatch()
    scene.claimed(chunk.chunk_id, owner=owner_of(child))
    dispatcher = floor.dispatcher()
    dispatcher.tick()
    assert floor.notes.kwargs("pushfan.deliver") == []
    child.kill()
    child.wait()
    dispatcher.tick()
    assert [task["chunk"] for task in floor.notes.kwargs("pushfan.deliver")] == [chunk.chunk_id]
    assert scene.claimed(chunk.chunk_id).unsure_positions() == [0]


def test_threads_of_a_living_process_keep_their_leases(floor: Floor, scene: Scene) -> None:
    """A worker whose pool is threads is not taken for dead."""
    scene.broadcast(1)
    (chunk,) = scene.dispatch()
    scene.claimed(chunk.chunk_id, owner=f"{processes.owner()}.{threading.get_native_id()}")
    floor.dispatcher().tick()
    assert scene.claim(chunk.chunk_id, owner="another") is None


def test_owners_of_other_machines_are_not_judged(floor: Floor, scene: Scene) -> None:
    """Only who shares a process table may say that a process is gone."""
    scene.broadcast(1)
    (chunk,) = scene.dispatch()
    scene.claimed(chunk.chunk_id, owner="elsewhere/12345678/1-1")
    floor.dispatcher().tick()
    assert scene.claim(chunk.chunk_id) is None


def test_due_retries_are_moved_and_announced(floor: Floor, scene: Scene) -> None:
    """One tick takes a due retry all the way to the broker; one that is not due stays."""
    scene.broadcast(2)
    claim = scene.claimed(scene.chunk_ids()[0])
    waits = [wait(claim, 0), wait(claim, 1, delay=timedelta(hours=1))]
    with scene.connection.transaction():
        ledger.flush(scene.connection, claim, [], waits, lease=LEASE)
        ledger.finish(scene.connection, claim)
    floor.dispatcher().tick()
    assert len(floor.notes.kwargs("pushfan.deliver")) == 1
    assert scene.run("SELECT count(*) AS n FROM pushfan.retry") == [{"n": 1}]
    scene.assert_conserved()


def test_waiting_plans_are_announced(floor: Floor, scene: Scene) -> None:
    """An event that was published in a backend's own transaction is planned without any broker message."""
    (notification_id,) = scene.take_in(news())
    dispatcher = floor.dispatcher()
    dispatcher.tick()
    dispatcher.tick()
    assert floor.notes.kwargs("pushfan.plan") == [{"notification": notification_id}]


def test_expired_chunks_of_a_stopped_channel_are_announced(floor: Floor, scene: Scene) -> None:
    """Deliveries that cannot be sent any more are ended whatever the circuit says."""
    notification_id = scene.broadcast(2)
    scene.open_circuit()
    scene.run("UPDATE pushfan.notification SET expires_at = now() - interval '1 second'")
    scene.run("UPDATE pushfan.chunk SET expires_at = now() - interval '1 second'")
    floor.dispatcher().tick()
    (task,) = floor.notes.kwargs("pushfan.deliver")
    floor.deliver(task["chunk"])
    assert scene.find(notification_id).outcomes[FinalOutcome.EXPIRED] == 2


def test_stopped_worker_takes_its_leave(floor: Floor, scene: Scene) -> None:
    """Nobody shall wonder why it is silent."""
    dispatcher = floor.dispatcher()
    dispatcher.tick()
    assert scene.run("SELECT name FROM pushfan.worker") == [{"name": "worker-1"}]
    stop = threading.Event()
    stop.set()
    dispatcher.run(stop)
    assert scene.database.run(doctor.workers_known) == []


def test_operators_pause_is_not_resumed(floor: Floor, scene: Scene) -> None:
    """Other credentials resume only what stopped for credentials."""
    scene.open_circuit()
    floor.write_secret("another secret")
    floor.dispatcher().tick()
    assert floor.channel().circuit is Circuit.OPEN


def test_worker_is_known_by_its_heartbeat(floor: Floor, scene: Scene) -> None:
    """Who runs is in the database, once."""
    for _ in range(2):
        floor.dispatcher().tick()
    assert scene.run("SELECT name, lanes, processes FROM pushfan.worker") == [
        {"name": "worker-1", "lanes": ["urgent", "normal", "bulk"], "processes": 1}
    ]


def test_dispatcher_outlives_a_database_that_goes_away(floor: Floor, scene: Scene) -> None:
    """Its connection is cut and it goes on."""
    dispatcher = floor.dispatcher()
    dispatcher.tick()
    scene.broadcast(1)
    database = floor.scene.database
    pid = database.connection().info.backend_pid
    tools = floor.tools()
    tools.database.connection().execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
    dispatcher.tick()
    assert len(floor.notes.kwargs("pushfan.deliver")) == 1


def test_broker_that_goes_away_is_no_error(scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Announcing is a hint: a broker that ends in the middle must not end who announces."""
    directory = tmp_path_factory.mktemp("broker")
    with start_valkey(directory, temporary=True) as broker:
        floor = build_floor(scene, directory / "home")
        settings = floor.settings.model_copy(update={"broker_url": broker.url})
        app = create_bare_app(settings)
        announcer = Announcer(app)
        chunks = [
            ledger.Published(chunk_id=n, channel_id=1, lane="urgent", notification_id=1, positions=1)
            for n in range(3)
        ]
        announcer.chunks(chunks)
    announcer.chunks(chunks)
    app.close()


def test_feedback_that_nobody_does_is_announced_more_and_more_seldom(floor: Floor, scene: Scene) -> None:
    """Without workers that do it the queue must not grow with every tick."""
    scene.run(
        "INSERT INTO pushfan.receipt_poll (channel_id, message_id, device_ids, tokens, loaded_at, due_at)"
        " VALUES (%s, 'm', '{1}', '{t}', now(), now())",
        scene.channel.id,
    )
    dispatcher = floor.dispatcher()
    for _ in range(5):
        dispatcher._announce_receipts()
    assert floor.notes.kwargs("pushfan.feedback") == [{"duty": "receipts", "channel": scene.channel.id}]
    scene.run("DELETE FROM pushfan.receipt_poll")
    dispatcher._announce_receipts()
    assert dispatcher._said == {"receipts": {}}


def test_dispatcher_ends_at_once_without_the_worker_that_started_it(floor: Floor) -> None:
    """A worker that died meanwhile leaves no dispatcher behind that would call its lanes alive."""
    node = json.dumps({"name": "gone@host", "lanes": ["bulk"], "processes": 1, "version": "0"})
    ended = subprocess.run(
        [sys.executable, "-P", "-m", "workers.dispatch", node, "1"],
        env=os.environ | as_environ(floor.settings),
        timeout=30,
        check=False,
    )
    assert ended.returncode == 0
    assert floor.scene.run("SELECT name FROM pushfan.worker") == []
