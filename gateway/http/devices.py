"""`/v1/users/{user}/devices`: installing an app's devices, reading and uninstalling them.

An app calls PUT at each start, with a key's secret kept by its backend or with a user token of its own.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import Field, StringConstraints
from starlette.responses import Response

from gateway.token_form import check_token
from registry import channels, devices
from registry.checks import LONGEST_TOKEN
from registry.database import Connection
from registry.devices import AddressKind, Device, Install
from registry.errors import NotFound
from registry.keys import Role

from .access import Admitted, GuardedRoute, allow
from .desk import AtDesk
from .names import APP_PARAMETER, Key, User
from .problem import Fault, Problem, invalid, not_found
from .shape import Answer, Body

router = APIRouter(tags=["devices"], route_class=GuardedRoute, dependencies=[APP_PARAMETER])


class InstallBody(Body):
    """What reaches the app's install. What is left out stays as it is known."""

    channel: Annotated[str, Field(max_length=64, description="The way to it, by the channel's name.")]
    token: Annotated[
        str,
        StringConstraints(pattern="^[!-~]+$", max_length=LONGEST_TOKEN),
        Field(description="What the provider calls it.", repr=False),
    ]
    address_kind: Annotated[
        Literal["token", "installation_id"], Field(description="FCM also has installation ids.")
    ] = "token"
    locale: Annotated[str | None, Field(max_length=64, pattern=r"^[A-Za-z]{1,8}([-_.@][A-Za-z0-9]+)*$")] = (
        None
    )
    time_zone: Annotated[str | None, Field(max_length=64, pattern=r"^[A-Za-z0-9_+/-]+$")] = None
    app_version: Annotated[str | None, Field(max_length=64, pattern="^[!-~]+$")] = None


class DeviceAnswer(Answer):
    """One device. Its token is told by a short hash alone."""

    device: int
    user: str
    device_key: str
    channel: str
    provider: str
    address_kind: str
    token_hash: str
    locale: str | None
    time_zone: str | None
    app_version: str | None
    state: Literal["active", "suspect", "retired"]
    state_reason: str | None
    registered_at: datetime
    seen_at: datetime


class InstalledAnswer(DeviceAnswer):
    """A device, and what the call did. `moved`: another user had its key or token, and has it no more."""

    change: Literal["kept", "created", "refreshed", "replaced", "moved"]


class DeviceList(Answer):
    """A user's devices, the oldest first."""

    devices: list[DeviceAnswer]


@router.put("/v1/users/{user}/devices/{device_key}", summary="Install, or refresh")
@allow(Role.REGISTER, admits_users=True)
async def install(
    desk: AtDesk, caller: Admitted, *, user: User, device_key: Key, body: InstallBody
) -> InstalledAnswer:
    """Register the app's install as this user's, or tell that it is still there, or its new token.

    The last login owns the phone: what another user had is that user's no more.
    """
    given = body.model_dump(exclude={"channel", "token", "address_kind"})

    def work(connection: Connection) -> tuple[str, Device]:
        try:
            channel = channels.get(connection, caller.tenant.id, body.channel.replace("\x00", "\ufffd"))
        except NotFound:
            fault = Fault(pointer="/channel", code="unknown", detail="there is no such channel")
            raise Problem("not-found", "there is no such channel", [fault]) from None
        if complaint := check_token(channel, body.token):
            raise invalid([Fault(pointer="/token", code="format", detail=complaint)])
        kind = AddressKind(body.address_kind)
        call = Install(
            channel_id=channel.id,
            user_id=user,
            device_key=device_key,
            token=body.token,
            address_kind=kind,
            **given,
        )
        done = devices.install(connection, call)
        return done.change.value, devices.get(connection, caller.tenant.id, done.device_id)

    change, device = await desk.crew.query(work)
    return InstalledAnswer(change=change, **_told(device))  # type: ignore[arg-type]  # one of the five


@router.get("/v1/users/{user}/devices/{device_key}", summary="Read one")
@allow(Role.REGISTER)
async def read(desk: AtDesk, caller: Admitted, *, user: User, device_key: Key) -> DeviceList:
    """Read the user's devices in use that have this key: one for each channel."""

    def work(connection: Connection) -> list[Device]:
        return devices.find(connection, caller.tenant.id, user_id=user, device_key=device_key)

    found = await desk.crew.query(work)
    if not found:
        raise not_found("such device in use")
    return DeviceList(devices=[DeviceAnswer(**_told(device)) for device in found])


@router.delete("/v1/users/{user}/devices/{device_key}", status_code=204, summary="Uninstall")
@allow(Role.REGISTER, admits_users=True)
async def uninstall(
    desk: AtDesk,
    caller: Admitted,
    *,
    user: User,
    device_key: Key,
    channel: Annotated[
        str | None, Query(max_length=64, description="Only there; everywhere if left out.")
    ] = None,
) -> Response:
    """Stop using the user's device, as after a logout. What is planned for it ends withdrawn."""

    def work(connection: Connection) -> list[int]:
        app_id = caller.tenant.id
        name = None if channel is None else channel.replace("\x00", "\ufffd")
        channel_id = None if name is None else channels.get(connection, app_id, name).id
        return devices.uninstall(
            connection, app_id, device_key=device_key, user_id=user, channel_id=channel_id
        )

    if not await desk.crew.query(work):
        raise not_found("such device in use")
    return Response(status_code=204)


@router.get("/v1/users/{user}/devices", summary="List a user's devices")
@allow(Role.REGISTER)
async def list_all(
    desk: AtDesk,
    caller: Admitted,
    *,
    user: User,
    retired: Annotated[bool, Query(description="Those no longer used, too.")] = False,
) -> DeviceList:
    """List the devices of a user, up to 1,000."""

    def work(connection: Connection) -> list[Device]:
        return devices.list_by_user(connection, caller.tenant.id, user, with_retired=retired)

    found = await desk.crew.query(work)
    return DeviceList(devices=[DeviceAnswer(**_told(device)) for device in found])


def _told(device: Device) -> dict[str, Any]:
    names = DeviceAnswer.model_fields.keys() - {"device", "user", "token_hash"}
    shared = {name: getattr(device, name) for name in names}
    hash_ = devices.token_hash(device.token)
    return {"device": device.id, "user": device.user_id, "token_hash": hash_, **shared}
