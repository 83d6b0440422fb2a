"""Channels: an app's ways to providers, their circuits and their health.

A circuit and its *generation*: each change makes the generation grow, and news that was gathered under an
older generation (a chunk claimed before the credentials were corrected) changes nothing.

    closed ──(credentials, outage, throttled, mass invalidation)──> open
    open ──(rest is over, other credentials, an operator's probe)──> probing
    probing ──(a few positions answered)──> closed, ramping ──> closed
    probing ──(they failed)──> open, for a longer rest
    any ──(pause)──> open, reason operator; open or probing ──(resume)──> closed, ramping

Where doubts over many answers opened the circuit, only other credentials or an operator begin a probe.

What a provider needs among `settings` and `secrets` is the provider's to say; here they are mappings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from functools import partial
from typing import Any, Final

from psycopg.types.json import Jsonb

from .atomic import atomic
from .checks import APP_NAME, Problems, choice, refuse
from .database import Connection, Database
from .errors import AlreadyExists, NotFound, RegistryError
from .statements import load

_SQL = load("channels")
_SCHEMES: Final = ("file:", "env:")
# FCM's quota for a project, and a rate that the others take.
RATE_PER_SECOND: Final = 10_000
_DEVICES_REMOVED_AT_ONCE: Final = 10_000


class Provider(StrEnum):
    """The services that channels lead to."""

    FCM = "fcm"
    APNS = "apns"
    JPUSH = "jpush"


class Environment(StrEnum):
    """Which of a provider's two worlds a channel's tokens are from."""

    PRODUCTION = "production"
    SANDBOX = "sandbox"


class Circuit(StrEnum):
    """`closed`: traffic flows. `open`: nothing is published or claimed. `probing`: a little goes through."""

    CLOSED = "closed"
    OPEN = "open"
    PROBING = "probing"


class CircuitReason(StrEnum):
    """Why a circuit opened, which decides who may close it."""

    OPERATOR = "operator"
    CREDENTIALS = "credentials"
    OUTAGE = "outage"
    THROTTLED = "throttled"
    MASS_INVALIDATION = "mass_invalidation"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rest:
    """How long a stopped channel rests before it is probed: twice as long after each failed probe, up to `cap`.

    `floor` is what the provider itself asked for.
    """

    first: timedelta
    cap: timedelta
    floor: timedelta = timedelta(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """How a channel reaches its provider. `secrets` are references by role: "file:…" or "env:…"."""

    secrets: Mapping[str, str]
    settings: Mapping[str, str] = field(default_factory=dict)
    environment: Environment = Environment.PRODUCTION
    endpoint: str | None = None
    report_endpoint: str | None = None
    ca_file: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Channel:
    """One app's way to one provider, as it is now."""

    id: int
    app_id: int
    name: str
    provider: Provider
    access: Access
    slots: int
    rate_per_second: int
    circuit: Circuit
    circuit_reason: CircuitReason | None
    circuit_detail: str | None
    circuit_generation: int
    circuit_changed_at: datetime
    probe_at: datetime | None
    failed_probes: int
    ramping_since: datetime | None
    credential_fingerprint: str | None
    health_since: datetime
    accepted: int
    doubted: int
    created_at: datetime


def add(
    connection: Connection,
    app_id: int,
    *,
    name: str,
    provider: str,
    access: Access,
    slots: int = 32,
    rate_per_second: int = RATE_PER_SECOND,
) -> Channel:
    """Make a channel, its circuit closed. Raises `InvalidRegistration`, `AlreadyExists`, `NotFound` (app)."""
    _check(name=name, provider=provider, access=access, slots=slots, rate_per_second=rate_per_second)
    parameters = {
        "app_id": app_id,
        "name": name,
        "provider": provider,
        "slots": slots,
        "rate_per_second": rate_per_second,
        **_columns(access),
    }
    row = connection.execute(_SQL["add"], parameters).fetchone()
    if row is not None:
        return _channel(row)
    if connection.execute(_SQL["get"], {"app_id": app_id, "name": name}).fetchone() is None:
        raise NotFound(f"there is no app with the id {app_id}")
    raise AlreadyExists(f"there is a channel {name!r} already")


