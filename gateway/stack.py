"""The standalone stack: everything that Pushfan needs, started on this machine and stopped as a whole.

1. PostgreSQL and Valkey from wheels, where the settings name no other, and the simulators, all at once.
2. The schema.
3. Two workers, urgent in processes of its own, a relay for the database's outbox, the HTTP API, and Flower.

At the end workers conclude while the servers that they need still run. Whatever ends before is found by `revive` and
started again. When this process is killed nothing is left: servers and simulators notice, and the tether ends the rest.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, Self

import kombu
from kombu.exceptions import OperationalError

from providers.simulators import Running, launch
from registry import doctor, outbox, schema
from registry.database import Database
from workers.processes import owner
from workers.settings import PREFIX, Settings, as_environ

from .api import Api, choose_api
from .children import Child, Tether, python_environment, session_cpu_seconds
from .context import Running as State
from .flower import Flower, choose_flower
from .interruption import Interruption
from .local import LocalServer, start_postgres, start_valkey
from .worker import default_processes

# Urgent has its own process, or a direct push would wait behind a broadcast. The rest shares.
URGENT: Final = "urgent"
REST: Final = "normal,bulk"
_FLOWER: Final = "flower"
COMMAND: Final = "from gateway.cli import main; main()"
API: Final = "api"
_RELAY: Final = "relay"
_READY_SECONDS: Final = 60.0
_PATIENCE_SECONDS: Final = 5.0
_STOP_SECONDS: Final = 20.0
_POLL_SECONDS: Final = 0.05
# One for each provider: the urgent lane must go on while another one hangs.
_URGENT_PROCESSES: Final = 3
_MOST_PROCESSES: Final = 12
# A child that ends again and again is started ever more rarely.
_LONGEST_REST_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a stack consists of.

    `directory` holds data. `is_kept`: the data outlives the stack. `is_temporary`: the directory does not.
    `logs` is where children write what they have to say. `simulators` names those to start.
    """

    directory: Path
    logs: Path
    is_kept: bool = False
    is_temporary: bool = False
    simulators: Sequence[str] = ()
    has_flower: bool = True
    has_api: bool = True
    has_relay: bool = True
    processes: int | None = None


