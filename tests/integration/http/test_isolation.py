"""Every call of the OpenAPI document, made by those who may not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from gateway.http.application import create_fastapi, describe
from gateway.http.metrics import Metrics
from tests.integration.http.house import ELSEWHERE, HELLO, House, serve
from workers.settings import load_settings

DOCUMENT = describe(create_fastapi(load_settings({}, database_url="postgresql://none"), Metrics()))
CALLS = [
    (method.upper(), path)
    for path, calls in DOCUMENT["paths"].items()
    for method, call in calls.items()
    if call.get("security")
]
MARK = "only-of-shop"
BODIES: dict[tuple[str, str], Any] = {
    ("POST", "/v1/events"): {"kind": "direct", "users": ["u7"], "message": HELLO},
    ("POST", "/v1/users/{user}/messages"): {"message": HELLO},
    ("POST", "/v1/topics/{scope}/{topic}/messages"): {"message": HELLO},
    ("POST", "/v1/buckets/{scope}/{bucket}/writes"): {"object": "o", "change": "created"},
    ("POST", "/v1/object-stores"): {
        "Records": [
            {"eventName": "s3:ObjectCreated:Put", "s3": {"bucket": {"name": "b"}, "object": {"key": "k"}}}
        ]
    },
    ("PUT", "/v1/users/{user}/devices/{device_key}"): {"channel": "android", "token": "token-of-other"},
    ("POST", "/v1/users/{user}/tokens"): {},
    ("POST", "/v1/users/{user}/promotion"): {"user": "u9"},
    ("POST", "/v1/pseudo-users"): {},
    ("PUT", "/v1/topics/{scope}/{name}"): {"admits": "users"},
    ("PUT", "/v1/buckets/{scope}/{name}"): {"admits": "users"},
    ("POST", "/v1/apps"): {"name": "third"},
    ("POST", "/v1/keys"): {"name": "more", "roles": ["admin"]},
    ("POST", "/v1/keys/{name}/rotate"): {},
    ("POST", "/v1/channels"): {"name": "web", "provider": "fcm", "secrets": {"service_account": "file:x"}},
    ("POST", "/v1/channels/{name}/pause"): {},
    ("PUT", "/v1/webhooks/{name}"): {"url": "https://other.example/hook"},
    ("POST", "/v1/webhooks/{name}/rotate"): {},
}
TABLES = (
    "app", "api_key", "channel", "device", "target", "subscription", "feedback", "event_key", "notification",
    "chunk", "retry", "webhook", "user_group", "group_member", "promotion",
)  # fmt: skip


@pytest.fixture
def shop(house: House) -> House:
    """Give the house with something of everything in the app `shop`."""
    install = {"channel": "android", "token": f"{MARK}-token"}
    assert house.put(f"/v1/users/{MARK}/devices/{MARK}", json=install).status_code == 200
    for kind in ("topics", "buckets"):
        assert house.put(f"/v1/{kind}/app/{MARK}/subscribers/{MARK}").status_code == 200
    assert house.post(f"/v1/users/{MARK}/messages", json={"id": MARK, "message": HELLO}).status_code == 202
    assert house.put(f"/v1/groups/{MARK}/members/{MARK}").status_code == 200
    house.add_channel("shop", MARK, "fcm")
    webhook = {"url": "https://shop.example/hook"}
    assert house.put(f"/v1/webhooks/{MARK}", json=webhook, by="shop admin").status_code == 201
    house.secrets[MARK] = house.key("shop", name=MARK, roles=("publish",))
    return house


def filled(path: str, house: House) -> str:
    """Name what is shop's in a path."""
    prefix = house.secrets[MARK].rpartition("_")[0][:12]
    values = {"scope": "app", "prefix": prefix}
    parts = [
        values.get(part[1:-1], MARK) if part.startswith("{") else part for part in path.strip("/").split("/")
    ]
    if path.startswith("/v1/apps/"):
        parts[-1] = "shop"
    return "/" + "/".join(parts)


def state_of(house: House, app: str) -> dict[str, list[Any]]:
    """Read everything that is an app's, but when keys were used."""
    found = {}
    for table in TABLES:
        column = "id" if table == "app" else "app_id"
        statement = f"SELECT to_jsonb(t) - 'last_used_at' AS row FROM pushfan.{table} t WHERE {column} = %s"
        rows = house.rows(f"{statement} ORDER BY 1", house.apps[app].id)
        found[table] = [row["row"] for row in rows]
    return found


def asked(house: House, method: str, path: str, *, by: str | None, query: str = "") -> Any:
    """Make a call of the document about what is shop's."""
    body = BODIES.get((method, path))
    return house.call(method, filled(path, house) + query, by=by, **({} if body is None else {"json": body}))


