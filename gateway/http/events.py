"""`POST /v1/events` and the three kinds by name: events are taken in, or told why not.

1. The body is read into drafts, `publication`.
2. Each draft is decoded, its app must be the caller's, its lane one that the caller may use.
3. The valid ones are taken in together with those of other requests, `batcher`. The rest is answered beside them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Annotated, Any, Final

import orjson
from fastapi import APIRouter, Header, Query
from starlette.requests import Request
from starlette.responses import Response

from events import Event, InvalidEvent, Lane, decode
from registry import rules
from registry.apps import App
from registry.keys import Role
from registry.notifications import Intake, TakenIn
from registry.subscriptions import Scope, Target, TargetKind

from . import event_schema
from .access import Admitted, Caller, GuardedRoute, Of, allow
from .batcher import Outcome
from .desk import AtDesk, Desk
from .names import APP_PARAMETER, ScopeName, TargetName, User
from .pointer import locate
from .problem import KINDS, Fault, Problem, invalid, not_found
from .publication import Draft, Given, Publication, read

router = APIRouter(tags=["events"], route_class=GuardedRoute, dependencies=[APP_PARAMETER])

IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        description="The event's id, if the body has none: repeating is safe with the same.",
        min_length=1,
        max_length=250,
        pattern=event_schema.LINE,
    ),
]
Sender = Annotated[
    str | None,
    Query(
        max_length=255,
        description="In whose name, a user's id: refused unless the rule `senders` of the target allows that.",
    ),
]
# A body so large is read and checked by a thread, or it would hold up all other requests.
_LARGE_BYTES: Final = 32 * 1024
# Seeded by the system, in each process.
_RANDOM: Final = Random()  # ids need to be unique, not secret
_FASTEST_FIRST: Final = (Lane.URGENT, Lane.NORMAL, Lane.BULK)


@router.post(
    "/v1/events",
    status_code=202,
    summary="Publish one event or up to 1,000",
    openapi_extra=event_schema.EVENTS,
    responses=event_schema.ANSWERS,
)
@allow(Role.PUBLISH, of=Of.BODY)
async def publish(
    request: Request, desk: AtDesk, caller: Admitted, *, key: IdempotencyKey = None
) -> Response:
    """Take events in. A 202 means that they are committed: from here on nothing is lost.

    The same id with the same content changes nothing; with other content it is refused (409). In a list every event is
    answered for itself; the status is 207 if some were refused, 422 if all were.
    """
    return await _publish(request, desk, caller, Given(idempotency_key=_unquoted(key)))


@router.post(
    "/v1/users/{user}/messages",
    status_code=202,
    summary="Push to one user",
    openapi_extra=event_schema.DIRECT,
    responses=event_schema.ANSWER,
)
@allow(Role.PUBLISH)
async def push_to_user(
    request: Request, desk: AtDesk, caller: Admitted, *, user: User, key: IdempotencyKey = None
) -> Response:
    """Take in a direct push to a user: a message to all of the user's devices."""
    fixed = {"kind": "direct", "users": [user]}
    return await _publish(request, desk, caller, Given(idempotency_key=_unquoted(key), fixed=fixed))


@router.post(
    "/v1/topics/{scope}/{topic}/messages",
    status_code=202,
    summary="Send to a topic's subscribers",
    openapi_extra=event_schema.TOPIC,
    responses=event_schema.ANSWER,
)
@allow(Role.PUBLISH)
async def send_to_topic(
    request: Request,
    desk: AtDesk,
    caller: Admitted,
    *,
    scope: ScopeName,
    topic: TargetName,
    sender: Sender = None,
    key: IdempotencyKey = None,
) -> Response:
    """Take in a topic message. A backend that passes on what a user asks for names that user as `sender`."""
    await _check_sender(
        desk, caller, Target(kind=TargetKind.TOPIC, name=topic, scope=Scope.parse(scope)), sender
    )
    fixed = {"kind": "topic", "topic": topic, "scope": scope}
    return await _publish(request, desk, caller, Given(idempotency_key=_unquoted(key), fixed=fixed))


