"""`POST /v1/object-stores`: each store's form, each way to send the key, each notification once."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from tests.integration.http.house import House

PATH = "/v1/object-stores"
RECORD = {
    "eventName": "ObjectCreated:Put",
    "s3": {"bucket": {"name": "photos"}, "object": {"key": "a+b.jpg", "sequencer": "1"}},
}
S3 = {"Records": [RECORD]}
MINIO = {
    "EventName": "s3:ObjectCreated:Put",
    "Key": "photos/a+b.jpg",
    "Records": [RECORD | {"eventName": "s3:ObjectCreated:Put"}],
}
SNS = {"Type": "Notification", "Message": json.dumps(S3)}
PUBSUB = {
    "message": {
        "attributes": {
            "eventType": "OBJECT_FINALIZE",
            "bucketId": "photos",
            "objectId": "a b.jpg",
            "objectGeneration": "7",
        },
        "messageId": "1",
    },
    "subscription": "projects/p/subscriptions/s",
}
GOOGLE = {
    "kind": "storage#object",
    "bucket": "photos",
    "name": "a b.jpg",
    "generation": "7",
    "metageneration": "1",
}


@pytest.mark.parametrize("body", [S3, MINIO, SNS, PUBSUB, GOOGLE])
def test_each_store_is_understood_and_each_notification_taken_in_once(
    house: House, body: dict[str, Any]
) -> None:
    """Stores repeat; the store's own sequencer or generation makes it one event."""
    first, second = (house.post(PATH, json=body) for _ in range(2))
    assert (first.status_code, second.status_code) == (202, 202)
    assert [first.json()["results"][0]["status"], second.json()["results"][0]["status"]] == [
        "taken_in",
        "repeated",
    ]
    (row,) = house.notifications()
    assert (row["event"]["bucket"], row["event"]["object"], row["event"]["change"]) == (
        "photos",
        "a b.jpg",
        "created",
    )


def test_key_comes_as_each_store_can_send_it(house: House) -> None:
    """Bearer, the password of Basic, or a parameter; on no other call."""
    secret = house.secrets["shop"]
    basic = {"authorization": "Basic " + base64.b64encode(f"store:{secret}".encode()).decode()}
    assert house.post(PATH, json=S3).status_code == 202
    assert house.post(PATH, json=S3, by=None, headers=basic).status_code == 202
    assert house.post(f"{PATH}?key={secret}", json=S3, by=None).status_code == 202
    assert len(house.notifications()) == 1
    for more in (
        {"headers": {"authorization": "Basic ???"}},
        {"headers": {"authorization": "Basic YTpi"}},
        {},
    ):
        assert house.post(PATH, json=S3, by=None, **more).status_code == 401
    assert house.post(f"{PATH}?key={secret[:-1]}x", json=S3, by=None).status_code == 401
    assert house.get("/v1/notifications", by=None, headers=basic).status_code == 401
    assert house.get(f"/v1/notifications?key={secret}", by=None).status_code == 401


def test_sns_sends_text_and_asks_for_a_confirmation_that_nobody_gives_by_itself(house: House) -> None:
    """Its JSON is called text/plain; an address in a body is never opened."""
    headers = {"content-type": "text/plain; charset=UTF-8"}
    assert house.post(PATH, content=json.dumps(SNS), headers=headers).status_code == 202
    asked = {
        "Type": "SubscriptionConfirmation",
        "SubscribeURL": "https://sns.eu-west-1.amazonaws.com/?Token=x",
    }
    answer = house.post(PATH, content=json.dumps(asked), headers=headers)
    assert (answer.status_code, answer.json()) == (202, {"results": []})
    for path in ("/v1/events", "/v1/users/u7/tokens"):
        assert house.post(path, content="{}", headers=headers).status_code == 415


@pytest.mark.parametrize("kind", ["SubscriptionConfirmation", "UnsubscribeConfirmation"])
@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("https://sns.eu-west-1.amazonaws.com/?Action=ConfirmSubscription&Token=x", "sns_subscription"),
        ("https://sns.cn-north-1.amazonaws.com.cn/?Token=x", "sns_subscription"),
        ("http://sns.eu-west-1.amazonaws.com/?Token=x", ""),
        ("https://evil.s3.amazonaws.com/?Token=x", ""),
        ("https://sns.eu-west-1.amazonaws.com.evil.example/?Token=x", ""),
        ("https://sns.eu-west-1.amazonaws.com@evil.example/?Token=x", ""),
        ("https://[", ""),
        (7, ""),
        (None, ""),
    ],
)
def test_operator_is_told_to_open_addresses_of_sns_alone(
    house: House, capsys: pytest.CaptureFixture[str], kind: str, url: object, told: str
) -> None:
    """The address comes from whoever has the key, and somebody will open it."""
    answer = house.post(PATH, json={"Type": kind, "SubscribeURL": url})
    assert (answer.status_code, answer.json()) == (202, {"results": []})
    said = "".join(capsys.readouterr())
    assert ("sns_subscription" in said) == bool(told)


def test_what_changes_no_object_is_answered_and_what_is_unknown_refused(house: House) -> None:
    """A store's test event is no fault; a wrong form is, at its place."""
    assert house.post(PATH, json={"Event": "s3:TestEvent"}).json() == {"results": []}
    refused = house.post(PATH, json={"Records": [RECORD, {"eventName": "ObjectCreated:Put"}]})
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["pointer"] == "/Records/1"
    assert house.post(PATH, json={"hello": 1}).status_code == 422
    assert house.post(PATH, content="[", headers={"content-type": "application/json"}).status_code == 400
    assert house.notifications() == []
