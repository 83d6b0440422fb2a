"""`/v1/channels`: an app's ways to its providers.

An app's admin reads, pauses and resumes them. Only operators make and remove them: a reference may name any credential
that the servers can read, another app's too.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter
from pydantic import Field
from starlette.responses import Response

from registry import channels
from registry.channels import Access, Channel, Environment
from registry.database import Connection
from registry.keys import Role

from .access import Admitted, Caller, GuardedRoute, allow
from .desk import AtDesk
from .names import APP_PARAMETER, Word
from .shape import WHOLE, Answer, Body
from .way import check_way

router = APIRouter(tags=["channels"], route_class=GuardedRoute, dependencies=[APP_PARAMETER])

Reference = Annotated[str, Field(pattern="^(file|env):[!-~]+$", max_length=255)]
Text = Annotated[str, Field(pattern="^[!-~]+$", max_length=2048)]


class ChannelBody(Body):
    """The channel to add. Secrets are references, `file:` or `env:`, that servers and workers resolve."""

    name: Annotated[str, Field(max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
    provider: Literal["fcm", "apns", "jpush"]
    environment: Literal["production", "sandbox"] = "production"
    secrets: Annotated[dict[str, Reference], Field(min_length=1)]
    settings: dict[str, Text] = {}  # noqa: RUF012  pydantic copies it
    endpoint: Text | None = None
    report_endpoint: Text | None = None
    slots: Annotated[int, Field(ge=1, le=1000), WHOLE] = 32
    rate_per_second: Annotated[int, Field(ge=1, le=2**31 - 1), WHOLE] = 10_000


class PauseBody(Body):
    """Why, for colleagues to read."""

    reason: Annotated[str | None, Field(max_length=200, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")] = None


class ChannelAnswer(Answer):
    """One channel. Its secrets are references."""

    name: str
    provider: Literal["fcm", "apns", "jpush"]
    environment: Literal["production", "sandbox"]
    secrets: dict[str, str]
    settings: dict[str, str]
    endpoint: str | None
    report_endpoint: str | None
    slots: int
    rate_per_second: int
    circuit: str
    circuit_reason: str | None
    circuit_detail: str | None
    circuit_changed_at: datetime
    accepted: int
    doubted: int
    created_at: datetime


class ChannelList(Answer):
    """An app's channels by name."""

    channels: list[ChannelAnswer]


@router.get("/v1/channels", summary="List channels")
@allow(Role.ADMIN)
async def list_all(desk: AtDesk, caller: Admitted) -> ChannelList:
    """List the app's channels, with their circuits and the answers since their credentials last changed."""
    found = await desk.crew.query(lambda connection: channels.list_all(connection, caller.tenant.id))
    return ChannelList(channels=[_told(channel) for channel in found])


@router.post("/v1/channels", status_code=201, summary="Add a channel")
@allow(Role.ADMIN, is_for_operators=True)
async def add(desk: AtDesk, caller: Admitted, *, body: ChannelBody) -> ChannelAnswer:
    """Add a channel. Everything that can be checked without asking the provider is checked."""
    access = Access(
        secrets=body.secrets,
        settings=body.settings,
        environment=Environment(body.environment),
        endpoint=body.endpoint,
        report_endpoint=body.report_endpoint,
    )

    def work(connection: Connection) -> Channel:
        channel = channels.add(
            connection,
            caller.tenant.id,
            name=body.name,
            provider=body.provider,
            access=access,
            slots=body.slots,
            rate_per_second=body.rate_per_second,
        )
        check_way(desk.settings, desk.store, channel)
        return channel

    return _told(await desk.crew.query(work))


@router.get("/v1/channels/{name}", summary="Read a channel")
@allow(Role.ADMIN)
async def read(desk: AtDesk, caller: Admitted, *, name: Word) -> ChannelAnswer:
    """Read one channel."""
    return _told(await desk.crew.query(lambda connection: _find(connection, caller, name)))


@router.post("/v1/channels/{name}/pause", summary="Pause a channel")
@allow(Role.ADMIN)
async def pause(desk: AtDesk, caller: Admitted, *, name: Word, body: PauseBody) -> ChannelAnswer:
    """Stop a channel. What is planned for it waits, until it is resumed or expires."""

    def work(connection: Connection) -> Channel:
        channels.pause(connection, _find(connection, caller, name).id, body.reason)
        return _find(connection, caller, name)

    return _told(await desk.crew.query(work))


@router.post("/v1/channels/{name}/resume", summary="Resume a channel")
@allow(Role.ADMIN)
async def resume(desk: AtDesk, caller: Admitted, *, name: Word) -> ChannelAnswer:
    """Let a channel's traffic flow again, whatever stopped it."""

    def work(connection: Connection) -> Channel:
        channels.resume(connection, _find(connection, caller, name).id)
        return _find(connection, caller, name)

    return _told(await desk.crew.query(work))


@router.delete("/v1/channels/{name}", status_code=204, summary="Remove a channel")
@allow(Role.ADMIN, is_for_operators=True)
async def remove(desk: AtDesk, caller: Admitted, *, name: Word) -> Response:
    """Remove a channel with all its devices. Refused (409) while deliveries wait."""
    channel = await desk.crew.query(lambda connection: _find(connection, caller, name))
    await desk.crew.run(lambda: channels.remove(desk.database, channel.id))
    return Response(status_code=204)


def _find(connection: Connection, caller: Caller, name: str) -> Channel:
    return channels.get(connection, caller.tenant.id, name)


def _told(channel: Channel) -> ChannelAnswer:
    way = channel.access
    return ChannelAnswer(
        name=channel.name,
        provider=channel.provider.value,
        environment=way.environment.value,
        secrets=dict(way.secrets),
        settings=dict(way.settings),
        endpoint=way.endpoint,
        report_endpoint=way.report_endpoint,
        slots=channel.slots,
        rate_per_second=channel.rate_per_second,
        circuit=channel.circuit.value,
        circuit_reason=channel.circuit_reason and channel.circuit_reason.value,
        circuit_detail=channel.circuit_detail,
        circuit_changed_at=channel.circuit_changed_at,
        accepted=channel.accepted,
        doubted=channel.doubted,
        created_at=channel.created_at,
    )
