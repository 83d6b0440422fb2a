"""Short ways to make work for the ledger, to hold time still, and to count what became of it."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

from events import Event, Message, TopicMessage, encode
from registry import apps, channels, devices, ledger, notifications, subscriptions
from registry.channels import Access, Channel
from registry.database import Connection, Database
from registry.devices import Install
from registry.ledger import Claim, Final, FinalOutcome, Published, Wait
from registry.notifications import Notification
from registry.subscriptions import Target, TargetKind

LEASE = timedelta(seconds=10)
HELLO = Message(title="hello")
_DEADLINE_SECONDS = 20
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """The app `shop` with one channel, on a database of its own."""

    database: Database
    connection: Connection
    app_id: int
    channel: Channel

    def install(self, users: Sequence[str], *, channel_id: int | None = None) -> list[int]:
        """Install one device for each user. Gives their ids."""
        to = self.channel.id if channel_id is None else channel_id
        calls = [
            Install(channel_id=to, user_id=user, device_key=f"key-{to}-{user}", token=token_of(user, to))
            for user in users
        ]
        return [done.device_id for done in devices.install_many(self.connection, calls)]

    def add_channel(self, name: str, provider: str = "fcm", **more: Any) -> Channel:
        """Make another channel of the app."""
        return channels.add(
            self.connection,
            self.app_id,
            name=name,
            provider=provider,
            access=Access(secrets={"key": "file:key"}),
            **more,
        )

    def set_slots(self, slots: int) -> None:
        """Change how many chunks of the channel may be out."""
        self.run("UPDATE pushfan.channel SET slots = %s WHERE id = %s", slots, self.channel.id)

    def subscribe(self, users: Sequence[str], topic: str = "news") -> None:
        """Subscribe users to a topic."""
        target = Target(kind=TargetKind.TOPIC, name=topic)
        subscriptions.subscribe_many(self.connection, self.app_id, [(target, user) for user in users])

    def take_in(self, *events: Event) -> list[int]:
        """Take events in without planning them. Gives the notifications' ids."""
        answers = notifications.take_in(self.connection, [encode(event) for event in events])
        return [answer.notification_id for answer in answers if answer.notification_id is not None]

    def plan(
        self, *notification_ids: int, chunk_size: int = 500, page_size: int = 2000
    ) -> notifications.FirstPages:
        """Plan as intake does."""
        return notifications.plan_new(
            self.connection, notification_ids, chunk_size=chunk_size, page_size=page_size
        )

    def plan_page(
        self, notification_id: int, *, page_size: int, chunk_size: int = 500
    ) -> notifications.Page | None:
        """Plan one more page."""
        return notifications.plan_page(
            self.connection, notification_id, chunk_size=chunk_size, page_size=page_size
        )

    def broadcast(self, devices_wanted: int, *, chunk_size: int = 500, **more: Any) -> int:
        """Take in and plan one topic message to so many new devices. Gives the notification's id."""
        users = [f"u{n:04d}" for n in range(devices_wanted)]
        self.install(users)
        self.subscribe(users)
        (notification_id,) = self.take_in(news(**more))
        self.plan(notification_id, chunk_size=chunk_size)
        return notification_id

    def claim(
        self,
        chunk_id: int,
        *,
        owner: str = "one",
        first: int = 100,
        chunk_size: int = 1,
        connection: Connection | None = None,
    ) -> Claim | None:
        """Claim in a transaction, as a worker does."""
        connection = self.connection if connection is None else connection
        with connection.transaction():
            return ledger.claim(
                connection,
                chunk_id=chunk_id,
                channel_id=self.channel_of(chunk_id),
                owner=owner,
                lease=LEASE,
                first=first,
                probe=5,
                chunk_size=chunk_size,
            )

    def claimed(self, chunk_id: int, **more: Any) -> Claim:
        """Claim what is certainly to be had."""
        claim = self.claim(chunk_id, **more)
        assert claim is not None
        return claim

    def channel_of(self, chunk_id: int) -> int:
        """Say which channel a chunk is for."""
        rows = self.run("SELECT channel_id FROM pushfan.chunk WHERE id = %s", chunk_id)
        return int(rows[0]["channel_id"]) if rows else self.channel.id

    def finish(self, claim: Claim, outcome: FinalOutcome = FinalOutcome.ACCEPTED) -> None:
        """Give all open positions one outcome and remove the chunk."""
        finals = [final(claim, position, outcome) for position in claim.open_positions()]
        with self.connection.transaction():
            assert ledger.flush(self.connection, claim, finals, [], lease=LEASE) is not None
            ledger.finish(self.connection, claim)

    def finish_all(self, outcome: FinalOutcome = FinalOutcome.ACCEPTED) -> None:
        """Claim and finish every chunk that there is."""
        for chunk_id in self.chunk_ids():
            self.finish(self.claimed(chunk_id), outcome)

    def end_lease(self, chunk_id: int) -> None:
        """Let a lease's time have passed."""
        self.run(
            "UPDATE pushfan.chunk SET lease_until = now() - interval '1 second',"
            " ready_at = now() - interval '1 second' WHERE id = %s",
            chunk_id,
        )

    def chunks(self) -> list[dict[str, Any]]:
        """Read all chunks, the oldest first."""
        return self.run("SELECT * FROM pushfan.chunk ORDER BY id")

    def chunk_ids(self) -> list[int]:
        """List all chunks, the oldest first."""
        return [chunk["id"] for chunk in self.chunks()]

    def deliveries(self) -> dict[int, str]:
        """Read the final outcome of each device."""
        rows = self.run("SELECT device_id, outcome::text FROM pushfan.delivery")
        return {row["device_id"]: row["outcome"] for row in rows}

    def find(self, notification_id: int) -> Notification:
        """Read a notification."""
        return notifications.find(self.connection, str(notification_id))

    def dispatch(self) -> list[Published]:
        """Pick chunks to publish, of all channels."""
        return ledger.dispatch(self.connection)

    def open_circuit(self) -> None:
        """Stop the channel."""
        channels.pause(self.connection, self.channel.id)

    def assert_conserved(self) -> None:
        """Check the invariant: planned = open + waiting + final, counters add up, nothing is in two places."""
        count = notifications.conservation(self.connection)
        assert count["planned"] == count["open"] + count["waiting"] + count["final"], count
        for row in self.run(
            "SELECT n.*, accepted + unregistered + rejected + expired + cancelled + withdrawn + unknown + dead"
            " AS counted FROM pushfan.notification n"
        ):
            assert row["counted"] <= row["devices"]
            assert row["finished_at"] is None or row["counted"] == row["devices"]

    def run(self, statement: str, *values: object) -> list[dict[str, Any]]:
        """Run a statement of the test's own."""
        cursor = self.connection.execute(statement.encode(), values or None)
        return cursor.fetchall() if cursor.description else []


