"""`/v1/notifications`: how far each is, what became of each delivery, and cancelling."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query

from registry import notifications
from registry.database import Connection
from registry.keys import Role
from registry.notifications import Notification, Progress, Trace

from .access import Admitted, Caller, GuardedRoute, allow
from .desk import AtDesk
from .names import APP_PARAMETER, AfterNumber, Limit
from .names import Notification as Name
from .problem import Problem
from .shape import Answer, NotificationId, next_of, number_of

router = APIRouter(tags=["notifications"], route_class=GuardedRoute, dependencies=[APP_PARAMETER])

State = Literal["planning", "sending", "cancelling", "cancelled", "finished"]
DeliveryState = Literal[
    "planned", "sending", "waiting", "accepted", "unregistered", "rejected", "expired", "cancelled",
    "withdrawn", "unknown", "dead",
]  # fmt: skip


class NotificationAnswer(Answer):
    """One notification. `outcomes` count deliveries that ended; they are added when a chunk is done."""

    id: NotificationId
    event_id: str
    app: str
    kind: Literal["bucket", "topic", "direct"]
    lane: Literal["urgent", "normal", "bulk"]
    state: State
    created_at: datetime
    expires_at: datetime
    planned_at: datetime | None
    cancelled_at: datetime | None
    finished_at: datetime | None
    warning: str | None
    users: int
    devices: int
    retries: int
    unsure: int
    outcomes: dict[str, int]


class WholeNotification(NotificationAnswer):
    """One notification, where its deliveries are now, and what it says; that is cleared some time after its end."""

    open: int
    waiting: int
    final: int
    event: dict[str, Any] | None


class NotificationPage(Answer):
    """Notifications, the newest first."""

    notifications: list[NotificationAnswer]
    next: str | None


class DeliveryAnswer(Answer):
    """One delivery: to which device, where it is or how it ended. A device that was forgotten has no user."""

    device: int
    user: str | None
    device_key: str | None
    channel: str | None
    provider: str | None
    state: DeliveryState
    attempts: int
    reason: str | None
    provider_id: str | None
    at: datetime
    earlier: list[dict[str, Any]]


class DeliveryPage(Answer):
    """Deliveries by device."""

    deliveries: list[DeliveryAnswer]
    next: str | None


@router.get("/v1/notifications", summary="List notifications")
@allow(Role.PUBLISH)
async def list_all(
    desk: AtDesk,
    caller: Admitted,
    *,
    unfinished: Annotated[bool, Query(description="Only those that go on.")] = False,
    after: AfterNumber = None,
    limit: Limit = 100,
) -> NotificationPage:
    """List the app's notifications, the newest first."""
    before = number_of(after) or None

    def work(connection: Connection) -> list[Notification]:
        return notifications.list_page(
            connection, app=caller.tenant.name, before=before, unfinished=unfinished, limit=limit
        )

    found = await desk.crew.query(work)
    last = str(found[-1].id) if found else ""
    return NotificationPage(
        notifications=[NotificationAnswer(**_told(one)) for one in found], next=next_of(found, limit, last)
    )


@router.get("/v1/notifications/{notification}", summary="Read one notification")
@allow(Role.PUBLISH)
async def read(desk: AtDesk, caller: Admitted, *, notification: Name) -> WholeNotification:
    """Tell how far a notification is. It is named by its id or by its event's."""

    def work(connection: Connection) -> WholeNotification:
        found = _find(connection, caller, notification)
        return _whole(found, notifications.progress(connection, found.id))

    return await desk.crew.query(work)


@router.get("/v1/notifications/{notification}/deliveries", summary="List its deliveries")
@allow(Role.PUBLISH)
async def deliveries(
    desk: AtDesk,
    caller: Admitted,
    *,
    notification: Name,
    user: Annotated[str | None, Query(max_length=255, description="Only to this user's devices.")] = None,
    state: Annotated[DeliveryState | None, Query(description="Only those in this state.")] = None,
    after: AfterNumber = None,
    limit: Limit = 100,
) -> DeliveryPage:
    """Tell what became of each delivery, device by device. All are read at one moment."""
    last = number_of(after)

    def work(connection: Connection) -> list[Trace]:
        found = _find(connection, caller, notification)
        return notifications.deliveries(
            connection, found.id, user=_storable(user), state=state, after=last, limit=limit
        )

    found = await desk.crew.query(work)
    cursor = str(found[-1].device_id) if found else ""
    return DeliveryPage(deliveries=[_delivery(trace) for trace in found], next=next_of(found, limit, cursor))


@router.post("/v1/notifications/{notification}/cancel", summary="Cancel it")
@allow(Role.PUBLISH)
async def cancel(desk: AtDesk, caller: Admitted, *, notification: Name) -> WholeNotification:
    """Send nothing more of a notification. What providers have accepted is not called back.

    Cancelling again changes nothing; one that is finished is refused (409).
    """

    def work(connection: Connection) -> Notification:
        found = _find(connection, caller, notification)
        if not notifications.cancel(connection, found.id) and found.cancelled_at is None:
            raise Problem("conflict", "the notification is finished")
        return found

    found = await desk.crew.query(work)

    def hurry(connection: Connection) -> WholeNotification:
        notifications.hurry(connection, found.id)
        now = _find(connection, caller, str(found.id))
        return _whole(now, notifications.progress(connection, now.id))

    return await desk.crew.query(hurry)


def _find(connection: Connection, caller: Caller, name: str) -> Notification:
    return notifications.find(connection, name, app=caller.tenant.name)


def _storable(text: str | None) -> str | None:
    """Look for nobody where PostgreSQL could not hold the name."""
    return text and text.replace("\x00", "\ufffd")


def _told(found: Notification) -> dict[str, Any]:
    names = NotificationAnswer.model_fields.keys() - {"id", "event_id", "outcomes"}
    shared = {name: getattr(found, name) for name in names}
    outcomes = {outcome.value: count for outcome, count in found.outcomes.items()}
    return {**shared, "id": str(found.id), "event_id": found.key, "outcomes": outcomes}


def _whole(found: Notification, progress: Progress) -> WholeNotification:
    event = None if found.event is None else dict(found.event)
    return WholeNotification(
        **_told(found), open=progress.open, waiting=progress.waiting, final=progress.final, event=event
    )


def _delivery(trace: Trace) -> DeliveryAnswer:
    names = DeliveryAnswer.model_fields.keys() - {"device", "user", "earlier"}
    shared: dict[str, Any] = {name: getattr(trace, name) for name in names}
    earlier = [dict(one) for one in trace.earlier or ()]
    return DeliveryAnswer(device=trace.device_id, user=trace.user_id, earlier=earlier, **shared)
