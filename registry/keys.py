"""API keys: who may use the HTTP API, for which apps, in which roles and lanes.

A secret is random, shown once and stored as a hash: one round of SHA-256 is enough for 256 random bits, and a slow
hash would be paid at each request. Its beginning, the prefix, is visible and names the key.

Keys of one app and name are successors. At most two are active: `rotate` makes the second, `revoke` ends the first.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from events.names import Lane

from .atomic import atomic
from .checks import APP_NAME, Problems, choice, refuse
from .database import Connection
from .errors import AlreadyExists, NotFound, RegistryError
from .statements import load

_SQL = load("keys")
_ACTIVE_AT_MOST: Final = 2
# Recognised by scanners for secrets that were committed or logged by mistake.
_BEGINNING: Final = "pfk_"
_SECRET: Final = re.compile(r"pfk_[0-9a-z]{8}_[A-Za-z0-9_-]{43}")
_PREFIX_LETTERS: Final = "0123456789abcdefghijkmnpqrstuvwxyz"


class Role(StrEnum):
    """What a key is for. `publish`: events and what became of them. `register`: users. `admin`: everything."""

    PUBLISH = "publish"
    REGISTER = "register"
    ADMIN = "admin"


class TooManyKeys(RegistryError):
    """Two keys of this name are active already: revoke one first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A key, without its secret. `app` is `None` for an operator's key, which is for all apps."""

    id: int
    app_id: int | None
    app: str | None
    name: str
    prefix: str
    roles: frozenset[Role]
    lanes: frozenset[Lane]
    created_at: datetime
    last_used_at: datetime | None
    revoked_at: datetime | None

    def may(self, role: Role) -> bool:
        """Tell whether the key has the role, or is an admin's."""
        return role in self.roles or Role.ADMIN in self.roles


def create(
    connection: Connection,
    *,
    name: str,
    app_id: int | None,
    roles: Collection[str],
    lanes: Collection[str] = tuple(Lane),
) -> tuple[Key, str]:
    """Make a key; gives it and its secret. Raises `InvalidRegistration`, or `AlreadyExists`: then `rotate`."""
    _check(name, roles, lanes)
    with atomic(connection):
        if _active(connection, app_id, name):
            raise AlreadyExists(f"there is a key {name!r} already: rotate it, or choose another name")
        return _add(connection, name=name, app_id=app_id, roles=roles, lanes=lanes)


def rotate(
    connection: Connection, *, name: str, app_id: int | None, grace: timedelta | None = None
) -> tuple[Key, str]:
    """Make a successor with the same rights; gives it and its secret.

    The one before stays active for `grace`, or until it is revoked. Raises `NotFound` and `TooManyKeys`.
    """
    with atomic(connection):
        active = _active(connection, app_id, name)
        if not active:
            raise NotFound(f"there is no active key {name!r}")
        if len(active) >= _ACTIVE_AT_MOST:
            held = " and ".join(key.prefix for key in active)
            raise TooManyKeys(f"two keys {name!r} are active already, {held}: revoke one first")
        if grace is not None:
            revoke(connection, active[0].prefix, grace=grace)
        return _add(connection, name=name, app_id=app_id, roles=active[0].roles, lanes=active[0].lanes)


def revoke(
    connection: Connection, prefix: str, *, app_id: int | None = None, grace: timedelta = timedelta(0)
) -> Key:
    """End a key, now or after `grace`. With `app_id` only one of that app. Raises `NotFound`.

    Servers remember keys for some seconds, so it may be used that much longer.
    """
    parameters = {"prefix": prefix, "app_id": app_id, "grace": grace}
    row = connection.execute(_SQL["revoke"], parameters).fetchone()
    if row is None:
        raise NotFound(f"there is no key {prefix!r}")
    return _key(row)


def find(connection: Connection, hash_: bytes) -> Key | None:
    """Find the active key with this hash."""
    row = connection.execute(_SQL["find"], {"hash": hash_}).fetchone()
    return None if row is None else _key(row)


def list_all(connection: Connection, app_id: int | None = None) -> list[Key]:
    """List keys, revoked ones too, of one app or all."""
    return [_key(row) for row in connection.execute(_SQL["list_all"], {"app_id": app_id})]


def note_use(connection: Connection, used: Mapping[int, datetime]) -> None:
    """Remember when keys were used last."""
    parameters = {"ids": list(used), "instants": list(used.values())}
    connection.execute(_SQL["note_use"], parameters)


def hash_of(secret: str) -> bytes | None:
    """Hash a secret; `None` for what cannot be one."""
    return hashlib.sha256(secret.encode()).digest() if _SECRET.fullmatch(secret) else None


def _check(name: str, roles: Collection[str], lanes: Collection[str]) -> None:
    problems = Problems()
    APP_NAME(name, "name", problems)
    for path, values, kind in (("roles", roles, Role), ("lanes", lanes, Lane)):
        if not values:
            problems.add(path, "empty", f"must not be empty: some of {', '.join(kind)}")
        for index, value in enumerate(values):
            choice(kind)(value, f"{path}.{index}", problems)
    refuse(problems)


def _active(connection: Connection, app_id: int | None, name: str) -> list[Key]:
    parameters = {"app_id": app_id, "name": name}
    connection.execute(_SQL["serialize"], parameters)
    return [_key(row) for row in connection.execute(_SQL["active"], parameters)]


def _add(
    connection: Connection, *, name: str, app_id: int | None, roles: Collection[str], lanes: Collection[str]
) -> tuple[Key, str]:
    prefix = _BEGINNING + "".join(secrets.choice(_PREFIX_LETTERS) for _ in range(8))
    secret = f"{prefix}_{secrets.token_urlsafe(32)}"
    row = connection.execute(
        _SQL["add"],
        {
            "app_id": app_id,
            "name": name,
            "prefix": prefix,
            "hash": hash_of(secret),
            "roles": _ordered(roles, Role),
            "lanes": _ordered(lanes, Lane),
        },
    ).fetchone()
    assert row is not None
    return _key(row), secret


def _ordered(values: Collection[str], kind: type[StrEnum]) -> Sequence[str]:
    return [member.value for member in kind if member in set(values)]


def _key(row: Mapping[str, Any]) -> Key:
    roles, lanes = frozenset(map(Role, row["roles"])), frozenset(map(Lane, row["lanes"]))
    return Key(**{**row, "roles": roles, "lanes": lanes})
