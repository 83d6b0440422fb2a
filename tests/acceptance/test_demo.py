import subprocess
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis

from registry import notifications
from registry.database import Database
from tests.acceptance.terminal import Terminal, processes_with

COUNTED = ("retried", "retired", "replaced", "moved")
ACCOUNTS = ("received", "dead", "dropped", "withdrawn", "unexplained")
# Most of an attacking demo's time is what it waits for: rests, probes, announcements that are repeated.
SECONDS = 400


@pytest.fixture
def terminal(tmp_path: Path) -> Terminal:
    """A terminal in which nothing is set, with a place of its own for temporary files."""
    temporary = tmp_path / "tmp"
    temporary.mkdir(mode=0o755)
    return Terminal(tmp_path / "home", TMPDIR=str(temporary))


def check(document: dict[str, Any]) -> None:
    """What every demo promises, whatever its size."""
    assert document["events"] == ["bucket", "direct", "topic"]
    assert document["providers"] == ["fcm", "apns", "jpush"]
    assert sum(document["outcomes"].values()) == document["deliveries"]
    assert {name: document[name] for name in COUNTED} == document["planned"]
    assert document["lost"] == document["retired_wrongly"] == 0
    assert document["duplicates"] <= document["duplicates_bound"]
    for name, column in document["columns"].items():
        assert column["unexplained"] == 0, name
        assert column["ended"] == sum(column[account] for account in ACCOUNTS), name
        assert column["logged"] == column["received"] + column["repeated"], name
    assert document["columns"]["all"]["ended"] == document["deliveries"]
    assert document["findings"] == []
    if document["why_not"] is not None:
        assert document["why_not"]["user"] in "".join(document["why_not"]["answer"])


def test_demo_accounts_for_every_delivery_and_leaves_nothing(terminal: Terminal, tmp_path: Path) -> None:
    """Lost 0, repeated 0, all seeded counts as planned; no process and no file of it is left."""
    document = terminal.ask("demo", "--users", "300", "--calm", seconds=SECONDS)
    check(document)
    assert document["users"] == 300
    assert document["deliveries"] > document["devices"] > 300
    assert document["duplicates"] == document["duplicates_bound"] == 0
    assert document.keys().isdisjoint({"killed", "emptied", "revoked", "left_out"})
    assert document["why_not"] is not None
    assert all(document[name] > 0 for name in COUNTED)
    assert 0 < document["latency_ms"]["p50"] <= document["latency_ms"]["p99"]
    assert list((tmp_path / "tmp").iterdir()) == []
    assert processes_with(str(tmp_path)) == []


def test_attacks_lose_nothing_and_repeat_at_most_what_was_held(terminal: Terminal) -> None:
    """With a SIGKILL, an emptied broker and a revoked credential, the ledger and the receipts still agree."""
    document = terminal.ask("demo", "--users", "60", seconds=SECONDS)
    check(document)
    killed, emptied, revoked = (document[name] for name in ("killed", "emptied", "revoked"))
    assert killed["repeated"] <= killed["repeated_at_most"] == document["duplicates_bound"]
    assert document["duplicates_bound"] >= killed["unrecorded"] > 0
    assert killed["heir_pid"] not in (None, killed["pid"])
    assert emptied["moving_after_seconds"] is not None
    assert revoked["provider"] == "apns"
    assert revoked["retired"] == 0
    assert revoked["failed_probes"] > 0
    assert revoked["neighbour_per_second"]["meanwhile"] > 0
    assert document["latency_ms"]["during_broadcast"]["pushes"] > 0
    assert document["left_out"] is None


def test_one_task_for_each_device_comes_to_the_same(terminal: Terminal) -> None:
    """A chunk size of 1 changes the cost and nothing else."""
    check(terminal.ask("demo", "--users", "60", "--chunk-size", "1", "--calm", seconds=SECONDS))


def test_demo_is_a_guest_on_servers_that_are_there(
    tmp_path: Path, database_url: str, broker_url: str
) -> None:
    """It uses the named servers, does not empty the broker, and leaves no row behind."""
    terminal = Terminal(tmp_path / "home", PUSHFAN_DATABASE_URL=database_url, PUSHFAN_BROKER_URL=broker_url)
    with redis.Redis.from_url(broker_url) as server:
        server.set("somebody's", "else")
    document = terminal.ask("demo", "--users", "40", seconds=SECONDS)
    check(document)
    assert "emptied" not in document
    assert "not emptied" in document["left_out"]
    with redis.Redis.from_url(broker_url) as server:
        assert server.get("somebody's") == b"else"
    with psycopg.connect(database_url) as connection:
        for table in ("app", "channel", "device", "notification", "delivery", "feedback", "receipt_poll"):
            query = psycopg.sql.SQL("SELECT count(*) FROM pushfan.{}").format(psycopg.sql.Identifier(table))
            assert connection.execute(query).fetchone() == (0,), table


def test_demo_refuses_a_database_that_workers_use(tmp_path: Path, database_url: str, broker_url: str) -> None:
    """The demo's workers would take the others' work, without the credentials for it."""
    database = Database(database_url)
    database.run(
        lambda connection: notifications.heartbeat(
            connection, name="bulk.1@elsewhere", lanes=["bulk"], processes=2, version="1"
        )
    )
    # It is not to fall silent while the demo starts, however long that takes.
    database.run(
        lambda connection: connection.execute("UPDATE pushfan.worker SET seen_at = now() + interval '1 hour'")
    )
    database.close()
    terminal = Terminal(tmp_path / "home", PUSHFAN_DATABASE_URL=database_url, PUSHFAN_BROKER_URL=broker_url)
    done = terminal.run("demo", "--users", "10")
    assert done.returncode == 1
    assert "bulk.1@elsewhere" in done.stderr


@pytest.mark.parametrize(
    "variables",
    [
        {"PUSHFAN_DATABASE_URL": "postgresql://postgres@127.0.0.1:1/pushfan"},
        {"PUSHFAN_BROKER_URL": "redis://:hidden@127.0.0.1:1/0"},
    ],
)
def test_server_that_is_away_is_a_clear_error(tmp_path: Path, variables: dict[str, str]) -> None:
    """Within seconds, with its address and without its password."""
    done: subprocess.CompletedProcess[str] = Terminal(tmp_path / "home", **variables).run("demo", seconds=30)
    assert done.returncode == 4
    assert "127.0.0.1:1" in done.stderr
    assert "hidden" not in done.stderr
