"""Whether a channel that is being added can work: its secrets, its settings, its addresses."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from providers import create_provider
from providers.outcome import CredentialsRejected
from registry.channels import Channel
from workers.clients import build_config, check_endpoint
from workers.credentials import CredentialError, CredentialStore
from workers.settings import Settings

from .problem import Fault, invalid


def check_way(settings: Settings, store: CredentialStore, channel: Channel) -> None:
    """Build the channel's provider, which refuses what cannot work without asking anybody. Raises `Problem`."""
    faults = [*_addresses(settings, channel), *_credentials(settings, store, channel)]
    if faults:
        raise invalid(faults)


def _addresses(settings: Settings, channel: Channel) -> Iterator[Fault]:
    for name in ("endpoint", "report_endpoint"):
        address = getattr(channel.access, name)
        if address is not None:
            try:
                check_endpoint(settings, address)
            except (CredentialsRejected, ValueError) as error:
                yield Fault(pointer=f"/{name}", code="forbidden", detail=str(error))


def _credentials(settings: Settings, store: CredentialStore, channel: Channel) -> Iterator[Fault]:
    try:
        secrets = store.resolve(channel.access.secrets)
        create_provider(build_config(settings, channel, secrets), now=lambda: datetime.now(UTC))
    except CredentialError as error:
        for line in str(error).splitlines():
            yield Fault(pointer="/secrets", code="credentials", detail=line)
    except (CredentialsRejected, ValueError, KeyError) as error:
        yield Fault(pointer="/secrets", code="credentials", detail=str(error))
