"""Access rules of targets: which users may subscribe themselves, and in whose name may be sent.

A rule is one of four words:

    backend      nobody by itself: their backend subscribes users, and sends
    members      those to whom the scope belongs: app, every user; group:<id>, its members; user:<id>, that user;
                 thing:<id>, that thing
    users        every user of the app, whatever the scope
    group:<id>   the members of a group

Backends are not asked: what a key may do is its role. Defaults are Kii's where a target is made by name; one that
begins with its first subscription belongs to the backend that began it, and admits nobody else.
"""

from __future__ import annotations

from typing import Final

from . import groups, subscriptions
from .checks import USER, Problems
from .database import Connection
from .subscriptions import Scope, ScopeKind, Target, TargetKind

BACKEND: Final = "backend"
MEMBERS: Final = "members"
USERS: Final = "users"
_GROUP: Final = "group:"


def default_admits(_target: Target) -> str:
    """Say who subscribes by default, as Kii has it: those to whom the scope belongs.

    https://docs.kii.com/en/guides/cloudsdk/rest/managing-push-notification/push-to-user/creating-topic/
    """
    return MEMBERS


def default_senders(target: Target) -> str:
    """Say who sends by default: to an app's topic its backend, to others those to whom the scope belongs.

    Writes are told by where the data lives, so to a bucket its backend, in every scope.
    """
    is_open = target.kind is TargetKind.TOPIC and target.scope.kind is not ScopeKind.APP
    return MEMBERS if is_open else BACKEND


def check(rule: str, path: str, problems: Problems) -> None:
    """Note what is wrong with a rule."""
    if rule.startswith(_GROUP):
        USER(rule.removeprefix(_GROUP), path, problems)
    elif rule not in (BACKEND, MEMBERS, USERS):
        problems.add(path, "choice", "must be backend, members, users or group:<id>")


def may_subscribe(connection: Connection, app_id: int, target: Target, user_id: str) -> bool:
    """Tell whether a user may subscribe itself; a member stays one until the transaction ends. Raises `NotFound`."""
    rule = subscriptions.get_rules(connection, app_id, target).admits
    return _allows(connection, app_id, rule, target.scope, user_id)


def may_send(connection: Connection, app_id: int, target: Target, user_id: str) -> bool:
    """Tell whether may be sent in a user's name. Raises `NotFound`."""
    rule = subscriptions.get_rules(connection, app_id, target).senders
    return _allows(connection, app_id, rule, target.scope, user_id)


def _allows(connection: Connection, app_id: int, rule: str, scope: Scope, user_id: str) -> bool:
    if rule in (BACKEND, USERS):
        return rule == USERS
    if rule.startswith(_GROUP):
        return groups.is_member(connection, app_id, rule.removeprefix(_GROUP), user_id)
    match scope.kind:
        case ScopeKind.APP:
            return True
        case ScopeKind.GROUP:
            return groups.is_member(connection, app_id, scope.id, user_id)
        case ScopeKind.USER:
            return scope.id == user_id
        case ScopeKind.THING:
            return str(scope) == user_id
