from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest

from gateway.cli.errors import ExitCode
from tests.integration.cli.terminal import ROOT, Terminal


@pytest.fixture
def busy(shop: Terminal, connection: psycopg.Connection) -> Terminal:
    """Give a terminal where something waits, somebody works, somebody is silent and something is dead."""
    shop.ok("send", "--app", "shop", "--user", "u7", "--title", "x")
    shop.ok("channel", "open", "ios", "--reason", "new key")
    connection.execute(
        "UPDATE pushfan.chunk SET queued_at = now() - interval '10 minutes', lease_until = now() + interval '1 minute' "
        "WHERE channel_id = (SELECT id FROM pushfan.channel WHERE name = 'android')"
    )
    connection.execute(
        "INSERT INTO pushfan.worker (name, lanes, processes, version, seen_at) VALUES "
        "('w1', '{urgent}', 3, '0', now()), ('w2', '{normal,bulk}', 2, '0', now() - interval '5 minutes')"
    )
    connection.execute(
        "INSERT INTO pushfan.retry "
        "(notification_id, device_id, app_id, channel_id, lane, attempts, due_at, expires_at, earlier) "
        "SELECT 7, n, 1, c.id, 'bulk', 1, now(), now(), '[]' "
        "FROM pushfan.channel c, generate_series(1, 3) AS n WHERE c.name = 'android'"
    )
    connection.execute(
        "INSERT INTO pushfan.dead_letter (kind, error, replayed_as) VALUES "
        "('invalid', 'x', NULL), ('invalid', 'x', NULL), ('poison', 'x', 1)"
    )
    return shop


def test_status_sums_up_lanes_channels_workers_and_dead_letters(busy: Terminal) -> None:
    """One object: what waits and since when, who works, what is stopped and why."""
    found = busy.ok("status", "--json").json
    urgent, _, bulk = found["lanes"]
    assert (urgent["lane"], urgent["workers"], urgent["processes"]) == ("urgent", 1, 3)
    assert (urgent["planned"], urgent["leases"], urgent["being_sent"]) == (2, 1, 1)
    assert 595 < urgent["oldest_seconds"] < 700
    assert (bulk["workers"], bulk["for_another_try"], bulk["oldest_seconds"]) == (0, 3, None)
    android, ios = found["channels"]
    assert (android["channel"], android["waiting"], android["circuit"]) == ("android", 4, "closed")
    assert (ios["circuit"], ios["circuit_reason"], ios["circuit_detail"]) == ("open", "operator", "new key")
    assert {worker["worker"]: worker["is_silent"] for worker in found["workers"]} == {"w1": False, "w2": True}
    assert found["dead_letters"] == {"invalid": 2}
    assert found["deliveries_a_second"] is None


def test_status_is_read_by_people(busy: Terminal) -> None:
    """The same in words."""
    out = busy.ok("status").out
    for words in ("10 min", "open: operator", "silent for 5 min", "2 dead letters: invalid 2", "android"):
        assert words in out


def test_status_of_nothing_says_what_to_do(pushfan: Terminal) -> None:
    """An empty installation is no error."""
    ended = pushfan.ok("status")
    assert "pushfan channel add" in ended.err
    assert "pushfan worker" in ended.err
    assert "no dead letters" in ended.out


def test_interval_that_would_be_a_load_is_refused(pushfan: Terminal) -> None:
    """Nobody looks more often than every second."""
    assert pushfan("status", "--watch", "--interval", "0s").code == ExitCode.USAGE


def test_watching_a_database_that_is_away_ends_at_once(pushfan: Terminal) -> None:
    """As for every command."""
    ended = pushfan("status", "--watch", PUSHFAN_DATABASE_URL="postgresql://127.0.0.1:1/x")
    assert ended.code == ExitCode.AWAY


@contextmanager
def watching(terminal: Terminal, *options: str) -> Iterator[subprocess.Popen[str]]:
    """Run `status --watch` in a process of its own."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PUSHFAN_")}
    environ |= {name: value for name, value in terminal.environ.items() if value is not None}
    command = [
        sys.executable,
        "-c",
        "from gateway.cli import main; main()",
        "status",
        "--watch",
        "--interval",
        "1s",
    ]
    with subprocess.Popen(
        [*command, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=environ
    ) as process:
        yield process
        process.kill()


def test_watch_prints_an_object_a_line_until_ctrl_c(busy: Terminal) -> None:
    """With a rate; Ctrl-C is a normal end, without a traceback."""
    with watching(busy, "--json") as process:
        assert process.stdout is not None
        lines = [json.loads(process.stdout.readline()) for _ in range(2)]
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert [line["waiting"] for line in lines] == [5, 5]
    assert lines[1]["deliveries_a_second"] == 0
    assert (process.returncode, err) == (0, "")


def test_watch_without_a_terminal_prints_plain_lines(busy: Terminal) -> None:
    """One a look, which names what is stopped."""
    with watching(busy) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    assert "5 waiting, stopped: ios, 2 dead letters" in line
    assert process.returncode == 0
