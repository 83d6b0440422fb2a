from __future__ import annotations

from typing import Any

import pytest

from registry import notifications
from tests.integration.http.house import HELLO, House

PHONE = "/v1/users/u7/devices/phone"
ANDROID = {"channel": "android", "token": "token-1", "locale": "de-AT"}


def pointers(answer: Any) -> list[str]:
    """Say where the faults are."""
    assert answer.status_code == 422, answer.text
    return [one.get("pointer") or one["parameter"] for one in answer.json()["errors"]]


def test_device_is_installed_read_and_uninstalled(house: House) -> None:
    """An app's PUT at each start makes, refreshes and corrects its device; its token is never told."""
    made = house.put(PHONE, json=ANDROID)
    assert (made.status_code, made.json()["change"], made.json()["locale"]) == (200, "created", "de-AT")
    assert house.put(PHONE, json=ANDROID).json()["change"] == "refreshed"
    assert house.put(PHONE, json={**ANDROID, "token": "token-2"}).json()["change"] == "replaced"
    assert "token-" not in made.text
    (read,) = house.get(PHONE).json()["devices"]
    assert (read["device"], read["state"], read["locale"]) == (made.json()["device"], "active", "de-AT")
    assert house.delete(f"{PHONE}?channel=ios").status_code == 404
    assert house.delete(PHONE).status_code == 204
    assert house.delete(PHONE).status_code == 404
    assert house.get(PHONE).status_code == 404
    assert house.get("/v1/users/u7/devices").json() == {"devices": []}
    assert len(house.get("/v1/users/u7/devices?retired=true").json()["devices"]) == 1


def test_faults_of_an_installation_are_all_listed(house: House) -> None:
    """The shape by FastAPI, the channel and its provider's form by the registry."""
    wrong = {"channel": 1, "token": "a b", "locale": "!", "more": 1}
    assert set(pointers(house.put(PHONE, json=wrong))) == {"/channel", "/token", "/locale", "/more"}
    nowhere = house.put(PHONE, json={**ANDROID, "channel": "none"})
    assert nowhere.status_code == 404
    assert [one["pointer"] for one in nowhere.json()["errors"]] == ["/channel"]
    assert pointers(house.put(PHONE, json={**ANDROID, "channel": "ios"})) == ["/token"]
    assert pointers(house.put("/v1/users/%20/devices/x", json=ANDROID)) == ["user"]
    assert pointers(house.put("/v1/users/%FF/devices/x", json=ANDROID)) == ["user"]


def test_call_that_is_not_there_names_those_that_are(house: House) -> None:
    """`Allow` tells all calls of a path, whichever routes they have."""
    refused = house.call("PATCH", PHONE)
    assert (refused.status_code, refused.headers["allow"]) == (405, "DELETE, GET, PUT")
    assert house.post("/healthz").headers["allow"] == "GET"


def test_number_may_be_written_as_a_float(house: House) -> None:
    """To JSON 60.0 is 60."""
    assert house.post("/v1/users/u7/tokens", json={"ttl_seconds": 60.0}).status_code == 201
    assert pointers(house.post("/v1/users/u7/tokens", json={"ttl_seconds": 60.5})) == ["/ttl_seconds"]


def test_place_beyond_the_end_is_the_end(house: House) -> None:
    """A number that no id can have is after all of them; what is no number is refused."""
    assert house.get(f"/v1/notifications?after={'9' * 19}").json() == {"notifications": [], "next": None}
    assert house.get(f"/v1/notifications?after={'9' * 20}").status_code == 422


@pytest.mark.parametrize("kind", ["topics", "buckets"])
def test_targets_and_their_subscribers(house: House, kind: str) -> None:
    """Made, listed with counts, paged, and removed with their subscriptions."""
    news = f"/v1/{kind}/app/news"
    assert house.get(news).status_code == 404
    made = house.put(news, json={}).json()
    assert (made["admits"], made["senders"]) == ("members", "backend")
    for user in ("a/b", "c", "d"):
        name = user.replace("/", "%2F")
        assert house.put(f"{news}/subscribers/{name}").json() == {"user": user, "change": "subscribed"}
    assert house.put(f"{news}/subscribers/c").json()["change"] == "kept"
    assert house.get(news).json()["users"] == 3
    first = house.get(f"{news}/subscribers?limit=2").json()
    assert first == {"users": ["a/b", "c"], "next": "c"}
    assert house.get(f"{news}/subscribers", params={"after": "c"}).json() == {"users": ["d"], "next": None}
    assert house.get(f"{news}/subscribers/c").status_code == 200
    assert house.delete(f"{news}/subscribers/c").status_code == 204
    assert house.delete(f"{news}/subscribers/c").status_code == 404
    house.put(f"/v1/{kind}/group:g1/news", json={})
    page = house.get(f"/v1/{kind}?limit=1").json()
    assert [one["scope"] for one in page["targets"]] == ["app"]
    rest = house.get(f"/v1/{kind}", params={"after": page["next"]}).json()
    assert [one["scope"] for one in rest["targets"]] == ["group:g1"]
    assert house.delete(news).status_code == 204
    assert house.delete(news).status_code == 404
    assert house.rows("SELECT 1 FROM pushfan.subscription") == []


