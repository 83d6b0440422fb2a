"""The arena: Pushfan as `pushfan up --persist` runs it, on simulated providers, with a crowd that has devices.

Its data lies in a temporary directory, and is as durable as anyone's: fsync, synchronous commits, an append-only
broker.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from events import DirectPush, Event, Message, Publisher, TopicMessage, encode
from gateway.interruption import Interruption
from gateway.local import start_postgres
from gateway.simulated import connect
from gateway.stack import API, REST, URGENT, Stack, Wanted
from registry import apps, keys, notifications, schema
from registry.channels import Channel, Provider
from registry.database import Database
from registry.errors import NotFound
from registry.keys import Role
from registry.ledger import FinalOutcome
from registry.notifications import Notification
from workers.settings import load_settings

from . import crowd
from .figures import Figures
from .http_client import Job, Published, open_client
from .statements import load
from .watch import Watch

APP = "bench"
MESSAGE = Message(
    title="Autumn sale",
    body="Up to 40 % off all boots, today only",
    data={"campaign": "autumn", "page": "boots"},
)
PROVIDERS = (Provider.FCM, Provider.APNS)
_POLL_SECONDS = 0.05
# Counting is work for the database that is measured.
_COUNT_SECONDS = 0.25
_STALLED_SECONDS = 120.0
_WARM_UP = 2_000
_WARM_UP_ROUNDS = 3
_DURABLE = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on"}
_SQL = load("arena")

Tell = Callable[[str], None]


class NotDurable(Exception):
    """The server would forget what it confirms: its figures would flatter."""


class Stalled(Exception):
    """A load did not end: nothing moved for a long time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """What a load took. `cpu` has seconds by group: workers, api, database, broker, simulators, publisher, client."""

    accepted: int
    seconds: float
    cpu: Mapping[str, float]
    broker_bytes_peak: int
    worker_bytes_peak: int

    @property
    def per_second(self) -> float:
        """Accepted and recorded deliveries in a second."""
        return self.accepted / self.seconds

    def cpu_us(self, group: str) -> float:
        """Return a group's CPU for one accepted delivery, in microseconds."""
        return self.cpu[group] / self.accepted * 1e6

    def figures(self, way: str, *groups: str) -> Figures:
        """Name the rate and the CPU of some groups, for a load that was sent in a certain way."""
        costs = {f"{way}_{group.removesuffix('s')}_cpu_us": self.cpu_us(group) for group in groups}
        return {f"{way}_per_second": self.per_second, **costs}


