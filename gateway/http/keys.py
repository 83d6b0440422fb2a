"""`/v1/keys`: keys of the HTTP API itself, for its admins."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Any, Literal

from fastapi import APIRouter
from pydantic import Field

from events.names import Lane
from registry import keys
from registry.database import Connection
from registry.keys import Key, Role

from .access import Admitted, Caller, GuardedRoute, Of, allow
from .desk import AtDesk
from .names import APP_PARAMETER, Word
from .shape import WHOLE, Answer, Body

router = APIRouter(tags=["keys"], route_class=GuardedRoute, dependencies=[APP_PARAMETER])

RoleName = Literal["publish", "register", "admin"]
LaneName = Literal["urgent", "normal", "bulk"]
_LONGEST_GRACE_SECONDS = 366 * 86_400


class KeyBody(Body):
    """The key to make. It is for the app that the call is about, or with an operator's key and no app for all."""

    name: Annotated[str, Field(max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
    roles: Annotated[list[RoleName], Field(min_length=1, max_length=3)]
    lanes: Annotated[list[LaneName], Field(min_length=1, max_length=3)] = ["urgent", "normal", "bulk"]  # noqa: RUF012


class RotationBody(Body):
    """How long the old secret stays good: until it is revoked, if left out."""

    grace_seconds: Annotated[int | None, Field(ge=0, le=_LONGEST_GRACE_SECONDS), WHOLE] = None


class KeyAnswer(Answer):
    """A key, without its secret. `app` is empty for an operator's key."""

    app: str | None
    name: str
    prefix: str
    roles: list[RoleName]
    lanes: list[LaneName]
    created_at: datetime
    last_used_at: datetime | None
    revoked_at: datetime | None


class NewKey(KeyAnswer):
    """A key and its secret, which is told only now."""

    secret: str


class KeyList(Answer):
    """Keys by app and name, revoked ones too."""

    keys: list[KeyAnswer]


@router.get("/v1/keys", summary="List keys")
@allow(Role.ADMIN, of=Of.BODY)
async def list_all(desk: AtDesk, caller: Admitted) -> KeyList:
    """List the keys of the app, or with an operator's key and no app all keys."""
    app_id = _app_id(caller)
    found = await desk.crew.query(lambda connection: keys.list_all(connection, app_id))
    return KeyList(keys=[KeyAnswer(**_told(key)) for key in found])


@router.post("/v1/keys", status_code=201, summary="Make a key")
@allow(Role.ADMIN, of=Of.BODY)
async def create(desk: AtDesk, caller: Admitted, *, body: KeyBody) -> NewKey:
    """Make a key. A name that has an active key is refused (409): rotate it."""

    def work(connection: Connection) -> tuple[Key, str]:
        return keys.create(
            connection, name=body.name, app_id=_app_id(caller), roles=body.roles, lanes=body.lanes
        )

    key, secret = await desk.crew.query(work)
    return NewKey(secret=secret, **_told(key))


@router.post("/v1/keys/{name}/rotate", status_code=201, summary="Rotate a key")
@allow(Role.ADMIN, of=Of.BODY)
async def rotate(desk: AtDesk, caller: Admitted, *, name: Word, body: RotationBody) -> NewKey:
    """Give a key's name a second secret, so that callers change over without a gap."""
    grace = None if body.grace_seconds is None else timedelta(seconds=body.grace_seconds)

    def work(connection: Connection) -> tuple[Key, str]:
        return keys.rotate(connection, name=name, app_id=_app_id(caller), grace=grace)

    key, secret = await desk.crew.query(work)
    return NewKey(secret=secret, **_told(key))


@router.delete("/v1/keys/{prefix}", summary="Revoke a key")
@allow(Role.ADMIN, of=Of.BODY)
async def revoke(desk: AtDesk, caller: Admitted, *, prefix: Word) -> KeyAnswer:
    """End a key, named by its prefix. Servers remember keys for 5 seconds."""
    app_id = _app_id(caller)
    key = await desk.crew.query(lambda connection: keys.revoke(connection, prefix, app_id=app_id))
    return KeyAnswer(**_told(key))


def _app_id(caller: Caller) -> int | None:
    return None if caller.app is None else caller.app.id


def _told(key: Key) -> dict[str, Any]:
    return {
        "app": key.app,
        "name": key.name,
        "prefix": key.prefix,
        "roles": [role.value for role in Role if role in key.roles],
        "lanes": [lane.value for lane in Lane if lane in key.lanes],
        "created_at": key.created_at,
        "last_used_at": key.last_used_at,
        "revoked_at": key.revoked_at,
    }
