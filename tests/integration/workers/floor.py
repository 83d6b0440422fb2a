"""A worker without a broker: the deliver loop, the dispatcher and the door, called directly."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from registry import channels, ledger, notifications, overview
from registry.channels import Channel
from registry.database import Database
from registry.notifications import Notification
from tests.integration.ledger.scene import Scene
from tests.integration.workers.fakes import Notes, Vendor
from workers.app import create_bare_app
from workers.clients import ClientPool
from workers.credentials import CredentialStore
from workers.decide import RetryPolicy
from workers.deliver import Tools, deliver
from workers.dispatcher import Dispatcher, Node
from workers.intake import Door
from workers.processes import owner
from workers.settings import Settings, load_settings

NODE = Node(name="worker-1", lanes=["urgent", "normal", "bulk"], processes=1, version="0")
POLICY = RetryPolicy(max_attempts=3, base=timedelta(seconds=10), cap=timedelta(hours=1))


@dataclass(slots=True, kw_only=True)
class Floor:
    """One worker process of the app of a scene, and the vendor that it sends to."""

    scene: Scene
    settings: Settings
    notes: Notes
    vendor: Vendor = field(default_factory=Vendor)
    is_stopping: Callable[[], bool] = lambda: False
    databases: list[Database] = field(default_factory=list)

    def tools(self, *, name: str | None = None, **more: Any) -> Tools:
        """Make a process's collaborators: connections and clients of its own."""
        database = Database(self.settings.require_database_url())
        self.databases.append(database)
        store = CredentialStore(self.settings.credentials_directory)
        return Tools(
            **{
                "settings": self.settings,
                "database": database,
                "clients": ClientPool(self.settings, database, store, self.vendor.create),
                "owner": owner() if name is None else name,
                "policy": POLICY,
                "jitter": lambda _ceiling: 0.0,
                "announce": self.notes.chunks,
                "is_stopping": self.is_stopping,
                **more,
            }
        )

    def deliver(self, chunk_id: int, *, tools: Tools | None = None) -> Counter[str] | None:
        """Work on one chunk. Whatever becomes of it, channels and notifications count the same ends."""
        try:
            return deliver(
                self.tools() if tools is None else tools,
                chunk_id=chunk_id,
                channel_id=self.scene.channel_of(chunk_id),
            )
        finally:
            self._assert_outcomes_agree()

    def _assert_outcomes_agree(self) -> None:
        by_channel: Counter[str] = Counter()
        for ended in overview.outcomes(self.scene.connection).values():
            by_channel.update({outcome.value: number for outcome, number in ended.items()})
        sums = ", ".join(f"sum({outcome}) AS {outcome}" for outcome in ledger.FinalOutcome)
        (by_notification,) = self.scene.run(f"SELECT {sums} FROM pushfan.notification")
        assert +by_channel == {name: number for name, number in by_notification.items() if number}

    def deliver_all(self) -> Counter[str]:
        """Work on every chunk that there is. Gives what became of their positions."""
        tools = self.tools()
        sums: Counter[str] = Counter()
        for chunk_id in self.scene.chunk_ids():
            sums += self.deliver(chunk_id, tools=tools) or Counter()
        return sums

    def deliver_to_the_end(self, notification_id: int) -> Notification:
        """Work until a notification is finished, its retries being due at once."""
        for _ in range(50):
            found = self.scene.find(notification_id)
            if found.finished_at is not None:
                return found
            self.scene.run("UPDATE pushfan.retry SET due_at = now()")
            ledger.move_due_retries(self.scene.connection, chunk_size=self.settings.chunk_size)
            self.deliver_all()
            self.scene.assert_conserved()
        raise AssertionError(
            f"not finished: {notifications.progress(self.scene.connection, notification_id)}"
        )

    def dispatcher(self) -> Dispatcher:
        """Make the dispatcher that runs beside this worker."""
        return Dispatcher(self.settings, self.scene.database, self.notes, NODE)

    def door(self) -> Door:
        """Make what intake works with."""
        return Door(settings=self.settings, database=self.scene.database, announcer=self.notes)

    def channel(self) -> Channel:
        """Read the scene's channel as it is now."""
        return channels.find(self.scene.connection, self.scene.channel.id)

    def device_states(self) -> Counter[str]:
        """Count devices by state."""
        rows = self.scene.run("SELECT state FROM pushfan.device")
        return Counter(row["state"] for row in rows)

    def write_secret(self, content: str) -> None:
        """Put the channel's secret where its reference says."""
        directory = self.settings.credentials_directory
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "key").write_text(content)

    def remove_secret(self) -> None:
        """Take the channel's secret away."""
        (self.settings.credentials_directory / "key").unlink()

    def close(self) -> None:
        """Close all connections of the processes that were made here."""
        for database in self.databases:
            database.close()


def build_floor(scene: Scene, home: Path, **settings: object) -> Floor:
    """Make a worker on a scene's database."""
    loaded = load_settings({}, database_url=scene.database.url, broker_url="memory://", home=home, **settings)
    floor = Floor(scene=scene, settings=loaded, notes=Notes(create_bare_app(loaded)))
    floor.write_secret("the first secret")
    return floor
