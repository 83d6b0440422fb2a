"""`/v1/webhooks`: where an app is told of feedback and of finished notifications, for its admins."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal

from fastapi import APIRouter
from pydantic import Field
from starlette.responses import Response

from registry import webhooks
from registry.database import Connection
from registry.keys import Role
from registry.webhooks import State, Webhook
from workers.credentials import CredentialError
from workers.posting import NotAllowed

from .access import Admitted, GuardedRoute, allow
from .desk import AtDesk, Desk
from .names import APP_PARAMETER, Word
from .problem import Fault, Problem, invalid
from .shape import WHOLE, Answer, Body

router = APIRouter(tags=["webhooks"], route_class=GuardedRoute, dependencies=[APP_PARAMETER])

TopicName = Literal["feedback", "finished"]
_LONGEST_GRACE_SECONDS = 30 * 86_400
# A name or an address, perhaps a port up to 65535; no user, no fragment.
_HOST = r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?|\[([0-9A-Fa-f]{1,4}:){7}[0-9A-Fa-f]{1,4}\]|\[::([0-9A-Fa-f]{1,4})?\]"
_PORT = "6553[0-5]|655[0-2][0-9]|65[0-4][0-9]{2}|6[0-4][0-9]{3}|[0-5]?[0-9]{1,4}"
_URL = rf"^https?://({_HOST})(:({_PORT}))?([/?][!\x22$-\[\]-~]*)?$"


class WebhookBody(Body):
    """Where to tell, and of what."""

    url: Annotated[
        str, Field(pattern="^https?://[!-~]+$", max_length=2048, json_schema_extra={"pattern": _URL})
    ]
    events: Annotated[list[TopicName], Field(min_length=1, max_length=2)] = ["feedback", "finished"]  # noqa: RUF012
    state: Literal["active", "disabled"] = "active"


class SecretBody(Body):
    """How long the secret before signs too."""

    grace_seconds: Annotated[int, Field(ge=0, le=_LONGEST_GRACE_SECONDS), WHOLE] = 86_400


class WebhookAnswer(Answer):
    """One webhook. `told` is the cursor of the last thing that its receiver has."""

    name: str
    url: str
    events: list[TopicName]
    state: Literal["active", "disabled"]
    state_reason: str | None
    state_changed_at: datetime
    told: str
    failures: int
    failing_since: datetime | None
    last_error: str | None
    last_told_at: datetime | None
    previous_secret_until: datetime | None
    created_at: datetime


class WebhookSecret(WebhookAnswer):
    """A webhook and its secret, which is told only when it is made or rotated."""

    secret: str


class WebhookList(Answer):
    """An app's webhooks by name."""

    webhooks: list[WebhookAnswer]


@router.get("/v1/webhooks", summary="List webhooks")
@allow(Role.ADMIN)
async def list_all(desk: AtDesk, caller: Admitted) -> WebhookList:
    """List the app's webhooks, with how they fare."""
    found = await desk.crew.query(lambda connection: webhooks.list_all(connection, caller.tenant.id))
    return WebhookList(webhooks=[WebhookAnswer(**_told(webhook)) for webhook in found])


@router.get("/v1/webhooks/{name}", summary="Read a webhook")
@allow(Role.ADMIN)
async def read(desk: AtDesk, caller: Admitted, *, name: Word) -> WebhookAnswer:
    """Read one webhook: whether it is told, and if not, why."""
    found = await desk.crew.query(lambda connection: webhooks.get(connection, caller.tenant.id, name))
    return WebhookAnswer(**_told(found))


@router.put(
    "/v1/webhooks/{name}",
    summary="Make or change a webhook",
    responses={201: {"model": WebhookSecret, "description": "Made; the secret is told only now"}},
)
@allow(Role.ADMIN)
async def put(
    desk: AtDesk, caller: Admitted, *, name: Word, body: WebhookBody, response: Response
) -> WebhookAnswer | WebhookSecret:
    """Make a webhook (201, with its secret), which begins with what happens from now on; or change one (200).

    A changed one goes on where it stopped; so a disabled one is enabled again.
    """
    try:
        desk.poster.check(body.url)
    except NotAllowed as error:
        fault = Fault(pointer="/url", code="forbidden", detail=str(error))
        raise Problem("forbidden", "this address is not one that webhooks may have here", [fault]) from error
    except ValueError as error:
        raise invalid([Fault(pointer="/url", code="format", detail=str(error))]) from error

    def work(connection: Connection) -> tuple[Webhook, bool]:
        return webhooks.put(
            connection,
            caller.tenant.id,
            name=name,
            url=body.url,
            events=body.events,
            state=State(body.state),
        )

    # Before anything is stored: a webhook whose secret nobody can tell would be of no use.
    await _secret_of(desk, bytes(16))
    webhook, is_new = await desk.crew.query(work)
    if not is_new:
        return WebhookAnswer(**_told(webhook))
    response.status_code = 201
    return WebhookSecret(secret=await _secret_of(desk, webhook.salt), **_told(webhook))


@router.post("/v1/webhooks/{name}/rotate", summary="Rotate a webhook's secret")
@allow(Role.ADMIN)
async def rotate(desk: AtDesk, caller: Admitted, *, name: Word, body: SecretBody) -> WebhookSecret:
    """Give a webhook another secret. For some time its messages carry a signature by the one before, too."""
    await _secret_of(desk, bytes(16))
    grace = timedelta(seconds=body.grace_seconds)

    def work(connection: Connection) -> Webhook:
        return webhooks.rotate(connection, caller.tenant.id, name, grace=grace)

    webhook = await desk.crew.query(work)
    return WebhookSecret(secret=await _secret_of(desk, webhook.salt), **_told(webhook))


@router.delete("/v1/webhooks/{name}", status_code=204, summary="Remove a webhook")
@allow(Role.ADMIN)
async def remove(desk: AtDesk, caller: Admitted, *, name: Word) -> Response:
    """Remove a webhook. What its receiver was not told it never is; feedback can still be read."""
    await desk.crew.query(lambda connection: webhooks.remove(connection, caller.tenant.id, name))
    return Response(status_code=204)


async def _secret_of(desk: Desk, salt: bytes) -> str:
    derive: Callable[[], str] = lambda: desk.signer.secret(salt)  # noqa: E731  typed for the crew
    try:
        return await desk.crew.run(derive)
    except CredentialError as error:
        reference = desk.settings.webhook_secret
        raise Problem("not-set-up", f"webhooks need a secret of 32 bytes or more at {reference}") from error


def _told(webhook: Webhook) -> dict[str, Any]:
    return {
        "name": webhook.name,
        "url": webhook.url,
        "events": [topic.value for topic in webhook.events],
        "state": webhook.state.value,
        "state_reason": webhook.state_reason,
        "state_changed_at": webhook.state_changed_at,
        "told": str(webhook.told),
        "failures": webhook.failures,
        "failing_since": webhook.failing_since,
        "last_error": webhook.last_error,
        "last_told_at": webhook.last_told_at,
        "previous_secret_until": webhook.previous_until,
        "created_at": webhook.created_at,
    }