def get(connection: Connection, app_id: int, name: str) -> Channel:
    """Find an app's channel by name. Raises `NotFound`, which names the channels that there are."""
    row = connection.execute(_SQL["get"], {"app_id": app_id, "name": name}).fetchone()
    if row is None:
        known = ", ".join(channel.name for channel in list_all(connection, app_id))
        raise NotFound(f"there is no channel {name!r} (channels: {known or 'none yet: add one first'})")
    return _channel(row)


def find(connection: Connection, channel_id: int) -> Channel:
    """Find a channel by its id. Raises `NotFound`."""
    row = connection.execute(_SQL["find"], {"channel_id": channel_id}).fetchone()
    if row is None:
        raise _missing(channel_id)
    return _channel(row)


def list_all(connection: Connection, app_id: int | None = None) -> list[Channel]:
    """List channels by app and name, of one app or of all."""
    return [_channel(row) for row in connection.execute(_SQL["list_all"], {"app_id": app_id})]


def open_for_credentials(connection: Connection) -> list[Channel]:
    """List the channels that wait for other secrets: probe one when they differ from its fingerprint."""
    return [_channel(row) for row in connection.execute(_SQL["open_for_credentials"])]


def pause(connection: Connection, channel_id: int, detail: str | None = None) -> None:
    """Stop a channel until an operator resumes it, whatever state it is in. Raises `NotFound`."""
    if connection.execute(_SQL["pause"], {"channel_id": channel_id, "detail": detail}).fetchone() is None:
        raise _missing(channel_id)


def resume(connection: Connection, channel_id: int) -> bool:
    """Let traffic flow again, on an operator's word. `False` if it flows already. Raises `NotFound`.

    After a mass invalidation the doubts are forgotten: suspects are active again and health is counted anew,
    or the same doubts would open the circuit at once.
    """
    with atomic(connection):
        row = connection.execute(_SQL["lock"], {"channel_id": channel_id}).fetchone()
        if row is None:
            raise _missing(channel_id)
        if row["circuit"] == Circuit.CLOSED:
            return False
        if row["circuit_reason"] == CircuitReason.MASS_INVALIDATION:
            _believe_again(connection, channel_id)
        connection.execute(_SQL["close"], {"channel_id": channel_id, "probed": None})
        return True


def probe(connection: Connection, channel_id: int) -> bool:
    """Let a few positions through a stopped channel: their answers close its circuit or open it again.

    `False` if it is not stopped. Raises `NotFound`. Where nothing waits, the next push is the probe.
    """
    if connection.execute(_SQL["probe"], {"channel_id": channel_id}).fetchone() is not None:
        return True
    find(connection, channel_id)
    return False


def begin_probes(connection: Connection) -> list[int]:
    """Let the stopped channels probe whose rest is over and that have something to send. Returns their ids."""
    return [row["id"] for row in connection.execute(_SQL["begin_probes"])]


def end_probe(connection: Connection, channel_id: int, *, generation: int) -> bool:
    """Close a circuit whose probe was answered. `False`, and no change, if it is not probing that any more."""
    parameters = {"channel_id": channel_id, "probed": generation}
    return connection.execute(_SQL["close"], parameters).fetchone() is not None


def open_circuit(
    connection: Connection,
    channel_id: int,
    *,
    reason: CircuitReason,
    detail: str,
    generation: int,
    rest: Rest | None = None,
    fingerprint: str | None = None,
) -> bool:
    """Stop a channel because of what was seen under `generation`. `False`, and no change, if that is over.

    It probes by itself after `rest`; without one somebody must act. `fingerprint` says which secrets were refused:
    others are probed at once.
    """
    parameters = {
        "channel_id": channel_id,
        "reason": reason.value,
        "detail": detail,
        "generation": generation,
        "fingerprint": fingerprint,
        "rest": rest and rest.first,
        "cap": rest and rest.cap,
        "floor": rest and rest.floor,
    }
    return connection.execute(_SQL["open"], parameters).fetchone() is not None


def credentials_changed(connection: Connection, channel_id: int, *, generation: int) -> bool:
    """Say that the secrets behind the references have changed. `False` if the circuit has changed meanwhile.

    Health is counted anew, suspects are active again, and a circuit that was open for credentials or a mass
    invalidation is probed.
    """
    with atomic(connection):
        row = connection.execute(_SQL["lock"], {"channel_id": channel_id}).fetchone()
        if row is None or row["circuit_generation"] != generation:
            return False
        _begin_anew(connection, channel_id)
        return True


