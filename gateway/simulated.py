"""Channels that lead to simulators, and a few phones for them, under the names that examples use."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from providers.simulators import Running
from registry import apps, channels, devices, subscriptions
from registry.channels import Access, Channel, Provider
from registry.database import Connection, Database
from registry.errors import NotFound, RegistryError
from registry.installs import Install
from registry.subscriptions import Target, TargetKind

APP: Final = "shop"
CHANNELS: Final[Mapping[str, Provider]] = {
    "android": Provider.FCM,
    "ios": Provider.APNS,
    "china": Provider.JPUSH,
}
# Who has a phone at which channel: u7 at each.
_PHONES: Final = (
    ("u1", "android"),
    ("u2", "ios"),
    ("u3", "china"),
    ("u7", "android"),
    ("u7", "ios"),
    ("u7", "china"),
)
_TARGETS: Final = (Target(kind=TargetKind.TOPIC, name="news"), Target(kind=TargetKind.BUCKET, name="orders"))
# What a channel's secret references look like that this module made: others are never touched.
_MARK: Final = "file:simulated-"


def connect(
    database: Database,
    app: str,
    simulators: Mapping[str, Running],
    credentials: Path,
    *,
    rate_per_second: int = channels.RATE_PER_SECOND,
) -> dict[str, Channel]:
    """Make the app and its channels, or lead those that an earlier run made to these simulators.

    Copies the simulators' secrets into the credentials directory. `rate_per_second` is for new channels. Returns
    the channels by name. Raises `RegistryError` when a channel of that name leads elsewhere: it may be a real one.
    """
    credentials.mkdir(parents=True, exist_ok=True)
    ways = {
        name: _access(app, provider, simulators[provider.value].info, credentials)
        for name, provider in CHANNELS.items()
        if provider.value in simulators
    }

    def work(connection: Connection) -> dict[str, Channel]:
        app_id = _app(connection, app)
        return {
            name: _channel(connection, app, app_id, name, access, rate_per_second=rate_per_second)
            for name, access in ways.items()
        }

    return database.run(work)


def populate(database: Database, found: Mapping[str, Channel]) -> None:
    """Register a few users' phones and subscriptions, unless they are there already."""
    calls = [
        Install(
            channel_id=found[name].id,
            user_id=user,
            device_key=f"{user}-{name}",
            token=make_token(CHANNELS[name], "up", user, name),
        )
        for user, name in _PHONES
    ]
    app_id = next(iter(found.values())).app_id
    pairs = [(target, user) for target in _TARGETS for user, _ in _PHONES]

    def work(connection: Connection) -> None:
        devices.install_many(connection, calls)
        subscriptions.subscribe_many(connection, app_id, pairs)

    database.run(work)


def make_token(provider: Provider, *name: object) -> str:
    """Make a token of the vendor's form from a name."""
    digest = hashlib.sha256("/".join(map(str, name)).encode()).hexdigest()
    match provider:
        case Provider.FCM:
            return f"{digest[:22]}:APA91b{digest * 2}"
        case Provider.APNS:
            return digest
        case Provider.JPUSH:
            return digest[:19]


def _app(connection: Connection, name: str) -> int:
    try:
        return apps.get(connection, name).id
    except NotFound:
        return apps.add(connection, name).id


def _channel(
    connection: Connection, app: str, app_id: int, name: str, access: Access, *, rate_per_second: int
) -> Channel:
    try:
        known = channels.get(connection, app_id, name)
    except NotFound:
        return channels.add(
            connection,
            app_id,
            name=name,
            provider=CHANNELS[name].value,
            access=access,
            rate_per_second=rate_per_second,
        )
    if not all(reference.startswith(_MARK) for reference in known.access.secrets.values()):
        raise RegistryError(
            f"the channel {name} of the app {app} does not lead to a simulator, and is not changed: "
            "use another database, or leave --simulate out"
        )
    return channels.set_credentials(connection, known.id, access)


def _access(app: str, provider: Provider, info: Mapping[str, Any], credentials: Path) -> Access:
    secrets, settings = _secrets(provider, info)
    references = {}
    for role, content in secrets.items():
        # Two apps have simulators of their own, or the same.
        name = f"simulated-{app}-{provider.value}-{role.replace('_', '-')}"
        _write(credentials / name, content)
        references[role] = f"file:{name}"
    return Access(
        secrets=references,
        settings=settings,
        endpoint=str(info["url"]),
        report_endpoint=info.get("report_url"),
        ca_file=str(Path(info["ca_file"]).resolve()),
    )


def _secrets(provider: Provider, info: Mapping[str, Any]) -> tuple[dict[str, bytes], dict[str, str]]:
    match provider:
        case Provider.FCM:
            return {"service_account": Path(info["service_account_file"]).read_bytes()}, {}
        case Provider.APNS:
            settings = {"key_id": info["key_id"], "team_id": info["team_id"], "apns_topic": info["topic"]}
            return {"key": Path(info["key_file"]).read_bytes()}, settings
        case Provider.JPUSH:
            return {role: str(info[role]).encode() for role in ("app_key", "master_secret")}, {}


def _write(path: Path, content: bytes) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)
