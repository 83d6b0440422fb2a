"""Subscriptions: which users receive what a bucket or a topic says.

A target begins with its first subscription. Its scope says whose bucket or topic it is: the app's, a group's,
a user's or a thing's; two targets with one name in two scopes have nothing to do with each other.

A thing is a recipient like a user: its user id is `thing:<id>`, which is also the scope of what is its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import partial
from typing import Any, Final

from . import pseudo
from .atomic import atomic
from .checks import TARGET_NAME, USER, Problems, choice, refuse
from .database import Connection, Database
from .errors import InvalidRegistration, NotFound
from .statements import load

_SQL = load("subscriptions")
BATCH: Final = 5_000


class TargetKind(StrEnum):
    """What users subscribe to."""

    BUCKET = "bucket"
    TOPIC = "topic"


class ScopeKind(StrEnum):
    """Whose targets they can be."""

    APP = "app"
    GROUP = "group"
    USER = "user"
    THING = "thing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Whose a target is. `id` is empty for the app's own."""

    kind: ScopeKind = ScopeKind.APP
    id: str = ""

    def __str__(self) -> str:
        return self.kind.value if self.kind is ScopeKind.APP else f"{self.kind.value}:{self.id}"

    @classmethod
    def parse(cls, text: str) -> Scope:
        """Read `app`, `group:<id>`, `user:<id>` or `thing:<id>`. Raises `InvalidRegistration`."""
        kind, colon, owner = text.partition(":")
        problems = Problems()
        if kind not in list(ScopeKind) or bool(colon) == (kind == ScopeKind.APP):
            problems.add("scope", "format", "must be app, group:<id>, user:<id> or thing:<id>")
        elif colon:
            USER(owner, "scope", problems)
        refuse(problems)
        return cls(kind=ScopeKind(kind), id=owner)


APP_SCOPE: Final = Scope()


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A bucket or a topic, by name."""

    kind: TargetKind
    name: str
    scope: Scope = APP_SCOPE


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """Who may subscribe itself to a target, and in whose name may be sent: see `registry.rules`."""

    admits: str
    senders: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetCount:
    """A target, its rules, and how many users are subscribed now."""

    target: Target
    created_at: datetime
    users: int
    rules: Rules


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscription:
    """That a user receives what a target says, and since when."""

    target: Target
    user_id: str
    created_at: datetime


def subscribe(connection: Connection, app_id: int, target: Target, user_id: str) -> bool:
    """Subscribe a user. `False` if it was subscribed already. Raises `InvalidRegistration`."""
    return subscribe_many(connection, app_id, [(target, user_id)]) == 1


def subscribe_many(connection: Connection, app_id: int, pairs: Iterable[tuple[Target, str]]) -> int:
    """Subscribe users to targets, by thousands a statement. Returns how many were not subscribed yet.

    Raises `InvalidRegistration` with every problem, and `AlreadyPromoted`. Without a transaction around it,
    what was done before an error stays done; doing it again is harmless.
    """
    wanted = sorted({(*_names(target), user_id) for target, user_id in _checked(pairs)})
    new = 0
    for start in range(0, len(wanted), BATCH):
        kinds, scopes, names, users = map(list, zip(*wanted[start : start + BATCH], strict=True))
        parameters = {"app_id": app_id, "kinds": kinds, "scopes": scopes, "names": names, "users": users}
        with atomic(connection):
            pseudo.hold(connection, users, app_id=app_id)
            # Two statements: the second sees targets that another transaction made meanwhile.
            connection.execute(_SQL["make_targets"], parameters)
            new += connection.execute(_SQL["subscribe"], parameters).rowcount
    return new


def unsubscribe(connection: Connection, app_id: int, target: Target, user_id: str) -> bool:
    """End a subscription. `False` if there was none."""
    parameters = {"app_id": app_id, "user_id": user_id, **_parameters(target)}
    return connection.execute(_SQL["unsubscribe"], parameters).rowcount == 1


def is_subscribed(connection: Connection, app_id: int, target: Target, user_id: str) -> bool:
    """Tell whether a user is subscribed."""
    parameters = {"app_id": app_id, "user_id": user_id, **_parameters(target)}
    return connection.execute(_SQL["is_subscribed"], parameters).fetchone() is not None


def list_targets(
    connection: Connection,
    app_id: int,
    *,
    kind: TargetKind | None = None,
    after: Target | None = None,
    limit: int = 100,
) -> list[TargetCount]:
    """List targets with their counts, by kind, scope and name; go on `after` the last of a page."""
    last = {"kind": "", "scope": "", "name": ""} if after is None else _parameters(after)
    parameters = {"app_id": app_id, "only": kind, "limit": limit, **last}
    return [_count(row) for row in connection.execute(_SQL["list_targets"], parameters)]


def put_target(connection: Connection, app_id: int, target: Target, rules: Rules) -> bool:
    """Make a target, or change its rules, which are checked. `True` if it is new. Raises `InvalidRegistration`."""
    _checked([(target, "nobody")])
    parameters = {
        "app_id": app_id,
        "admits": rules.admits,
        "senders": rules.senders,
        **_parameters(target),
    }
    row = connection.execute(_SQL["put_target"], parameters).fetchone()
    assert row is not None
    return bool(row["is_new"])


def get_target(connection: Connection, app_id: int, target: Target) -> TargetCount:
    """Find a target with its count. Raises `NotFound`."""
    row = connection.execute(_SQL["get_target"], {"app_id": app_id, **_parameters(target)}).fetchone()
    if row is None:
        raise NotFound(f"there is no {target.kind} {target.name!r} in the scope {target.scope}")
    return _count(row)


def get_rules(connection: Connection, app_id: int, target: Target) -> Rules:
    """Read a target's rules without counting its users. Raises `NotFound`."""
    row = connection.execute(_SQL["get_rules"], {"app_id": app_id, **_parameters(target)}).fetchone()
    if row is None:
        raise NotFound(f"there is no {target.kind} {target.name!r} in the scope {target.scope}")
    return Rules(**row)