def set_credentials(connection: Connection, channel_id: int, access: Access) -> Channel:
    """Give a channel other secrets, settings or addresses, with the consequences of `credentials_changed`.

    Everything in `access` is set: begin from the channel's own and `dataclasses.replace` what changes.
    Raises `NotFound`, `InvalidRegistration`.
    """
    problems = Problems()
    _check_access(access, problems)
    refuse(problems)
    with atomic(connection):
        if connection.execute(_SQL["lock"], {"channel_id": channel_id}).fetchone() is None:
            raise _missing(channel_id)
        connection.execute(_SQL["set_access"], {"channel_id": channel_id, **_columns(access)})
        _begin_anew(connection, channel_id)
        return find(connection, channel_id)


def remove(database: Database, channel_id: int) -> int:
    """Remove a channel and its devices, a bounded number at a time. Returns how many devices it had.

    Refuses while deliveries wait for it: cancel their notifications first, or let them end. The channel is
    paused meanwhile; what is planned for it nevertheless expires.
    """
    database.run(lambda connection: _stop_for_good(connection, channel_id))
    removed, last = 0, 0
    while ids := database.run(partial(_remove_devices, channel_id, last)):
        removed, last = removed + len(ids), max(ids)
    database.run(lambda connection: connection.execute(_SQL["remove"], {"channel_id": channel_id}))
    return removed


def _stop_for_good(connection: Connection, channel_id: int) -> None:
    row = connection.execute(_SQL["pending"], {"channel_id": channel_id}).fetchone()
    if row is None:
        raise _missing(channel_id)
    if row["chunks"] or row["retries"]:
        raise RegistryError(
            f"the channel {row['name']!r} has deliveries that have not ended: cancel their notifications "
            "or let them end"
        )
    pause(connection, channel_id, "being removed")


def _remove_devices(channel_id: int, after: int, connection: Connection) -> list[int]:
    parameters = {"channel_id": channel_id, "after": after, "limit": _DEVICES_REMOVED_AT_ONCE}
    return [row["id"] for row in connection.execute(_SQL["remove_devices"], parameters)]


def _begin_anew(connection: Connection, channel_id: int) -> None:
    connection.execute(_SQL["change_credentials"], {"channel_id": channel_id})
    _believe_again(connection, channel_id)


def _believe_again(connection: Connection, channel_id: int) -> None:
    connection.execute(_SQL["reset_health"], {"channel_id": channel_id})
    connection.execute(_SQL["believe_suspects"], {"channel_id": channel_id})


def _check(*, name: str, provider: str, access: Access, slots: int, rate_per_second: int) -> None:
    problems = Problems()
    APP_NAME(name, "name", problems)
    choice(Provider)(provider, "provider", problems)
    _check_access(access, problems)
    if not 1 <= slots <= 1000:
        problems.add("slots", "range", "must be between 1 and 1,000")
    if not 1 <= rate_per_second < 2**31:
        problems.add("rate_per_second", "range", "must be 1 or more")
    refuse(problems)


def _check_access(access: Access, problems: Problems) -> None:
    choice(Environment)(access.environment, "environment", problems)
    if not access.secrets:
        problems.add("secrets", "required", "must name at least one secret")
    for role, reference in access.secrets.items():
        if not str(reference).startswith(_SCHEMES):
            # It may be the secret itself: it is not repeated.
            problems.add(f"secrets.{role}", "format", "must be a reference: file:<path> or env:<name>")
    for name, value in access.settings.items():
        if not value:
            problems.add(f"settings.{name}", "empty", "must not be empty")


def _columns(access: Access) -> dict[str, Any]:
    return {
        **asdict(access),
        "secrets": Jsonb(dict(access.secrets)),
        "settings": Jsonb(dict(access.settings)),
        "environment": Environment(access.environment).value,
    }


def _channel(row: Mapping[str, Any]) -> Channel:
    access = {name: row[name] for name in Access.__slots__}
    others = {name: row[name] for name in Channel.__slots__ if name != "access"}
    reason = row["circuit_reason"]
    return Channel(
        **{
            **others,
            "provider": Provider(row["provider"]),
            "circuit": Circuit(row["circuit"]),
            "circuit_reason": None if reason is None else CircuitReason(reason),
        },
        access=Access(**{**access, "environment": Environment(row["environment"])}),
    )


def _missing(channel_id: int) -> NotFound:
    return NotFound(f"there is no channel with the id {channel_id}")