class Stack:
    """All processes, while it is entered. Used by one thread."""

    def __init__(
        self, settings: Settings, wanted: Wanted, interruption: Interruption, tell: Callable[[str], None]
    ) -> None:
        self.settings = settings.model_copy(
            update={
                "home": settings.home.resolve(),
                "credentials_dir": settings.credentials_directory.resolve(),
            }
        )
        self.wanted = wanted
        self.flower: Flower | None = None
        self.api: Api | None = None
        self.simulators: dict[str, Running] = {}
        self.children: dict[str, Child] = {}
        self._servers: dict[str, LocalServer] = {}
        self._database: Database | None = None
        self._interruption = interruption
        self._tell = tell
        self._directory = wanted.directory.resolve()
        self._logs = wanted.logs.resolve()
        self._rests: dict[str, float] = {}
        self._due: dict[str, float] = {}

    def __enter__(self) -> Self:
        self._directory.mkdir(parents=True, exist_ok=True)
        self._tether = Tether([self._directory] if self.wanted.is_temporary else [])
        try:
            self._logs.mkdir(parents=True, exist_ok=True)
            for earlier in self._logs.glob("*.log"):
                earlier.unlink()
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def database(self) -> Database:
        """The database, as the registry works with it."""
        assert self._database is not None
        return self._database

    @property
    def broadcaster(self) -> Child:
        """The worker that sends broadcasts: the one for normal and bulk."""
        return self.children[REST]

    def worker_cpu_seconds(self) -> float:
        """Add up what the workers have spent so far: parents, children, dispatchers."""
        return sum(session_cpu_seconds(self.children[name].pid) for name in (URGENT, REST))

    def server_pids(self) -> dict[str, int]:
        """Name the main processes of the servers that are ours, by the setting that holds their URL."""
        return {name: server.pid for name, server in self._servers.items()}

    @property
    def has_own_database(self) -> bool:
        """The database is ours to start and stop, not one that was named."""
        return "database_url" in self._servers

    @property
    def has_own_broker(self) -> bool:
        """The broker is ours, not one that was named."""
        return "broker_url" in self._servers

    def _start(self) -> None:
        check_servers(self.settings)
        self._start_servers()
        self._interruption.check()
        self._database = Database(self.settings.require_database_url(), application_name="pushfan up")
        schema.apply(self._database)
        self._tell("starting workers")
        for name in self._names():
            self._start_child(name)
        self._await_ready()

    def _start_servers(self) -> None:
        """Start all that depend on nothing, side by side. What was started before a failure is ours to stop."""
        starters = list(self._starters())
        if starters:
            self._tell(f"starting {', '.join(name for name, _ in starters)}")
        with ThreadPoolExecutor() as pool:
            futures = [pool.submit(start) for _, start in starters]
        for future in futures:
            future.result()
        self.simulators = {name: self.simulators[name] for name in self.wanted.simulators}
        urls = {name: server.url for name, server in self._servers.items()}
        self.settings = self.settings.model_copy(update=urls)

    def _starters(self) -> Iterator[tuple[str, Callable[[], None]]]:
        if self.settings.database_url is None:
            yield "PostgreSQL", self._start_postgres
        if self.settings.broker_url is None:
            yield "Valkey", self._start_valkey
        for name in self.wanted.simulators:
            yield f"simulated {name}", partial(self._start_simulator, name, 0)

    def _start_postgres(self) -> None:
        is_kept = self.wanted.is_kept
        directory = self._directory / "postgres"
        server = start_postgres(directory, durable=is_kept, temporary=not is_kept)
        self._servers["database_url"] = server

    def _start_valkey(self) -> None:
        is_kept = self.wanted.is_kept
        directory = self._directory / "valkey"
        self._servers["broker_url"] = start_valkey(directory, persist=is_kept, temporary=not is_kept)

    def _start_simulator(self, name: str, port: int) -> None:
        self.simulators[name] = launch(name, self._directory / "simulators" / name, port=port)

    def _names(self) -> list[str]:
        api, flower = self.wanted.has_api, self.wanted.has_flower
        relay = [_RELAY] if self.wanted.has_relay else []
        return [URGENT, REST, *relay, *([API] if api else []), *([_FLOWER] if flower else [])]

    def _start_child(self, name: str) -> None:
        environ = self.environment()
        title = f"the worker {name}"
        if name == _FLOWER:
            self.flower = self.flower or choose_flower()
            command, environ = self.flower.command, environ | self.flower.environment()
            title = "Flower"
        elif name == _RELAY:
            # Of our own database: an outbox elsewhere is for a relay that somebody starts there.
            environ.pop(f"{PREFIX}OUTBOX_URL", None)
            command, title = [sys.executable, "-c", COMMAND, "relay"], "the relay"
        elif name == API:
            self.api = self.api or choose_api(self.settings)
            command, title = [sys.executable, "-c", COMMAND, *self.api.words], "the HTTP API"
        else:
            command = self._worker_command(name)
        self.children[name] = Child(
            title,
            command,
            environ=environ,
            directory=self._directory,
            log=self._logs / f"{name.replace(',', '-')}.log",
            tether=self._tether,
        )

    def _worker_command(self, lanes: str) -> list[str]:
        options = [word for lane in lanes.split(",") for word in ("--lane", lane)]
        number = _URGENT_PROCESSES if lanes == URGENT else self.processes
        return [sys.executable, "-c", COMMAND, "worker", *options, "--processes", str(number)]

    @property
    def processes(self) -> int:
        """How many processes the worker for normal and bulk has."""
        return self.wanted.processes or min(_MOST_PROCESSES, max(_URGENT_PROCESSES, default_processes()))

    def environment(self) -> dict[str, str]:
        """Give children our environment, with our settings as they are now."""
        known = {PREFIX + name.upper() for name in Settings.model_fields}
        ours = {name: value for name, value in os.environ.items() if name not in known}
        return python_environment(ours | as_environ(self.settings))

    def _await_ready(self) -> None:
        """Wait until each child is seen to work, by its traces or by asking it; the first that ends is the error."""
        deadline = time.monotonic() + _READY_SECONDS
        awaited = dict(self.children)
        while awaited:
            for name, child in list(awaited.items()):
                if child.status is not None:
                    raise child.failed(f"ended at once with status {child.status}")
                if time.monotonic() > deadline:
                    raise child.failed(f"was not ready in {_READY_SECONDS:.0f} s")
                if self._is_ready(name, child):
                    del awaited[name]
            self._interruption.sleep(_POLL_SECONDS)

    def _is_ready(self, name: str, child: Child) -> bool:
        if name == _FLOWER:
            return self.flower is not None and self.flower.is_ready()
        if name == API:
            return self.api is not None and self.api.is_ready()
        if name == _RELAY:
            relays = self.database.run(outbox.relays)
            return any(relay.name.endswith(f".{child.pid}") for relay in relays)
        workers = self.database.run(doctor.workers_alive)
        return any(f".{child.pid}@" in worker.name for worker in workers)

    def revive(self) -> list[str]:
        """Start again what has ended. Returns a sentence for each."""
        return [*self._revive_servers(), *self._revive_simulators(), *self._revive_children()]

    def _revive_servers(self) -> Iterator[str]:
        for name, server in self._servers.items():
            if not server.is_running():
                server.restart()
                yield f"{'PostgreSQL' if name == 'database_url' else 'Valkey'} had ended and is started again"

    def _revive_simulators(self) -> Iterator[str]:
        for name, simulator in list(self.simulators.items()):
            if simulator.process.poll() is not None:
                self._start_simulator(name, _port_of(simulator))
                yield f"the simulator {name} had ended and is started again"

    def _revive_children(self) -> Iterator[str]:
        now = time.monotonic()
        for name, child in list(self.children.items()):
            if child.status is None:
                continue
            if name not in self._due:
                child.clear()
                has_lasted = now - child.started_at > _LONGEST_REST_SECONDS
                self._rests[name] = (
                    0.0 if has_lasted else min(2 * self._rests.get(name, 0) + 1, _LONGEST_REST_SECONDS)
                )
                self._due[name] = now + self._rests[name]
                yield f"{child.name} ended with status {child.status}: started again in {self._rests[name]:.0f} s"
            if now >= self._due[name]:
                del self._due[name]
                self._start_child(name)

    def stop(self) -> None:
        """Stop everything that was started, workers first. Harmless when stopped already."""
        for child in self.children.values():
            child.terminate()
        deadline = time.monotonic() + _STOP_SECONDS
        for child in self.children.values():
            if not child.stop(max(0.0, deadline - time.monotonic())):
                self._tell(f"{child.name} did not stop in time and was killed")
        for simulator in self.simulators.values():
            simulator.stop()
        if self._database is not None:
            self._database.close()
        for server in self._servers.values():
            server.stop()
        self.children, self.simulators, self._servers = {}, {}, {}
        self._tether.close()


