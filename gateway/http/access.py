"""Who may call what: each route says whom it admits, and is asked before it reads a body.

1. `allow` marks an endpoint; a route without it does not come into being.
2. `GuardedRoute` finds out who calls, whether this caller may, and for which app. Only then the body is parsed: a
   stranger learns nothing and costs little.

Another app's key is told that there is nothing, in the words for what there is not.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Callable, Collection, Coroutine, Iterator
from dataclasses import dataclass
from enum import Enum, auto
from ipaddress import ip_address
from typing import TYPE_CHECKING, Annotated, Any, TypeVar
from urllib.parse import unquote

from fastapi import Depends
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response

from events.names import Lane
from events.validation import did_you_mean
from registry.apps import App
from registry.keys import Key, Role

from .problem import Fault, Problem, invalid, not_found

if TYPE_CHECKING:
    from .desk import Desk

F = TypeVar("F", bound=Callable[..., Any])
_MARK = "__pushfan_access__"


class Of(Enum):
    """Whose a route's things are: of one app, of the apps that a body names, or nobody's."""

    APP = auto()
    BODY = auto()
    NOBODY = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Whom a route admits: keys with a role, and perhaps the user that the path names."""

    role: Role
    of: Of = Of.APP
    admits_users: bool = False
    is_for_operators: bool = False
    # the key may come as stores can send it: as a password, or as a parameter
    admits_stores: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who calls. `app` is the app that the request is about; `user` is set for a user token."""

    name: str
    app: App | None
    key: Key | None = None
    user: str | None = None

    @property
    def lanes(self) -> frozenset[Lane]:
        """The lanes that the caller may publish in."""
        return self.key.lanes if self.key else frozenset()

    @property
    def tenant(self) -> App:
        """The app of a request that is about one."""
        assert self.app is not None
        return self.app


def allow(role: Role, **more: Any) -> Callable[[F], F]:
    """Say whom an endpoint admits, see `Access`."""

    def mark(endpoint: F) -> F:
        setattr(endpoint, _MARK, Access(role=role, **more))
        return endpoint

    return mark


def access_of(endpoint: Callable[..., Any]) -> Access:
    """Read what `allow` said. Raises `AttributeError` for an endpoint that nobody guards."""
    access: Access = getattr(endpoint, _MARK)
    return access


class GuardedRoute(APIRoute):
    """A route that admits its caller before anything else."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Put the guard in front of FastAPI's handler."""
        handle = super().get_route_handler()
        self._access = access_of(self.endpoint)
        self._known = frozenset(_query_names(self.dependant))

        async def guarded(request: Request) -> Response:
            await self.admit(request)
            return await handle(request)

        return guarded

    async def admit(self, request: Request) -> None:
        """Find out who calls, whether they may, and read what they sent. Raises `Problem`."""
        request.state.caller = await admit(request, self._access)
        _refuse_unknown(request, self._known)
        # Before FastAPI does, which would call a body that is too large unreadable.
        await request.body()


def _query_names(dependant: Dependant) -> Iterator[str]:
    yield from (parameter.alias for parameter in dependant.query_params)
    for inner in dependant.dependencies:
        yield from _query_names(inner)


def _refuse_unknown(request: Request, known: Collection[str]) -> None:
    """Refuse parameters that mean nothing here: a mistyped one would silently be left out."""
    if not request.scope["query_string"]:
        return
    unknown = sorted(set(request.query_params) - set(known))
    if unknown:
        raise invalid(
            Fault(parameter=name, code="unknown", detail=f"is not a parameter{did_you_mean(name, known)}")
            for name in unknown
        )


async def _caller_of(request: Request) -> Caller:
    caller: Caller = request.state.caller
    return caller


Admitted = Annotated[Caller, Depends(_caller_of)]


async def admit(request: Request, access: Access) -> Caller:
    """Find out who calls and whether they may. Raises `Problem`."""
    desk: Desk = request.app.state.desk
    secret = _of_store(request) if access.admits_stores else _bearer(request)
    key = await desk.keys.key(secret)
    caller = (
        await _by_token(request, desk, secret, access)
        if key is None
        else Caller(name=key.prefix, app=None, key=key)
    )
    if seconds := desk.rate.wait_seconds(caller.name):
        raise Problem("too-many-requests", "this key asks too often", retry_after_seconds=seconds)
    return caller if key is None else await _by_key(request, desk, key, access)


async def _by_key(request: Request, desk: Desk, key: Key, access: Access) -> Caller:
    app = await _app_of(request, desk, key, access)
    if not key.may(access.role):
        raise Problem("forbidden", f"the key {key.prefix} has not the role {access.role}")
    if access.is_for_operators and key.app_id is not None:
        raise Problem("forbidden", f"the key {key.prefix} is for one app, and this is about all")
    if access.role is Role.ADMIN and not is_private(request):
        raise Problem("insecure", "call over TLS, or from this machine")
    return Caller(name=key.prefix, app=app, key=key)


async def _by_token(request: Request, desk: Desk, secret: str, access: Access) -> Caller:
    token = desk.tokens.read(secret)
    app = None if token is None else await desk.keys.app(token.app)
    if token is None or app is None or app.id != token.app_id:
        raise _unauthorized("the key or token is not valid, or no longer")
    if not access.admits_users:
        raise Problem(
            "forbidden", "a user token installs the user's devices and subscribes the user, no more"
        )
    named = request.query_params.get("app", app.name)
    if named != app.name or unquote(request.path_params.get("user", "")) != token.user:
        raise not_found("such user")
    return Caller(name=f"{app.id}/{token.user}", app=app, user=token.user)


async def _app_of(request: Request, desk: Desk, key: Key, access: Access) -> App | None:
    """Find the app that a request is about: the key's, or for an operator's key the one that is named."""
    if access.of is Of.NOBODY:
        return None
    name = request.query_params.get("app", key.app)
    if name is None and access.of is Of.APP:
        fault = Fault(parameter="app", code="required", detail="is required: the key is for all apps")
        raise invalid([fault])
    if name is None:
        return None
    app = await desk.keys.app(name)
    if app is None or key.app_id not in (None, app.id):
        raise not_found(f"app {name!r}")
    return app


def _bearer(request: Request) -> str:
    scheme, _, secret = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not secret.strip():
        raise _unauthorized("send a key or a user token: Authorization: Bearer …")
    return secret.strip()


def _of_store(request: Request) -> str:
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "basic":
        try:
            return b64decode(given.strip(), validate=True).decode().partition(":")[2]
        except ValueError:
            raise _unauthorized("the password is the key") from None
    return _bearer(request) if scheme else request.query_params.get("key", "") or _bearer(request)


def _unauthorized(detail: str) -> Problem:
    return Problem("unauthorized", detail, headers={"www-authenticate": 'Bearer realm="pushfan"'})


def is_private(request: Request) -> bool:
    """Tell whether nobody between can have read the request: TLS, or a caller on this machine.

    A proxy on this machine that says it was reached without TLS is believed.
    """
    if request.headers.get("x-forwarded-proto", "https") != "https":
        return False
    return request.url.scheme == "https" or is_loopback(request)


def is_loopback(request: Request) -> bool:
    """Tell whether the caller is on this machine, as far as the connection tells."""
    try:
        return request.client is not None and ip_address(request.client.host).is_loopback
    except ValueError:
        return False