@router.post(
    "/v1/buckets/{scope}/{bucket}/writes",
    status_code=202,
    summary="Tell a bucket's subscribers of a change",
    openapi_extra=event_schema.BUCKET,
    responses=event_schema.ANSWER,
)
@allow(Role.PUBLISH)
async def write_to_bucket(
    request: Request,
    desk: AtDesk,
    caller: Admitted,
    *,
    scope: ScopeName,
    bucket: TargetName,
    sender: Sender = None,
    key: IdempotencyKey = None,
) -> Response:
    """Take in a bucket write. Without a message it is silent, with the change in `data`."""
    await _check_sender(
        desk, caller, Target(kind=TargetKind.BUCKET, name=bucket, scope=Scope.parse(scope)), sender
    )
    fixed = {"kind": "bucket", "bucket": bucket, "scope": scope}
    return await _publish(request, desk, caller, Given(idempotency_key=_unquoted(key), fixed=fixed))


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why an event is not taken in."""

    id: str | None
    problem: Problem


async def _check_sender(desk: Desk, caller: Caller, target: Target, sender: str | None) -> None:
    """Refuse what the target's rule does not let this user send. A target that is not there lets nobody."""
    if sender is None:
        return
    user = sender.replace("\x00", "\ufffd")
    app_id = caller.tenant.id
    if not await desk.crew.query(lambda connection: rules.may_send(connection, app_id, target, user)):
        raise Problem("forbidden", f"this {target.kind} does not let this user send; its backend can")


async def _publish(request: Request, desk: Desk, caller: Caller, given: Given) -> Response:
    if caller.app is not None:
        given = Given(idempotency_key=given.idempotency_key, app=caller.app.name, fixed=given.fixed)
    body = await request.body()
    content_type = request.headers.get("content-type", "")

    def prepare() -> tuple[Publication, list[Event | Refusal]]:
        publication = read(content_type, body, given)
        return publication, [_decode(draft, caller) for draft in publication.drafts]

    publication, decoded = await desk.crew.run(prepare) if len(body) > _LARGE_BYTES else prepare()
    return await _take_in(desk, caller, publication, decoded)


async def settle(desk: Desk, caller: Caller, publication: Publication) -> Response:
    """Take the events of a request in, and answer for each."""
    decoded = [_decode(draft, caller) for draft in publication.drafts]
    return await _take_in(desk, caller, publication, decoded)


async def _take_in(
    desk: Desk, caller: Caller, publication: Publication, decoded: Sequence[Event | Refusal]
) -> Response:
    decoded = await _of_known_apps(desk, caller, publication.drafts, decoded)
    events = [one for one in decoded if not isinstance(one, Refusal)]
    outcomes = iter(await desk.batcher.take_in(events) if events else ())
    settled = [
        one if isinstance(one, Refusal) else _settle(next(outcomes), one, draft)
        for draft, one in zip(publication.drafts, decoded, strict=True)
    ]
    return _single(settled[0]) if publication.is_single else _several(settled)


def _decode(draft: Draft, caller: Caller) -> Event | Refusal:
    """Make an event of a draft that this caller may publish."""
    id_ = draft.wire.get("id") if isinstance(draft.wire, Mapping) else None
    if draft.wire is None and draft.faults:
        return Refusal(id=None, problem=invalid(draft.faults))
    try:
        event = decode(_in_lane(draft.wire, caller.lanes), id_if_missing=_new_id())
    except InvalidEvent as error:
        shown = id_ if isinstance(id_, str) else None
        return Refusal(id=shown, problem=invalid([*draft.faults, *_faults(error, draft)]))
    if draft.faults:
        return Refusal(id=event.id, problem=invalid(draft.faults))
    if event.lane is not None and event.lane not in caller.lanes:
        fault = Fault(
            pointer=f"{draft.pointer}/lane", code="forbidden", detail=f"{event.lane} is not this key's"
        )
        return Refusal(
            id=event.id, problem=Problem("forbidden", "the key is limited to other lanes", [fault])
        )
    return event


def _new_id() -> str:
    """Make an id without asking the system for it: that would give up the interpreter to another thread each time."""
    return f"{_RANDOM.getrandbits(128):032x}"


def _in_lane(wire: Any, lanes: frozenset[Lane]) -> Any:
    """Name a lane where the one that the event would go by itself is not the caller's: the next slower one."""
    if not isinstance(wire, Mapping) or wire.get("lane") is not None or len(lanes) == len(Lane):
        return wire
    usual = Lane.URGENT if wire.get("kind") == "direct" else Lane.NORMAL
    if usual in lanes:
        return wire
    place = _FASTEST_FIRST.index(usual)
    slower = [lane for lane in _FASTEST_FIRST[place:] + _FASTEST_FIRST[:place] if lane in lanes]
    return {**wire, "lane": slower[0].value}


