from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest

from events import DirectPush, Message, encode
from registry.database import Database
from tests.integration.http.house import HELLO, House, serve, settings_for

SOME_KEY = f"pfk_00000000_{'x' * 43}"
U7 = {"kind": "direct", "users": ["u7"], "message": HELLO}


def kind_of(answer: Any) -> str:
    """Name a problem without its beginning."""
    assert answer.headers["content-type"] == "application/problem+json"
    return str(answer.json()["type"]).removeprefix("urn:pushfan:problem:")


def test_202_means_that_the_row_is_committed(house: House) -> None:
    """An event is answered with the notification that is in the database by then."""
    answer = house.post("/v1/events", json={**U7, "id": "order-812"})
    assert answer.status_code == 202
    (row,) = house.notifications()
    assert answer.json() == {"id": "order-812", "status": "taken_in", "notification_id": str(row["id"])}
    assert answer.headers["location"] == f"/v1/notifications/{row['id']}"
    assert (row["key"], row["kind"], row["recipients"], row["lane"]) == (
        "order-812",
        "direct",
        ["u7"],
        "urgent",
    )


def test_wire_form_of_the_publisher_is_taken_as_it_is(house: House) -> None:
    """What `pushfan_events` writes is what HTTP reads."""
    event = DirectPush(app="shop", users=("u7",), message=Message(title="Hello"), ttl_seconds=60)
    assert house.post("/v1/events", json=encode(event)).json()["id"] == event.id


def test_same_id_changes_nothing_and_other_content_conflicts(house: House) -> None:
    """The id is the idempotency key, in the body or in the header."""
    first = house.post("/v1/events", json={**U7, "id": "a"})
    again = house.post("/v1/events", json=U7, headers={"idempotency-key": "a"})
    assert again.json() == {**first.json(), "status": "repeated"}
    assert house.post("/v1/events", json=U7, headers={"idempotency-key": '"a"'}).json() == again.json()
    other = house.post("/v1/events", json={**U7, "id": "a", "message": {"title": "Other"}})
    assert (other.status_code, kind_of(other)) == (409, "id-conflict")
    assert other.json()["notification_id"] == first.json()["notification_id"]
    assert other.json()["errors"][0]["pointer"] == "/id"
    assert len(house.notifications()) == 1


def test_kinds_have_paths_of_their_own(house: House) -> None:
    """Path and body make the event; ids with a slash are percent-encoded."""
    assert house.post("/v1/users/a%2Fb%20c/messages", json={"message": HELLO}).status_code == 202
    assert house.post("/v1/topics/app/news/messages", json={"message": HELLO}).status_code == 202
    write = {"object": "o1", "change": "created"}
    assert house.post("/v1/buckets/group:g1/photos/writes", json=write).status_code == 202
    direct, topic, bucket = house.notifications()
    assert direct["recipients"] == ["a/b c"]
    assert (topic["event"]["topic"], topic["lane"]) == ("news", "normal")
    assert (bucket["event"]["scope"], bucket["event"]["bucket"]) == ("group:g1", "photos")


def test_path_and_body_may_not_contradict(house: House) -> None:
    """Whoever names a thing twice must name it the same."""
    answer = house.post("/v1/topics/app/news/messages", json={"topic": "others", "message": HELLO})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/topic")
    twice = house.post("/v1/events", json={**U7, "id": "a"}, headers={"idempotency-key": "b"})
    assert (twice.status_code, twice.json()["errors"][0]["pointer"]) == (422, "/id")


