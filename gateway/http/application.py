"""The application: its routes, how errors become problems, and its OpenAPI document."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import psycopg
import structlog
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import ASGIApp

from registry.errors import (
    AlreadyExists,
    Busy,
    DatabaseUnavailable,
    InvalidRegistration,
    NotFound,
    RegistryError,
)
from workers.settings import Settings

from . import (
    apps,
    channels,
    devices,
    event_schema,
    events,
    feedback,
    groups,
    keys,
    notifications,
    object_stores,
    operation,
    reference,
    targets,
    users,
    webhooks,
)
from .desk import open_desk
from .guard import Guard
from .metrics import Metrics
from .pointer import pointer
from .problem import KINDS, MEDIA_TYPE, Fault, Problem, invalid, not_found
from .short_way import ShortWay

log = structlog.get_logger()

_ROUTERS: Final = (
    events.router,
    object_stores.router,
    notifications.router,
    devices.router,
    users.router,
    targets.topics,
    targets.buckets,
    groups.router,
    feedback.router,
    webhooks.router,
    channels.router,
    keys.router,
    apps.router,
    operation.router,
    reference.router,
)
_ABOUT: Final = """One event, a push notification on every device of every recipient.

Every call needs a key (`pushfan key create`): `Authorization: Bearer pfk_…`. Refusals are RFC 9457 problems."""
# RFC 9457 answers that any call may give. 405 comes from the path alone.
_STATUSES: Final = sorted({kind.status for kind in KINDS.values()} - {405})


def create_application(settings: Settings) -> ASGIApp:
    """Build the application. It connects to nothing before it is started."""
    metrics = Metrics()
    app = create_fastapi(settings, metrics)
    way = ShortWay(app, events.router.routes, answer_of)
    return Guard(way, body_bytes=settings.api_body_bytes, count=metrics.count)


def create_fastapi(settings: Settings, metrics: Metrics) -> FastAPI:
    """Build what the guard stands in front of: every route."""

    @asynccontextmanager
    async def live(app: FastAPI) -> AsyncIterator[None]:
        async with open_desk(settings) as desk:
            app.state.desk = desk
            yield

    app = FastAPI(
        title="Pushfan",
        version="1",
        description=_ABOUT,
        lifespan=live,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        separate_input_output_schemas=False,
    )
    app.state.metrics = metrics
    for router in _ROUTERS:
        app.include_router(router)
    app.add_exception_handler(HTTPException, _refuse)
    for error, handle in _HANDLERS.items():
        app.add_exception_handler(error, _answering(handle))
    app.openapi = lambda: describe(app)  # type: ignore[method-assign]  # FastAPI's own way to extend the document
    return app


def describe(app: FastAPI) -> dict[str, Any]:
    """Give the OpenAPI document: FastAPI's, with events, problems, and what each call asks of its caller."""
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title, version=app.version, description=app.description, routes=app.routes
        )
        components = document.setdefault("components", {})
        schemas = components.setdefault("schemas", {})
        for unused in ("HTTPValidationError", "ValidationError"):
            schemas.pop(unused, None)
        schemas |= event_schema.COMPONENTS
        components["securitySchemes"] = {"bearer": {"type": "http", "scheme": "bearer"}}
        for operation_ in _operations(document):
            _complete(operation_)
        app.openapi_schema = document
    return app.openapi_schema


