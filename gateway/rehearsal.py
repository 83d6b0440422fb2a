"""The whole of Pushfan in one process, with a provider that records pushes instead of sending them.

1. A database of its own, copied from a template that holds the schema.
2. An app with a channel for each provider; their clients record what they are given and answer as told.
3. A Celery worker in a thread, on the memory broker, with its dispatcher.

Real: the wire form, the broker messages, intake, planning, chunks, retries, the registry, the checks of each
provider's dialect. Not real: rendering for the vendor, and time (retries come at once).
"""

from __future__ import annotations

import secrets
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, cast
from urllib.parse import urlsplit, urlunsplit

import psycopg
from celery import Celery, _state, signals
from celery.contrib.testing.worker import start_worker, test_worker_started
from celery.worker import state
from kombu.transport import memory
from psycopg import sql

from events import Event, Message, Publisher
from events.names import QUEUE_PLAN, TASK_PLAN
from providers.client import Client
from providers.outcome import (
    Accepted,
    Answer,
    AnswerUnknown,
    ChannelConfig,
    CredentialsRejected,
    Outcome,
    Push,
    Rejected,
    SendError,
    Throttled,
    Unavailable,
    Unregistered,
)
from providers.provider import Batch
from registry import apps, channels, dead_letters, devices, notifications, schema, subscriptions
from registry.channels import Access, Provider
from registry.database import Database
from registry.devices import Device, Install
from registry.notifications import Notification
from registry.subscriptions import Scope, Target, TargetKind
from workers.app import QUEUES, create_app
from workers.settings import load_settings

BROKER_URL: Final = "memory://"
_AT_ONCE: Final = timedelta(0)
_POLL_SECONDS: Final = 0.005

