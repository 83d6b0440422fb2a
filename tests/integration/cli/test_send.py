from __future__ import annotations

import json
from pathlib import Path

import psycopg
import pytest
import redis

from gateway.cli.errors import ExitCode
from providers.simulators.launch import Running
from tests.integration.cli.conftest import ANDROID_TOKEN, IOS_TOKEN
from tests.integration.cli.terminal import Terminal

SEND = ("send", "--app", "shop", "--json")
WIRE = {
    "version": 1,
    "kind": "direct",
    "app": "shop",
    "id": "e1",
    "users": ["u7"],
    "message": {"title": "Hi"},
}


def stored(connection: psycopg.Connection) -> dict[str, object]:
    """Return the one event that was taken in, in wire form."""
    ((event,),) = connection.execute("SELECT event FROM pushfan.notification")
    assert isinstance(event, dict)
    return event


def test_event_is_taken_in_when_send_returns(shop: Terminal, connection: psycopg.Connection) -> None:
    """A direct push is stored and planned for the user's devices; its id in JSON is text, as it exceeds 53 bits."""
    sent = shop.ok(*SEND, "--user", "u7", "--title", "Hello", "--id", "one").json
    told = (sent["status"], sent["id"], sent["kind"], sent["lane"], sent["state"], sent["devices"])
    assert told == ("taken_in", "one", "direct", "urgent", "sending", 2)
    ((stored_id,),) = connection.execute("SELECT id FROM pushfan.notification")
    assert sent["notification"] == str(stored_id)


def test_same_event_again_changes_nothing(shop: Terminal, connection: psycopg.Connection) -> None:
    """The same id with the same content is repeated; with other content it is refused and the first stays."""
    push = (*SEND, "--user", "u7", "--id", "one", "--title")
    first = shop.ok(*push, "Hello").json
    again = shop.ok(*push, "Hello").json
    assert (again["status"], again["notification"]) == ("repeated", first["notification"])
    ended = shop(*push, "Other")
    assert (ended.code, "other content" in ended.error["message"]) == (ExitCode.REFUSED, True)
    assert stored(connection)["message"] == {"title": "Hello"}


def test_options_say_what_the_wire_form_says(shop: Terminal, connection: psycopg.Connection) -> None:
    """Every kind of option arrives in the event."""
    who = (
        "--topic",
        "news",
        "--scope",
        "group:42",
        "--actor",
        "u1",
        "--ttl",
        "1h30m",
        "--lane",
        "bulk",
        "--environment",
        "sandbox",
    )
    what = (
        "--title",
        "T",
        "--body",
        "B",
        "--badge",
        "0",
        "--data",
        "a=1",
        "--data",
        "b=x=y",
        "--mutable-content",
    )
    more = (
        "--title-loc-key",
        "K",
        "--title-loc-arg",
        "x",
        "--title-loc-arg",
        "y",
        "--relevance-score",
        "0.5",
    )
    words = (
        "--translation",
        "de.title=Hallo",
        "--translation",
        "de.body=Welt",
        "--jpush",
        '{"enabled": false}',
    )
    rest = ("--priority", "high", "--on-unknown", "drop", "--url", "shop://x", "--id", "e")
    shop.ok(*SEND, *who, *what, *more, *words, *rest)
    assert stored(connection) == {
        "version": 1,
        "kind": "topic",
        "app": "shop",
        "id": "e",
        "topic": "news",
        "scope": "group:42",
        "actor": "u1",
        "ttl_seconds": 5400,
        "lane": "bulk",
        "environment": "sandbox",
        "message": {
            "title": "T",
            "body": "B",
            "badge": 0,
            "data": {"a": "1", "b": "x=y"},
            "mutable_content": True,
            "title_loc_key": "K",
            "title_loc_args": ["x", "y"],
            "relevance_score": 0.5,
            "translations": {"de": {"title": "Hallo", "body": "Welt"}},
            "jpush": {"enabled": False},
            "priority": "high",
            "on_unknown": "drop",
            "url": "shop://x",
        },
    }


def test_bucket_write_needs_no_message(shop: Terminal, connection: psycopg.Connection) -> None:
    """A bucket write without a message has none in its wire form, and so gets the default one."""
    shop.ok(*SEND, "--bucket", "orders", "--object", "o1", "--change", "updated", "--id", "b")
    assert stored(connection) == {
        "version": 1,
        "kind": "bucket",
        "app": "shop",
        "id": "b",
        "bucket": "orders",
        "object": "o1",
        "change": "updated",
    }


