"""`/v1/webhooks`: made, changed, rotated, removed; secrets are told once, addresses are judged."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.http.house import House

URL = {"url": "https://shop.example/hook"}


def test_webhook_is_made_shown_changed_rotated_and_removed(house: House) -> None:
    """The secret is told when it is made and rotated, and never again."""
    made = house.put("/v1/webhooks/audit", json=URL, by="shop admin")
    assert made.status_code == 201
    document = made.json()
    secret = document.pop("secret")
    assert secret.startswith("whsec_")
    assert house.get("/v1/webhooks/audit", by="shop admin").json() == document
    changed = house.put("/v1/webhooks/audit", json=URL | {"events": ["finished"]}, by="shop admin")
    assert (changed.status_code, changed.json()["events"]) == (200, ["finished"])
    assert "secret" not in changed.json()
    rotated = house.post("/v1/webhooks/audit/rotate", json={"grace_seconds": 60}, by="shop admin").json()
    assert rotated["secret"] not in ("", secret)
    assert rotated["previous_secret_until"] is not None
    (listed,) = house.get("/v1/webhooks", by="shop admin").json()["webhooks"]
    assert listed["name"] == "audit"
    assert house.delete("/v1/webhooks/audit", by="shop admin").status_code == 204
    assert house.get("/v1/webhooks/audit", by="shop admin").status_code == 404


def test_webhook_is_disabled_and_enabled(house: House) -> None:
    """Whoever disabled it is told to whoever reads it."""
    house.put("/v1/webhooks/audit", json=URL, by="shop admin")
    off = house.put("/v1/webhooks/audit", json=URL | {"state": "disabled"}, by="shop admin").json()
    assert (off["state"], off["state_reason"]) == ("disabled", "its admin disabled it")
    on = house.put("/v1/webhooks/audit", json=URL, by="shop admin").json()
    assert (on["state"], on["state_reason"]) == ("active", None)


@pytest.mark.parametrize(
    ("url", "status"),
    [
        ("http://shop.example/", 403),
        ("https://10.0.0.1/", 403),
        ("https://u:p@shop.example/", 422),
        ("https://shop.example/#part", 422),
    ],
)
def test_address_that_can_never_be_sent_to_is_refused(house: House, url: str, status: int) -> None:
    """At its place in the body: one that is none (422), and one that an operator would have to allow (403)."""
    refused = house.put("/v1/webhooks/audit", json={"url": url}, by="shop admin")
    assert refused.status_code == status
    assert [one["pointer"] for one in refused.json()["errors"]] == ["/url"]
    assert house.rows("SELECT id FROM pushfan.webhook") == []


def test_only_admins_have_webhooks(house: House) -> None:
    """A backend's key may read feedback, not send it elsewhere."""
    assert house.put("/v1/webhooks/audit", json=URL).status_code == 403


def test_eleventh_webhook_is_a_conflict(house: House) -> None:
    """Nothing of it is stored."""
    for number in range(10):
        assert house.put(f"/v1/webhooks/w{number}", json=URL, by="shop admin").status_code == 201
    assert house.put("/v1/webhooks/w10", json=URL, by="shop admin").status_code == 409
    assert len(house.rows("SELECT id FROM pushfan.webhook")) == 10


def test_server_without_a_secret_makes_none(house: House, tmp_path: Path) -> None:
    """It says what is missing, and stores no webhook whose secret nobody knows."""
    (tmp_path / "credentials" / "webhook-secret").unlink()
    refused = house.put("/v1/webhooks/audit", json=URL, by="shop admin")
    assert (refused.status_code, refused.json()["type"]) == (503, "urn:pushfan:problem:not-set-up")
    assert house.rows("SELECT id FROM pushfan.webhook") == []