def test_mobile_app_lives_by_a_user_token(house: House) -> None:
    """Login, install, subscribe, new token, a second user on the same phone, logout: by the users' own tokens."""
    house.put("/v1/topics/app/news", json={"admits": "users"})
    house.put("/v1/topics/app/staff", json={"admits": "backend"})
    house.put("/v1/topics/user:u8/mine", json={})
    u7, u8 = (house.post(f"/v1/users/{user}/tokens", json={}).json()["token"] for user in ("u7", "u8"))
    assert house.put(PHONE, by=u7, json=ANDROID).json()["change"] == "created"
    assert house.put("/v1/topics/app/news/subscribers/u7", by=u7).json()["change"] == "subscribed"
    assert house.put("/v1/topics/app/staff/subscribers/u7", by=u7).status_code == 403
    assert house.put("/v1/topics/app/none/subscribers/u7", by=u7).status_code == 404
    assert house.put("/v1/topics/user:u8/mine/subscribers/u7", by=u7).status_code == 403
    assert house.put("/v1/topics/user:u8/mine/subscribers/u8", by=u8).status_code == 200
    assert house.put(PHONE, by=u7, json={**ANDROID, "token": "token-2"}).json()["change"] == "replaced"
    moved = house.put("/v1/users/u8/devices/phone", by=u8, json={**ANDROID, "token": "token-2"})
    assert moved.json()["change"] == "moved"
    assert house.delete(PHONE, by=u7).status_code == 404
    assert house.delete("/v1/users/u8/devices/phone", by=u8).status_code == 204
    assert house.delete("/v1/topics/app/news/subscribers/u7", by=u7).status_code == 204
    kinds = [one["kind"] for one in house.get("/v1/feedback").json()["feedback"]]
    assert kinds == ["replaced", "moved", "retired"]


def test_user_token_ends_and_belongs_to_its_app(house: House) -> None:
    """Forged, altered, late and foreign tokens open nothing."""
    token = house.post("/v1/users/u7/tokens", json={"ttl_seconds": 60}).json()["token"]
    head, claims, signature = token.split(".")
    other = house.post("/v1/users/u7/tokens", by="other", json={}).json()["token"]
    for forged in (
        f"{head}.{claims}.",
        f"{head}.{other.split('.')[1]}.{signature}",
        f"{head}.e30.{signature}",
    ):
        assert house.put(PHONE, by=forged, json=ANDROID).status_code == 401
    assert house.put(f"{PHONE}?app=other", by=token, json=ANDROID).status_code == 404
    assert house.put("/v1/users/u8/devices/phone", by=token, json=ANDROID).status_code == 404
    assert house.put(PHONE, by=token, json=ANDROID).status_code == 200
    assert pointers(house.post("/v1/users/u7/tokens", json={"ttl_seconds": 86_401})) == ["/ttl_seconds"]


def test_rotated_secret_keeps_tokens_valid_while_it_is_listed(house: House) -> None:
    """The first line signs, all are believed."""
    path = house.settings.credentials_directory / "user-token-secret"
    token = house.post("/v1/users/u7/tokens", json={}).json()["token"]
    old = path.read_text()
    path.write_text(f"{'n' * 40}\n{old}\n")
    assert house.put(PHONE, by=token, json=ANDROID).status_code == 200
    path.write_text("n" * 40)
    assert house.put(PHONE, by=token, json=ANDROID).status_code == 401
    path.unlink()
    answer = house.post("/v1/users/u7/tokens", json={})
    assert (answer.status_code, answer.json()["retry"]) == (503, False)


def test_notification_is_told_and_cancelled(house: House) -> None:
    """Named by either id; deliveries are listed wherever they are, paged by device."""
    for number in range(3):
        house.put(f"/v1/users/u7/devices/phone-{number}", json={**ANDROID, "token": f"token-{number}"})
    house.put("/v1/users/u8/devices/phone", json={**ANDROID, "token": "token-u8"})
    event = {"kind": "direct", "id": "order", "users": ["u7", "u8"], "message": HELLO}
    id_ = house.post("/v1/events", json=event).json()["notification_id"]
    told = house.get(f"/v1/notifications/{id_}").json()
    assert told == house.get("/v1/notifications/order").json()
    assert (told["state"], told["devices"], told["open"], told["final"]) == ("sending", 4, 4, 0)
    assert told["event"]["message"] == HELLO
    path = f"/v1/notifications/{id_}/deliveries"
    first = house.get(f"{path}?limit=3").json()
    rest = house.get(path, params={"limit": 3, "after": first["next"]}).json()
    assert [one["user"] for one in first["deliveries"] + rest["deliveries"]] == ["u7", "u7", "u7", "u8"]
    assert rest["next"] is None
    assert len(house.get(f"{path}?user=u8&state=planned").json()["deliveries"]) == 1
    assert house.get(f"{path}?state=accepted").json()["deliveries"] == []
    assert house.get(f"{path}?state=none").status_code == 422
    assert house.post(f"/v1/notifications/{id_}/cancel").json()["state"] == "cancelling"
    assert house.post(f"/v1/notifications/{id_}/cancel").status_code == 200
    empty = house.post("/v1/users/nobody/messages", json={"message": HELLO}).json()["notification_id"]
    assert house.post(f"/v1/notifications/{empty}/cancel").status_code == 409