def test_every_problem_of_an_event_is_named(shop: Terminal) -> None:
    """Fields of the event and of the message, and what a provider forbids, are refused by their paths."""
    bad = (
        "--user",
        "u7",
        "--title",
        "",
        "--badge",
        "-1",
        "--lane",
        "fast",
        "--ttl",
        "90d",
        "--priority",
        "loud",
    )
    ended = shop(*SEND, *bad)
    assert (ended.code, ended.error["code"]) == (ExitCode.REFUSED, "invalid_event")
    assert sorted(ended.paths) == [
        "lane",
        "message.badge",
        "message.priority",
        "message.title",
        "ttl_seconds",
    ]
    ended = shop(
        *SEND, "--user", "u7", "--title", "x", "--jpush", '{"audience": "all"}', "--fcm", '{"topic": "t"}'
    )
    assert sorted(ended.paths) == ["message.fcm.topic", "message.jpush.audience"]
    ended = shop(*SEND, "--user", "u7", "--body", "x" * 4090)
    assert "message.apns" in ended.paths
    assert shop.ok("notification", "list", "--json").lines == []


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--user", "u7", "--topic", "news"),
        ("--user", "u7", "--ttl", "soon"),
        ("--user", "u7", "--data", "nothing"),
        ("--user", "u7", "--data", "a=1", "--data", "a=2"),
        ("--user", "u7", "--fcm", "[1]"),
        ("--user", "u7", "--translation", "Hallo"),
    ],
)
def test_options_that_mean_nothing_are_usage_errors(shop: Terminal, options: tuple[str, ...]) -> None:
    """Recipients that are missing or mixed and values that cannot be read end with 2."""
    assert shop(*SEND, "--title", "x", *options).code == ExitCode.USAGE


def test_unknown_app_is_not_found(shop: Terminal) -> None:
    """An app that is not there ends with 3 and names those that are, dry or not."""
    for dry in ((), ("--dry-run",)):
        ended = shop("send", "--app", "bank", "--user", "u7", "--title", "x", "--json", *dry)
        assert (ended.code, "shop" in ended.error["message"]) == (ExitCode.NOT_FOUND, True)


def test_file_is_sent_as_it_is(shop: Terminal, connection: psycopg.Connection, tmp_path: Path) -> None:
    """An event in wire form is taken from a file or from standard input; id, lane and time may be said beside it."""
    file = tmp_path / "event.json"
    file.write_text(json.dumps(WIRE))
    assert shop.ok("send", "--file", file, "--json").json["status"] == "taken_in"
    assert stored(connection) == WIRE
    assert shop.ok("send", "--file", "-", "--json", stdin=json.dumps(WIRE)).json["status"] == "repeated"
    beside = ("--id", "e2", "--lane", "bulk", "--ttl", "5m")
    assert shop.ok("send", "--file", file, *beside, "--json").json["lane"] == "bulk"


def test_file_that_is_no_event_is_refused(shop: Terminal, tmp_path: Path) -> None:
    """Unknown fields and wrong types are named, text that is not JSON is called so, options beside it are refused."""
    send = ("send", "--file", "-", "--json")
    bad = {**WIRE, "message": {"title": "x", "data": {"count": 1}}, "colour": 1}
    assert sorted(shop(*send, stdin=json.dumps(bad)).paths) == ["colour", "message.data.count"]
    ended = shop(*send, stdin="{")
    assert (ended.code, "not JSON" in ended.error["message"]) == (ExitCode.REFUSED, True)
    assert shop(*send, stdin="[" * 100_000).code == ExitCode.REFUSED
    assert shop(*send, stdin="[]").paths == ["event"]
    assert shop(*send, "--title", "x", stdin=json.dumps(WIRE)).code == ExitCode.USAGE
    assert shop("send", "--file", tmp_path / "no.json").code == ExitCode.USAGE


def test_wait_ends_with_the_notification(shop: Terminal) -> None:
    """A target that nobody subscribed to and a user without devices finish at once, with a warning."""
    sent = shop.ok(*SEND, "--topic", "nobody", "--title", "x", "--wait").json
    assert (sent["state"], sent["devices"]) == ("finished", 0)
    assert "nobody" in sent["warning"]
    sent = shop.ok(*SEND, "--user", "stranger", "--title", "x", "--wait").json
    assert (sent["state"], sent["warning"]) == ("finished", "none of the users has a device")


