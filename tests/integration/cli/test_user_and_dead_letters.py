from __future__ import annotations

import json

import psycopg
import pytest

from gateway.cli.errors import ExitCode
from registry.dead_letters import Kind
from tests.integration.cli.conftest import ANDROID_TOKEN, IOS_TOKEN
from tests.integration.cli.terminal import Terminal


@pytest.fixture
def letters(shop: Terminal, connection: psycopg.Connection) -> Terminal:
    """Give a terminal with a dead letter of the app, and one of nobody."""
    shop.ok("send", "--app", "shop", "--user", "u7", "--title", "x", "--id", "one")
    connection.execute(
        "INSERT INTO pushfan.dead_letter (app_id, kind, error, body, notification_id) "
        "SELECT app_id, 'exhausted', 'ServiceUnavailable', NULL, id FROM pushfan.notification"
    )
    connection.execute(
        "INSERT INTO pushfan.dead_letter (kind, error, body) VALUES ('undecodable', 'no JSON', '<xml/>')"
    )
    return shop


def test_export_holds_everything_but_tokens(shop: Terminal) -> None:
    """Devices, subscriptions and deliveries are there, tokens as their hash, in one object or for reading."""
    shop.ok("subscribe", "--app", "shop", "--topic", "news", "--user", "u7")
    export = ("user", "export", "u7", "--app", "shop")
    found = shop.ok(*export, "--json").json
    assert [device["device_key"] for device in found["devices"]] == ["phone", "tablet"]
    assert [target["name"] for target in found["subscriptions"]] == ["news"]
    assert json.loads(shop.ok(*export).out) == found
    assert (IOS_TOKEN in shop.seen, ANDROID_TOKEN in shop.seen) == (False, False)


def test_export_of_deliveries_keeps_their_ids_exact(shop: Terminal, connection: psycopg.Connection) -> None:
    """A delivery names its notification by text, as everywhere in JSON."""
    sent = shop.ok("send", "--app", "shop", "--user", "u7", "--title", "x", "--json").json
    connection.execute(
        "INSERT INTO pushfan.delivery (notification_id, device_id, outcome, attempts) "
        "SELECT n.id, d.id, 'accepted', 1 FROM pushfan.notification n, pushfan.device d WHERE d.device_key = 'phone'"
    )
    (delivery,) = shop.ok("user", "export", "u7", "--app", "shop", "--json").json["deliveries"]
    assert delivery["notification_id"] == sent["notification"]


def test_export_says_when_it_is_not_all(shop: Terminal) -> None:
    """More than the limit is a warning."""
    assert "--limit" in shop.ok("user", "export", "u7", "--app", "shop", "--limit", "1").err


def test_forget_asks_first(shop: Terminal) -> None:
    """Without a yes nothing is forgotten; with it the user's devices are gone."""
    forget = ("user", "forget", "u7", "--app", "shop", "--json")
    assert shop(*forget, stdin="n\n").code == ExitCode.REFUSED
    assert shop(*forget, stdin="").code == ExitCode.REFUSED
    assert shop.ok(*forget, "--yes").json["devices"] == 2
    assert shop.ok("user", "export", "u7", "--app", "shop", "--json").json["devices"] == []


def test_users_of_an_unknown_app_are_not_found(shop: Terminal) -> None:
    """Neither export nor forget guesses an app."""
    assert shop("user", "export", "u7", "--app", "bank").code == ExitCode.NOT_FOUND
    assert shop("user", "forget", "u7", "--app", "bank", "--yes").code == ExitCode.NOT_FOUND


def test_dead_letters_are_listed_by_app_kind_and_notification(letters: Terminal) -> None:
    """The newest comes first; each filter leaves out the rest."""
    ids = ("dead-letter", "list", "--json")
    undecodable, exhausted = letters.ok(*ids).lines
    assert (undecodable["kind"], exhausted["kind"]) == ("undecodable", "exhausted")
    assert (undecodable["app"], exhausted["app"]) == (None, "shop")
    for only in (
        ("--app", "shop"),
        ("--kind", "exhausted"),
        ("--notification", "one"),
        ("--reason", "serviceUNAVAILABLE"),
    ):
        assert letters.ok(*ids, *only).lines == [exhausted]
    assert letters.ok(*ids, "--before", undecodable["dead_letter"]).lines == [exhausted]
    assert letters(*ids, "--app", "bank").code == ExitCode.NOT_FOUND
    assert letters(*ids, "--kind", "nonsense").code == ExitCode.USAGE


def test_dead_letter_shows_what_came_in(letters: Terminal) -> None:
    """One letter is shown with its body; one that is not there is not found."""
    letter = letters.ok("dead-letter", "list", "--kind", "undecodable", "--json").json["dead_letter"]
    assert letters.ok("dead-letter", "show", letter, "--json").json["body"] == "<xml/>"
    assert letters("dead-letter", "show", "999").code == ExitCode.NOT_FOUND