def open_scene(database: Database) -> Scene:
    """Make the app `shop` with the channel `android`."""
    connection = database.connection()
    app = apps.add(connection, "shop")
    channel = channels.add(
        connection, app.id, name="android", provider="fcm", access=Access(secrets={"key": "file:key"})
    )
    return Scene(database=database, connection=connection, app_id=app.id, channel=channel)


def token_of(user: str, channel_id: int) -> str:
    """Name the token that a user's device gets."""
    return f"token-{channel_id}-{user}"


def news(**more: Any) -> TopicMessage:
    """Write a message to the topic `news`."""
    return TopicMessage(**{"app": "shop", "topic": "news", "message": HELLO, **more})


def final(claim: Claim, position: int, outcome: FinalOutcome = FinalOutcome.ACCEPTED) -> Final:
    """End a position, in the vector and as a record."""
    claim.result[position] = ledger.CODES[outcome]
    return Final(position=position, outcome=outcome, attempts=1)


def wait(
    claim: Claim, position: int, *, delay: timedelta = timedelta(0), tag: str | None = None, attempts: int = 1
) -> Wait:
    """Let a position wait, in the vector and as a record."""
    claim.result[position] = ledger.WAITING
    return Wait(
        position=position,
        attempts=attempts,
        delay=delay,
        expires_at=claim.expires_at,
        request_tag=tag,
        earlier=[{"attempt": attempts, "outcome": "unavailable"}],
    )


def in_background(work: Callable[[], T]) -> Callable[[], T]:
    """Start work in a thread. The function returned waits for its result, or raises its error."""
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:  # noqa: BLE001  whatever it is, the test shall see it
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()

    def result() -> T:
        thread.join(_DEADLINE_SECONDS)
        assert not thread.is_alive(), "the work in the background hangs"
        if errors:
            raise errors[0]
        return results[0]

    return result


def await_blocked(observer: Connection, pid: int) -> None:
    """Return when a server process waits for another one's lock."""
    deadline = time.monotonic() + _DEADLINE_SECONDS
    while time.monotonic() < deadline:
        row = observer.execute("SELECT cardinality(pg_blocking_pids(%s)) AS blockers", [pid]).fetchone()
        assert row is not None
        if row["blockers"]:
            return
    raise AssertionError("nothing waits for a lock")
