"""`pushfan webhook`: made, listed, rotated, disabled and removed."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.cli.errors import ExitCode
from tests.integration.cli.terminal import Terminal

URL = "https://shop.example/hook"


@pytest.fixture(autouse=True)
def secret(pushfan: Terminal, tmp_path: Path) -> None:
    """Give the servers' secret, and an app."""
    (tmp_path / "webhook-secret").write_text("k" * 40)
    pushfan.environ["PUSHFAN_CREDENTIALS_DIR"] = str(tmp_path)
    pushfan.ok("app", "add", "shop")


def test_webhook_is_added_rotated_disabled_and_removed(pushfan: Terminal) -> None:
    """Its secret is shown when it is made and rotated, and in no list."""
    made = pushfan.ok("webhook", "add", "audit", "--app", "shop", "--url", URL, "--json").json
    assert (made["events"], made["state"]) == (["feedback", "finished"], "active")
    rotated = pushfan.ok("webhook", "rotate", "audit", "--app", "shop", "--json").json
    assert rotated["secret"] != made["secret"]
    assert pushfan.ok("webhook", "disable", "audit", "--app", "shop", "--json").json["state"] == "disabled"
    options = ("--app", "shop", "--url", URL, "--event", "feedback", "--json")
    changed = pushfan.ok("webhook", "add", "audit", *options).json
    assert (changed["state"], changed["events"]) == ("active", ["feedback"])
    (listed,) = pushfan.ok("webhook", "list", "--json").lines
    assert listed["url"] == URL
    assert not {"secret", "salt"} & set(listed) & set(changed)
    pushfan.ok("webhook", "remove", "audit", "--app", "shop")
    assert pushfan("webhook", "remove", "audit", "--app", "shop", "--json").code == ExitCode.NOT_FOUND


def test_address_that_can_never_be_sent_to_is_refused(pushfan: Terminal) -> None:
    """Before anything is stored."""
    options = ("--app", "shop", "--url", "https://169.254.169.254/", "--json")
    refused = pushfan("webhook", "add", "audit", *options)
    assert refused.code == ExitCode.REFUSED
    assert "PUSHFAN_ALLOWED_NETWORKS" in str(refused.error)
    assert pushfan.ok("webhook", "list", "--json").out == ""
