"""`/v1/apps`: the tenants, for operators."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter
from pydantic import Field
from starlette.responses import Response

from registry import apps
from registry.apps import App
from registry.database import Connection
from registry.keys import Role

from .access import Admitted, GuardedRoute, Of, allow
from .desk import AtDesk
from .names import Word
from .shape import Answer, Body

router = APIRouter(tags=["apps"], route_class=GuardedRoute)


class AppBody(Body):
    """The app to add."""

    name: Annotated[str, Field(max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]


class AppAnswer(Answer):
    """One app."""

    name: str
    created_at: datetime


class AppList(Answer):
    """All apps by name."""

    apps: list[AppAnswer]


@router.get("/v1/apps", summary="List apps")
@allow(Role.ADMIN, of=Of.NOBODY, is_for_operators=True)
async def list_all(desk: AtDesk, _: Admitted) -> AppList:
    """List all apps."""
    return AppList(apps=[_told(app) for app in await desk.crew.query(apps.list_all)])


@router.post("/v1/apps", status_code=201, summary="Add an app")
@allow(Role.ADMIN, of=Of.NOBODY, is_for_operators=True)
async def add(desk: AtDesk, _: Admitted, *, body: AppBody) -> AppAnswer:
    """Add an app. A name that is taken is refused (409)."""
    return _told(await desk.crew.query(lambda connection: apps.add(connection, body.name)))


@router.get("/v1/apps/{name}", summary="Read an app")
@allow(Role.ADMIN, of=Of.NOBODY, is_for_operators=True)
async def read(desk: AtDesk, _: Admitted, *, name: Word) -> AppAnswer:
    """Read one app."""
    return _told(await desk.crew.query(lambda connection: apps.get(connection, name)))


@router.delete("/v1/apps/{name}", status_code=204, summary="Remove an app")
@allow(Role.ADMIN, of=Of.NOBODY, is_for_operators=True)
async def remove(desk: AtDesk, _: Admitted, *, name: Word) -> Response:
    """Remove an app with all that belongs to it. Refused (409) while deliveries wait."""

    def find(connection: Connection) -> int:
        return apps.get(connection, name).id

    app_id = await desk.crew.query(find)
    await desk.crew.run(lambda: apps.remove(desk.database, app_id))
    return Response(status_code=204)


def _told(app: App) -> AppAnswer:
    return AppAnswer(name=app.name, created_at=app.created_at)
