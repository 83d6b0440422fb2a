"""Devices: installing them, and keeping what vendors' answers say about their tokens.

    active ──(doubted)──> suspect ──(accepted, registered again)──> active
    active, suspect ──(dead, uninstalled, taken over)──> retired, for good

Two installs that name the same key or token take turns by advisory locks, since the row that they would both
make is not there yet to be locked. Order of locks: channel, addresses (sorted), device rows (by id).
Everything here expects READ COMMITTED: what is read after a lock must show what its last holder committed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from datetime import datetime
from operator import attrgetter
from typing import Any, Final

from psycopg import Cursor
from psycopg.rows import DictRow

from . import pseudo
from .atomic import atomic
from .checks import DEVICE_KEY, LABEL, LOCALE, TIME_ZONE, TOKEN, USER, Problems, choice, refuse
from .database import Connection
from .errors import NotFound
from .installs import AddressKind, Change, Install, Note, Registrations, Row, State
from .statements import load

__all__ = [
    "AddressKind",
    "Change",
    "Device",
    "Install",
    "Installed",
    "Settled",
    "State",
    "TokenAnswer",
    "check",
    "confirm",
    "find",
    "get",
    "install",
    "install_checked",
    "install_many",
    "list_by_user",
    "mark_suspect",
    "retire",
    "settle",
    "token_hash",
    "uninstall",
]

_SQL = load("devices")
# Large enough that statements cost little beside their rows, small enough that one holds its channel for a
# fraction of a second.
BATCH: Final = 5_000
_COLUMNS: Final = tuple(field.name for field in fields(Row))
_values = attrgetter(*_COLUMNS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One app install of one user, as it is now."""

    id: int
    app_id: int
    channel_id: int
    channel: str
    provider: str
    user_id: str
    device_key: str
    token: str = field(repr=False)
    address_kind: AddressKind
    locale: str | None
    time_zone: str | None
    app_version: str | None
    registered_at: datetime
    seen_at: datetime
    state: State
    state_reason: str | None
    state_changed_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """What an install call did, and to which device."""

    device_id: int
    change: Change


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenAnswer:
    """What a vendor says about the token that was sent to.

    `at` is the instant that the answer speaks of: the vendor's time of invalidation if it names one, else
    when the token was loaded. A token registered later is another matter.
    """

    device_id: int
    token: str = field(repr=False)
    at: datetime
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """The ids of the devices that some answers changed."""

    retired: frozenset[int]
    suspected: frozenset[int]
    confirmed: frozenset[int]


def token_hash(token: str) -> str:
    """Give the short name by which logs, feedback and traces call a token."""
    return hashlib.sha256(token.encode()).hexdigest()[:12]


def check(call: Install, problems: Problems, path: str = "") -> None:
    """Note everything that is wrong with the shape of an install call; vendors' own rules are not here."""
    prefix = f"{path}." if path else ""
    USER(call.user_id, f"{prefix}user", problems)
    DEVICE_KEY(call.device_key, f"{prefix}device_key", problems)
    TOKEN(call.token, f"{prefix}token", problems)
    if call.address_kind is not AddressKind.TOKEN:
        choice(AddressKind)(call.address_kind, f"{prefix}address_kind", problems)
    if call.locale is not None:
        LOCALE(call.locale, f"{prefix}locale", problems)
    if call.time_zone is not None:
        TIME_ZONE(call.time_zone, f"{prefix}time_zone", problems)
    if call.app_version is not None:
        LABEL(call.app_version, f"{prefix}app_version", problems)


def install(connection: Connection, call: Install) -> Installed:
    """Register a device, refresh it, give it another token or move it: the rules are those of `installs`.

    Call it once in a transaction; for several devices use `install_many`, which cannot deadlock with another.
    Raises `InvalidRegistration`, `NotFound` for the channel, and `AlreadyPromoted` for a pseudo user.
    """
    problems = Problems()
    check(call, problems)
    refuse(problems)
    with atomic(connection), _registering(connection, [call]):
        entered = _enter(connection, "enter", [call])
        connection.execute(_SQL["lock_addresses"], {"locks": _address_locks(call)})
        found = _find_touched(connection, [call])
        return _apply(connection, [call], _app_ids(entered, [call]), found)[0]


def install_many(connection: Connection, calls: Sequence[Install]) -> list[Installed]:
    """Do the same as `install` with one call after the other, by thousands a statement.

    Other installs of the same channels wait until the transaction ends. Raises `InvalidRegistration` with the
    problems of all calls, `NotFound` and `AlreadyPromoted`.
    """
    problems = Problems()
    for index, call in enumerate(calls):
        check(call, problems, str(index))
    refuse(problems)
    return install_checked(connection, calls)


