"""The provider clients of one process: one for each channel it works for, rebuilt when its credentials change."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from providers import create_client
from providers.client import Client
from providers.outcome import ChannelConfig, CredentialsRejected
from providers.reach import LOOPBACK, Reach
from registry import channels
from registry.channels import Channel
from registry.database import Database

from .credentials import CredentialError, CredentialStore, fingerprint
from .settings import Settings

# How old the knowledge of a channel's row and of its credential files may be.
_FRESH_SECONDS = 2.0
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


@dataclass(slots=True, kw_only=True)
class Lane:
    """A channel as this process knows it: its row, its client and what both were made from."""

    channel: Channel
    client: Client
    fingerprint: str
    checked_at: float
    pid: int

    @property
    def is_fresh(self) -> bool:
        """Looked at so lately that it need not be looked at again."""
        return self.pid == os.getpid() and time.monotonic() - self.checked_at < _FRESH_SECONDS

    def fits(self, channel: Channel, current: str) -> bool:
        """Tell whether this process made the client, from these credentials and this way to the provider."""
        return (self.pid, self.fingerprint, self.channel.access) == (os.getpid(), current, channel.access)


class ClientPool:
    """Gives the client of a channel. Used by one thread; clients never cross a fork."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        store: CredentialStore,
        create: Callable[[ChannelConfig], Client] = create_client,
    ) -> None:
        self._settings = settings
        self._database = database
        self._store = store
        self._create = create
        self._lanes: dict[int, Lane] = {}
        self._tried: dict[int, str | None] = {}

    def get(self, channel_id: int) -> Lane:
        """Give a channel's client, built or rebuilt if need be.

        Raises `CredentialsRejected` when its credentials cannot be read or used, `NotFound` for no such channel.
        """
        lane = self._lanes.get(channel_id)
        if lane is not None and lane.is_fresh:
            return lane
        channel = self._database.run(lambda connection: channels.find(connection, channel_id))
        self._tried[channel_id] = None
        secrets = self.read_secrets(channel)
        current = self._tried[channel_id] = fingerprint(secrets)
        if lane is None or not lane.fits(channel, current):
            self.discard(channel_id)
            lane = Lane(
                channel=channel,
                client=self._create(build_config(self._settings, channel, secrets)),
                fingerprint=current,
                checked_at=0.0,
                pid=os.getpid(),
            )
            self._lanes[channel_id] = lane
        lane.checked_at = time.monotonic()
        return lane

    def fingerprint(self, channel_id: int) -> str | None:
        """Tell which credentials this process last tried for a channel, `None` if they could not be read."""
        return self._tried.get(channel_id)

    def discard(self, channel_id: int) -> None:
        """Close a client whose answers nobody waits for any more."""
        lane = self._lanes.pop(channel_id, None)
        if lane is not None and lane.pid == os.getpid():
            lane.client.close()

    def read_secrets(self, channel: Channel) -> dict[str, bytes]:
        """Read a channel's secrets. Raises `CredentialsRejected` that says which cannot be read, and why."""
        try:
            return self._store.resolve(channel.access.secrets)
        except CredentialError as error:
            raise CredentialsRejected(str(error)) from error

    def close(self) -> None:
        """Close all connections."""
        for lane in self._lanes.values():
            if lane.pid == os.getpid():
                lane.client.close()
        self._lanes.clear()


def build_config(settings: Settings, channel: Channel, secrets: dict[str, bytes]) -> ChannelConfig:
    """Put a channel's row, its secrets and the settings together. Raises `CredentialsRejected` for a forbidden host."""
    for endpoint in _endpoints(channel):
        check_endpoint(settings, endpoint)
    return ChannelConfig(
        provider=channel.provider,
        environment=channel.access.environment,
        settings=channel.access.settings,
        secrets=secrets,
        endpoint=channel.access.endpoint,
        report_endpoint=channel.access.report_endpoint,
        ca_file=channel.access.ca_file,
        reach=_reach(settings, channel) if _endpoints(channel) else None,
        token_reach=_reach(settings, channel),
        timeout=settings.provider_timeout,
    )


def _endpoints(channel: Channel) -> list[str]:
    access = channel.access
    return [one for one in (access.endpoint, access.report_endpoint) if one is not None]


def _reach(settings: Settings, channel: Channel) -> Reach:
    """Say which addresses may be connected to under a name that is not the vendor's own; that one is not judged."""
    is_here = any((urlsplit(one).hostname or "").lower() in _LOOPBACK for one in _endpoints(channel))
    return Reach([*settings.networks, *(LOOPBACK if is_here else ())])


def check_endpoint(settings: Settings, endpoint: str) -> None:
    """Refuse an endpoint that the operator did not list. Raises `CredentialsRejected` with what to do."""
    parts = urlsplit(endpoint)
    host = (parts.hostname or "").lower()
    if host in _LOOPBACK:
        return
    if parts.scheme != "https":
        raise CredentialsRejected(f"the endpoint {endpoint} must be HTTPS")
    if host not in settings.hosts:
        raise CredentialsRejected(
            f"the endpoint's host {host} is not allowed: an operator lists it in PUSHFAN_ALLOWED_HOSTS"
        )
