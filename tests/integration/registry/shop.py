"""Short ways to say what an app's users do, and to see what was registered."""

from dataclasses import dataclass
from typing import Any

from registry import apps, channels, devices
from registry.channels import Access, Channel
from registry.database import Connection
from registry.devices import Install, Installed, TokenAnswer


@dataclass(frozen=True, slots=True, kw_only=True)
class Shop:
    """An app with two channels, `ios` and `android`."""

    connection: Connection
    app_id: int
    ios: Channel
    android: Channel

    def install(self, user: str, key: str, token: str, **more: Any) -> Installed:
        """Install on the channel `ios`."""
        return devices.install(self.connection, self.call(user, key, token, **more))

    def call(self, user: str, key: str, token: str, **more: Any) -> Install:
        """Make an install call to the channel `ios`."""
        return Install(channel_id=self.ios.id, user_id=user, device_key=key, token=token, **more)

    def channel(self) -> Channel:
        """Read the channel `ios` as it is now."""
        return channels.find(self.connection, self.ios.id)

    def state(self, device_id: int) -> tuple[str, str | None]:
        """Read a device's state and why."""
        device = devices.get(self.connection, self.app_id, device_id)
        return device.state.value, device.state_reason

    def answer(self, device_id: int, reason: str = "Unregistered", **changes: Any) -> TokenAnswer:
        """Make a vendor's answer, now, about the token that a device has."""
        statement = "SELECT token, clock_timestamp() AS at FROM pushfan.device WHERE id = %s"
        row = self.connection.execute(statement, [device_id]).fetchone()
        assert row is not None
        return TokenAnswer(**{"device_id": device_id, "reason": reason, **row, **changes})

    def feedback(self) -> list[tuple[str, str, str]]:
        """List (user, kind, reason) as the feedback log has them."""
        statement = "SELECT user_id, kind, reason FROM pushfan.feedback WHERE app_id = %s ORDER BY xid, id"
        rows = self.connection.execute(statement, [self.app_id])
        return [(row["user_id"], row["kind"], row["reason"]) for row in rows]

    def tokens(self) -> dict[str, str]:
        """Read which user has each token in use on the channel `ios`."""
        statement = "SELECT token, user_id FROM pushfan.device WHERE channel_id = %s AND state <> 'retired'"
        rows = self.connection.execute(statement, [self.ios.id]).fetchall()
        assert len({row["token"] for row in rows}) == len(rows)
        return {row["token"]: row["user_id"] for row in rows}


def open_shop(connection: Connection, name: str) -> Shop:
    """Make an app with two channels and no devices."""
    app = apps.add(connection, name)
    access = Access(secrets={"key": "file:key"})
    ios, android = (
        channels.add(connection, app.id, name=channel, provider=provider, access=access)
        for channel, provider in (("ios", "apns"), ("android", "fcm"))
    )
    return Shop(connection=connection, app_id=app.id, ios=ios, android=android)