def test_replay_says_what_it_would_do_and_does_it_once(
    letters: Terminal, connection: psycopg.Connection
) -> None:
    """A rehearsal sends nothing; replayed twice, the letter names the same notification."""
    connection.execute(
        "UPDATE pushfan.dead_letter l SET device_id = d.id FROM pushfan.device d "
        "WHERE l.kind = 'exhausted' AND d.device_key = 'phone'"
    )
    letter = letters.ok("dead-letter", "list", "--kind", "exhausted", "--json").json["dead_letter"]
    replay = ("dead-letter", "replay", letter, "--json")
    rehearsed = letters.ok(*replay, "--dry-run").json
    assert (rehearsed["status"], rehearsed["notification"]) == ("would be replayed", None)
    first, second = letters.ok(*replay).json, letters.ok(*replay).json
    assert (first["status"], second["status"]) == ("replayed", "replayed before")
    assert first["notification"] == second["notification"]
    shown = letters.ok("notification", "show", first["notification"], "--json").json
    assert (shown["users"], shown["devices"]) == (1, 1)
    assert letters.ok("dead-letter", "show", letter, "--json").json["replayed_as"] == first["notification"]
    assert letters.ok("dead-letter", "list", "--unreplayed", "--json").json["kind"] == "undecodable"
    why_not = letters.ok("trace", first["notification"], "--user", "u8", "--json").json["why_not"]
    assert any("dead letter" in line for line in why_not)


def test_replay_of_all_asks_and_goes_on_past_what_it_refuses(
    letters: Terminal, connection: psycopg.Connection
) -> None:
    """What can be taken in is, the others are named with why; the exit code says that there are some."""
    wire = {
        "version": 1,
        "kind": "direct",
        "app": "shop",
        "id": "x",
        "users": ["u7"],
        "message": {"title": "x"},
    }
    connection.execute(
        "INSERT INTO pushfan.dead_letter (kind, error, body) VALUES ('invalid', 'no app', %s)",
        [json.dumps(wire)],
    )
    assert letters("dead-letter", "replay", "--all", stdin="n\n").code == ExitCode.REFUSED
    assert letters("dead-letter", "replay").code == ExitCode.USAGE
    assert letters("dead-letter", "replay", "1", "--app", "shop").code == ExitCode.USAGE
    ended = letters("dead-letter", "replay", "--all", "--yes", "--json")
    assert ended.code == ExitCode.REFUSED
    assert {row["kind"]: row["status"] for row in ended.lines} == {
        "exhausted": "refused",
        "undecodable": "refused",
        "invalid": "replayed",
    }
    assert all(row["reason"] for row in ended.lines if row["status"] == "refused")
    told = letters("dead-letter", "replay", "--all", "--yes")
    assert "2 refused" in told.out
    assert letters("dead-letter", "replay", "999").code == ExitCode.NOT_FOUND


def test_drop_asks_and_forgets_those_that_were_chosen(letters: Terminal) -> None:
    """Without a yes all stay; one by its id, the others by a filter."""
    drop = ("dead-letter", "drop", "--json")
    assert letters(*drop, "--all", stdin="n\n").code == ExitCode.REFUSED
    assert letters(*drop, "--all", "--older-than", "1h", "--yes").json == {"dropped": 0}
    assert letters(*drop, "999", "--yes").code == ExitCode.NOT_FOUND
    assert letters.ok(*drop, "--all", "--kind", "undecodable", "--yes").json == {"dropped": 1}
    letter = letters.ok("dead-letter", "list", "--json").json["dead_letter"]
    assert letters.ok(*drop, letter, "--yes").json == {"dropped": 1}
    assert letters.ok("dead-letter", "list", "--json").lines == []


def test_kinds_of_dead_letters_are_those_of_the_schema(connection: psycopg.Connection) -> None:
    """The command line can name every kind that the table can hold, and no other."""
    ((check,),) = connection.execute(
        "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = 'dead_letter_kind_check'"
    )
    assert sorted(part for part in check.split("'")[1::2]) == sorted(Kind)


def test_pseudo_user_is_made_and_promoted(shop: Terminal) -> None:
    """Its id is printed; promotion says what moved, and a person is not promoted."""
    user = shop.ok("user", "pseudo", "--json").json["user"]
    shop.ok("subscribe", "--app", "shop", "--topic", "news", "--user", user)
    done = shop.ok("user", "promote", user, "u7", "--app", "shop", "--json").json
    assert (done["devices"], done["subscriptions"]) == (0, 1)
    ended = shop("user", "promote", "u7", "u8", "--app", "shop", "--json")
    assert (ended.code, ended.paths) == (ExitCode.REFUSED, ["pseudo"])
    assert shop("subscribe", "--app", "shop", "--topic", "news", "--user", user).code == ExitCode.REFUSED
