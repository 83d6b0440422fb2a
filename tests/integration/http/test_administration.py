from __future__ import annotations

from typing import Any

from tests.integration.http.house import House


def test_operator_adds_and_removes_apps(house: House) -> None:
    """Apps are the operators' alone."""
    assert house.post("/v1/apps", by="shop admin", json={"name": "third"}).status_code == 403
    assert house.post("/v1/apps", by="operator", json={"name": "third"}).status_code == 201
    assert house.post("/v1/apps", by="operator", json={"name": "third"}).status_code == 409
    assert house.post("/v1/apps", by="operator", json={"name": "-"}).status_code == 422
    names = [one["name"] for one in house.get("/v1/apps", by="operator").json()["apps"]]
    assert names == ["other", "shop", "third"]
    assert house.get("/v1/apps/third", by="operator").status_code == 200
    assert house.delete("/v1/apps/third", by="operator").status_code == 204
    assert house.get("/v1/apps/third", by="operator").status_code == 404


def test_admin_makes_rotates_and_revokes_keys_of_its_app(house: House) -> None:
    """A secret is told once; an app's admin cannot make keys for others."""
    made = house.post(
        "/v1/keys", by="shop admin", json={"name": "jobs", "roles": ["publish"], "lanes": ["bulk"]}
    )
    assert (made.status_code, made.json()["app"], made.json()["lanes"]) == (201, "shop", ["bulk"])
    assert house.get("/v1/notifications", by=made.json()["secret"]).status_code == 200
    rotated = house.post("/v1/keys/jobs/rotate", by="shop admin", json={"grace_seconds": 3600}).json()
    assert rotated["prefix"] != made.json()["prefix"]
    assert house.post("/v1/keys/jobs/rotate", by="shop admin", json={}).status_code == 409
    assert house.delete(f"/v1/keys/{made.json()['prefix']}", by="other admin").status_code == 404
    assert house.delete(f"/v1/keys/{made.json()['prefix']}", by="shop admin").json()["revoked_at"]
    listed = house.get("/v1/keys", by="shop admin").json()["keys"]
    assert {one["app"] for one in listed} == {"shop"}
    assert all("secret" not in one for one in listed)
    assert None in {one["app"] for one in house.get("/v1/keys", by="operator").json()["keys"]}


def test_channels_are_read_paused_and_resumed_by_the_apps_admin(house: House) -> None:
    """Only operators add and remove them: a reference may name any credential that the servers read."""
    read = house.get("/v1/channels/android", by="shop admin").json()
    assert (read["provider"], read["circuit"]) == ("fcm", "closed")
    paused = house.post("/v1/channels/android/pause", by="shop admin", json={"reason": "lunch"}).json()
    assert (paused["circuit"], paused["circuit_detail"]) == ("open", "lunch")
    assert house.post("/v1/channels/android/resume", by="shop admin").json()["circuit"] == "closed"
    new = {"name": "china", "provider": "jpush", "secrets": {"app_key": "file:k", "master_secret": "file:m"}}
    assert house.post("/v1/channels", by="shop admin", json=new).status_code == 403
    refused = house.post("/v1/channels?app=shop", by="operator", json={**new, "endpoint": "http://evil.test"})
    assert {one["pointer"] for one in refused.json()["errors"]} == {"/endpoint", "/secrets"}
    assert house.get("/v1/channels/china", by="shop admin").status_code == 404
    for name, content in (("k", "0123456789abcdef01234567"), ("m", "abcdef0123456789abcdef01")):
        (house.settings.credentials_directory / name).write_text(content)
    assert house.post("/v1/channels?app=shop", by="operator", json=new).status_code == 201
    assert house.delete("/v1/channels/china", by="shop admin").status_code == 403
    assert house.delete("/v1/channels/china?app=shop", by="operator").status_code == 204


def test_app_that_was_removed_a_moment_ago_is_not_there(house: House) -> None:
    """Its keys are remembered for some seconds; what they ask for is not a defect."""
    assert house.get("/v1/groups").status_code == 200
    assert house.delete("/v1/apps/shop", by="operator").status_code == 204
    for path in ("/v1/groups/g", "/v1/groups/g/members/u7", "/v1/topics/app/news"):
        body: dict[str, Any] = {"json": {}} if "topics" in path else {}
        assert house.put(path, **body).status_code == 404, path


def test_metrics_tell_nothing_of_users(house: House) -> None:
    """Routes by their template, circuits, backlog and workers; never a user or a token."""
    house.put("/v1/users/somebody/devices/phone", json={"channel": "android", "token": "token-1"})
    house.post("/v1/users/somebody/messages", json={"message": {"title": "x"}})
    text = house.get("/metrics", by=None).text
    assert 'route="/v1/users/{user}/devices/{device_key}"' in text
    assert 'pushfan_backlog_planned{lane="urgent",provider="fcm"} 1.0' in text
    assert 'pushfan_channel_circuit{app="shop",channel="android",provider="fcm",state="closed"} 1.0' in text
    assert "somebody" not in text
    assert "token-1" not in text


def test_metrics_tell_outcomes_of_each_channel_and_provider(house: House) -> None:
    """As the ledger counted them; every outcome has its figure from the start."""
    ended = "pushfan_deliveries_ended_total{{app={!r},channel={!r},outcome={!r},provider={!r}}} {}"
    lines = house.get("/metrics", by=None).text.splitlines()
    told = [line for line in lines if line.startswith("pushfan_deliveries_ended_total{")]
    assert len(told) == 4 * 8
    assert all(line.endswith(" 0.0") for line in told)
    house.rows(
        "UPDATE pushfan.channel SET outcomes = '{5,4,0,0,0,0,0,1}' WHERE name = 'ios' AND app_id = %s RETURNING id",
        house.apps["shop"].id,
    )
    text = house.get("/metrics", by=None).text
    for outcome, number in (
        ("accepted", "5.0"),
        ("unregistered", "4.0"),
        ("dead", "1.0"),
        ("expired", "0.0"),
    ):
        assert ended.format("shop", "ios", outcome, "apns", number).replace("'", '"') in text


def test_docs_load_nothing_from_elsewhere(house: House) -> None:
    """The reference is one page of ours, and the document is OpenAPI 3.1."""
    page = house.get("/docs", by=None)
    assert page.status_code == 200
    assert "/v1/events" in page.text
    assert "<script" not in page.text
    assert "src=" not in page.text
    document = house.get("/openapi.json", by=None).json()
    assert document["openapi"].startswith("3.1")


def test_server_is_ready_when_the_database_is(house: House) -> None:
    """Ready means a database with this version's schema."""
    assert house.get("/readyz", by=None).json() == {"status": "ok", "workers": 0}
    house.rows("UPDATE pushfan.schema_version SET version = 1 RETURNING 1")
    assert house.get("/readyz", by=None).status_code == 503
