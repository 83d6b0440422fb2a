"""The short way past FastAPI answers as FastAPI does: the same requests by both, side by side."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Body, Query

from gateway.http.access import GuardedRoute, allow
from gateway.http.application import answer_of, create_fastapi
from gateway.http.guard import Guard
from gateway.http.metrics import Metrics
from gateway.http.short_way import ShortWay
from registry.keys import Role
from tests.integration.http.house import HELLO, HERE, House
from tests.integration.http.served import Served
from workers.settings import load_settings

U7 = {"kind": "direct", "users": ["u7"], "message": HELLO, "id": "one"}
TOPIC = "/v1/topics/app/news/messages"
REQUESTS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "an event": ("POST", "/v1/events", {"json": U7}),
    "a list": ("POST", "/v1/events", {"json": {"events": [U7, {**U7, "id": "two"}, {"kind": "none"}]}}),
    "a list of bad events": ("POST", "/v1/events", {"json": {"events": [{"kind": "none", "id": "x"}]}}),
    "a user": ("POST", "/v1/users/a%2Fb%20c/messages", {"json": {"message": HELLO, "id": "user"}}),
    "a key in the header": (
        "POST", "/v1/users/u7/messages", {"json": {"message": HELLO}, "headers": {"idempotency-key": '"k"'}}
    ),
    "an empty key": (
        "POST", "/v1/users/u7/messages", {"json": {"message": HELLO}, "headers": {"idempotency-key": ""}}
    ),
    "a long key": (
        "POST", "/v1/users/u7/messages", {"json": {"message": HELLO}, "headers": {"idempotency-key": "k" * 251}}
    ),
    "an event that is at fault": ("POST", "/v1/users/u7/messages", {"json": {"message": {}, "id": ""}}),
    "a user that is none": ("POST", "/v1/users/%00/messages", {"json": {"message": HELLO}}),
    "a user that is no UTF-8": ("POST", "/v1/users/%ff/messages", {"json": {"message": HELLO}}),
    "no user": ("POST", "/v1/users//messages", {"json": {"message": HELLO}}),
    "a scope and a topic that are none": ("POST", "/v1/topics/no/b%21/messages", {"json": {"message": HELLO}}),
    "a sender who may not": ("POST", f"{TOPIC}?sender=u1", {"json": {"message": HELLO, "id": "sent"}}),
    "a sender that is too long": ("POST", f"{TOPIC}?sender={'u' * 256}", {"json": {"message": HELLO}}),
    "a bucket": (
        "POST", "/v1/buckets/group:g/b/writes", {"json": {"object": "o", "change": "created", "id": "write"}}
    ),
    "an unknown parameter": ("POST", "/v1/events?aps=shop", {"json": U7}),
    "another's app": ("POST", "/v1/events?app=other", {"json": U7}),
    "no app of ours": ("POST", "/v1/events", {"json": {**U7, "app": "nobody"}}),
    "no JSON": ("POST", "/v1/events", {"content": b"{", "headers": {"content-type": "application/json"}}),
    "another media type": ("POST", "/v1/events", {"content": b"{}", "headers": {"content-type": "text/plain"}}),
    "no body": ("POST", "/v1/events", {}),
    "another verb": ("GET", "/v1/events", {}),
    "another path": ("POST", "/v1/events/", {"json": U7}),
    "a stranger": ("POST", "/v1/events", {"json": U7, "by": f"pfk_00000000_{'x' * 43}"}),
    "nobody": ("POST", "/v1/events", {"json": U7, "by": None}),
}  # fmt: skip


@pytest.fixture
def long_way(house: House) -> Iterator[Served]:
    """Serve the same house by FastAPI alone."""
    metrics = Metrics()
    guard = Guard(
        create_fastapi(house.settings, metrics),
        body_bytes=house.settings.api_body_bytes,
        count=metrics.count,
    )
    with Served(guard, client=HERE) as client:
        yield client


@pytest.mark.parametrize("name", REQUESTS)
def test_both_ways_answer_the_same(name: str, house: House, long_way: Served) -> None:
    """Status, headers and body are those of FastAPI, fault for fault."""
    method, path, more = REQUESTS[name]
    by, headers = more.get("by", "shop"), dict(more.get("headers", {}))
    if by is not None:
        headers["authorization"] = f"Bearer {house.secrets.get(by, by)}"
    request = {key: value for key, value in more.items() if key in ("json", "content")} | {"headers": headers}
    long_way.request(method, path, **request)  # so that what is taken in is a repetition for both
    wanted, found = (client.request(method, path, **request) for client in (long_way, house.client))
    assert (found.status_code, found.json()) == (wanted.status_code, wanted.json())
    assert found.headers == wanted.headers


def test_route_that_wants_more_is_refused_when_the_application_is_built() -> None:
    """A parameter or a body that the short way cannot read would silently go unread."""

    async def numbered(number: Annotated[int, Query()]) -> None:
        pass

    async def with_body(body: Annotated[dict[str, str], Body()]) -> None:
        pass

    app = create_fastapi(load_settings({}, database_url="postgresql://none"), Metrics())
    for endpoint in (numbered, with_body):
        router = APIRouter(route_class=GuardedRoute)
        router.post("/")(allow(Role.PUBLISH)(endpoint))
        with pytest.raises(TypeError, match="must go the long way"):
            ShortWay(app, router.routes, answer_of)