def test_one_bad_event_never_fails_its_neighbours(house: House) -> None:
    """Each event of a list is answered for itself, in order, with pointers into the whole body."""
    house.post("/v1/events", json={**U7, "id": "taken"})
    events = [
        {**U7, "id": "good"},
        {**U7, "users": []},
        {**U7, "id": "taken", "message": {"title": "Other"}},
        "no event",
        {**U7, "app": "other"},
        {**U7, "id": "good"},
        {**U7, "message": {"title": "x", "fcm": {"token": "t"}}},
    ]
    answer = house.post("/v1/events", json={"events": events})
    assert answer.status_code == 207
    results = answer.json()["results"]
    assert [one["status"] for one in results] == [
        "taken_in", "refused", "refused", "refused", "refused", "repeated", "refused",
    ]  # fmt: skip
    problems = [one["problem"] for one in results if "problem" in one]
    assert [one["status"] for one in problems] == [422, 409, 422, 404, 422]
    assert [one["errors"][0]["pointer"] for one in problems] == [
        "/events/1/users", "/events/2/id", "/events/3", "/events/4/app", "/events/6/message/fcm/token",
    ]  # fmt: skip
    assert {row["key"] for row in house.notifications()} == {"taken", "good"}


def test_list_of_bad_events_is_a_problem_that_lists_all(house: House) -> None:
    """When nothing is taken in, the status says so; results are told all the same."""
    answer = house.post("/v1/events", json={"events": [{**U7, "users": []}, {**U7, "kind": "x"}]})
    assert (answer.status_code, kind_of(answer)) == (422, "invalid")
    assert [one["pointer"] for one in answer.json()["errors"]] == ["/events/0/users", "/events/1/kind"]
    assert len(answer.json()["results"]) == 2
    assert answer.json()["retry"] is False


def test_list_that_is_refused_for_several_reasons_is_invalid_only_if_one_is(house: House) -> None:
    """Without a fault in any form, what was in the way is said."""
    house.post("/v1/events", json={**U7, "id": "taken"})
    clash, strange = {**U7, "id": "taken", "message": {"title": "Other"}}, {**U7, "app": "other"}
    answer = house.post("/v1/events", json={"events": [strange, clash]})
    assert (answer.status_code, kind_of(answer)) == (409, "id-conflict")
    assert [one["problem"]["status"] for one in answer.json()["results"]] == [404, 409]
    answer = house.post("/v1/events", json={"events": [strange, clash, {**U7, "users": []}]})
    assert (answer.status_code, kind_of(answer)) == (422, "invalid")


def test_all_faults_of_an_event_are_listed_by_pointer(house: House) -> None:
    """Keys with dots and slashes are found where they stand."""
    message = {"title": 1, "data": {"a.b/c": 5, "pushfan": "x"}, "sounds": "x"}
    answer = house.post("/v1/events", json={**U7, "message": message, "ttl_seconds": -1})
    pointers = {one["pointer"] for one in answer.json()["errors"]}
    assert pointers == {
        "/message/title", "/message/data/a.b~1c", "/message/data/pushfan", "/message/sounds", "/ttl_seconds",
    }  # fmt: skip


def test_thousand_events_are_taken_in_and_more_refused(house: House) -> None:
    """A list is bounded, and a full one is one request."""
    events = [{"kind": "direct", "users": [f"u{number}"], "message": HELLO} for number in range(1001)]
    assert house.post("/v1/events", json={"events": events}).status_code == 422
    answer = house.post("/v1/events", json={"events": events[:1000]}, headers={"idempotency-key": "k"})
    assert answer.status_code == 202
    assert [one["id"] for one in answer.json()["results"]] == [f"k.{number}" for number in range(1000)]
    assert len(house.notifications()) == 1000


def test_cloud_events_are_taken_structured_and_batched(house: House) -> None:
    """Source and id together are the idempotency key."""
    event = {
        "specversion": "1.0",
        "id": "1",
        "source": "/orders",
        "type": "pushfan.direct",
        "data": {"users": ["u7"], "message": HELLO},
    }
    structured = {"content-type": "application/cloudevents+json; charset=utf-8"}
    batch = {"content-type": "application/cloudevents-batch+json"}
    one = house.post("/v1/events", content=json.dumps(event), headers=structured)
    assert (one.status_code, one.json()["id"]) == (202, "/orders#1")
    bad = {**event, "id": "2", "type": "com.example.other"}
    worse = {**event, "id": "3", "data": {"users": ["u7"], "message": {"title": ""}}}
    several = house.post("/v1/events", content=json.dumps([event, bad, worse]), headers=batch)
    assert several.status_code == 207
    repeated, refused, empty = several.json()["results"]
    assert repeated["status"] == "repeated"
    assert refused["problem"]["errors"][0]["pointer"] == "/1/type"
    assert empty["problem"]["errors"][0]["pointer"] == "/2/data/message/title"


