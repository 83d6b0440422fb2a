from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest

from gateway.cli.errors import ExitCode
from tests.integration.cli.terminal import Terminal

TRACE = ("trace", "one", "--json")
ANSWERED_AT = "2026-01-31T12:00:00.500+00:00"
ACCEPTED_AT = "2026-01-31T12:00:05+00:00"


@pytest.fixture
def sent(shop: Terminal) -> Terminal:
    """Give the terminal after a push to u7 with the id `one`, which no worker has touched."""
    shop.ok("subscribe", "--app", "shop", "--topic", "news", "--user", "u7")
    shop.ok("send", "--app", "shop", "--user", "u7", "--title", "Hello", "--id", "one")
    return shop


@pytest.fixture
def answered(sent: Terminal, connection: psycopg.Connection) -> Terminal:
    """Give the terminal after a worker's part: iOS accepted at the second attempt, Android waits for its third."""
    answer = {"attempt": 1, "outcome": "unavailable", "reason": "ServiceUnavailable", "at": ANSWERED_AT}
    earlier = json.dumps([answer])
    connection.execute(
        "INSERT INTO pushfan.delivery (notification_id, device_id, at, outcome, attempts, provider_id, earlier) "
        "SELECT n.id, d.id, %s::timestamptz, 'accepted', 2, 'apns-id-1', %s "
        "FROM pushfan.notification n, pushfan.device d WHERE d.device_key = 'phone'",
        [ACCEPTED_AT, earlier],
    )
    connection.execute(
        "INSERT INTO pushfan.retry "
        "(notification_id, device_id, app_id, channel_id, lane, attempts, due_at, expires_at, earlier) "
        "SELECT n.id, d.id, n.app_id, d.channel_id, n.lane, 2, now() + interval '1 hour', n.expires_at, %s "
        "FROM pushfan.notification n, pushfan.device d WHERE d.device_key = 'tablet'",
        [earlier],
    )
    connection.execute("DELETE FROM pushfan.chunk")
    connection.execute("UPDATE pushfan.notification SET accepted = 1")
    return sent


def deliveries(ended: Any) -> dict[str, dict[str, Any]]:
    """Return a trace's deliveries by device key."""
    return {delivery["device_key"]: delivery for delivery in ended.json["deliveries"]}


def test_notifications_are_listed_newest_first(sent: Terminal) -> None:
    """The list pages backwards, filters by app and by what is unfinished, and refuses an app that is not there."""
    sent.ok("send", "--app", "shop", "--topic", "nobody", "--title", "x", "--id", "two")
    ids = ["notification", "list", "--json"]
    newest, oldest = sent.ok(*ids).lines
    assert [newest["id"], oldest["id"]] == ["two", "one"]
    assert [found["id"] for found in sent.ok(*ids, "--before", newest["notification"]).lines] == ["one"]
    assert [found["id"] for found in sent.ok(*ids, "--unfinished", "--app", "shop").lines] == ["one"]
    assert len(sent.ok(*ids, "--limit", "1").lines) == 1
    assert sent(*ids, "--app", "bank").code == ExitCode.NOT_FOUND


def test_show_tells_content_and_progress(answered: Terminal) -> None:
    """One notification is found by its event's id and by its own; open, waiting and final add up to its devices."""
    shown = answered.ok("notification", "show", "one", "--json").json
    assert shown["event"]["message"] == {"title": "Hello"}
    assert shown["deliveries"] == {"open": 0, "waiting": 1, "final": 1}
    assert shown["outcomes"]["accepted"] == 1
    assert answered.ok("notification", "show", shown["notification"], "--json").json == shown
    assert answered("notification", "show", "two", "--json").code == ExitCode.NOT_FOUND


def test_cancel_stops_what_is_not_out(sent: Terminal) -> None:
    """A cancelled notification says so; cancelling again changes nothing."""
    cancel = ("notification", "cancel", "one", "--json")
    first = sent.ok(*cancel).json
    assert (first["state"], first["cancelled_at"] is not None) == ("cancelling", True)
    assert sent.ok(*cancel).json["cancelled_at"] == first["cancelled_at"]


def test_finished_notification_cannot_be_cancelled(shop: Terminal) -> None:
    """What has finished is refused, what is not there is not found."""
    shop.ok("send", "--app", "shop", "--topic", "nobody", "--title", "x", "--id", "done")
    assert shop("notification", "cancel", "done").code == ExitCode.REFUSED
    assert shop("notification", "cancel", "other").code == ExitCode.NOT_FOUND


def test_trace_tells_each_answer_with_time_and_reason(answered: Terminal) -> None:
    """For each device: state, attempts, every answer, and what comes next."""
    found = deliveries(answered.ok(*TRACE))
    phone, tablet = found["phone"], found["tablet"]
    assert [answer["outcome"] for answer in phone["answers"]] == ["unavailable", "accepted"]
    assert phone["answers"][0]["reason"] == "ServiceUnavailable"
    assert (phone["attempts"], phone["provider_id"]) == (2, "apns-id-1")
    assert phone["ended_at"] == "2026-01-31T12:00:05.000Z"
    assert (tablet["state"], tablet["attempts"]) == ("waiting", 2)
    assert tablet["next"].startswith("Attempt 3 in ")
    assert tablet["next_attempt_at"] is not None
    text = answered.ok("trace", "one").out
    assert "2026-01-31 12:00:00.500Z  attempt 1  unavailable  ServiceUnavailable" in text
    assert "2026-01-31 12:00:05.000Z  attempt 2  accepted" in text


