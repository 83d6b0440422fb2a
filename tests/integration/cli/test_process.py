"""Commands that run something else: they hand over what was said, and end with its exit code."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psycopg
import pytest

from gateway.cli.errors import ExitCode
from tests.integration.cli.terminal import ROOT, Terminal

READY_SECONDS = 20


def wait_for(path: Path, process: subprocess.Popen[bytes]) -> dict[str, object]:
    """Wait until a process has written a file, and read it."""
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None
        if path.exists():
            content = json.loads(path.read_text())
            assert isinstance(content, dict)
            return content
        time.sleep(0.05)
    pytest.fail(f"{path} did not appear")


def test_simulator_runs_until_it_is_told_to_stop(home: Path) -> None:
    """`pushfan simulate` starts the simulator itself; without a place for its state that is in the home."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PUSHFAN_")}
    command = [
        sys.executable,
        "-c",
        "from gateway.cli import main; main()",
        "simulate",
        "jpush",
        "--port",
        "0",
    ]
    process = subprocess.Popen(
        command, env={**environ, "PUSHFAN_HOME": str(home)}, cwd=ROOT, stdout=subprocess.DEVNULL
    )
    try:
        assert wait_for(home / "simulators" / "jpush.json", process)["pid"] == process.pid
        process.send_signal(signal.SIGTERM)
        assert process.wait(READY_SECONDS) == 0
    finally:
        process.kill()
        process.wait()


def test_simulator_explains_its_own_options(home: Path) -> None:
    """What follows the provider's name is the simulator's, its help and its mistakes too."""
    terminal = Terminal({"PUSHFAN_HOME": str(home)})
    assert "--latency-ms" in terminal.process("simulate", "fcm", "--help").out
    assert terminal.process("simulate", "fcm", "--nonsense").code == ExitCode.USAGE


def test_celery_works_on_our_application(pushfan: Terminal, broker_url: str) -> None:
    """Celery's own commands know our tasks and our broker without further options."""
    pushfan.environ["PUSHFAN_BROKER_URL"] = broker_url
    ended = pushfan.process("celery", "report")
    assert (ended.code, "task_acks_late: True" in ended.out) == (0, True)
    assert "inspect" in pushfan.process("celery").out
    assert pushfan.process("celery", "nonsense").code == ExitCode.USAGE


def test_worker_without_a_broker_says_what_is_missing(pushfan: Terminal) -> None:
    """A worker that cannot know its broker ends with the settings' error, not with a traceback."""
    ended = pushfan.process("worker", "--lane", "bulk")
    assert (ended.code, "PUSHFAN_BROKER_URL" in ended.err) == (ExitCode.USAGE, True)
    assert "Traceback" not in ended.err


def test_worker_on_a_newer_schema_refuses(pushfan: Terminal, broker_url: str) -> None:
    """A worker does not touch a database that it does not understand."""
    pushfan.environ["PUSHFAN_BROKER_URL"] = broker_url
    with psycopg.connect(str(pushfan.environ["PUSHFAN_DATABASE_URL"]), autocommit=True) as connection:
        connection.execute("INSERT INTO pushfan.schema_version (version) VALUES (99)")
    ended = pushfan.process("worker", "--pool", "solo")
    assert (ended.code, "newer" in ended.err) == (ExitCode.REFUSED, True)


def test_unknown_lane_is_a_usage_error(pushfan: Terminal) -> None:
    """Lanes are a closed list."""
    assert pushfan("worker", "--lane", "express").code == ExitCode.USAGE


def test_prompt_that_nobody_answers_is_no(shop: Terminal) -> None:
    """A question at the end of input is taken as no."""
    assert shop("channel", "remove", "ios", "--app", "shop").code == ExitCode.REFUSED
