import json
import os
import signal
import socket
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from gateway.children import parent_of
from gateway.context import STATE_FILE
from tests.acceptance.terminal import Terminal, processes_with, wait_for

KEYS = {
    "pid", "process", "database_url", "broker_url", "api_url", "flower_url", "flower_user", "flower_password",
    "simulators",
}  # fmt: skip

OUTBOXED = {
    "version": 1, "kind": "direct", "app": "shop", "id": "outboxed", "users": ["u7"], "message": {"title": "Hello"},
}  # fmt: skip


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    """A terminal with a home of its own; whatever was started in it is ended."""
    terminal = Terminal(tmp_path / "home")
    yield terminal
    for pid in processes_with(str(tmp_path)):
        os.kill(pid, signal.SIGKILL)


def send(terminal: Terminal) -> object:
    """Send as the welcome suggests, and return what became of it."""
    return terminal.ask("send", "--app", "shop", "--user", "u7", "--title", "Hello", "--wait")["outcomes"]


def worker_of(pid: int, text: str) -> int:
    """Find a child of `pushfan up` by its command line."""
    (found,) = [one for one in processes_with(text) if parent_of(one) == pid]
    return found


def stop(process: subprocess.Popen[bytes], number: signal.Signals) -> int:
    """Signal `pushfan up` and wait for its end."""
    process.send_signal(number)
    return process.wait(40)


def test_up_serves_survives_and_keeps_its_data(terminal: Terminal, tmp_path: Path) -> None:
    """Found by commands, refused a second time, whole again after losses, gone at the end, back with its data."""
    data = str(tmp_path / "data")
    up = terminal.start("up", "--simulate", "--persist", data)
    state = terminal.await_up(up)
    path = terminal.home / STATE_FILE
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert set(json.loads(path.read_text())) == KEYS
    assert set(state.simulators) == {"fcm", "apns", "jpush"}
    assert send(terminal) == {"accepted": 3} | dict.fromkeys(
        ("unregistered", "rejected", "expired", "cancelled", "withdrawn", "unknown", "dead"), 0
    )

    with psycopg.connect(state.database_url, autocommit=True) as connection:
        connection.execute("INSERT INTO pushfan.outbox (event) VALUES (%s)", [json.dumps(OUTBOXED)])
        wait_for(
            lambda: connection.execute("SELECT FROM pushfan.event_key WHERE key = 'outboxed'").rowcount == 1,
            what="the relay",
        )

    second = terminal.run("up")
    assert second.returncode == 1
    assert str(up.pid) in second.stderr

    lost = [worker_of(up.pid, "--lane\0bulk"), worker_of(up.pid, "simulators\0fcm")]
    for pid in lost:
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: terminal.output.read_text().count("started again") == len(lost), what="revival")
    assert send(terminal)

    assert stop(up, signal.SIGTERM) == 0
    assert not path.exists()
    assert processes_with(str(tmp_path)) == []

    again = terminal.start("up", "--simulate", "--persist", data)
    terminal.await_up(again)
    assert terminal.ask("notification", "list")["state"] == "finished"
    assert send(terminal)
    again.kill()
    again.wait()
    wait_for(lambda: not processes_with(str(tmp_path)), what="the end of all that was started")


def test_interrupt_while_it_starts_leaves_nothing(terminal: Terminal, tmp_path: Path) -> None:
    """Ctrl-C is heard at any time, and is no error."""
    terminal.environ["TMPDIR"] = str(tmp_path)
    up = terminal.start("up")
    wait_for(lambda: "starting" in terminal.output.read_text(), what="the first words")
    assert stop(up, signal.SIGINT) == 0
    assert processes_with(str(tmp_path)) == []
    assert list(tmp_path.glob("pushfan-*")) == []


def test_taken_port_is_a_clear_error(terminal: Terminal) -> None:
    """Flower's port was asked for, so no other will do."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        terminal.environ["FLOWER_PORT"] = str(port)
        done = terminal.run("up")
    assert done.returncode == 1
    assert f"port {port}" in done.stderr
