"""Groups, things and access rules by HTTP."""

from __future__ import annotations

import pytest

from tests.integration.http.house import HELLO, House

TEAM = "/v1/groups/team"
TALK = "/v1/topics/group:team/talk"


def test_groups_and_their_members(house: House) -> None:
    """Made, listed, paged, left and removed."""
    assert house.get(TEAM).status_code == 404
    assert house.put(TEAM).json()["members"] == 0
    for user in ("u7", "u8", "a/b"):
        name = user.replace("/", "%2F")
        assert house.put(f"{TEAM}/members/{name}").json() == {
            "group": "team",
            "user": user,
            "change": "added",
        }
    assert house.put(f"{TEAM}/members/u7").json()["change"] == "kept"
    assert house.get(TEAM).json()["members"] == 3
    first = house.get(f"{TEAM}/members?limit=2").json()
    assert first == {"users": ["a/b", "u7"], "next": "u7"}
    assert house.get(f"{TEAM}/members", params={"after": "u7"}).json() == {"users": ["u8"], "next": None}
    assert house.get("/v1/users/u7/groups").json() == {"groups": ["team"], "next": None}
    assert house.get(f"{TEAM}/members/u7").status_code == 200
    assert house.delete(f"{TEAM}/members/u7").status_code == 204
    assert house.delete(f"{TEAM}/members/u7").status_code == 404
    assert house.get(f"{TEAM}/members/u7").status_code == 404
    assert [one["group"] for one in house.get("/v1/groups").json()["groups"]] == ["team"]
    assert house.delete(TEAM).status_code == 204
    assert house.delete(TEAM).status_code == 404
    assert house.get(f"{TEAM}/members").status_code == 404


def test_members_subscribe_themselves_and_are_named_as_senders(house: House) -> None:
    """By default a group's topic is its members'; leaving ends the subscription. User tokens send nothing."""
    house.put(TALK, json={})
    house.put(f"{TEAM}/members/u7")
    u7, u8 = (house.post(f"/v1/users/{user}/tokens", json={}).json()["token"] for user in ("u7", "u8"))
    assert house.put(f"{TALK}/subscribers/u7", by=u7).status_code == 200
    assert house.put(f"{TALK}/subscribers/u8", by=u8).status_code == 403
    send = f"{TALK}/messages"
    assert house.post(send, json={"message": HELLO}, by=u7).status_code == 403
    assert house.post(f"{send}?sender=u7", json={"message": HELLO}).status_code == 202
    refused = house.post(f"{send}?sender=u8", json={"message": HELLO})
    assert (refused.status_code, refused.json()["type"]) == (403, "urn:pushfan:problem:forbidden")
    assert house.post(send, json={"message": HELLO}).status_code == 202
    assert len(house.notifications()) == 2
    house.delete(f"{TEAM}/members/u7")
    assert house.get(f"{TALK}/subscribers").json()["users"] == []
    assert house.put(f"{TALK}/subscribers/u7", by=u7).status_code == 403


@pytest.mark.parametrize(
    ("kind", "scope", "admits", "senders"),
    [
        ("topics", "app", "members", "backend"),
        ("topics", "group:g", "members", "members"),
        ("topics", "user:u7", "members", "members"),
        ("topics", "thing:t1", "members", "members"),
        ("buckets", "app", "members", "backend"),
        ("buckets", "group:g", "members", "backend"),
    ],
)
def test_defaults_are_those_of_the_scope(
    house: House, kind: str, scope: str, admits: str, senders: str
) -> None:
    """What PUT leaves out is the default again; what it says is kept."""
    path = f"/v1/{kind}/{scope}/x"
    told = house.put(path, json={"admits": "group:staff", "senders": "users"}).json()
    assert (told["admits"], told["senders"]) == ("group:staff", "users")
    assert house.get(path).json() == told
    told = house.put(path, json={}).json()
    assert (told["admits"], told["senders"]) == (admits, senders)
    assert house.put(path, json={"admits": "everybody"}).status_code == 422
    assert house.put(path, json={"senders": "group:"}).status_code == 422


def test_writes_are_told_in_the_name_of_whom_the_bucket_lets(house: House) -> None:
    """The rule is asked for buckets, too; a target that is not there lets nobody."""
    path = "/v1/buckets/user:u7/notes"
    write = {"object": "o", "change": "created"}
    assert house.post(f"{path}/writes?sender=u7", json=write).status_code == 404
    house.put(path, json={"senders": "members"})
    assert house.post(f"{path}/writes?sender=u7", json=write).status_code == 202
    assert house.post(f"{path}/writes?sender=u8", json=write).status_code == 403
    assert house.post(f"{path}/writes?sender=%00", json=write).status_code == 403


def test_calls_that_ask_no_rule_refuse_a_sender(house: House) -> None:
    """A list that somebody believes to be judged by its targets' rules is not taken in without."""
    event = {"kind": "topic", "topic": "news", "message": HELLO}
    for path, body in (
        ("/v1/events", event),
        ("/v1/events", {"events": [event]}),
        ("/v1/users/u7/messages", {"message": HELLO}),
        ("/v1/object-stores", {"Event": "s3:TestEvent"}),
    ):
        refused = house.post(f"{path}?sender=u8", json=body)
        assert refused.status_code == 422, path
        assert [one["parameter"] for one in refused.json()["errors"]] == ["sender"]
    assert house.post("/v1/events", json={**event, "sender": "u8"}).status_code == 422
    assert house.notifications() == []


def test_thing_receives_like_a_user(house: House) -> None:
    """It installs with a token of its own, subscribes to its own topic, and gets direct pushes."""
    token = house.post("/v1/users/thing:lamp/tokens", json={}).json()["token"]
    install = {"channel": "android", "token": "token-of-lamp"}
    assert house.put("/v1/users/thing:lamp/devices/lamp", by=token, json=install).status_code == 200
    house.put("/v1/topics/thing:lamp/orders", json={})
    subscribe = "/v1/topics/thing:lamp/orders/subscribers/thing:lamp"
    assert house.put(subscribe, by=token).status_code == 200
    message = {"message": HELLO}
    assert (
        house.post("/v1/topics/thing:lamp/orders/messages?sender=thing:lamp", json=message).status_code == 202
    )
    assert house.post("/v1/users/thing:lamp/messages", json=message).status_code == 202
    assert [row["devices"] for row in house.notifications()] == [1, 1]
