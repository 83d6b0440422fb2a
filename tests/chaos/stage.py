"""All processes of a run: servers, a simulator of each provider for each app, workers.

What ends is started again after a moment, as systemd would, unless a scenario holds it down.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Final, Self

from gateway import simulated
from gateway.children import Child, Tether, python_environment
from gateway.local import LocalServer, PostgresServer, ValkeyServer, start_postgres, start_valkey
from providers.simulators import Running, launch
from registry import channels, doctor, schema
from registry.channels import Channel, CircuitReason, Provider
from registry.database import Connection, Database
from workers.settings import Settings, as_environ

from .rabbit import RabbitServer, start_rabbit
from .scenario import Road
from .world import APPS

# Lanes and processes of each worker. A channel may hold a third of a lane's processes. Two workers for the bulk of it,
# so that one can be taken away whole.
WORKERS: Final[Mapping[str, tuple[str, int]]] = {
    "urgent": ("urgent", 3),
    "first": ("normal,bulk", 2),
    "second": ("normal,bulk", 2),
}
SETTINGS: Final[Mapping[str, object]] = {
    # Documented delays of a quarter of an hour become two seconds.
    "delay_scale": 0.002,
    "backoff_seconds": 250,
    "backoff_cap_seconds": 1500,
    "max_attempts": 100,
    "provider_timeout_seconds": 15,
    "task_soft_limit_seconds": 30,
    "task_hard_limit_seconds": 40,
    "visibility_timeout_seconds": 60,
    "receipt_delay_seconds": 1,
    "suspect_pass_seconds": 1,
    "suspect_age_seconds": 2,
    "tick_seconds": 0.25,
    "chunk_size": 400,
    "page_size": 1500,
    "log_format": "plain",
}
# More at once are ready later, all of them, and on a busy machine too late.
_AT_ONCE: Final = 3
_READY_SECONDS: Final = 90.0
_REVIVE_SECONDS: Final = 0.5
_GRACE_SECONDS: Final = 30.0


class DirectRoad:
    """A way to a server that nobody disturbs."""

    def __init__(self, url: str, *, seed: int = 0) -> None:
        self.url = url

    def heal(self) -> None:
        """Do nothing: everything passes."""

    def close(self) -> None:
        """Do nothing."""


class Stage:
    """The processes, while it is entered. Its methods may be called from several threads."""

    def __init__(
        self,
        directory: Path,
        *,
        seed: int,
        settings: Mapping[str, object],
        workers: Mapping[str, tuple[str, int]] = WORKERS,
        engine: str = "fast",
        has_rabbit: bool = False,
        open_road: Callable[..., Road] = DirectRoad,
        tell: Callable[[str], None],
        is_kept: bool = False,
    ) -> None:
        self.directory = directory
        self.tell = tell
        self.simulators: dict[str, dict[Provider, Running]] = {app: {} for app in APPS}
        self.channels: dict[str, dict[Provider, Channel]] = {app: {} for app in APPS}
        self.workers: dict[str, Child] = {}
        self.dead: Mapping[tuple[str, Provider], list[str]] = {}
        self.revived = 0
        self._seed = seed
        self._wanted = workers
        self._engine = engine
        self._has_rabbit = has_rabbit
        self.rabbit: RabbitServer | None = None
        self._given = dict(settings)
        self._open_road = open_road
        self._is_kept = is_kept
        self._lock = threading.RLock()
        self._held: set[str] = set()
        self._due: dict[str, float] = {}
        self._stopping = threading.Event()
        self._reviver = threading.Thread(target=self._revive, name="reviver", daemon=True)

    def __enter__(self) -> Self:
        self._tether = Tether([] if self._is_kept else [self.directory])
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def failpoints(self) -> Path:
        """Where failpoints are armed and deaths are written down."""
        return self.directory / "failpoints"

    def _start(self) -> None:
        self.failpoints.mkdir()
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            futures = [
                pool.submit(self._start_postgres),
                pool.submit(self._start_broker),
                *(pool.submit(self._start_simulator, app, one) for app in APPS for one in Provider),
            ]
            for future in futures:
                future.result()
        self.database_road = self._open_road(self.postgres.url, seed=self._seed)
        self.broker_road = self._open_road((self.rabbit or self.valkey).url, seed=self._seed)
        self.database = Database(self.postgres.url, application_name="chaos")
        schema.apply(self.database)
        values = {
            **SETTINGS,
            **self._given,
            "database_url": self.database_road.url,
            "broker_url": self.broker_road.url,
            "home": self.directory,
            "credentials_dir": self.directory / "credentials",
        }
        self.settings = Settings.model_validate(values)
        for app in APPS:
            self.connect(app)

    def _start_postgres(self) -> None:
        self.postgres: PostgresServer = start_postgres(
            self.directory / "postgres", durable=False, temporary=not self._is_kept
        )

    def _start_broker(self) -> None:
        self.valkey: ValkeyServer = start_valkey(self.directory / "valkey", temporary=True)
        if self._has_rabbit:
            self.rabbit = start_rabbit(self.directory / "rabbit")

    def _start_simulator(self, app: str, provider: Provider) -> None:
        directory = self.directory / "simulators" / app
        self.simulators[app][provider] = launch(
            provider.value, directory, engine=self._engine, seed=self._seed
        )

    def connect(self, app: str) -> None:
        """Lead an app's channels to its simulators, with the credentials that these have now."""
        simulators = {one.value: running for one, running in self.simulators[app].items()}
        found = simulated.connect(self.database, app, simulators, self.settings.credentials_directory)
        self.channels[app] = {channel.provider: channel for channel in found.values()}

    def start_workers(self) -> None:
        """Start all workers, wait until each has said that it runs, and watch over them from now on."""
        for name in self._wanted:
            self._start_worker(name)
        deadline = time.monotonic() + _READY_SECONDS
        for name, child in self.workers.items():
            while not self.is_up(name):
                if child.status is not None or time.monotonic() > deadline:
                    raise child.failed("did not start")
                time.sleep(0.05)
        self._reviver.start()

    def is_up(self, name: str) -> bool:
        """Tell whether a worker, as it was started last, has said that it runs."""
        child = self.workers[name]
        alive = self.database.run(doctor.workers_alive)
        return child.status is None and any(f".{child.pid}@" in one.name for one in alive)

    def _start_worker(self, name: str) -> None:
        lanes, processes = self._wanted[name]
        command = [sys.executable, "-P", "-m", "tests.chaos.worker", str(self.failpoints), lanes]
        environ = {key: value for key, value in os.environ.items() if not key.startswith("PUSHFAN_")}
        self.workers[name] = Child(
            f"the worker {name}",
            [*command, str(processes), name],
            environ=python_environment(environ | as_environ(self.settings)),
            directory=self.directory,
            log=self.directory / f"worker-{name}.log",
            tether=self._tether,
        )

    def hold(self, name: str) -> None:
        """Do not start a server or a worker again when it ends."""
        with self._lock:
            self._held.add(name)

    def release(self, name: str) -> None:
        """Let it be started again: at once if it is down."""
        with self._lock:
            self._held.discard(name)
            self._due.pop(name, None)
            self._revive_server(name)
            if name in self.workers and self.workers[name].status is not None:
                self._restart_worker(name)

    def restart_gracefully(self, name: str, *, is_group: bool = False) -> bool:
        """Stop a worker as a deployment does and start it again. Tells whether it ended by itself.

        `is_group`: the signal goes to each of its processes, as systemd's default does.
        """
        self.hold(name)
        if is_group:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.workers[name].pid, signal.SIGTERM)
        has_obeyed = self.workers[name].stop(_GRACE_SECONDS)
        with self._lock:
            self._held.discard(name)
            self._due.pop(name, None)
            self._start_worker(name)
        return has_obeyed

    def heal(self) -> None:
        """Undo what scenarios left: everything runs, everything passes, providers behave."""
        for road in (self.database_road, self.broker_road):
            road.heal()
        for name in (*self._servers(), *self._wanted):
            self.release(name)
        for app, some in self.simulators.items():
            for provider, simulator in some.items():
                simulator.clear_rules()
                simulator.control("POST", "/latency", {"ms": 0})
                simulator.control("POST", "/credentials", {"valid": True})
                self.bury(app, provider)
        self.resume()

    def resume(self) -> None:
        """Do what operators do when the cause is gone: let channels go on that wait for their word."""
        for channel in self.database.run(channels.list_all):
            if channel.circuit_reason in (CircuitReason.CREDENTIALS, CircuitReason.MASS_INVALIDATION):
                self.database.run(partial(channels.resume, channel_id=channel.id))

    def bury(self, app: str, provider: Provider) -> None:
        """Tell a provider again which tokens are dead, behind whatever rules it has."""
        tokens = self.dead.get((app, provider), [])
        answer = "unknown" if provider is Provider.JPUSH else "unregistered"
        if tokens:
            self.simulators[app][provider].rules([{"tokens": tokens, "answer": answer}])

    def run(self, statement: str, parameters: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        """Look something up, past the road."""

        def work(connection: Connection) -> list[dict[str, Any]]:
            return connection.execute(statement.encode(), parameters).fetchall()

        return self.database.run(work)

    def _revive(self) -> None:
        while not self._stopping.wait(0.1):
            with self._lock:
                for name in self._servers():
                    if name not in self._held:
                        self._revive_server(name)
                for name, child in list(self.workers.items()):
                    if child.status is not None and name not in self._held:
                        self._revive_worker(name)

    def _servers(self) -> Mapping[str, LocalServer]:
        servers: dict[str, LocalServer] = {"postgres": self.postgres, "valkey": self.valkey}
        return servers if self.rabbit is None else {**servers, "rabbit": self.rabbit}

    def _revive_server(self, name: str) -> None:
        server = self._servers().get(name)
        if server is not None and not server.is_running():
            server.restart()
            self.revived += 1

    def _revive_worker(self, name: str) -> None:
        now = time.monotonic()
        if now >= self._due.setdefault(name, now + _REVIVE_SECONDS):
            self._restart_worker(name)

    def _restart_worker(self, name: str) -> None:
        self._due.pop(name, None)
        self.workers[name].clear()
        self._start_worker(name)
        self.revived += 1

    def stop(self) -> None:
        """Stop everything, workers first."""
        self._stopping.set()
        if self._reviver.is_alive():
            self._reviver.join()
        for child in self.workers.values():
            child.terminate()
        for child in self.workers.values():
            child.stop(10)
        for simulator in [one for some in self.simulators.values() for one in some.values()]:
            simulator.stop()
        if hasattr(self, "database"):
            self.database.close()
        for name in ("database_road", "broker_road"):
            if hasattr(self, name):
                getattr(self, name).close()
        for name in ("postgres", "valkey", "rabbit"):
            if (server := getattr(self, name, None)) is not None:
                server.stop()
        self._tether.close()
