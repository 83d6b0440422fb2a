"""`/v1/topics` and `/v1/buckets`: targets, their access rules, and their subscribers. The same calls for both."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Depends
from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from registry import rules, subscriptions
from registry.checks import Problems, refuse
from registry.database import Connection
from registry.errors import InvalidRegistration
from registry.keys import Role
from registry.subscriptions import Rules, Scope, Target, TargetCount, TargetKind

from .access import Admitted, Caller, GuardedRoute, allow
from .desk import AtDesk
from .names import APP_PARAMETER, After, AfterTarget, Limit, ScopeName, TargetName, User
from .problem import Problem, not_found
from .shape import Answer, Body, bad_cursor, next_of

RuleName = Annotated[
    str | None,
    Field(
        max_length=261,
        pattern=r"^(backend|members|users|group:[^\x00-\x1f\x7f-\x9f]*[!-~][^\x00-\x1f\x7f-\x9f]*)$",
    ),
]


class TargetBody(Body):
    """Who may subscribe itself, and in whose name may be sent.

    `backend`: nobody by itself. `members`: those to whom the scope belongs (every user of the app, the group's
    members, the user, the thing). `users`: every user of the app. `group:<id>`: the members of a group. Left out:
    `members`, but the backend sends to the app's topics and to all buckets.
    """

    admits: RuleName = None
    senders: RuleName = None


class TargetAnswer(Answer):
    """A target, and how many users are subscribed."""

    scope: str
    name: str
    admits: str
    senders: str
    users: int
    created_at: datetime


class TargetPage(Answer):
    """Targets by scope and name."""

    targets: list[TargetAnswer]
    next: str | None


class SubscriberPage(Answer):
    """Users in order."""

    users: list[str]
    next: str | None


class SubscriptionAnswer(Answer):
    """A user's subscription, and whether this call made it."""

    user: str
    change: Literal["subscribed", "kept"]


async def _kind_of(request: Request) -> TargetKind:
    """Tell by the path whether topics or buckets are meant: both have the same calls."""
    return TargetKind.TOPIC if request.url.path.startswith("/v1/topics") else TargetKind.BUCKET


Kind = Annotated[TargetKind, Depends(_kind_of)]


@allow(Role.REGISTER)
async def list_all(
    desk: AtDesk, caller: Admitted, *, kind: Kind, after: AfterTarget = None, limit: Limit = 100
) -> TargetPage:
    """List the app's targets of this kind, by scope and name."""
    last = None if after is None else _parse(after, kind)

    def work(connection: Connection) -> list[TargetCount]:
        return subscriptions.list_targets(connection, caller.tenant.id, kind=kind, after=last, limit=limit)

    found = await desk.crew.query(work)
    cursor = f"{found[-1].target.scope}/{found[-1].target.name}" if found else ""
    return TargetPage(targets=[_told(one) for one in found], next=next_of(found, limit, cursor))


@allow(Role.REGISTER)
async def put(
    desk: AtDesk, caller: Admitted, *, kind: Kind, scope: ScopeName, name: TargetName, body: TargetBody
) -> TargetAnswer:
    """Make a target, or change its rules. One also begins with its first subscription, and is then its backend's."""
    target = Target(kind=kind, name=name, scope=Scope.parse(scope))

    def work(connection: Connection) -> TargetCount:
        subscriptions.put_target(connection, caller.tenant.id, target, _rules_of(target, body))
        return subscriptions.get_target(connection, caller.tenant.id, target)

    return _told(await desk.crew.query(work))


@allow(Role.REGISTER)
async def read(
    desk: AtDesk, caller: Admitted, *, kind: Kind, scope: ScopeName, name: TargetName
) -> TargetAnswer:
    """Read a target, with how many users are subscribed."""
    target = Target(kind=kind, name=name, scope=Scope.parse(scope))
    return _told(await desk.crew.query(lambda it: subscriptions.get_target(it, caller.tenant.id, target)))


@allow(Role.REGISTER)
async def remove(
    desk: AtDesk, caller: Admitted, *, kind: Kind, scope: ScopeName, name: TargetName
) -> Response:
    """Remove a target and its subscriptions."""
    target = Target(kind=kind, name=name, scope=Scope.parse(scope))
    if not await desk.crew.run(lambda: subscriptions.remove_target(desk.database, caller.tenant.id, target)):
        raise not_found(f"such {kind}")
    return Response(status_code=204)


