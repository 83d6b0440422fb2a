"""`/v1/groups`: groups of users and their members."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from fastapi import APIRouter
from starlette.responses import Response

from registry import groups
from registry.database import Connection
from registry.groups import Group
from registry.keys import Role

from .access import Admitted, GuardedRoute, allow
from .desk import AtDesk
from .names import APP_PARAMETER, After, GroupId, Limit, User
from .problem import not_found
from .shape import Answer, next_of

router = APIRouter(tags=["groups"], route_class=GuardedRoute, dependencies=[APP_PARAMETER])


class GroupAnswer(Answer):
    """A group, and how many members it has. What is its own has the scope `group:<id>`."""

    group: str
    members: int
    created_at: datetime


class GroupPage(Answer):
    """Groups by id."""

    groups: list[GroupAnswer]
    next: str | None


class MemberAnswer(Answer):
    """A user's membership, and whether this call made it."""

    group: str
    user: str
    change: Literal["added", "kept"]


class MemberPage(Answer):
    """Users in order."""

    users: list[str]
    next: str | None


class GroupList(Answer):
    """The groups that a user belongs to."""

    groups: list[str]
    next: str | None


@router.get("/v1/groups", summary="List groups")
@allow(Role.REGISTER)
async def list_all(desk: AtDesk, caller: Admitted, *, after: After = None, limit: Limit = 100) -> GroupPage:
    """List the app's groups by id."""

    def work(connection: Connection) -> list[Group]:
        return groups.list_all(connection, caller.tenant.id, after=_last(after), limit=limit)

    found = await desk.crew.query(work)
    cursor = found[-1].id if found else ""
    return GroupPage(groups=[_told(one) for one in found], next=next_of(found, limit, cursor))


@router.put("/v1/groups/{group}", summary="Make a group")
@allow(Role.REGISTER)
async def put(desk: AtDesk, caller: Admitted, *, group: GroupId) -> GroupAnswer:
    """Make a group, if it is not there. One also begins with its first member."""

    def work(connection: Connection) -> Group:
        groups.put(connection, caller.tenant.id, group)
        return groups.get(connection, caller.tenant.id, group)

    return _told(await desk.crew.query(work))


@router.get("/v1/groups/{group}", summary="Read a group")
@allow(Role.REGISTER)
async def read(desk: AtDesk, caller: Admitted, *, group: GroupId) -> GroupAnswer:
    """Read a group, with how many members it has."""
    return _told(await desk.crew.query(lambda it: groups.get(it, caller.tenant.id, group)))


@router.delete("/v1/groups/{group}", status_code=204, summary="Remove a group")
@allow(Role.REGISTER)
async def remove(desk: AtDesk, caller: Admitted, *, group: GroupId) -> Response:
    """Remove a group, its memberships, its topics and buckets, and all subscriptions to them."""
    if not await desk.crew.run(lambda: groups.remove(desk.database, caller.tenant.id, group)):
        raise not_found("such group")
    return Response(status_code=204)


@router.get("/v1/groups/{group}/members", summary="List its members")
@allow(Role.REGISTER)
async def members(
    desk: AtDesk, caller: Admitted, *, group: GroupId, after: After = None, limit: Limit = 100
) -> MemberPage:
    """List a group's members in order."""

    def work(connection: Connection) -> list[str]:
        groups.get(connection, caller.tenant.id, group)
        return groups.list_members(connection, caller.tenant.id, group, after=_last(after), limit=limit)

    users = await desk.crew.query(work)
    return MemberPage(users=users, next=next_of(users, limit, users[-1] if users else ""))


@router.get("/v1/groups/{group}/members/{user}", summary="Read a membership")
@allow(Role.REGISTER)
async def read_member(desk: AtDesk, caller: Admitted, *, group: GroupId, user: User) -> MemberAnswer:
    """Tell whether a user is a member."""
    if not await desk.crew.query(lambda it: groups.is_member(it, caller.tenant.id, group, user)):
        raise not_found("such member")
    return MemberAnswer(group=group, user=user, change="kept")


@router.put("/v1/groups/{group}/members/{user}", summary="Add a member")
@allow(Role.REGISTER)
async def add_member(desk: AtDesk, caller: Admitted, *, group: GroupId, user: User) -> MemberAnswer:
    """Add a user to a group. It gives the user rights and subscribes it to nothing."""
    new = await desk.crew.query(lambda it: groups.add_members(it, caller.tenant.id, group, [user]))
    return MemberAnswer(group=group, user=user, change="added" if new else "kept")


@router.delete("/v1/groups/{group}/members/{user}", status_code=204, summary="Remove a member")
@allow(Role.REGISTER)
async def remove_member(desk: AtDesk, caller: Admitted, *, group: GroupId, user: User) -> Response:
    """End a membership, and the user's subscriptions to the group's topics and buckets."""
    if not await desk.crew.query(lambda it: groups.remove_member(it, caller.tenant.id, group, user)):
        raise not_found("such member")
    return Response(status_code=204)


@router.get("/v1/users/{user}/groups", summary="List a user's groups")
@allow(Role.REGISTER)
async def of_user(
    desk: AtDesk, caller: Admitted, *, user: User, after: After = None, limit: Limit = 100
) -> GroupList:
    """List the groups that a user belongs to, in order."""

    def work(connection: Connection) -> list[str]:
        return groups.list_by_user(connection, caller.tenant.id, user, after=_last(after), limit=limit)

    found = await desk.crew.query(work)
    return GroupList(groups=found, next=next_of(found, limit, found[-1] if found else ""))


def _last(after: str | None) -> str:
    return (after or "").replace("\x00", "")


def _told(found: Group) -> GroupAnswer:
    return GroupAnswer(group=found.id, members=found.members, created_at=found.created_at)