def _operations(document: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for path in document["paths"].values():
        yield from path.values()


def _complete(operation_: dict[str, Any]) -> None:
    if "operation" in operation_.get("tags", ()):
        return
    operation_["security"] = [{"bearer": []}]
    answers = operation_["responses"]
    for status in map(str, _STATUSES):
        title = " / ".join(kind.title for kind in KINDS.values() if str(kind.status) == status)
        content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
        answers[status] = {"description": title, "content": content}


def answer_of(error: Exception) -> Response | None:
    """Answer an error as FastAPI would with our handlers; `None` for a defect, which the guard answers and logs."""
    kinds = (kind for kind in type(error).__mro__ if kind in _HANDLERS and kind is not Exception)
    kind = next(kinds, None)
    return None if kind is None else _HANDLERS[kind](error).response()


def _answering(
    handle: Callable[[Any], Problem],
) -> Callable[[Request, Exception], Coroutine[Any, Any, Response]]:
    """Make a handler. Like everything that FastAPI calls it is a coroutine, or it would be run in a thread."""

    async def answer(_request: Request, error: Exception) -> Response:
        return handle(error).response()

    return answer


def _of_validation(error: RequestValidationError) -> Problem:
    """List what FastAPI found wrong: parameters by name, the body by pointers."""
    found = error.errors()
    if any(one["type"] == "json_invalid" for one in found):
        return Problem("malformed", f"the body is not JSON: {found[0].get('ctx', {}).get('error', '')}")
    return invalid(_fault(one) for one in found)


def _fault(found: Mapping[str, Any]) -> Fault:
    place, *steps = found["loc"]
    detail = str(found["msg"]).removeprefix("Value error, ").removeprefix("Assertion failed, ")
    code = str(found["type"])
    if place == "body":
        return Fault(pointer=pointer(*steps), code=code, detail=detail)
    return Fault(parameter=str(steps[0]) if steps else str(place), code=code, detail=detail)


async def _refuse(request: Request, error: Exception) -> Response:
    """Answer what no route takes. `Allow` names all calls of the path: Starlette names those of one route."""
    assert isinstance(error, HTTPException)
    problem = _of_http(error)
    if problem.kind == "method-not-allowed":
        methods = {name for route in _routes_at(request) for name in route.methods or ()}
        problem.headers = {name.lower(): value for name, value in problem.headers.items()}
        if methods:
            problem.headers["allow"] = ", ".join(sorted(methods))
    return problem.response()


def _routes_at(request: Request) -> Iterator[APIRoute]:
    for route in (route for router in _ROUTERS for route in router.routes):
        if isinstance(route, APIRoute) and route.matches(request.scope)[0] is not Match.NONE:
            yield route


def _of_http(error: HTTPException) -> Problem:
    kind = {404: "not-found", 405: "method-not-allowed"}.get(error.status_code, "malformed")
    detail = {"not-found": "there is no such path"}.get(kind, str(error.detail))
    return Problem(kind, detail, headers=dict(error.headers or {}))


def _of_registration(error: InvalidRegistration) -> Problem:
    """List what the registry found wrong: `path: what`, a line each."""
    faults = []
    for line in str(error).splitlines():
        path, separator, detail = line.partition(": ")
        where = pointer(*path.split(".")) if separator else ""
        faults.append(Fault(pointer=where, detail=detail or line))
    return invalid(faults)


def _of_database(error: Exception) -> Problem:
    log.warning("database_away", error=type(error).__name__, cause=type(error.__cause__).__name__)
    return Problem("database-away", "PostgreSQL does not answer", retry_after_seconds=5)


_HANDLERS: Final[Mapping[type[Exception], Callable[[Any], Problem]]] = {
    Problem: lambda problem: problem,
    RequestValidationError: _of_validation,
    InvalidRegistration: _of_registration,
    AlreadyExists: lambda error: Problem("conflict", str(error)),
    NotFound: lambda error: Problem("not-found", str(error).partition(" (")[0]),
    Busy: lambda _: Problem("busy", "another transaction is at it", retry_after_seconds=1),
    DatabaseUnavailable: _of_database,
    RegistryError: lambda error: Problem("conflict", str(error)),
    psycopg.OperationalError: _of_database,
    # Servers remember apps and keys for 5 seconds: longer than it takes to remove an app.
    psycopg.errors.ForeignKeyViolation: lambda _: not_found("app, channel or group of that name any more"),
    # NUL, above all, which no text of PostgreSQL holds.
    psycopg.DataError: lambda _: invalid(
        [Fault(detail="a value holds what cannot be stored", code="characters")]
    ),
    # Its text may hold what was sent: the guard logs the type and the place.
    Exception: lambda _: Problem("internal", "this is a defect in Pushfan; its log says more"),
}