@allow(Role.REGISTER)
async def subscribers(
    desk: AtDesk,
    caller: Admitted,
    *,
    kind: Kind,
    scope: ScopeName,
    name: TargetName,
    after: After = None,
    limit: Limit = 100,
) -> SubscriberPage:
    """List a target's users in order."""
    target = Target(kind=kind, name=name, scope=Scope.parse(scope))

    def work(connection: Connection) -> list[str]:
        subscriptions.get_target(connection, caller.tenant.id, target)
        last = (after or "").replace("\x00", "")
        return subscriptions.list_subscribers(connection, caller.tenant.id, target, after=last, limit=limit)

    users = await desk.crew.query(work)
    return SubscriberPage(users=users, next=next_of(users, limit, users[-1] if users else ""))


@allow(Role.REGISTER)
async def read_subscription(
    desk: AtDesk, caller: Admitted, *, kind: Kind, scope: ScopeName, name: TargetName, user: User
) -> SubscriptionAnswer:
    """Tell whether a user is subscribed."""
    target = Target(kind=kind, name=name, scope=Scope.parse(scope))

    def work(connection: Connection) -> bool:
        return subscriptions.is_subscribed(connection, caller.tenant.id, target, user)

    if not await desk.crew.query(work):
        raise not_found("such subscription")
    return SubscriptionAnswer(user=user, change="kept")


@allow(Role.REGISTER, admits_users=True)
async def subscribe(
    desk: AtDesk, caller: Admitted, *, kind: Kind, scope: ScopeName, name: TargetName, user: User
) -> SubscriptionAnswer:
    """Subscribe a user. With a user token only where the target's rule admits the user."""
    target = Target(kind=kind, name=name, scope=Scope.parse(scope))

    def work(connection: Connection) -> bool:
        _check_admission(connection, caller, target)
        return subscriptions.subscribe(connection, caller.tenant.id, target, user)

    is_new = await desk.crew.query(work)
    return SubscriptionAnswer(user=user, change="subscribed" if is_new else "kept")


@allow(Role.REGISTER, admits_users=True)
async def unsubscribe(
    desk: AtDesk, caller: Admitted, *, kind: Kind, scope: ScopeName, name: TargetName, user: User
) -> Response:
    """End a subscription. With a user token only where the target's rule admits the user."""
    target = Target(kind=kind, name=name, scope=Scope.parse(scope))

    def work(connection: Connection) -> bool:
        _check_admission(connection, caller, target)
        return subscriptions.unsubscribe(connection, caller.tenant.id, target, user)

    if not await desk.crew.query(work):
        raise not_found("such subscription")
    return Response(status_code=204)


def _rules_of(target: Target, body: TargetBody) -> Rules:
    found = Rules(
        admits=body.admits or rules.default_admits(target),
        senders=body.senders or rules.default_senders(target),
    )
    problems = Problems()
    rules.check(found.admits, "admits", problems)
    rules.check(found.senders, "senders", problems)
    refuse(problems)
    return found


def _check_admission(connection: Connection, caller: Caller, target: Target) -> None:
    """Refuse a user token where the target is its backend's to give. A target that is not there admits nobody."""
    if caller.user is None:
        return
    if not rules.may_subscribe(connection, caller.tenant.id, target, caller.user):
        raise Problem("forbidden", f"this {target.kind} does not admit this user; a backend can subscribe it")


def _parse(cursor: str, kind: TargetKind) -> Target:
    scope, _, name = cursor.rpartition("/")
    try:
        return Target(kind=kind, name=name.replace("\x00", ""), scope=Scope.parse(scope))
    except InvalidRegistration:
        raise bad_cursor() from None


def _told(found: TargetCount) -> TargetAnswer:
    return TargetAnswer(
        scope=str(found.target.scope),
        name=found.target.name,
        admits=found.rules.admits,
        senders=found.rules.senders,
        users=found.users,
        created_at=found.created_at,
    )


def _route(kind: TargetKind) -> APIRouter:
    """Put the calls for topics or for buckets together."""
    routes = APIRouter(tags=[f"{kind}s"], route_class=GuardedRoute, dependencies=[APP_PARAMETER])
    every, one = f"/v1/{kind}s", f"/v1/{kind}s/{{scope}}/{{name}}"
    one_user = f"{one}/subscribers/{{user}}"
    add = routes.add_api_route
    add(every, list_all, methods=["GET"], summary=f"List {kind}s")
    add(one, put, methods=["PUT"], summary=f"Make a {kind}, or change it")
    add(one, read, methods=["GET"], summary=f"Read a {kind}")
    add(one, remove, methods=["DELETE"], status_code=204, summary=f"Remove a {kind}")
    add(f"{one}/subscribers", subscribers, methods=["GET"], summary="List its subscribers")
    add(one_user, read_subscription, methods=["GET"], summary="Read a subscription")
    add(one_user, subscribe, methods=["PUT"], summary="Subscribe a user")
    add(one_user, unsubscribe, methods=["DELETE"], status_code=204, summary="Unsubscribe a user")
    return routes


topics = _route(TargetKind.TOPIC)
buckets = _route(TargetKind.BUCKET)
