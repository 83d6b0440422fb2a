"""The application on a database of its own, called without a socket; and keys to call it with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from gateway.http.application import create_application
from registry import apps, channels, keys
from registry.apps import App
from registry.channels import Access, Channel
from registry.database import Database
from tests.integration.http.served import Served
from workers.settings import Settings, load_settings

SECRET = "s" * 40
HELLO = {"title": "Hello"}
HERE = ("127.0.0.1", 50_000)
ELSEWHERE = ("203.0.113.7", 50_000)


@dataclass(slots=True, kw_only=True)
class House:
    """The apps `shop` and `other`, each with the channels `android` and `ios`, and a key for every role."""

    settings: Settings
    database: Database
    client: Served
    apps: dict[str, App] = field(default_factory=dict)
    secrets: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("shop", "other"):
            self.apps[name] = self.database.run(lambda connection, name=name: apps.add(connection, name))  # type: ignore[misc]
            self.add_channel(name, "android", "fcm")
            self.add_channel(name, "ios", "apns")
            self.secrets[name] = self.key(name, roles=("publish", "register"))
            self.secrets[f"{name} admin"] = self.key(name, roles=("admin",), name="admin")
        self.secrets["operator"] = self.key(None, roles=("admin",))

    def add_channel(self, app: str, name: str, provider: str) -> Channel:
        """Make a channel."""
        access = Access(secrets={"key": "file:key"})
        return self.database.run(
            lambda connection: channels.add(
                connection, self.apps[app].id, name=name, provider=provider, access=access
            )
        )

    def key(
        self,
        app: str | None,
        *,
        roles: Sequence[str],
        name: str = "backend",
        lanes: Sequence[str] = ("urgent", "normal", "bulk"),
    ) -> str:
        """Make a key, and give its secret."""
        app_id = None if app is None else self.apps[app].id
        return self.database.run(
            lambda connection: keys.create(connection, name=name, app_id=app_id, roles=roles, lanes=lanes)
        )[1]

    def call(self, method: str, path: str, *, by: str | None = "shop", **more: Any) -> httpx.Response:
        """Call with one of the keys, or with a secret that is none of them."""
        headers = dict(more.pop("headers", {}))
        if by is not None:
            headers["authorization"] = f"Bearer {self.secrets.get(by, by)}"
        return self.client.request(method, path, headers=headers, **more)

    def get(self, path: str, **more: Any) -> httpx.Response:
        """Call GET."""
        return self.call("GET", path, **more)

    def put(self, path: str, **more: Any) -> httpx.Response:
        """Call PUT."""
        return self.call("PUT", path, **more)

    def post(self, path: str, **more: Any) -> httpx.Response:
        """Call POST."""
        return self.call("POST", path, **more)

    def delete(self, path: str, **more: Any) -> httpx.Response:
        """Call DELETE."""
        return self.call("DELETE", path, **more)

    def rows(self, statement: str, *parameters: object) -> list[dict[str, Any]]:
        """Ask the database."""
        return self.database.connection().execute(statement.encode(), parameters).fetchall()

    def notifications(self) -> list[dict[str, Any]]:
        """List what was taken in."""
        return self.rows("SELECT * FROM pushfan.notification ORDER BY id")


def settings_for(database_url: str, home: Path, **more: Any) -> Settings:
    """Make settings without a broker: the dispatcher would announce."""
    directory = home / "credentials"
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "user-token-secret").write_text(SECRET)
    (directory / "webhook-secret").write_text(SECRET)
    return load_settings({}, database_url=database_url, home=home, **more)


def serve(settings: Settings, *, client: tuple[str, int] = HERE, scheme: str = "http") -> Served:
    """Run the application in this process."""
    return Served(create_application(settings), client=client, scheme=scheme)