@pytest.mark.parametrize(
    ("content", "media_type", "status"),
    [
        (b"{", "application/json", 400),
        (b"", "application/json", 400),
        (b"\xff\xfe", "application/json", 400),
        (b'{"kind": "\\ud800"}', "application/json", 400),
        (b"[" * 5000, "application/json", 400),
        (b"[]", "application/json", 422),
        (b"null", "application/json", 422),
        (b'{"events": {}}', "application/json", 422),
        (b'{"events": []}', "application/json", 422),
        (b'{"events": [1], "more": 1}', "application/json", 422),
        (b"kind=direct", "application/x-www-form-urlencoded", 415),
        (b"{}", "application/xml", 415),
        (b"{}", "application/vnd.other+json", 415),
        (b" " * 5_000_000, "application/json", 413),
    ],
)  # fmt: skip
def test_garbage_is_a_problem(house: House, content: bytes, media_type: str, status: int) -> None:
    """What cannot be read is refused in the one form of refusals."""
    answer = house.post("/v1/events", content=content, headers={"content-type": media_type})
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert house.notifications() == []


def test_body_that_does_not_say_its_length_is_bounded(house: House) -> None:
    """Chunks are counted as they come."""
    chunks = (b" " * 100_000 for _ in range(60))
    answer = house.post("/v1/events", content=chunks, headers={"content-type": "application/json"})
    assert (answer.status_code, kind_of(answer)) == (413, "too-large")


def test_key_is_limited_to_its_lanes(house: House) -> None:
    """Another lane is refused; an event that names none goes by the next slower lane of the key."""
    secret = house.key("shop", name="slow", roles=("publish",), lanes=("bulk",))
    refused = house.post("/v1/events", by=secret, json={**U7, "lane": "urgent"})
    assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (403, "/lane")
    assert house.post("/v1/events", by=secret, json=U7).status_code == 202
    assert [row["lane"] for row in house.notifications()] == ["bulk"]


def test_operator_publishes_for_the_app_that_is_named(house: House) -> None:
    """A key for all apps names the app: in the event, or in the query where the path is an app's."""
    assert house.post("/v1/events", by="operator", json=U7).json()["errors"][0]["pointer"] == "/app"
    assert house.post("/v1/events", by="operator", json={**U7, "app": "shop"}).status_code == 202
    assert house.post("/v1/events?app=other", by="operator", json=U7).status_code == 202
    path = "/v1/users/u7/messages"
    missing = house.post(path, by="operator", json={"message": HELLO})
    assert (missing.status_code, missing.json()["errors"][0]["parameter"]) == (422, "app")
    assert house.post(f"{path}?app=shop", by="operator", json={"message": HELLO}).status_code == 202
    assert house.post(f"{path}?app=nowhere", by="operator", json={"message": HELLO}).status_code == 404


def test_full_backlog_is_answered_and_nothing_taken_in(database_url: str, tmp_path: Path) -> None:
    """Too much waiting is told at the door, with when to come again; another app is not concerned."""
    settings = settings_for(database_url, tmp_path, api_backlog=1)
    database = Database(database_url)
    with serve(settings) as client:
        house = House(settings=settings, database=database, client=client)
        house.rows(
            "INSERT INTO pushfan.retry SELECT 1, 1, %s, 1, 'bulk', 1, now(), now(), NULL, '[]' RETURNING 1",
            house.apps["shop"].id,
        )
        answer = house.post("/v1/events", json=U7)
        assert (answer.status_code, kind_of(answer), answer.json()["retry"]) == (429, "backlog", True)
        assert int(answer.headers["retry-after"]) > 0
        several = house.post("/v1/events", json={"events": [U7, U7]})
        assert (several.status_code, kind_of(several)) == (429, "backlog")
        assert house.notifications() == []
        assert house.post("/v1/events", by="other", json=U7).status_code == 202
    database.close()


