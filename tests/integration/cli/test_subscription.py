from __future__ import annotations

from gateway.cli.errors import ExitCode
from tests.integration.cli.terminal import Terminal


def test_subscriptions_begin_and_end(shop: Terminal) -> None:
    """Users are counted once; who is subscribed already, or not at all, is unchanged."""
    news = ("--app", "shop", "--topic", "news", "--json")
    done = shop.ok("subscribe", *news, "--user", "u7", "--user", "u8", "--user", "u7").json
    assert (done["subscribed"], done["unchanged"]) == (2, 0)
    done = shop.ok("subscribe", *news, "--users-from", "-", stdin="u8\nu9\n\n").json
    assert (done["subscribed"], done["unchanged"]) == (1, 1)
    done = shop.ok("unsubscribe", *news, "--user", "u7", "--user", "u1").json
    assert (done["unsubscribed"], done["unchanged"]) == (1, 1)
    (topic,) = shop.ok("topic", "list", "--app", "shop", "--json").lines
    assert (topic["topic"], topic["scope"], topic["users"]) == ("news", "app", 2)


def test_buckets_and_topics_are_two_lists(shop: Terminal) -> None:
    """A bucket and a topic of one name, and two scopes, have nothing to do with each other."""
    for target in (("--topic", "x"), ("--bucket", "x"), ("--bucket", "x", "--scope", "group:42")):
        shop.ok("subscribe", "--app", "shop", *target, "--user", "u7")
    assert len(shop.ok("topic", "list", "--app", "shop", "--json").lines) == 1
    buckets = shop.ok("bucket", "list", "--app", "shop", "--json").lines
    assert [(bucket["bucket"], bucket["scope"]) for bucket in buckets] == [("x", "app"), ("x", "group:42")]


def test_target_that_is_none_is_refused(shop: Terminal) -> None:
    """Two targets, none, no user, an unknown scope or name: each is refused with its place."""
    who = ("subscribe", "--app", "shop", "--user", "u7", "--json")
    assert shop(*who).code == ExitCode.USAGE
    assert shop(*who, "--topic", "a", "--bucket", "b").code == ExitCode.USAGE
    assert shop("subscribe", "--app", "shop", "--topic", "a").code == ExitCode.USAGE
    ended = shop(*who, "--topic", "a", "--scope", "team:1")
    assert (ended.code, ended.paths) == (ExitCode.REFUSED, ["scope"])
    ended = shop(*who, "--topic", "no topic")
    assert (ended.code, ended.paths) == (ExitCode.REFUSED, ["name"])


def test_unknown_app_is_not_found(shop: Terminal) -> None:
    """Every command about targets names an app that is not there."""
    target = ("--app", "bank", "--topic", "a", "--user", "u7")
    for command in (("subscribe", *target), ("unsubscribe", *target), ("topic", "list", "--app", "bank")):
        assert shop(*command).code == ExitCode.NOT_FOUND