def test_notifications_are_paged_from_the_newest(house: House) -> None:
    """A cursor goes on where the page before ended; what is no cursor is refused."""
    events = [{"kind": "direct", "users": [f"u{n}"], "message": HELLO} for n in range(5)]
    results = house.post("/v1/events", json={"events": events}).json()["results"]
    ids = sorted((one["notification_id"] for one in results), key=int, reverse=True)
    page = house.get("/v1/notifications?limit=3").json()
    rest = house.get("/v1/notifications", params={"limit": 3, "after": page["next"]}).json()
    assert [one["id"] for one in page["notifications"] + rest["notifications"]] == ids
    assert rest["next"] is None
    assert house.get("/v1/notifications?unfinished=true").json()["notifications"] == []
    for wrong in ("x", "-1", "9" * 30, "%D9%A1"):
        assert pointers(house.get(f"/v1/notifications?after={wrong}")) == ["after"]
    assert pointers(house.get("/v1/feedback?after=x")) == ["after"]


def test_user_is_exported_and_forgotten(house: House) -> None:
    """Privacy by HTTP is the registry's own."""
    house.put(PHONE, json=ANDROID)
    house.put("/v1/topics/app/news/subscribers/u7")
    exported = house.get("/v1/users/u7/export").json()
    assert exported["is_complete"]
    assert [one["device_key"] for one in exported["devices"]] == ["phone"]
    assert len(house.get("/v1/users/u7/subscriptions").json()["subscriptions"]) == 1
    forgotten = house.delete("/v1/users/u7").json()
    assert (forgotten["devices"], forgotten["subscriptions"]) == (1, 1)
    assert house.get("/v1/users/u7/export").json()["devices"] == []


def test_conservation_holds_for_what_http_took_in(house: House) -> None:
    """What was planned is where it should be."""
    house.put(PHONE, json=ANDROID)
    house.post("/v1/users/u7/messages", json={"message": HELLO})
    counts = house.database.run(notifications.conservation)
    assert counts["planned"] == counts["open"] + counts["waiting"] + counts["final"] == 1


def test_pseudo_user_logs_in(house: House) -> None:
    """Install without login, subscribe, log in: the phone goes on as its user's; the old token opens nothing."""
    house.put("/v1/topics/app/news", json={})
    made = house.post("/v1/pseudo-users", json={})
    assert made.status_code == 201
    user, token = made.json()["user"], made.json()["token"]
    assert house.put(f"/v1/users/{user}/devices/phone", by=token, json=ANDROID).json()["change"] == "created"
    assert house.put(f"/v1/topics/app/news/subscribers/{user}", by=token).status_code == 200
    pushed = house.post(f"/v1/users/{user}/messages", json={"message": HELLO}).json()["notification_id"]
    promotion = f"/v1/users/{user}/promotion"
    assert house.post(promotion, by=token, json={"user": "u7"}).status_code == 403
    told = house.post(promotion, json={"user": "u7"})
    assert told.json() == {"user": "u7", "devices": 1, "subscriptions": 1, "groups": 0, "targets": 0}
    assert house.post(promotion, json={"user": "u7"}).json()["devices"] == 0
    assert house.post(promotion, json={"user": "u8"}).status_code == 409
    (device,) = house.get("/v1/users/u7/devices").json()["devices"]
    assert (device["device_key"], device["state"]) == ("phone", "active")
    (delivery,) = house.get(f"/v1/notifications/{pushed}/deliveries?user=u7").json()["deliveries"]
    assert delivery["state"] == "planned"
    assert house.get("/v1/topics/app/news/subscribers").json()["users"] == ["u7"]
    assert house.put(f"/v1/users/{user}/devices/phone", by=token, json=ANDROID).status_code == 409
    assert house.delete(f"/v1/users/{user}/devices/phone", by=token).status_code == 404
    assert house.put(f"/v1/topics/app/news/subscribers/{user}", by=token).status_code == 409
    assert house.post("/v1/users/u7/promotion", json={"user": "u8"}).status_code == 422