def test_requests_that_arrive_together_are_committed_together(house: House) -> None:
    """A hundred requests cost a few transactions, and each is answered for itself."""
    headers = {"authorization": f"Bearer {house.secrets['shop']}"}
    before = house.rows("SELECT pg_current_xact_id()::text::bigint AS xid")[0]["xid"]
    requests = [
        ("POST", "/v1/events", {"json": {**U7, "id": f"e{n}"} if n % 10 else {}, "headers": headers})
        for n in range(100)
    ]
    answers = house.client.together(requests)
    after = house.rows("SELECT pg_current_xact_id()::text::bigint AS xid")[0]["xid"]
    assert [answer.status_code for answer in answers] == [202 if n % 10 else 422 for n in range(100)]
    assert len(house.notifications()) == 90
    assert after - before < 30


def test_event_whose_id_another_transaction_holds_does_not_fail_its_neighbours(house: House) -> None:
    """A producer's open transaction makes one event busy, not the others of its group."""
    headers = {"authorization": f"Bearer {house.secrets['shop']}"}
    with psycopg.connect(house.database.url) as producer:
        wire = json.dumps([{**U7, "version": 1, "app": "shop", "id": "held"}])
        producer.execute("SELECT pushfan.take_in(%s::jsonb)", [wire])
        requests = [
            ("POST", "/v1/events", {"json": {**U7, "id": name}, "headers": headers})
            for name in ("a", "held", "b", "c")
        ]
        answers = house.client.together(requests)
        assert [answer.status_code for answer in answers] == [202, 503, 202, 202]
        assert (kind_of(answers[1]), answers[1].json()["retry"]) == ("busy", True)
        producer.rollback()
    assert house.post("/v1/events", json={**U7, "id": "held"}).status_code == 202


def test_group_that_waits_for_an_id_does_not_hold_up_the_next(house: House) -> None:
    """While one group waits for a producer's transaction, what comes later is taken in."""
    headers = {"authorization": f"Bearer {house.secrets['shop']}"}
    with psycopg.connect(house.database.url) as producer, ThreadPoolExecutor() as pool:
        wire = json.dumps([{**U7, "version": 1, "app": "shop", "id": "held"}])
        producer.execute("SELECT pushfan.take_in(%s::jsonb)", [wire])
        held = [("POST", "/v1/events", {"json": {**U7, "id": "held"}, "headers": headers})]
        waiting = pool.submit(house.client.together, held)
        answered = 0
        while not waiting.done():
            answered += house.post("/v1/events", json={**U7, "id": f"later-{answered}"}).status_code == 202
        assert [answer.status_code for answer in waiting.result()] == [503]
        producer.rollback()
    assert answered > 1


def test_database_that_is_away_is_told(tmp_path: Path) -> None:
    """Nothing is taken in without a database, and a repeat helps."""
    with serve(settings_for("postgresql://127.0.0.1:1/none", tmp_path)) as client:
        answer = client.request(
            "POST", "/v1/events", json=U7, headers={"authorization": f"Bearer {SOME_KEY}"}
        )
        assert (answer.status_code, kind_of(answer), answer.json()["retry"]) == (503, "database-away", True)
        assert answer.headers["retry-after"]
        assert client.request("GET", "/healthz").status_code == 200
        assert client.request("GET", "/readyz").status_code == 503
        assert b"pushfan_database_up 0.0" in client.request("GET", "/metrics").content
