"""`GET /v1/feedback`: what happened to tokens, in order and without gaps."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from fastapi import APIRouter

from registry import feedback
from registry.database import Connection
from registry.errors import InvalidRegistration
from registry.feedback import BEGINNING, Cursor, Feedback
from registry.keys import Role

from .access import Admitted, GuardedRoute, allow
from .desk import AtDesk
from .names import APP_PARAMETER, AfterFeedback, Limit
from .shape import Answer, bad_cursor

router = APIRouter(tags=["feedback"], route_class=GuardedRoute, dependencies=[APP_PARAMETER])


class FeedbackAnswer(Answer):
    """One thing that happened to a token, which is told by a short hash."""

    device: int
    user: str
    device_key: str
    channel: str | None
    kind: Literal["retired", "replaced", "moved"]
    reason: str
    token_hash: str
    at: datetime


class FeedbackPage(Answer):
    """What happened next. Come again with `next`, also when nothing had happened yet."""

    feedback: list[FeedbackAnswer]
    next: str


@router.get("/v1/feedback", summary="Read what happened to tokens")
@allow(Role.REGISTER)
async def read(
    desk: AtDesk, caller: Admitted, *, after: AfterFeedback = None, limit: Limit = 100
) -> FeedbackPage:
    """Read the app's feedback after a place. Keep `next`: with it nothing is missed and nothing comes twice."""
    try:
        cursor = BEGINNING if after is None else Cursor.parse(after)
    except InvalidRegistration:
        raise bad_cursor() from None

    def work(connection: Connection) -> list[Feedback]:
        return feedback.read(connection, caller.tenant.id, after=cursor, limit=limit)

    found = await desk.crew.query(work)
    last = found[-1].cursor if found else cursor
    return FeedbackPage(feedback=[_told(one) for one in found], next=str(last))


def _told(found: Feedback) -> FeedbackAnswer:
    return FeedbackAnswer(
        device=found.device_id,
        user=found.user_id,
        device_key=found.device_key,
        channel=found.channel,
        kind=found.kind.value,
        reason=found.reason,
        token_hash=found.token_hash,
        at=found.at,
    )