class Arena:
    """A stack with an app, its channels and a publisher. Used by one thread; `open_arena` makes it."""

    def __init__(self, stack: Stack, interruption: Interruption) -> None:
        self.stack = stack
        self.url = stack.settings.require_database_url()
        self.database = stack.database
        self.interruption = interruption
        found = connect(self.database, APP, stack.simulators, stack.settings.credentials_directory)
        self.channels: Mapping[Provider, Channel] = {channel.provider: channel for channel in found.values()}
        self.app_id = next(iter(found.values())).app_id
        self.publisher = Publisher(stack.settings.require_broker_url(), app=APP)
        self._events = 0
        self._key: str | None = None

    def settle_in(self, name: str, size: int, *, providers: Sequence[Provider] = PROVIDERS) -> None:
        """Make a crowd: users with a device each, at the providers in turn."""
        crowd.settle_in(self.url, name, size, [self.channels[provider].id for provider in providers])

    def subscribe(self, topic: str, name: str, size: int) -> None:
        """Subscribe the first `size` users of a crowd to a topic."""
        crowd.subscribe(self.url, self.app_id, topic, name, size)

    def warm_up(self) -> None:
        """Let each worker process import, connect and prepare what it needs once."""
        self.settle_in("early", _WARM_UP)
        self.subscribe("early", "early", _WARM_UP)
        self.broadcast("early")
        for _ in range(_WARM_UP_ROUNDS):
            self.send_direct([crowd.user("early", number) for number in range(1, 41)], at_once=False)

    def set_latency(self, milliseconds: float) -> None:
        """Let the providers take so long for each answer."""
        for simulator in self.stack.simulators.values():
            simulator.control("POST", "/latency", {"ms": milliseconds})

    def watch(self, **more: Sequence[int]) -> Watch:
        """Watch everything that the arena consists of, and more groups of processes."""
        servers = self.stack.server_pids()
        groups: dict[str, Sequence[int]] = {
            "workers": [self.stack.children[name].pid for name in (URGENT, REST)],
            "api": [self.stack.children[API].pid],
            "database": [servers["database_url"]],
            "broker": [servers["broker_url"]],
            "simulators": [simulator.process.pid for simulator in self.stack.simulators.values()],
        }
        return Watch(groups | more, self.stack.settings.require_broker_url())

    def broadcast(self, topic: str) -> Played:
        """Send a message to a topic and wait until all of it has ended."""
        self._checkpoint()
        with self.watch() as watch:
            event = self.announce(topic)
            notification = self.await_end(event)
        assert notification.finished_at is not None
        return _played(
            watch,
            accepted=notification.outcomes[FinalOutcome.ACCEPTED],
            seconds=notification.finished_at.timestamp() - notification.created_at.timestamp(),
        )

    def announce(self, topic: str) -> Event:
        """Publish a message to a topic."""
        event = TopicMessage(app=APP, id=self._name(f"to-{topic}"), topic=topic, message=MESSAGE)
        self.publisher.publish(event)
        return event

    def await_end(self, event: Event) -> Notification:
        """Wait until an event's notification has finished. Raises `Stalled`."""
        state, moved_at = None, time.monotonic()
        while True:
            self.interruption.check()
            found = self._find(event)
            if found is not None and found.finished_at is not None:
                return found
            now = _state(found)
            if now != state:
                state, moved_at = now, time.monotonic()
            elif time.monotonic() - moved_at > _STALLED_SECONDS:
                raise Stalled(f"{event.id} does not end: {found}")
            time.sleep(_POLL_SECONDS)

    def has_ended(self, event: Event) -> bool:
        """Tell whether an event's notification has finished."""
        found = self._find(event)
        return found is not None and found.finished_at is not None

    def _find(self, event: Event) -> Notification | None:
        """Find what became of an event so far; `None` before it is taken in."""
        try:
            return notifications.find(self.database.connection(), event.id, app=APP)
        except NotFound:
            return None

    def send_direct(self, users: Sequence[str], *, at_once: bool = True) -> Played:
        """Push to users directly, an event each, published together or one by one; wait until all have ended."""
        prefix = self._name("direct")
        pushes = [direct_push(f"{prefix}/{number}", user) for number, user in enumerate(users)]
        self._checkpoint()
        with self.watch() as watch:
            began = time.time()
            if at_once:
                self.publisher.publish_many(pushes)
            else:
                for push in pushes:
                    self.publisher.publish(push)
            self.await_direct(f"{prefix}/", len(pushes))
        recorded = self.recorded_at(f"{prefix}/")
        return _played(watch, accepted=len(recorded), seconds=max(recorded.values()) - began)

    def send_over_http(
        self, users: Sequence[str], *, connections: int, in_a_list: int = 1, rate: float | None = None
    ) -> tuple[Published, Played]:
        """Push to users directly over HTTP, see `Job`; wait until all have ended."""
        assert self.stack.api is not None
        prefix = f"{self._name('http')}-"
        job = Job(
            host=self.stack.api.host,
            port=self.stack.api.port,
            key=self._publishing_key(),
            prefix=prefix,
            users=users,
            message=encode(direct_push(prefix, users[0]))["message"],
            connections=min(connections, len(users)),
            in_a_list=in_a_list,
            rate=rate,
        )
        self._checkpoint()
        with open_client(job) as client, self.watch(client=[client.pid]) as watch:
            published = client.publish()
            self.await_direct(prefix, len(users))
        recorded = self.recorded_at(prefix)
        seconds = max(recorded.values()) - published.began_at
        return published, _played(watch, accepted=len(recorded), seconds=seconds)

    def _publishing_key(self) -> str:
        """Give a key that may publish, made once."""
        if self._key is None:
            _, self._key = self.database.run(
                lambda connection: keys.create(
                    connection, name="bench", app_id=self.app_id, roles=[Role.PUBLISH]
                )
            )
        return self._key

    def await_direct(self, prefix: str, number: int) -> None:
        """Wait until a number of events whose ids begin so have ended. Raises `Stalled`."""
        parameters = {"app_id": self.app_id, "prefix": prefix}
        count, moved_at = -1, time.monotonic()
        with psycopg.connect(self.url, autocommit=True) as connection:
            while count < number:
                self.interruption.sleep(_COUNT_SECONDS)
                ((now,),) = connection.execute(_SQL["count_finished"], parameters).fetchall()
                if now != count:
                    count, moved_at = now, time.monotonic()
                elif time.monotonic() - moved_at > _STALLED_SECONDS:
                    raise Stalled(f"only {count} of {number} direct pushes ended")

    def recorded_at(self, prefix: str) -> dict[str, float]:
        """Tell when the acceptance of each event whose id begins so was recorded."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            rows = connection.execute(_SQL["recorded_at"], {"app_id": self.app_id, "prefix": prefix})
            return {key: at.timestamp() for key, at, outcome in rows if outcome == "accepted"}

    def _checkpoint(self) -> None:
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(_SQL["checkpoint"])

    def _name(self, kind: str) -> str:
        self._events += 1
        return f"{kind}-{self._events}"


def direct_push(name: str, user: str) -> DirectPush:
    """Make a direct push to one user."""
    return DirectPush(app=APP, id=name, users=[user], message=MESSAGE)


@contextmanager
def open_arena(
    interruption: Interruption, tell: Tell, *, latency_ms: float = 0, **settings: Any
) -> Iterator[Arena]:
    """Start everything, warm; stop and remove everything at the end. `settings` differ from the defaults.

    Raises `NotDurable` and whatever keeps the stack from starting.
    """
    directory = Path(tempfile.mkdtemp(prefix="pushfan-bench-"))
    wanted = Wanted(
        directory=directory,
        logs=directory / "logs",
        is_kept=True,
        is_temporary=True,
        simulators=[provider.value for provider in PROVIDERS],
        has_flower=False,
    )
    chosen = load_settings({}, home=directory / "home", **settings)
    with Stack(chosen, wanted, interruption, tell) as stack, ExitStack() as leftovers:
        arena = Arena(stack, interruption)
        leftovers.callback(arena.publisher.close)
        check_durable(arena.url)
        tell("warming up")
        arena.warm_up()
        arena.set_latency(latency_ms)
        yield arena


@contextmanager
def open_registry() -> Iterator[tuple[Database, int, Path]]:
    """Start PostgreSQL alone, with an app and its channels. Gives the database, the app and a directory."""
    with tempfile.TemporaryDirectory(prefix="pushfan-bench-") as name, ExitStack() as leftovers:
        directory = Path(name)
        directory.chmod(0o755)
        server = leftovers.enter_context(start_postgres(directory / "postgres"))
        database = Database(server.url, application_name="bench")
        leftovers.callback(database.close)
        check_durable(server.url)
        schema.apply(database)
        app_id = database.run(lambda connection: apps.add(connection, APP).id)
        yield database, app_id, directory


def check_durable(url: str) -> None:
    """Raise `NotDurable` unless the server keeps what it confirms."""
    with psycopg.connect(url, autocommit=True) as connection:
        found: dict[str, str] = dict(connection.execute(_SQL["durability"]).fetchall())
    if found != _DURABLE:
        raise NotDurable(f"PostgreSQL runs with {found}, the figures need {_DURABLE}")


def _played(watch: Watch, *, accepted: int, seconds: float) -> Played:
    return Played(
        accepted=accepted,
        seconds=seconds,
        cpu=watch.cpu,
        broker_bytes_peak=watch.broker_bytes_peak,
        worker_bytes_peak=watch.worker_bytes_peak,
    )


def _state(found: Notification | None) -> tuple[int, int] | None:
    return None if found is None else (found.devices, sum(found.outcomes.values()))