async def _of_known_apps(
    desk: Desk, caller: Caller, drafts: Sequence[Draft], decoded: Sequence[Event | Refusal]
) -> list[Event | Refusal]:
    """Refuse events of apps that are not the caller's or not there, and those of an app that has too much waiting."""
    seen: dict[str, App | Problem] = {}
    answers: list[Event | Refusal] = []
    for draft, one in zip(drafts, decoded, strict=True):
        if isinstance(one, Refusal):
            answers.append(one)
            continue
        if one.app not in seen:
            seen[one.app] = await _find_app(desk, caller, one.app, draft)
        found = seen[one.app]
        answers.append(Refusal(id=one.id, problem=found) if isinstance(found, Problem) else one)
    return answers


async def _find_app(desk: Desk, caller: Caller, name: str, draft: Draft) -> App | Problem:
    app = caller.app or await desk.keys.app(name)
    if app is None or app.name != name:
        fault = Fault(pointer=f"{draft.pointer}/app", code="unknown", detail="there is no such app")
        return Problem("not-found", f"there is no app {name!r}", [fault])
    try:
        await desk.backlog.check(app)
    except Problem as problem:
        return problem
    return app


def _settle(outcome: Outcome, event: Event, draft: Draft) -> TakenIn | Refusal:
    if isinstance(outcome, InvalidEvent):
        return Refusal(id=event.id, problem=invalid(_faults(outcome, draft)))
    if outcome.status is Intake.CONFLICT:
        fault = Fault(
            pointer=f"{draft.pointer}/id", code="conflict", detail="was taken in with other content"
        )
        detail = "use a new id for a new event; the first content stays"
        more = {"notification_id": str(outcome.notification_id)}
        return Refusal(id=event.id, problem=Problem("id-conflict", detail, [fault], more=more))
    if outcome.status is Intake.UNKNOWN_APP:
        return Refusal(id=event.id, problem=not_found(f"app {event.app!r}"))
    return outcome


def _faults(error: InvalidEvent, draft: Draft) -> list[Fault]:
    return [
        Fault(
            pointer=draft.pointer + ("" if problem.path == "event" else locate(draft.wire, problem.path)),
            code=problem.code,
            detail=problem.message,
        )
        for problem in error.problems
    ]


def _single(settled: TakenIn | Refusal) -> Response:
    if isinstance(settled, Refusal):
        raise settled.problem
    return _json(202, _taken(settled), location=f"/v1/notifications/{settled.notification_id}")


def _several(settled: Sequence[TakenIn | Refusal]) -> Response:
    refused = [one for one in settled if isinstance(one, Refusal)]
    results = [_refused(one) if isinstance(one, Refusal) else _taken(one) for one in settled]
    if len(refused) < len(settled) or not settled:
        return _json(207 if refused else 202, {"results": results})
    # All for one reason (a full house, another's app) is that reason; else it is the faults of all.
    kinds = {one.problem.kind for one in refused}
    if len(kinds) == 1:
        first = refused[0].problem
        faults = [fault for one in refused for fault in one.problem.faults]
        raise Problem(
            first.kind,
            first.detail if len(refused) == 1 else f"all {len(refused):,} events are refused",
            faults,
            retry_after_seconds=first.retry_after_seconds,
            more={"results": results},
        )
    faults = [fault for one in refused for fault in one.problem.faults]
    # What may succeed later decides before what is merely in the way: repeating the whole is safe.
    kind = "invalid" if "invalid" in kinds else max(sorted(kinds), key=lambda name: KINDS[name].helps)
    waits = [one.problem.retry_after_seconds or 0 for one in refused if one.problem.kind == kind]
    raise Problem(
        kind,
        f"all {len(refused):,} events are refused",
        faults,
        retry_after_seconds=max(waits) or None,
        more={"results": results},
    )


def _taken(answer: TakenIn) -> dict[str, Any]:
    # As text: it exceeds what JSON's numbers hold exactly.
    return {
        "id": answer.event_id,
        "status": answer.status.value,
        "notification_id": str(answer.notification_id),
    }


def _refused(refusal: Refusal) -> dict[str, Any]:
    return {"id": refusal.id, "status": "refused", "problem": refusal.problem.as_json()}


def _json(status: int, document: Mapping[str, Any], *, location: str | None = None) -> Response:
    headers = {} if location is None else {"location": location}
    return Response(orjson.dumps(document), status, headers, "application/json")


def _unquoted(key: str | None) -> str | None:
    """Take an Idempotency-Key as it is or, as the draft of the IETF has it, as a quoted string."""
    if key is not None and len(key) > 2 and key[0] == key[-1] == '"':
        return key[1:-1]
    return key
