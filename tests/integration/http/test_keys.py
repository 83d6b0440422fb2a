from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from gateway.http import key_ring
from registry.database import Database
from tests.integration.http.house import HELLO, House, serve, settings_for

U7 = {"kind": "direct", "users": ["u7"], "message": HELLO}


@pytest.mark.parametrize(
    "authorization",
    ["", "Bearer", "Bearer ", "Basic eDp5", "Bearer pfk_00000000_x", "Bearer é", "Bearer a.b.c"],
)
def test_without_a_valid_key_nothing_is_read(house: House, authorization: str) -> None:
    """A stranger is told to bring a key, whatever the body is."""
    headers = {"authorization": authorization.encode(), "content-type": "application/json"}
    answer = house.client.request("POST", "/v1/events", content=b"{", headers=headers)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert answer.json()["type"] == "urn:pushfan:problem:unauthorized"


def test_role_decides_what_a_key_may(house: House) -> None:
    """A key that registers does not publish."""
    secret = house.key("shop", name="phones", roles=("register",))
    answer = house.post("/v1/events", by=secret, json=U7)
    assert (answer.status_code, answer.json()["type"]) == (403, "urn:pushfan:problem:forbidden")


def test_only_a_hash_of_the_secret_is_stored(house: House) -> None:
    """The database holds nothing that opens anything."""
    secret = house.key("shop", name="once", roles=("publish",))
    (row,) = house.rows("SELECT * FROM pushfan.api_key WHERE name = 'once'")
    assert bytes(row["hash"]) == hashlib.sha256(secret.encode()).digest()
    assert secret.startswith(f"{row['prefix']}_")
    assert secret not in repr(row)


def test_revoked_key_opens_nothing_after_a_moment(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """What servers remember about keys is short."""
    assert house.post("/v1/events", json=U7).status_code == 202
    house.rows("UPDATE pushfan.api_key SET revoked_at = now() WHERE name = 'backend' RETURNING id")
    monkeypatch.setattr(key_ring, "FRESH_SECONDS", 0)
    assert house.post("/v1/events", json=U7).status_code == 401


def test_use_is_written_down(house: House) -> None:
    """When a key was used last is stored, though not at each request."""
    house.post("/v1/events", json=U7)
    assert house.rows("SELECT 1 FROM pushfan.api_key WHERE last_used_at IS NOT NULL") == []
    house.client.close()
    used = house.rows("SELECT name FROM pushfan.api_key WHERE last_used_at IS NOT NULL")
    assert used == [{"name": "backend"}]


def test_every_answer_has_security_headers(house: House) -> None:
    """Browsers are told to make nothing of answers."""
    answer = house.get("/healthz", by=None)
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "strict-transport-security" not in answer.headers


def test_key_that_asks_too_often_is_told_when_to_come_again(database_url: str, tmp_path: Path) -> None:
    """The rate is each caller's own."""
    settings, database = settings_for(database_url, tmp_path, api_rate=1), Database(database_url)
    with serve(settings) as client:
        house = House(settings=settings, database=database, client=client)
        statuses = [house.get("/v1/notifications").status_code for _ in range(4)]
        assert statuses[0] == 200
        assert 429 in statuses
        refused = house.get("/v1/notifications")
        assert (refused.json()["retry"], int(refused.headers["retry-after"]) >= 1) == (True, True)
        assert house.get("/v1/notifications", by="other").status_code == 200
    database.close()
