"""How vendors are spoken to: FCM, APNs and JPush behind one client, and simulators that stand in for them.

Knows no Celery, no PostgreSQL and no environment variable. Each vendor's module builds requests and
classifies responses; `Client` sends them through the one `Engine`; `outcome` says what answers mean.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING

from providers.outcome import ChannelConfig

if TYPE_CHECKING:
    from events import Event, Problem
    from providers.client import Client
    from providers.provider import Provider

PROVIDERS = ("fcm", "apns", "jpush")

Clock = Callable[[], datetime]


def create_client(config: ChannelConfig, *, now: Clock = lambda: datetime.now(UTC)) -> Client:
    """Build the client of one channel in the process that will send; connects when something is sent.

    Raises `CredentialsRejected` when the credentials cannot be used at all, `ValueError` for a provider that
    does not exist or an endpoint that is neither HTTPS nor loopback.
    """
    from providers.client import Client, Flight
    from providers.engine import Engine

    provider = create_provider(config, now=now)
    engine: Engine[Flight] = Engine(
        ca_file=config.ca_file,
        max_streams=config.max_streams,
        max_connections=config.max_connections,
        client_certificate=config.secrets.get("certificate"),
        reach=config.reach,
    )
    return Client(provider, engine, max_in_flight=config.max_streams * config.max_connections)


def create_provider(config: ChannelConfig, *, now: Clock) -> Provider:
    """Choose the vendor's class. Raises as `create_client` does."""
    match config.provider:
        case "fcm":
            from providers.fcm import FcmProvider

            return FcmProvider(config, now=now)
        case "apns":
            from providers.apns import ApnsProvider

            return ApnsProvider(config, now=now)
        case "jpush":
            from providers.jpush import JPushProvider

            return JPushProvider(config, now=now)
    raise ValueError(f"unknown provider {config.provider!r}: it is one of {', '.join(PROVIDERS)}")


def check_event(event: Event, used: Collection[str] = PROVIDERS) -> list[Problem]:
    """Name what the vendors would refuse: forbidden overrides, and bodies too large after rendering.

    `used` are the providers that the event can reach. A forbidden override is refused whether its provider is
    used or not; all other rules bind only where they apply. A section that says `enabled: false` binds nobody.
    """
    return [
        problem
        for name, check in _dialects().items()
        if name in used or getattr(event.message, name) is not None
        for problem in check(event)
        if name in used or problem.code == "forbidden"
    ]


@cache
def _dialects() -> Mapping[str, Callable[[Event], list[Problem]]]:
    """Give what checks an event for each provider, imported when the first is checked."""
    from providers import apns, fcm, jpush

    return {"fcm": fcm.check_event, "apns": apns.check_event, "jpush": jpush.check_event}
