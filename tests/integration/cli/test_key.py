from __future__ import annotations

from gateway.cli.errors import ExitCode
from tests.integration.cli.terminal import Terminal


def test_key_is_made_shown_once_rotated_and_revoked(pushfan: Terminal) -> None:
    """Two secrets are good while callers change over, never three."""
    pushfan.ok("app", "add", "shop")
    options = ("--app", "shop", "--role", "publish", "--role", "register", "--lane", "bulk", "--json")
    first = pushfan.ok("key", "create", "backend", *options).json
    assert (first["roles"], first["lanes"], first["app"]) == (["publish", "register"], ["bulk"], "shop")
    assert first["secret"].startswith(first["prefix"])
    assert pushfan("key", "create", "backend", *options).error["code"] == "already_exists"
    second = pushfan.ok("key", "rotate", "backend", "--app", "shop", "--json").json
    assert (second["roles"], second["lanes"]) == (first["roles"], first["lanes"])
    refused = pushfan("key", "rotate", "backend", "--app", "shop", "--json")
    assert refused.code == ExitCode.REFUSED
    assert first["prefix"] in refused.error["message"]
    assert pushfan.ok("key", "revoke", first["prefix"], "--json").json["revoked_at"]
    listed = pushfan.ok("key", "list", "--app", "shop", "--json").lines
    assert [one["prefix"] for one in listed] == [first["prefix"], second["prefix"]]
    assert all("secret" not in one for one in listed)
    assert first["secret"] not in pushfan.ok("key", "list").out


def test_grace_ends_the_old_secret_later(pushfan: Terminal) -> None:
    """With a grace period the old secret needs no revocation."""
    made = pushfan.ok("key", "create", "ops", "--all-apps", "--role", "admin", "--json").json
    pushfan.ok("key", "rotate", "ops", "--all-apps", "--grace", "1h")
    old, new = pushfan.ok("key", "list", "--json").lines
    assert (old["prefix"], bool(old["revoked_at"]), new["revoked_at"]) == (made["prefix"], True, None)


def test_key_names_its_app_or_all(pushfan: Terminal) -> None:
    """A key for every app is never made by forgetting an option."""
    for options in ((), ("--app", "shop", "--all-apps")):
        assert pushfan("key", "create", "x", "--role", "publish", *options).code == ExitCode.USAGE
    assert pushfan("key", "revoke", "pfk_none", "--json").code == ExitCode.NOT_FOUND