def test_wait_gives_up_and_says_why(shop: Terminal) -> None:
    """Without a worker nothing finishes: `--wait` ends with 1, and the event stays taken in."""
    ended = shop(*SEND, "--user", "u7", "--title", "x", "--wait", "--timeout", "1s")
    assert (ended.code, ended.json["state"]) == (ExitCode.REFUSED, "sending")
    assert "no worker" in json.loads(ended.err)["warning"]


def test_broker_that_is_away_is_a_warning(shop: Terminal) -> None:
    """The event is taken in although nobody can be told of it: the dispatcher finds it."""
    ended = shop.ok(*SEND, "--user", "u7", "--title", "x", PUSHFAN_BROKER_URL="redis://127.0.0.1:1/0")
    assert ended.json["status"] == "taken_in"
    assert "broker is away" in json.loads(ended.err)["warning"]


def test_chunks_are_announced_over_the_broker(shop: Terminal, broker_url: str) -> None:
    """With a broker, send tells the workers at once: a message for each chunk is on the lane's queue."""
    shop.environ["PUSHFAN_BROKER_URL"] = broker_url
    shop.ok(*SEND, "--user", "u7", "--title", "x")
    with redis.Redis.from_url(broker_url) as client:
        assert client.llen("pushfan.deliver.urgent") == 2
    assert "Warning" not in shop.seen


def test_dry_run_shows_the_bodies_and_sends_nothing(shop: Terminal) -> None:
    """The exact body for each channel and translation is printed, with how many devices it would reach."""
    message = ("--title", "Hello", "--translation", "de.title=Hallo", "--data", "a=1", "--dry-run")
    dry = shop.ok(*SEND, "--user", "u7", *message).json
    assert (dry["dry_run"], dry["devices"]) == (True, 2)
    android, ios = dry["requests"]
    assert (android["channel"], android["devices"], android["translation"]) == ("android", 1, None)
    assert android["body"]["message"]["notification"] == {"title": "Hello"}
    assert android["body"]["message"]["token"] == "<device token>"
    assert (ios["translation"], ios["body"]["aps"]["alert"]) == ("de", {"title": "Hallo"})
    assert ios["headers"]["apns-topic"] == "com.example.shop"
    assert ios["body"]["a"] == "1"
    assert shop.ok("notification", "list", "--json").lines == []
    assert shop.ok("send", "--app", "shop", "--user", "u7", *message).out.count("POST https://") == 2
    assert (IOS_TOKEN in shop.seen, ANDROID_TOKEN in shop.seen) == (False, False)


def test_dry_run_leaves_out_what_the_message_leaves_out(shop: Terminal) -> None:
    """A provider that the message disables is named and not counted."""
    dry = shop.ok(*SEND, "--user", "u7", "--title", "x", "--apns", '{"enabled": false}', "--dry-run").json
    assert dry["devices"] == 1
    assert [request["is_left_out"] for request in dry["requests"]] == [False, True]


def test_dry_run_tells_of_channels_that_cannot_send(shop: Terminal, home: Path) -> None:
    """A missing credential shows in the dry run, which then ends with 1."""
    (home / "credentials" / "shop-ios-key.p8").unlink()
    ended = shop(*SEND, "--user", "u7", "--title", "x", "--dry-run")
    assert (ended.code, ended.json["devices"]) == (ExitCode.REFUSED, 1)
    assert "shop-ios-key.p8" in ended.json["requests"][1]["problem"]


def test_dry_run_speaks_jpush(shop: Terminal, jpush: Running) -> None:
    """JPush's body names the device by registration id."""
    shop.environ["PUSHFAN_SECRET_KEY"] = jpush.info["app_key"]
    shop.environ["PUSHFAN_SECRET_JPUSH"] = jpush.info["master_secret"]
    secrets = ("--app-key", "env:PUSHFAN_SECRET_KEY", "--master-secret", "env:PUSHFAN_SECRET_JPUSH")
    way = ("--endpoint", jpush.url, "--ca-file", jpush.info["ca_file"])
    shop.ok("channel", "add", "china", "--app", "shop", "--provider", "jpush", *secrets, *way)
    install = ("device", "install", "--app", "shop", "--channel", "china", "--device-key", "j")
    shop.ok(*install, "--user", "u5", "--token", "1a0018970af")
    (request,) = shop.ok(*SEND, "--user", "u5", "--title", "x", "--dry-run").json["requests"]
    assert request["body"]["audience"] == {"registration_id": ["<device token>"]}
    assert len(jpush.receipts()) == 0