def names_a_thing(method: str, path: str) -> bool:
    """Tell whether a call is about something that only one app has."""
    about_user = path.startswith("/v1/users/") and "{device_key}" not in path
    makes = method == "PUT" or path.endswith(("/messages", "/writes"))
    return "{" in path and not about_user and not makes and not path.startswith("/v1/apps")


def test_document_names_every_guarded_call() -> None:
    """The walk below cannot pass because the document is empty."""
    assert len(CALLS) > 35
    assert ("GET", "/v1/notifications/{notification}/deliveries") in CALLS


def test_another_apps_keys_see_404_and_change_nothing(shop: House) -> None:
    """No call by another app's keys reads or changes what is shop's: it is told that there is nothing."""
    before = state_of(shop, "shop")
    # What makes a thing comes last: of the same name, but the caller's own.
    for method, path in sorted(CALLS, key=lambda call: not names_a_thing(*call)):
        for by in ("other", "other admin"):
            answer = asked(shop, method, path, by=by)
            if names_a_thing(method, path):
                wanted = {404, 403} if by == "other" or is_for_operators(method, path) else {404}
                assert answer.status_code in wanted, (method, path, by, answer.text)
            assert answer.status_code < 500, (method, path, by, answer.text)
    assert state_of(shop, "shop") == before


def is_for_operators(method: str, path: str) -> bool:
    """Tell which calls an app's admin may not make at all."""
    return path.startswith("/v1/apps") or (method, path) in {
        ("POST", "/v1/channels"),
        ("DELETE", "/v1/channels/{name}"),
    }


def test_naming_another_app_is_naming_nothing(shop: House) -> None:
    """`?app=` of a key's own app is idle; of another it is 404, in the words for one that is not there."""
    before = state_of(shop, "shop")
    for method, path in (call for call in CALLS if not call[1].startswith("/v1/apps")):
        for by in ("other", "other admin"):
            answer = asked(shop, method, path, by=by, query="?app=shop")
            assert answer.status_code == 404, (method, path, by, answer.text)
            nowhere = asked(shop, method, path, by=by, query="?app=nowhere").json()
            assert {**answer.json(), "detail": ""} == {**nowhere, "detail": ""}
    assert state_of(shop, "shop") == before


def test_lists_show_nothing_of_another_app(shop: House) -> None:
    """What is listed for one app holds nothing of another."""
    for _method, path in (call for call in CALLS if call[0] == "GET" and "{" not in call[1]):
        answer = shop.get(path, by="other admin")
        assert MARK not in answer.text
        if answer.status_code == 200:
            assert MARK in shop.get(path, by="shop admin").text or path == "/v1/feedback"


def test_without_a_key_every_call_is_401(shop: House) -> None:
    """Strangers learn nothing, not even what is malformed."""
    for method, path in CALLS:
        assert asked(shop, method, path, by=None).status_code == 401, (method, path)


def allowed_to_users() -> Iterator[tuple[str, str]]:
    """Name the calls that a user token may make."""
    yield "PUT", "/v1/users/{user}/devices/{device_key}"
    yield "DELETE", "/v1/users/{user}/devices/{device_key}"
    for kind in ("topics", "buckets"):
        yield "PUT", f"/v1/{kind}/{{scope}}/{{name}}/subscribers/{{user}}"
        yield "DELETE", f"/v1/{kind}/{{scope}}/{{name}}/subscribers/{{user}}"


def test_user_token_installs_and_subscribes_its_user_and_nothing_else(shop: House) -> None:
    """Every other call is forbidden; the same calls for another user are 404."""
    token = shop.post("/v1/users/u7/tokens", json={}).json()["token"]
    allowed = set(allowed_to_users())
    assert allowed <= set(CALLS)
    before = state_of(shop, "shop")
    for method, path in CALLS:
        answer = asked(shop, method, path, by=token)
        assert answer.status_code == (404 if (method, path) in allowed else 403), (method, path, answer.text)
    assert state_of(shop, "shop") == before


def test_administration_is_private(shop: House) -> None:
    """From another machine without TLS an admin's key opens nothing; behind a proxy its word counts."""
    elsewhere = serve(shop.settings, client=ELSEWHERE)
    with elsewhere as client:
        headers = {"authorization": f"Bearer {shop.secrets['shop admin']}"}
        refused = client.request("GET", "/v1/channels", headers=headers)
        assert (refused.status_code, refused.json()["type"]) == (403, "urn:pushfan:problem:insecure")
        assert client.request("GET", "/metrics").status_code == 401
        backend = {"authorization": f"Bearer {shop.secrets['shop']}"}
        assert client.request("GET", "/v1/notifications", headers=backend).status_code == 200
    with serve(shop.settings, client=ELSEWHERE, scheme="https") as client:
        answer = client.request("GET", "/v1/channels", headers=headers)
        assert answer.status_code == 200
        assert answer.headers["strict-transport-security"]
    forwarded = {"x-forwarded-proto": "http"}
    assert shop.get("/v1/channels", by="shop admin", headers=forwarded).status_code == 403