def install_checked(connection: Connection, calls: Sequence[Install]) -> list[Installed]:
    """Do the same as `install_many` with calls that went through `check`."""
    installed: list[Installed] = []
    with atomic(connection), _registering(connection, calls):
        app_ids = _app_ids(_enter(connection, "enter_alone", calls), calls)
        for start in range(0, len(calls), BATCH):
            batch = calls[start : start + BATCH]
            installed += _apply(connection, batch, app_ids, _find_touched(connection, batch))
    return installed


def uninstall(
    connection: Connection,
    app_id: int,
    *,
    device_key: str | None = None,
    token: str | None = None,
    user_id: str | None = None,
    channel_id: int | None = None,
) -> list[int]:
    """Retire the devices in use that match all that is given (a key or a token at least). Returns their ids.

    Give the user where it is known: a logout that comes late must not remove the next user's device.
    """
    if device_key is None and token is None:
        raise ValueError("name the device by its key or its token")
    given = {"app_id": app_id, "device_key": device_key, "token": token}
    given |= {"user_id": user_id, "channel_id": channel_id}
    with atomic(connection):
        ids = _ids(connection.execute(_SQL["lock_matching"], given))
        return _ids(connection.execute(_SQL["uninstall"], {"ids": ids, **given}))


def get(connection: Connection, app_id: int, device_id: int) -> Device:
    """Find a device by its id, in use or not. Raises `NotFound`, also when it is another app's."""
    row = connection.execute(_SQL["get"], {"app_id": app_id, "device_id": device_id}).fetchone()
    if row is None:
        raise NotFound(f"there is no device with the id {device_id}")
    return _device(row)


def find(connection: Connection, app_id: int, *, user_id: str, device_key: str) -> list[Device]:
    """List a user's devices in use that have this key: one for each channel at most."""
    parameters = {"app_id": app_id, "user_id": user_id, "device_key": device_key}
    return [_device(row) for row in connection.execute(_SQL["find"], parameters)]


def list_by_user(
    connection: Connection, app_id: int, user_id: str, *, with_retired: bool = False, limit: int = 1000
) -> list[Device]:
    """List a user's devices, the oldest first."""
    parameters = {"app_id": app_id, "user_id": user_id, "with_retired": with_retired, "limit": limit}
    return [_device(row) for row in connection.execute(_SQL["list_by_user"], parameters)]


def settle(
    connection: Connection,
    channel_id: int,
    *,
    generation: int,
    dead: Sequence[TokenAnswer] = (),
    doubted: Sequence[TokenAnswer] = (),
    accepted: Sequence[TokenAnswer] = (),
) -> Settled:
    """Apply what answers say about tokens: `retire`, `mark_suspect` and `confirm`, with one order of locks.

    `accepted` need only name devices that were suspects when they were loaded.
    """
    with atomic(connection):
        # Before the devices, since that is the order of locks.
        suspected = _is_current(connection, channel_id, generation) if doubted else False
        _lock(connection, (*dead, *doubted, *accepted))
        return Settled(
            retired=_answered(connection, "retire", dead),
            suspected=_answered(connection, "mark_suspect", doubted if suspected else ()),
            confirmed=_answered(connection, "confirm", accepted),
        )


def retire(connection: Connection, answers: Sequence[TokenAnswer]) -> frozenset[int]:
    """Retire devices whose token is dead, if it is still theirs and not registered later than answered.

    Returns the ids of those retired; each is in the feedback log.
    """
    with atomic(connection):
        _lock(connection, answers)
        return _answered(connection, "retire", answers)


def mark_suspect(
    connection: Connection, channel_id: int, answers: Sequence[TokenAnswer], *, generation: int
) -> frozenset[int]:
    """Make active devices of one channel suspects, if the token is still theirs and not registered since.

    Nothing changes when the channel's circuit has changed since `generation`: the doubt may have been about
    credentials that are corrected by now. Returns the ids of the new suspects.
    """
    return settle(connection, channel_id, generation=generation, doubted=answers).suspected


def confirm(connection: Connection, answers: Sequence[TokenAnswer]) -> frozenset[int]:
    """Make suspects active again whose token, still theirs, a vendor accepted. Returns their ids."""
    with atomic(connection):
        _lock(connection, answers)
        return _answered(connection, "confirm", answers)


@contextmanager
def _registering(connection: Connection, calls: Sequence[Install]) -> Iterator[None]:
    """Run a block as a pipeline, in which none of the users is promoted. Raises `AlreadyPromoted`."""
    channel_ids = {call.channel_id for call in calls}
    pseudo.hold(connection, (call.user_id for call in calls), channel_ids=channel_ids)
    with connection.pipeline():
        yield


