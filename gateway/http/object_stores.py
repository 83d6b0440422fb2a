"""`POST /v1/object-stores`: what object stores tell of their objects is taken in as bucket writes.

Stores cannot all send a header of our choosing, so this call takes its key in three ways: `Authorization: Bearer`, the
password of `Authorization: Basic` (Amazon SNS sends what stands in the URL), and `?key=` (Pub/Sub push).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Final

import structlog
from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from events import InvalidEvent, encode, objects
from registry.keys import Role

from . import object_store_schema
from .access import Admitted, GuardedRoute, allow
from .desk import AtDesk
from .event_schema import ANSWERS
from .events import settle
from .names import APP_PARAMETER
from .pointer import locate
from .problem import Fault, invalid
from .publication import Draft, Publication, parse

log = structlog.get_logger()
router = APIRouter(tags=["events"], route_class=GuardedRoute, dependencies=[APP_PARAMETER])

# Of SNS itself: below amazonaws.com anybody may have a bucket, and an operator is to open this.
_CONFIRMATION: Final = re.compile(r"https://sns\.[a-z0-9-]+\.amazonaws\.com(\.cn)?/[!-~]{1,2000}")


@router.post(
    "/v1/object-stores",
    status_code=202,
    summary="Take in what an object store tells",
    openapi_extra=object_store_schema.REQUEST,
    responses=ANSWERS,
)
@allow(Role.PUBLISH, admits_stores=True)
async def tell(
    request: Request,
    desk: AtDesk,
    caller: Admitted,
    *,
    _key: Annotated[
        str | None, Query(alias="key", max_length=200, description="The key, for stores.")
    ] = None,
) -> Response:
    """Take in a notification of S3, MinIO or Google Cloud Storage: a bucket write for each object that changed.

    Repeated notifications give the same event ids. What changes no object is answered 202 with no results.
    """
    document = parse(await request.body())
    if _is_about_a_subscription(document):
        return await settle(desk, caller, Publication(drafts=[], is_single=False))
    try:
        writes = objects.decode(document, app=caller.tenant.name)
    except InvalidEvent as error:
        raise invalid(
            Fault(
                pointer="" if problem.path == "body" else locate(document, problem.path),
                code=problem.code,
                detail=problem.message,
            )
            for problem in error.problems
        ) from error
    drafts = [Draft(wire=encode(write), pointer="") for write in writes]
    return await settle(desk, caller, Publication(drafts=drafts, is_single=False))


def _is_about_a_subscription(document: Any) -> bool:
    """Tell whether Amazon SNS speaks of a subscription: an operator confirms it, who finds the address in the log."""
    kind = document.get("Type") if isinstance(document, Mapping) else None
    if kind not in ("SubscriptionConfirmation", "UnsubscribeConfirmation"):
        return False
    url = document.get("SubscribeURL")
    if isinstance(url, str) and _CONFIRMATION.fullmatch(url):
        if kind == "SubscriptionConfirmation":
            log.warning("sns_subscription_waits", url=url, follows="open the address to confirm it")
        else:
            log.warning("sns_subscription_ended", url=url, follows="open the address to have it again")
    return True