def check_servers(settings: Settings) -> None:
    """Raise `DatabaseUnavailable` or kombu's `OperationalError` when a server that the settings name is away."""
    if settings.database_url is not None:
        database = Database(settings.database_url)
        database.run(lambda _: None, patience_seconds=_PATIENCE_SECONDS)
        database.close()
    if settings.broker_url is not None:
        _check_broker(settings.broker_url)


def _check_broker(url: str) -> None:
    connection = kombu.Connection(url, connect_timeout=_PATIENCE_SECONDS)
    try:
        connection.ensure_connection(max_retries=1, interval_start=_PATIENCE_SECONDS / 5)
    except OperationalError as error:
        text = f"the broker at {connection.hostname}:{connection.port} does not answer: {error}"
        raise OperationalError(text) from error
    finally:
        connection.release()


def _port_of(simulator: Running) -> int:
    return int(simulator.url.rpartition(":")[2].rstrip("/"))


def state_of(stack: Stack) -> State:
    """Say how commands in another terminal find a stack."""
    flower = stack.flower
    return State(
        pid=os.getpid(),
        process=owner(),
        database_url=stack.settings.require_database_url(),
        broker_url=stack.settings.require_broker_url(),
        api_url=stack.api.url if stack.api else None,
        flower_url=flower.url if flower else None,
        flower_user=flower.user if flower else None,
        flower_password=flower.password if flower else None,
        simulators={name: simulator.info for name, simulator in stack.simulators.items()},
    )
