"""How commands find the database, and what they say when they do not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.cli.errors import ExitCode, explain
from gateway.context import Running, find_running
from tests.integration.cli.terminal import Terminal

SOMEWHERE = "postgresql://user:hunter2@127.0.0.1:1/pushfan"


def running(database_url: str, pid: int) -> Running:
    """Make the state of a `pushfan up`."""
    return Running(
        pid=pid, database_url=database_url, broker_url="redis://127.0.0.1:1/0", flower_password="pw"
    )


@pytest.fixture
def ended_pid() -> int:
    """Give the id of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_running_stack_is_found_by_its_state(database_url: str, home: Path) -> None:
    """A second terminal needs no configuration while `pushfan up` runs."""
    running(database_url, os.getpid()).write(home)
    terminal = Terminal({"PUSHFAN_HOME": str(home)})
    assert terminal.ok("app", "add", "shop", "--json").json["name"] == "shop"


def test_state_is_for_its_owner_alone(home: Path) -> None:
    """The state holds passwords: nobody else may read it, and it reads back as it was."""
    state = running(SOMEWHERE, os.getpid())
    assert state.write(home).stat().st_mode & 0o777 == 0o600
    assert find_running(home) == state
    assert "hunter2" not in repr(state)


def test_state_of_an_ended_stack_is_called_so(home: Path, ended_pid: int) -> None:
    """A state file that was left behind is not used, and the message says that its process has ended."""
    running(SOMEWHERE, ended_pid).write(home)
    assert find_running(home) is None
    ended = Terminal({"PUSHFAN_HOME": str(home)})("app", "list", "--json")
    assert ended.code == ExitCode.USAGE
    assert f"process {ended_pid}" in ended.error["message"]


def test_state_of_a_reused_pid_is_not_believed(home: Path) -> None:
    """With the process' birth in the state, another process with the same id is not taken for it."""
    state = Running(
        pid=os.getpid(), process=f"x/y/{os.getpid()}-1", database_url=SOMEWHERE, broker_url="memory://"
    )
    state.write(home)
    assert find_running(home) is None


def test_stack_with_another_database_is_not_mixed_in(database_url: str, home: Path) -> None:
    """Where the environment names another database, the broker of the running stack is not used with it."""
    running(SOMEWHERE, os.getpid()).write(home)
    terminal = Terminal({"PUSHFAN_DATABASE_URL": database_url, "PUSHFAN_HOME": str(home)})
    findings = {line["check"]: line for line in terminal("doctor", "--json").lines}
    assert findings["database"]["status"] == "OK"
    assert "PUSHFAN_BROKER_URL is not set" in findings["broker"]["message"]


def test_broken_state_is_named(home: Path) -> None:
    """A state file that cannot be read is named, with what to do."""
    home.mkdir()
    (home / "up.json").write_text("{")
    ended = Terminal({"PUSHFAN_HOME": str(home)})("app", "list", "--json")
    assert (ended.code, str(home / "up.json") in ended.error["message"]) == (ExitCode.USAGE, True)


def test_nothing_configured_says_what_to_do(home: Path) -> None:
    """Without configuration and without a running stack the message names both ways out."""
    ended = Terminal({"PUSHFAN_HOME": str(home)})("app", "list", "--json")
    assert ended.code == ExitCode.USAGE
    assert "PUSHFAN_DATABASE_URL" in ended.error["message"]
    assert "pushfan up" in ended.error["message"]


def test_all_settings_that_are_wrong_are_named(pushfan: Terminal) -> None:
    """An unknown name and a bad value are both in the error."""
    ended = pushfan("app", "list", "--json", PUSHFAN_CHUNKSIZE="5", PUSHFAN_PAGE_SIZE="0")
    assert ended.code == ExitCode.USAGE
    text = str(ended.error)
    assert "PUSHFAN_CHUNKSIZE is not a setting; did you mean PUSHFAN_CHUNK_SIZE?" in text
    assert "PUSHFAN_PAGE_SIZE" in text


def test_database_that_is_away_is_told_from_a_refusal(pushfan: Terminal) -> None:
    """A database that does not answer ends with 4 and without a password in the message."""
    ended = pushfan("app", "list", "--json", PUSHFAN_DATABASE_URL=SOMEWHERE)
    assert (ended.code, ended.error["code"]) == (ExitCode.AWAY, "database_away")
    assert "hunter2" not in pushfan.seen


@pytest.mark.parametrize("url", ["hunter2", "mysql://u:hunter2@h/db", "postgresql://u:hunter2@h:port/db"])
def test_url_that_is_none_is_refused_without_repeating_it(pushfan: Terminal, url: str) -> None:
    """What is not a PostgreSQL URL is called so; it is not printed, since it may hold a password."""
    ended = pushfan("app", "list", PUSHFAN_DATABASE_URL=url)
    assert (ended.code, "hunter2" in ended.err) == (ExitCode.USAGE, False)
    assert "PUSHFAN_DATABASE_URL" in ended.err


def test_defect_is_called_one_without_its_text() -> None:
    """An exception that nobody foresaw becomes a sentence; its own text, which may hold anything, is not shown."""
    try:
        raise RuntimeError("hunter2")
    except RuntimeError as error:
        fault = explain(error)
    assert (fault.exit_code, fault.code) == (ExitCode.REFUSED, "internal")
    assert "hunter2" not in fault.message


def test_traceback_is_for_debugging_alone(pushfan: Terminal) -> None:
    """A user reads sentences; a traceback comes with PUSHFAN_LOG_LEVEL=debug."""
    assert "Traceback" not in pushfan("notification", "show", "nope").err
    assert "Traceback" in pushfan("notification", "show", "nope", PUSHFAN_LOG_LEVEL="debug").err
