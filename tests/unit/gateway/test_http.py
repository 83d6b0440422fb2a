"""The parts of the HTTP door that need no server: reading garbage, pointers, rates."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from events import Lane
from gateway.http.access import Caller
from gateway.http.events import Refusal, _decode
from gateway.http.pointer import locate, pointer
from gateway.http.problem import KINDS, Problem
from gateway.http.publication import CLOUD_EVENT, CLOUD_EVENTS, PLAIN, Given, read
from gateway.http.rate import RateLimit
from registry.apps import App
from registry.keys import Key, Role

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SHOP = App(id=1, name="shop", created_at=NOW)
KEY = Key(
    id=1, app_id=1, app="shop", name="backend", prefix="pfk_1", roles=frozenset({Role.PUBLISH}),
    lanes=frozenset({Lane.NORMAL}), created_at=NOW, last_used_at=None, revoked_at=None,
)  # fmt: skip
CALLER = Caller(name="pfk_1", app=SHOP, key=KEY)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
NAMES = st.sampled_from(
    ["kind", "users", "message", "topic", "bucket", "object", "change", "id", "app", "lane", "ttl_seconds",
     "expires_at", "version", "events", "specversion", "source", "type", "data", "title", "silent", "fcm"]
)  # fmt: skip
NEARLY = st.dictionaries(
    NAMES, JSON | st.dictionaries(NAMES, JSON, max_size=4) | st.sampled_from(["direct", "1.0"]), max_size=8
)
MEDIA_TYPES = st.sampled_from([PLAIN, CLOUD_EVENT, CLOUD_EVENTS])


def check(problem: Problem) -> None:
    """A refusal can be sent, and is no fault of ours."""
    assert orjson.dumps(problem.as_json())
    assert problem.status < 500


def settle(media_type: str, body: bytes, given_: Given) -> None:
    """Read a body as the door does; every refusal must be one that can be sent."""
    try:
        publication = read(media_type, body, given_)
    except Problem as problem:
        check(problem)
        return
    assert publication.drafts
    for draft in publication.drafts:
        decoded = _decode(draft, CALLER)
        if isinstance(decoded, Refusal):
            assert decoded.problem.faults
            check(decoded.problem)


@given(body=st.binary(max_size=300), media_type=MEDIA_TYPES)
def test_bytes_are_read_or_refused(body: bytes, media_type: str) -> None:
    """No bytes at all make an error of ours."""
    settle(media_type, body, Given(app="shop"))


@given(
    document=JSON | NEARLY | st.lists(NEARLY, max_size=3),
    media_type=MEDIA_TYPES,
    key=st.none() | st.text(max_size=9),
)
def test_documents_are_taken_or_refused_with_faults(document: Any, media_type: str, key: str | None) -> None:
    """Whatever JSON comes, each event is one or is refused with what is wrong."""
    fixed = {"kind": "topic", "topic": "news"} if key else {}
    settle(media_type, json.dumps(document).encode(), Given(app="shop", idempotency_key=key, fixed=fixed))


@given(path=st.lists(st.text(min_size=1, max_size=5) | st.integers(0, 2), min_size=1, max_size=4))
def test_pointer_leads_where_it_says(path: list[str | int]) -> None:
    """Steps are escaped such that they can be read back."""
    steps = [
        step.replace("~1", "/").replace("~0", "~") for step in pointer(*path).removeprefix("/").split("/")
    ]
    assert steps == [str(step) for step in path]


@pytest.mark.parametrize(
    ("document", "path", "wanted"),
    [
        ({"message": {"data": {"a.b": 1}}}, "message.data.a.b", "/message/data/a.b"),
        ({"message": {"data": {"a": {"b": 1}}}}, "message.data.a.b", "/message/data/a/b"),
        ({"users": ["x", 5]}, "users.1", "/users/1"),
        ({}, "message.title", "/message/title"),
        ({"a/b": 1}, "a/b", "/a~1b"),
        ([], "kind", "/kind"),
    ],
)
def test_dotted_path_is_found_in_its_document(document: Any, path: str, wanted: str) -> None:
    """The document says which dots belong to keys."""
    assert locate(document, path) == wanted


def test_rate_lets_a_seconds_requests_through_and_tells_when_to_come_again() -> None:
    """A burst of one second's requests, then as many as the rate allows."""
    now = [100.0]
    rate = RateLimit(2, now=lambda: now[0])
    assert [rate.wait_seconds("a") for _ in range(3)] == [0, 0, 1]
    assert rate.wait_seconds("b") == 0
    now[0] += 0.5
    assert [rate.wait_seconds("a") for _ in range(2)] == [0, 1]
    now[0] += 10
    assert [rate.wait_seconds("a") for _ in range(3)] == [0, 0, 1]


def test_retry_helps_only_where_the_request_is_not_at_fault() -> None:
    """Too much, too often, away: come again. Anything else: change the request."""
    assert {kind.status for kind in KINDS.values() if kind.helps} == {429, 500, 503}