def test_trace_says_what_a_delivery_waits_for(sent: Terminal, connection: psycopg.Connection) -> None:
    """No worker, a worker, a stopped channel: each is another thing to do."""
    waits = {key: found["next"] for key, found in deliveries(sent.ok(*TRACE)).items()}
    assert "no worker of the lane" in waits["phone"]
    connection.execute(
        "INSERT INTO pushfan.worker (name, lanes, processes, version) VALUES ('w', '{urgent}', 1, '0')"
    )
    assert deliveries(sent.ok(*TRACE))["phone"]["next"] == "It waits for a worker of lane urgent."
    sent.ok("channel", "open", "ios", "--reason", "new key")
    told = deliveries(sent.ok(*TRACE))["phone"]["next"]
    assert "open: operator" in told
    assert "new key" in told
    assert "pushfan channel close ios --app shop" in told


def test_end_without_an_answer_is_not_shown_as_one(sent: Terminal, connection: psycopg.Connection) -> None:
    """A delivery that expired unsent has an end, and no attempt."""
    connection.execute(
        "INSERT INTO pushfan.delivery (notification_id, device_id, outcome, attempts) "
        "SELECT n.id, d.id, 'expired', 0 FROM pushfan.notification n, pushfan.device d"
    )
    connection.execute("DELETE FROM pushfan.chunk")
    phone = deliveries(sent.ok(*TRACE))["phone"]
    assert (phone["state"], phone["answers"], phone["ended_at"] is not None) == ("expired", [], True)
    assert "attempt 0" not in sent.ok("trace", "one").out


def test_last_is_the_newest_that_concerns_the_user(sent: Terminal) -> None:
    """`--last` is the newest; with a user it is the newest that has something for this user."""
    sent.ok("send", "--app", "shop", "--user", "u9", "--title", "x", "--id", "two")
    assert sent.ok("trace", "--last", "--json").json["id"] == "two"
    assert sent.ok("trace", "--last", "--user", "u7", "--json").json["id"] == "one"


@pytest.mark.parametrize(
    ("options", "user", "reason"),
    [
        (("--user", "u7"), "u9", "does not name u9"),
        (("--user", "u9"), "u9", "has no device in use"),
        (("--topic", "news"), "u9", "not subscribed to the topic news (scope app)"),
        (("--topic", "news", "--actor", "u7"), "u7", "is the actor"),
        (
            ("--user", "u7", "--apns", '{"enabled": false}', "--fcm", '{"enabled": false}'),
            "u7",
            "leaves out",
        ),
    ],
)
def test_trace_says_why_a_user_got_nothing(
    sent: Terminal, options: tuple[str, ...], user: str, reason: str
) -> None:
    """Not addressed, no device, not subscribed, the actor, a provider left out: each has its sentence."""
    sent.ok("send", "--app", "shop", *options, "--title", "x", "--id", "why")
    traced = sent.ok("trace", "why", "--user", user, "--json").json
    assert traced["deliveries"] == []
    assert reason in " ".join(traced["why_not"])
    assert reason in sent.ok("trace", "why", "--user", user).out


def test_device_that_came_later_is_the_reason(sent: Terminal) -> None:
    """A user whose only device was registered after the event is told so."""
    sent.ok("send", "--app", "shop", "--user", "late", "--title", "x", "--id", "why")
    install = ("device", "install", "--app", "shop", "--channel", "android", "--device-key", "k")
    sent.ok(*install, "--user", "late", "--token", "late-token")
    assert "registered after" in str(sent.ok("trace", "why", "--user", "late", "--json").json["why_not"])


def test_trace_names_one_notification(sent: Terminal) -> None:
    """Neither or both of a name and `--last` is a usage error; an unknown name, or none at all, is not found."""
    assert sent("trace").code == ExitCode.USAGE
    assert sent("trace", "one", "--last").code == ExitCode.USAGE
    assert sent("trace", "two").code == ExitCode.NOT_FOUND


def test_nothing_to_trace_is_not_found(pushfan: Terminal) -> None:
    """`--last` before the first notification ends with 3."""
    assert pushfan("trace", "--last").code == ExitCode.NOT_FOUND


def test_reason_cannot_speak_to_the_terminal(sent: Terminal, connection: psycopg.Connection) -> None:
    """What a provider answered is printed without its control characters."""
    connection.execute(
        "INSERT INTO pushfan.delivery (notification_id, device_id, outcome, attempts, reason) "
        "SELECT n.id, d.id, 'rejected', 1, %s FROM pushfan.notification n, pushfan.device d",
        ["\x07\x1b]0;title\x07gone"],
    )
    connection.execute("DELETE FROM pushfan.chunk")
    text = sent.ok("trace", "one").out
    assert "gone" in text
    assert not {"\x07", "\x1b"} & set(text)
