"""The short way to calls that come thousands a second: from the guard to the endpoint, past FastAPI's own layers.

A route says everything once: its path, whom it admits, its parameters with their checks. FastAPI documents it and
could serve it; here the declarations are followed without what such an endpoint does not use: dependencies that are
opened and closed, forms, background tasks, answers that are not its own. Whatever else is asked for goes to FastAPI;
a route that needs more than this can do is refused when the application is built.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.exceptions import RequestValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import Receive, Scope, Send

from .access import GuardedRoute

# Turns an error into its answer; `None` for one that is nobody's.
AnswerOf = Callable[[Exception], Response | None]
_Read = Callable[[Request], Mapping[str, Any]]
_SOURCES: Final[Mapping[str, _Read]] = {
    "path_params": lambda request: request.path_params,
    "query_params": lambda request: request.query_params,
    "header_params": lambda request: request.headers,
}
# What a dependant of FastAPI may want beside parameters, dependencies and the request itself.
_NOT_HERE: Final = (
    "cookie_params",
    "body_params",
    "websocket_param_name",
    "http_connection_param_name",
    "response_param_name",
    "background_tasks_param_name",
    "security_scopes_param_name",
)


class ShortWay:
    """An ASGI application around FastAPI's. It serves the routes that it is given, and passes on the rest."""

    def __init__(self, app: FastAPI, routes: Iterable[BaseRoute], answer_of: AnswerOf) -> None:
        self._app = app
        self._stops = [(route, _Call(route.dependant)) for route in routes if isinstance(route, GuardedRoute)]
        self._answer_of = answer_of

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "http":
            for route, call in self._stops:
                match = route.path_regex.match(scope["path"])
                if match and scope["method"] in (route.methods or ()):
                    scope.update(app=self._app, route=route, path_params=match.groupdict())
                    response = await self._serve(Request(scope, receive), route, call)
                    await response(scope, receive, send)
                    return
        await self._app(scope, receive, send)

    async def _serve(self, request: Request, route: GuardedRoute, call: _Call) -> Response:
        try:
            await route.admit(request)
            errors: list[Any] = []
            values = await call.values(request, errors)
            if errors:
                raise RequestValidationError(errors)
            response: Response = await route.endpoint(**values)
        except Exception as error:
            answer = self._answer_of(error)
            if answer is None:
                raise
            return answer
        return response


class _Call:
    """How the arguments of an endpoint, or of what it depends on, are read from a request."""

    def __init__(self, dependant: Dependant) -> None:
        wanted = [name for name in _NOT_HERE if getattr(dependant, name)]
        if wanted:
            raise TypeError(f"{dependant.call} wants {', '.join(wanted)}: it must go the long way")
        self._request_name = dependant.request_param_name
        self._parameters = list(_parameters(dependant))
        self._inner: list[tuple[str | None, _Call, Callable[..., Awaitable[Any]]]] = [
            (inner.name, _Call(inner), inner.call) for inner in dependant.dependencies if inner.call
        ]

    async def values(self, request: Request, errors: list[Any]) -> dict[str, Any]:
        """Read and check the arguments, and note in `errors` all that is wrong."""
        values: dict[str, Any] = {}
        for name, inner, call in self._inner:
            solved = await call(**await inner.values(request, errors))
            if name is not None:
                values[name] = solved
        for read, field, place in self._parameters:
            given = read(request).get(field.alias)
            if given is None and not field.field_info.is_required():
                values[field.name] = field.default
                continue
            values[field.name], wrong = field.validate(given, values, loc=place)
            errors += wrong
        if self._request_name is not None:
            values[self._request_name] = request
        return values


def _parameters(dependant: Dependant) -> Iterator[tuple[_Read, Any, tuple[str, str]]]:
    """Yield where a parameter is read, its field with its checks, and its place as FastAPI names it."""
    for kind, read in _SOURCES.items():
        for field in getattr(dependant, kind):
            is_plain = field.field_info.annotation in (str, str | None)
            if not is_plain or (field.field_info.is_required() and kind != "path_params"):
                raise TypeError(f"the parameter {field.alias} of {dependant.call} must go the long way")
            yield read, field, (kind.removesuffix("_params"), field.alias)