def remove_scope(database: Database, app_id: int, scope: str) -> tuple[int, int]:
    """Remove what belongs to a group, a user or a thing, a bounded number of rows at a time.

    Returns how many subscriptions and how many targets.
    """
    parameters = {"app_id": app_id, "scope": scope, "limit": BATCH}
    gone = 0
    while done := database.run(partial(_delete, "remove_scope_subscribers", parameters)):
        gone += done
    return gone, database.run(partial(_delete, "remove_scope", parameters))


def remove_target(database: Database, app_id: int, target: Target) -> bool:
    """Remove a target with its subscriptions, a bounded number of rows at a time. `False` if there was none."""
    parameters = {"app_id": app_id, "limit": BATCH, **_parameters(target)}
    while database.run(partial(_delete, "remove_subscribers", parameters)):
        pass
    return database.run(partial(_delete, "remove_target", parameters)) == 1


def list_subscribers(
    connection: Connection, app_id: int, target: Target, *, after: str = "", limit: int = 1000
) -> list[str]:
    """List a target's users in order, `after` the last of the page before."""
    parameters = {"app_id": app_id, "after": after, "limit": limit, **_parameters(target)}
    return [row["user_id"] for row in connection.execute(_SQL["list_subscribers"], parameters)]


def list_by_user(
    connection: Connection, app_id: int, user_id: str, *, after: Target | None = None, limit: int = 1000
) -> list[Subscription]:
    """List what a user is subscribed to, by kind, scope and name."""
    last = {"kind": "", "scope": "", "name": ""} if after is None else _parameters(after)
    parameters = {"app_id": app_id, "user_id": user_id, "limit": limit, **last}
    return [
        Subscription(target=_target(row), user_id=user_id, created_at=row["created_at"])
        for row in connection.execute(_SQL["list_by_user"], parameters)
    ]


def _delete(statement: str, parameters: Mapping[str, Any], connection: Connection) -> int:
    return connection.execute(_SQL[statement], parameters).rowcount


def _count(row: Mapping[str, Any]) -> TargetCount:
    return TargetCount(
        target=_target(row),
        created_at=row["created_at"],
        users=row["users"],
        rules=Rules(admits=row["admits"], senders=row["senders"]),
    )


def _checked(pairs: Iterable[tuple[Target, str]]) -> list[tuple[Target, str]]:
    pairs = list(pairs)
    problems = Problems()
    for target in {target for target, _ in pairs}:
        choice(TargetKind)(target.kind, "kind", problems)
        TARGET_NAME(target.name, "name", problems)
        _check_scope(target.scope, problems)
    for user_id in {user_id for _, user_id in pairs}:
        USER(user_id, "user", problems)
    refuse(problems)
    return pairs


def _check_scope(scope: Scope, problems: Problems) -> None:
    try:
        Scope.parse(str(scope))
    except InvalidRegistration as error:
        problems.add("scope", "format", str(error).removeprefix("scope: "))


def _names(target: Target) -> tuple[str, str, str]:
    return TargetKind(target.kind).value, str(target.scope), target.name


def _parameters(target: Target) -> dict[str, str]:
    return dict(zip(("kind", "scope", "name"), _names(target), strict=True))


def _target(row: Mapping[str, Any]) -> Target:
    return Target(kind=TargetKind(row["kind"]), scope=Scope.parse(row["scope"]), name=row["name"])
