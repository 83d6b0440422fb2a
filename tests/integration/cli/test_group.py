"""`pushfan group` and the rules of topics and buckets."""

from __future__ import annotations

from gateway.cli.errors import ExitCode
from tests.integration.cli.terminal import Terminal

APP = ("--app", "shop", "--json")


def test_groups_are_made_joined_left_and_removed(shop: Terminal) -> None:
    """Each command says what it did; a group that is not there is not found."""
    assert shop.ok("group", "add", "team", *APP).json["is_new"] is True
    done = shop.ok("group", "join", "team", *APP, "--user", "u7", "--users-from", "-", stdin="u8\nu7\n").json
    assert (done["added"], done["unchanged"]) == (2, 0)
    assert [row["user"] for row in shop.ok("group", "members", "team", *APP).lines] == ["u7", "u8"]
    (listed,) = shop.ok("group", "list", *APP, "--user", "u8").lines
    assert (listed["group"], listed["members"]) == ("team", 2)
    done = shop.ok("group", "leave", "team", *APP, "--user", "u7", "--user", "u9").json
    assert (done["removed"], done["unchanged"]) == (1, 1)
    shop.ok("group", "remove", "team", *APP, "--yes")
    assert shop.ok("group", "list", *APP).lines == []
    for command in (("members", "team"), ("remove", "team", "--yes")):
        assert shop("group", *command, *APP).code == ExitCode.NOT_FOUND


def test_rules_are_set_and_listed(shop: Terminal) -> None:
    """What is left out is the scope's default; a word that is no rule is refused by its place."""
    shop.ok("topic", "set", "news", *APP, "--admits", "group:staff")
    shop.ok("topic", "set", "talk", *APP, "--scope", "group:g1")
    listed = shop.ok("topic", "list", *APP).lines
    assert [(row["topic"], row["admits"], row["senders"]) for row in listed] == [
        ("news", "group:staff", "backend"),
        ("talk", "members", "members"),
    ]
    assert shop.ok("bucket", "set", "photos", *APP, "--senders", "users").json["senders"] == "users"
    ended = shop("bucket", "set", "photos", *APP, "--senders", "all")
    assert (ended.code, ended.paths) == (ExitCode.REFUSED, ["senders"])