ANSWERS: Final[Mapping[str, Callable[[], Outcome | SendError]]] = {
    "accepted": Accepted,
    "unregistered": lambda: Unregistered(reason="unregistered"),
    "rejected": lambda: Rejected(reason="rejected"),
    "doubted": lambda: Rejected(reason="bad token", suspects_token=True),
    "throttled": lambda: Throttled(reason="throttled", delay=_AT_ONCE),
    "unavailable": lambda: Unavailable(reason="unavailable", delay=_AT_ONCE),
    "unknown": lambda: AnswerUnknown("no answer"),
    "credentials": lambda: CredentialsRejected("credentials refused"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """One push as a device got it. `user` and `device` are `None` for a token that `install` did not register."""

    user: str | None
    device: str | None
    token: str
    provider: str
    notification_id: int
    event: Event

    @property
    def message(self) -> Message:
        """What the push says."""
        return self.event.message

    @property
    def title(self) -> str | None:
        """The message's title."""
        return self.message.title

    @property
    def body(self) -> str | None:
        """The message's body."""
        return self.message.body

    @property
    def data(self) -> Mapping[str, str]:
        """The message's data."""
        return self.message.data


@dataclass(slots=True)
class Phones:
    """The devices' side: what arrived, and what the provider says to each token. Safe for threads."""

    pushes: list[Received] = field(default_factory=list)
    owners: dict[str, tuple[str, str]] = field(default_factory=dict)
    answers: dict[str, list[Outcome | SendError]] = field(default_factory=lambda: defaultdict(list))
    lock: threading.Lock = field(default_factory=threading.Lock)

    def create_client(self, config: ChannelConfig) -> Client:
        """Make a channel's client."""
        return cast(Client, _RecordingClient(self, config.provider))

    def deliver(self, push: Push, provider: str) -> Outcome | SendError:
        """Answer one push; it arrives if it is accepted, or if its answer is lost."""
        with self.lock:
            script = self.answers[push.token]
            outcome = script.pop(0) if script else Accepted(message_id=push.delivery_id)
            if isinstance(outcome, (Accepted, AnswerUnknown)):
                user, device = self.owners.get(push.token, (None, None))
                self.pushes.append(
                    Received(
                        user=user,
                        device=device,
                        token=push.token,
                        provider=provider,
                        notification_id=push.content.notification_id,
                        event=push.content.event,
                    )
                )
            return outcome


class _RecordingClient:
    """Stands where `providers.client.Client` does."""

    batch_limit = 1
    max_in_flight = 1000

    def __init__(self, phones: Phones, provider: str) -> None:
        self.name = provider
        self._phones = phones
        self._out: list[Push] = []

    @property
    def in_flight(self) -> int:
        return len(self._out)

    def prepare(self, pushes: Sequence[Push]) -> list[Batch]:
        return [Batch(pushes=(push,), url="", headers=(), body=b"", timeout=_AT_ONCE) for push in pushes]

    def submit(self, batch: Batch) -> None:
        self._out += batch.pushes

    def poll(self, _timeout_seconds: float) -> list[Answer]:
        sent, self._out = self._out, []
        return [Answer(push=push, outcome=self._phones.deliver(push, self.name)) for push in sent]

    def close(self) -> None:
        self._out.clear()


class Pushfan:
    """Pushfan at work on the app `shop`. Use it from the test's own thread."""

    def __init__(self, database: Database, phones: Phones, *, app: str, broker: Broker) -> None:
        self.app = app
        self.database_url = database.url
        self.broker_url = BROKER_URL
        self.publisher = Publisher(BROKER_URL, app=app)
        self._database = database
        self._phones = phones
        self._broker = broker
        with database.transaction() as connection:
            self._app_id = apps.add(connection, app).id
            self._channels = {
                provider.value: channels.add(
                    connection,
                    self._app_id,
                    name=provider.value,
                    provider=provider,
                    access=Access(secrets={"recorded": "file:recorded"}),
                ).id
                for provider in Provider
            }

    def install(
        self,
        user: str,
        *,
        device: str | None = None,
        token: str | None = None,
        provider: str = "fcm",
        locale: str | None = None,
    ) -> str:
        """Register a user's device, or refresh it. Returns its token.

        `device` is the install's own key, `<user>-phone` if not given: installing it for another user moves it.
        """
        device = device or f"{user}-phone"
        token = token or f"{provider}-{device}-{secrets.token_hex(8)}"
        call = Install(
            channel_id=self._channels[provider], user_id=user, device_key=device, token=token, locale=locale
        )
        self._database.run(lambda connection: devices.install(connection, call))
        self._phones.owners[token] = (user, device)
        return token

    def uninstall(self, token: str) -> None:
        """Remove the device that has a token."""
        self._database.run(lambda connection: devices.uninstall(connection, self._app_id, token=token))

    def subscribe(
        self, user: str, *, topic: str | None = None, bucket: str | None = None, scope: str = "app"
    ) -> None:
        """Subscribe a user to a topic or a bucket."""
        target = _target(topic, bucket, scope)
        self._database.run(lambda connection: subscriptions.subscribe(connection, self._app_id, target, user))

    def unsubscribe(
        self, user: str, *, topic: str | None = None, bucket: str | None = None, scope: str = "app"
    ) -> None:
        """End a user's subscription."""
        target = _target(topic, bucket, scope)
        self._database.run(
            lambda connection: subscriptions.unsubscribe(connection, self._app_id, target, user)
        )

    def answer(self, token: str, *answers: str | Outcome | SendError) -> None:
        """Say what the provider answers to a token's next pushes, one after the other; then it accepts again.

        By name (`accepted`, `unregistered`, `rejected`, `doubted`, `throttled`, `unavailable`, `unknown`,
        `credentials`), or as a value of `providers.outcome`.
        """
        self._phones.answers[token] += [_outcome(answer) for answer in answers]

    def wait(self, timeout_seconds: float = 10.0) -> None:
        """Wait until everything published so far has ended. Raises `TimeoutError` that says what has not."""
        deadline = time.monotonic() + timeout_seconds
        while unfinished := self._unfinished():
            if time.monotonic() > deadline:
                raise TimeoutError(f"not finished after {timeout_seconds:g} s: {unfinished}")
            time.sleep(_POLL_SECONDS)

    def received(self, user: str | None = None, *, token: str | None = None) -> list[Received]:
        """List the pushes that arrived, in their order; of one user or one token if named."""
        return [
            push for push in self._phones.pushes if user in (None, push.user) and token in (None, push.token)
        ]

    def devices(self, user: str) -> list[Device]:
        """List a user's devices in use, as the registry has them."""
        return devices.list_by_user(self._database.connection(), self._app_id, user)

    def notification(self, event_id: str) -> Notification:
        """Find what became of an event: counters by outcome, warning, times. Raises `NotFound`."""
        return notifications.find(self._database.connection(), event_id, app=self.app)

    def dead_letters(self) -> list[str]:
        """List the errors of what Pushfan could not take in or deliver, the newest first."""
        return [letter.error for letter in dead_letters.list_page(self._database.connection())]

    def _unfinished(self) -> str:
        """Describe what is still to be done; empty when nothing is."""
        if waiting := self._broker.waiting():
            return f"{waiting} messages in the broker"
        found = notifications.list_page(self._database.connection(), unfinished=True, limit=3)
        return ", ".join(f"{notification.key} is {notification.state}" for notification in found)


class Broker:
    """The memory broker's queues that are ours: how many messages went in, and how many were done with."""

    def __init__(self) -> None:
        self._done = 0

    def watch(self, worker: Any) -> None:
        """Count what a worker acknowledges or rejects; puts are counted by the queues themselves."""
        qos = worker.consumer.task_consumer.channel.qos
        for name in ("ack", "reject"):
            setattr(qos, name, self._counting(getattr(qos, name)))

    def waiting(self) -> int:
        """Count the messages that are not done with."""
        done = self._done
        queues = [memory.Channel.queues[name] for name in QUEUES if name in memory.Channel.queues]
        put: int = sum(queue.unfinished_tasks for queue in queues)
        return put - done

    def clear(self) -> None:
        """Forget our queues: they belong to the transport's class, and would outlive the worker."""
        for name in QUEUES:
            memory.Channel.queues.pop(name, None)

    def _counting(self, settle: Callable[..., None]) -> Callable[..., None]:
        def settle_and_count(*args: Any, **kwargs: Any) -> None:
            settle(*args, **kwargs)
            self._done += 1

        return settle_and_count


@contextmanager
def rehearse(database_url: str, home: Path, *, app: str = "shop") -> Iterator[Pushfan]:
    """Run Pushfan in this process on an empty database that has its schema."""
    settings = load_settings(
        {},
        database_url=database_url,
        broker_url=BROKER_URL,
        home=home,
        tick_seconds=0.02,
        delay_scale=0.0001,
        receipt_delay_seconds=0,
    )
    settings.credentials_directory.mkdir(parents=True, exist_ok=True)
    (settings.credentials_directory / "recorded").write_text("recorded")
    phones, broker, database = Phones(), Broker(), Database(database_url)
    broker.clear()
    celery = create_app(settings, phones.create_client)
    with ExitStack() as stack:
        stack.callback(database.close)
        stack.callback(celery.close)
        stack.callback(broker.clear)
        running = Pushfan(database, phones, app=app, broker=broker)
        stack.callback(running.publisher.close)
        broker.watch(stack.enter_context(_worker(celery)))
        yield running


@contextmanager
def template_database(server_url: str) -> Iterator[str]:
    """Make a database that holds the schema and nothing else."""
    with _database(server_url, None) as url:
        database = Database(url)
        schema.apply(database)
        database.close()
        yield url


@contextmanager
def fresh_database(template_url: str) -> Iterator[str]:
    """Make a copy of a template."""
    with _database(template_url, urlsplit(template_url).path.lstrip("/")) as url:
        yield url


@contextmanager
def _database(server_url: str, template: str | None) -> Iterator[str]:
    name = f"pushfan_test_{secrets.token_hex(6)}"
    # A template cannot be copied while anyone is connected to it.
    maintenance = urlunsplit(urlsplit(server_url)._replace(path="/postgres"))
    create = sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(
        sql.Identifier(name), sql.Identifier(template or "template1")
    )
    with psycopg.connect(maintenance, autocommit=True) as server:
        server.execute(create)
    try:
        yield urlunsplit(urlsplit(server_url)._replace(path=f"/{name}"))
    finally:
        with psycopg.connect(maintenance, autocommit=True) as server:
            server.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@contextmanager
def _worker(celery: Celery) -> Iterator[Any]:
    """Run a worker in a thread, leaving logging and the caller's own Celery application as they are."""
    *_, set_up_logs = celery.pushfan_handlers

    def begin_thread(**_: object) -> None:
        # Tasks find their application through the thread that runs them.
        celery.set_current()

    test_worker_started.connect(begin_thread, sender=celery)
    signals.setup_logging.disconnect(set_up_logs)
    # Other applications' handlers are not asked either: this worker's start is none of their business.
    others, signals.setup_logging.receivers = signals.setup_logging.receivers, []
    signals.setup_logging.connect(_leave_logs)
    default, current = _state.default_app, _state._tls.current_app  # noqa: SLF001  celery's own test tools do this
    try:
        with start_worker(
            celery, pool="solo", perform_ping_check=False, queues=list(QUEUES), shutdown_timeout=30
        ) as worker:
            _state.set_default_app(default)
            _state._tls.current_app = current  # noqa: SLF001
            yield worker
            # The consumer looks up from its queues every two seconds, unless a message comes; it does so twice.
            state.should_terminate = 0
            for _ in range(2):
                celery.send_task(TASK_PLAN, kwargs={"notification": 0}, queue=QUEUE_PLAN)
    finally:
        signals.setup_logging.receivers = others


def _leave_logs(**_: object) -> None:
    """Stand where Celery would set up logging."""


def _target(topic: str | None, bucket: str | None, scope: str) -> Target:
    if (topic is None) == (bucket is None):
        raise ValueError("name a topic or a bucket")
    if topic is not None:
        return Target(kind=TargetKind.TOPIC, name=topic, scope=Scope.parse(scope))
    return Target(kind=TargetKind.BUCKET, name=cast(str, bucket), scope=Scope.parse(scope))


def _outcome(answer: str | Outcome | SendError) -> Outcome | SendError:
    if not isinstance(answer, str):
        return answer
    if answer not in ANSWERS:
        raise ValueError(f"{answer!r} is no answer: it is one of {', '.join(ANSWERS)}")
    return ANSWERS[answer]()
