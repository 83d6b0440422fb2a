"""`/v1/users/{user}`: tokens for the user's own app, what is stored about the user, and forgetting it."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import Field

from registry import pseudo, subscriptions, users
from registry.database import Connection
from registry.keys import Role
from registry.subscriptions import Subscription

from .access import Admitted, GuardedRoute, allow
from .desk import AtDesk
from .names import APP_PARAMETER, TEXT, PseudoUser, User
from .shape import WHOLE, Answer, Body
from .user_token import LONGEST, USUAL

router = APIRouter(tags=["users"], route_class=GuardedRoute, dependencies=[APP_PARAMETER])


class TokenBody(Body):
    """How long the token shall be good."""

    ttl_seconds: Annotated[int, Field(ge=1, le=int(LONGEST.total_seconds())), WHOLE] = int(
        USUAL.total_seconds()
    )


class TokenAnswer(Answer):
    """A token for one user: the bearer of calls that register the user's devices and subscriptions."""

    token: str
    expires_at: datetime


class PseudoUserAnswer(TokenAnswer):
    """A user without a login: its id, and a token for the app's install."""

    user: str


class PromotionBody(Body):
    """Who the pseudo user is."""

    user: Annotated[
        str,
        Field(
            min_length=1,
            max_length=255,
            description="The user's own id.",
            json_schema_extra={"pattern": TEXT, "not": {"pattern": f"^{pseudo.PREFIX}"}},
        ),
    ]


class PromotionAnswer(Answer):
    """What became the user's. Zeros: it was done before, or there was nothing."""

    user: str
    devices: int
    subscriptions: int
    groups: int
    targets: int


class SubscriptionAnswer(Answer):
    """One thing that a user is subscribed to."""

    kind: str
    scope: str
    name: str
    since: datetime


class SubscriptionList(Answer):
    """What a user is subscribed to."""

    subscriptions: list[SubscriptionAnswer]


class ForgottenAnswer(Answer):
    """How many rows were deleted, or changed so that they no longer name the user."""

    devices: int
    subscriptions: int
    targets: int
    groups: int
    feedback: int
    notifications: int
    dead_letters: int


@router.post("/v1/users/{user}/tokens", status_code=201, summary="Mint a user token")
@allow(Role.REGISTER)
async def mint(desk: AtDesk, caller: Admitted, *, user: User, body: TokenBody) -> TokenAnswer:
    """Mint a short-lived token for one user, which a backend gives to the user's app after login.

    With it the app installs and uninstalls its own devices and subscribes the user where that is allowed, no more.
    A token cannot be called back before it ends.
    """
    token, expires_at = desk.tokens.mint(caller.tenant, user, timedelta(seconds=body.ttl_seconds))
    return TokenAnswer(token=token, expires_at=expires_at)


@router.post("/v1/pseudo-users", status_code=201, summary="Make a pseudo user")
@allow(Role.REGISTER)
async def make_pseudo_user(desk: AtDesk, caller: Admitted, *, body: TokenBody) -> PseudoUserAnswer:
    """Make an id for an install without login, and a user token for it. The app keeps the id until its user logs in."""
    user = pseudo.new_id()
    token, expires_at = desk.tokens.mint(caller.tenant, user, timedelta(seconds=body.ttl_seconds))
    return PseudoUserAnswer(user=user, token=token, expires_at=expires_at)


@router.post("/v1/users/{user}/promotion", summary="Promote a pseudo user")
@allow(Role.REGISTER)
async def promote(
    desk: AtDesk, caller: Admitted, *, user: PseudoUser, body: PromotionBody
) -> PromotionAnswer:
    """Make a pseudo user the user that has logged in: devices, subscriptions and memberships move at once.

    What is on its way to its devices arrives. Afterwards nothing is registered for the pseudo id any more (409). Busy
    (503) while a large fan-out to it is being planned.
    """

    def work(connection: Connection) -> pseudo.Promotion:
        return pseudo.promote(connection, caller.tenant.id, user, body.user)

    return PromotionAnswer(user=body.user, **asdict(await desk.crew.query(work)))


@router.get("/v1/users/{user}/subscriptions", summary="List a user's subscriptions")
@allow(Role.REGISTER)
async def list_subscriptions(desk: AtDesk, caller: Admitted, *, user: User) -> SubscriptionList:
    """List what a user is subscribed to, up to 1,000."""

    def work(connection: Connection) -> list[Subscription]:
        return subscriptions.list_by_user(connection, caller.tenant.id, user)

    found = await desk.crew.query(work)
    return SubscriptionList(
        subscriptions=[
            SubscriptionAnswer(
                kind=one.target.kind, scope=str(one.target.scope), name=one.target.name, since=one.created_at
            )
            for one in found
        ]
    )


@router.get("/v1/users/{user}/export", summary="Export what is stored about a user")
@allow(Role.REGISTER)
async def export(
    desk: AtDesk,
    caller: Admitted,
    *,
    user: User,
    limit: Annotated[int, Query(ge=1, le=100_000, description="Rows of each kind.")] = 10_000,
) -> dict[str, Any]:
    """Tell everything that is stored about a user; tokens by a short hash. `is_complete` says whether that is all."""

    def work(connection: Connection) -> dict[str, Any]:
        return users.export(connection, caller.tenant.id, user, limit=limit)

    found = await desk.crew.query(work)
    for row in found["deliveries"]:
        row["notification_id"] = str(row["notification_id"])
    return {"app": caller.tenant.name, **found}


@router.delete("/v1/users/{user}", summary="Forget a user")
@allow(Role.REGISTER)
async def forget(desk: AtDesk, caller: Admitted, *, user: User) -> ForgottenAnswer:
    """Forget a user: devices, subscriptions, pending work and history. There is no way back.

    Make sure before that the app no longer registers this user.
    """
    done = await desk.crew.run(lambda: users.forget(desk.database, caller.tenant.id, user))
    return ForgottenAnswer(**asdict(done))