def _enter(connection: Connection, statement: str, calls: Iterable[Install]) -> Cursor[DictRow]:
    """Lock the channels, in order, beside other installs or alone."""
    ids = sorted({call.channel_id for call in calls})
    return connection.execute(_SQL[statement], {"channel_ids": ids})


def _app_ids(entered: Cursor[DictRow], calls: Iterable[Install]) -> dict[int, int]:
    app_ids: dict[int, int] = {row["id"]: row["app_id"] for row in entered}
    if missing := sorted({call.channel_id for call in calls} - app_ids.keys()):
        raise NotFound(f"there is no channel with the id {', '.join(map(str, missing))}")
    return app_ids


def _address_locks(call: Install) -> list[int]:
    names = (f"{call.channel_id} key {call.device_key}", f"{call.channel_id} token {call.token}")
    digests = (hashlib.blake2b(name.encode(), digest_size=8, person=b"pushfan").digest() for name in names)
    return sorted(int.from_bytes(digest, signed=True) for digest in digests)


def _find_touched(connection: Connection, calls: Sequence[Install]) -> Cursor[DictRow]:
    return connection.execute(
        _SQL["find_touched"],
        {
            "channel_ids": [call.channel_id for call in calls],
            "device_keys": [call.device_key for call in calls],
            "tokens": [call.token for call in calls],
        },
    )


def _apply(
    connection: Connection, calls: Sequence[Install], app_ids: dict[int, int], found: Cursor[DictRow]
) -> list[Installed]:
    rows = found.fetchall()
    now: datetime = rows[0].pop("now")
    for row in rows[1:]:
        del row["now"]
    registrations = Registrations(
        (Row(**row) for row in rows if row["id"] is not None), now=now, app_ids=app_ids
    )
    done = [registrations.install(call) for call in calls]
    _store(connection, registrations)
    return [Installed(device_id=row.id, change=change) for row, change in done]


def _store(connection: Connection, registrations: Registrations) -> None:
    touched, created = registrations.touched.values(), registrations.created
    if colliding := registrations.collisions():
        # Of two devices that swap tokens, one would have the other's before that has its own.
        connection.execute(_SQL["set_aside"], {"ids": colliding})
    if touched:
        _save(connection, touched)
    if created:
        _number(connection, created)
        _save(connection, created)
    if registrations.notes:
        _write_feedback(connection, registrations.notes)


def _number(connection: Connection, created: Sequence[Row]) -> None:
    ids = connection.execute(_SQL["next_ids"], {"count": len(created)})
    for row, fetched in zip(created, ids, strict=True):
        row.id = fetched["id"]


def _save(connection: Connection, rows: Iterable[Row]) -> None:
    columns = map(list, zip(*map(_values, rows), strict=True))
    connection.execute(_SQL["save"], dict(zip(_COLUMNS, columns, strict=True)))


def _write_feedback(connection: Connection, notes: Sequence[Note]) -> None:
    connection.execute(
        _SQL["write_feedback"],
        {
            "app_ids": [note.row.app_id for note in notes],
            "channel_ids": [note.row.channel_id for note in notes],
            "device_ids": [note.row.id for note in notes],
            "user_ids": [note.row.user_id for note in notes],
            "device_keys": [note.device_key for note in notes],
            "kinds": [note.kind.value for note in notes],
            "reasons": [note.reason for note in notes],
            "token_hashes": [token_hash(note.token) for note in notes],
        },
    )


def _is_current(connection: Connection, channel_id: int, generation: int) -> bool:
    parameters = {"channel_id": channel_id, "generation": generation}
    return connection.execute(_SQL["hold_generation"], parameters).fetchone() is not None


def _lock(connection: Connection, answers: Iterable[TokenAnswer]) -> None:
    """Lock the devices in the order of their ids, whatever order the answers came in."""
    if ids := [answer.device_id for answer in answers]:
        connection.execute(_SQL["lock"], {"ids": ids})


def _answered(connection: Connection, statement: str, answers: Sequence[TokenAnswer]) -> frozenset[int]:
    if not answers:
        return frozenset()
    parameters: dict[str, Any] = {
        "ids": [answer.device_id for answer in answers],
        "tokens": [answer.token for answer in answers],
        "instants": [answer.at for answer in answers],
        "reasons": [answer.reason for answer in answers],
    }
    return frozenset(_ids(connection.execute(_SQL[statement], parameters)))


def _ids(rows: Iterable[dict[str, Any]]) -> list[int]:
    return [row["id"] for row in rows]


def _device(row: dict[str, Any]) -> Device:
    return Device(**{**row, "address_kind": AddressKind(row["address_kind"]), "state": State(row["state"])})
