from __future__ import annotations

from pathlib import Path

import psycopg
import pytest
import redis

from events.names import QUEUE_INTAKE
from gateway.cli import circuit
from gateway.cli.errors import ExitCode
from registry.channels import CircuitReason
from tests.integration.cli.terminal import Ended, Terminal


@pytest.fixture
def healthy(shop: Terminal, broker_url: str, connection: psycopg.Connection) -> Terminal:
    """Give a terminal where all is well: a broker, and a worker for each lane."""
    shop.environ["PUSHFAN_BROKER_URL"] = broker_url
    connection.execute(
        "INSERT INTO pushfan.worker (name, lanes, processes, version) "
        "VALUES ('w1', '{urgent}', 1, '0'), ('w2', '{normal,bulk}', 2, '0')"
    )
    return shop


def status(ended: Ended) -> dict[str, str]:
    """Return each check's status."""
    return {finding["check"]: finding["status"] for finding in ended.lines}


def messages(ended: Ended) -> dict[str, str]:
    """Return what was found by each check."""
    return {finding["check"]: finding["message"] for finding in ended.lines}


def troubles(ended: Ended) -> dict[str, str]:
    """Return the checks that are not OK; each has advice."""
    found = {finding["check"]: finding for finding in ended.lines if finding["status"] != "OK"}
    assert all(finding["advice"] for finding in found.values())
    return {check: finding["status"] for check, finding in found.items()}


def test_healthy_installation_has_no_troubles(healthy: Terminal) -> None:
    """Everything is looked at, all is OK, and the exit code is 0."""
    ended = healthy.ok("doctor", "--json")
    assert troubles(ended) == {}
    looked_at = set(status(ended))
    assert {"settings", "database", "schema", "broker", "partitions", "backlog", "dead letters"} <= looked_at
    assert {
        "lane urgent",
        "lane normal",
        "lane bulk",
        "channel shop/ios",
        "channel shop/android",
    } <= looked_at
    assert healthy.ok("doctor").out.count("OK    ") == len(ended.lines)


def test_lane_without_a_worker_fails(healthy: Terminal, connection: psycopg.Connection) -> None:
    """A worker that has been silent for more than 30 seconds does not count, and is named; what waits is said."""
    connection.execute("UPDATE pushfan.worker SET seen_at = now() - interval '31 seconds' WHERE name = 'w1'")
    healthy.ok("send", "--app", "shop", "--user", "u7", "--title", "x")
    ended = healthy("doctor", "--json")
    assert (ended.code, troubles(ended)) == (ExitCode.REFUSED, {"lane urgent": "FAIL", "worker w1": "WARN"})
    assert "2 deliveries wait" in messages(ended)["lane urgent"]


def test_stopped_channels_are_named(healthy: Terminal, connection: psycopg.Connection) -> None:
    """An operator's pause is a warning, any other stop a failure; what to do is said."""
    healthy.ok("channel", "open", "ios")
    assert troubles(healthy.ok("doctor", "--json")) == {"channel shop/ios": "WARN"}
    connection.execute("UPDATE pushfan.channel SET circuit_reason = 'credentials' WHERE name = 'ios'")
    ended = healthy("doctor", "--json")
    assert (ended.code, troubles(ended)) == (ExitCode.REFUSED, {"channel shop/ios": "FAIL"})


@pytest.mark.parametrize(
    ("reason", "severity", "advice"),
    [
        ("operator", "WARN", "pushfan channel close ios --app shop"),
        ("credentials", "FAIL", "pushfan channel set ios --app shop"),
        ("outage", "FAIL", "pushfan channel probe ios --app shop"),
        ("throttled", "WARN", "quota"),
        ("mass_invalidation", "FAIL", "environment"),
    ],
)
def test_each_reason_of_a_circuit_has_its_advice(
    healthy: Terminal, connection: psycopg.Connection, reason: str, severity: str, advice: str
) -> None:
    """What was seen is told, and what to do is of this reason's kind."""
    connection.execute(
        "UPDATE pushfan.channel SET circuit = 'open', circuit_reason = %s, circuit_detail = 'seen' WHERE name = 'ios'",
        [reason],
    )
    (finding,) = (one for one in healthy("doctor", "--json").lines if one["check"] == "channel shop/ios")
    assert finding["status"] == severity
    assert advice in finding["advice"]
    assert reason.replace("_", " ") in finding["message"]
    assert "seen" in finding["message"]


def test_reasons_of_circuits_all_have_advice() -> None:
    """No reason that the registry knows is without its own."""
    assert {reason.value for reason in CircuitReason} == set(circuit._ADVICE)


def test_channel_that_is_refused_everything_fails(healthy: Terminal, connection: psycopg.Connection) -> None:
    """Many answers and nothing but rejections: named with the most frequent reason. One acceptance, and it is not."""
    connection.execute(
        "INSERT INTO pushfan.delivery (notification_id, device_id, outcome, attempts, reason) "
        "SELECT pushfan.next_notification_id(), d.id, 'rejected', 1, 'InvalidToken' "
        "FROM generate_series(1, 30), pushfan.device d WHERE d.device_key = 'phone'"
    )
    ended = healthy("doctor", "--json")
    assert (ended.code, troubles(ended)) == (ExitCode.REFUSED, {"channel shop/ios": "FAIL"})
    assert "InvalidToken" in messages(ended)["channel shop/ios"]
    connection.execute(
        "INSERT INTO pushfan.delivery (notification_id, device_id, outcome, attempts) "
        "SELECT pushfan.next_notification_id(), d.id, 'accepted', 1 FROM pushfan.device d WHERE d.device_key = 'phone'"
    )
    assert troubles(healthy.ok("doctor", "--json")) == {}


def test_unreadable_credential_fails(healthy: Terminal, home: Path) -> None:
    """A missing file is a failure, as workers could not read it either."""
    (home / "credentials" / "shop-ios-key.p8").unlink()
    ended = healthy("doctor", "--json")
    assert (ended.code, troubles(ended)) == (ExitCode.REFUSED, {"channel shop/ios": "FAIL"})


def test_late_work_is_a_warning(healthy: Terminal, connection: psycopg.Connection) -> None:
    """Chunks that wait for minutes, overdue retries, misplaced deliveries and dead letters each have their line."""
    healthy.ok("send", "--app", "shop", "--user", "u7", "--title", "x")
    assert troubles(healthy.ok("doctor", "--json")) == {}
    connection.execute("UPDATE pushfan.chunk SET queued_at = now() - interval '10 minutes'")
    connection.execute(
        "INSERT INTO pushfan.retry "
        "(notification_id, device_id, app_id, channel_id, lane, attempts, due_at, expires_at, earlier) "
        "SELECT n.id, 0, n.app_id, 1, n.lane, 1, now() - interval '5 minutes', n.expires_at, '[]' "
        "FROM pushfan.notification n"
    )
    connection.execute(
        "INSERT INTO pushfan.delivery (notification_id, device_id, outcome, attempts) VALUES (1, 1, 'accepted', 1)"
    )
    connection.execute("INSERT INTO pushfan.dead_letter (kind, error) VALUES ('invalid', 'x')")
    late = {"backlog urgent": "WARN", "dispatcher": "WARN", "partitions": "WARN", "dead letters": "WARN"}
    assert troubles(healthy.ok("doctor", "--json")) == late


def test_backlog_of_a_stopped_channel_is_not_late(healthy: Terminal, connection: psycopg.Connection) -> None:
    """What waits because a channel is stopped does not call for more workers."""
    healthy.ok("send", "--app", "shop", "--user", "u7", "--title", "x")
    connection.execute("UPDATE pushfan.chunk SET queued_at = now() - interval '10 minutes'")
    for channel in ("ios", "android"):
        healthy.ok("channel", "open", channel)
    assert "backlog urgent" not in troubles(healthy.ok("doctor", "--json"))


def test_broker_that_evicts_fails(healthy: Terminal, broker_url: str) -> None:
    """A memory policy that throws away queues is a failure when a limit is set, and a warning before."""
    with redis.Redis.from_url(broker_url) as client:
        try:
            client.config_set("maxmemory-policy", "allkeys-lru")
            assert troubles(healthy.ok("doctor", "--json")) == {"broker memory": "WARN"}
            client.config_set("maxmemory", "500mb")
            ended = healthy("doctor", "--json")
        finally:
            client.config_set("maxmemory", "0")
            client.config_set("maxmemory-policy", "noeviction")
    assert (ended.code, troubles(ended)) == (ExitCode.REFUSED, {"broker memory": "FAIL"})


def test_broker_that_is_nearly_full_fails(healthy: Terminal, broker_url: str) -> None:
    """A full one refuses events; what it stores besides Pushfan's is for its operator to find."""
    with redis.Redis.from_url(broker_url) as client:
        used = client.info()["used_memory"]
        try:
            client.config_set("maxmemory", used + 4096)
            ended = healthy("doctor", "--json")
        finally:
            client.config_set("maxmemory", "0")
    assert (ended.code, troubles(ended)) == (ExitCode.REFUSED, {"broker memory": "FAIL"})


def test_events_that_nobody_takes_in_are_a_warning(healthy: Terminal, broker_url: str) -> None:
    """They lie at the broker, where no table tells of them."""
    with redis.Redis.from_url(broker_url) as client:
        client.rpush(QUEUE_INTAKE, *["x"] * 1_000)
    assert troubles(healthy.ok("doctor", "--json")) == {"intake": "WARN"}


@pytest.mark.parametrize("url", ["redis://127.0.0.1:1/0", "amqp://guest:hunter2@127.0.0.1:1//"])
def test_broker_that_is_away_fails(healthy: Terminal, url: str) -> None:
    """A broker that does not answer is one failure; the other checks go on."""
    ended = healthy("doctor", "--json", PUSHFAN_BROKER_URL=url)
    assert (ended.code, troubles(ended)) == (ExitCode.REFUSED, {"broker": "FAIL"})
    assert "hunter2" not in healthy.seen


def test_broker_that_reaches_nobody_is_a_warning(healthy: Terminal) -> None:
    """memory:// is for one process."""
    assert troubles(healthy.ok("doctor", "--json", PUSHFAN_BROKER_URL="memory://")) == {"broker": "WARN"}


def test_database_that_is_away_does_not_hide_the_broker(healthy: Terminal) -> None:
    """Without a database the broker is looked at all the same."""
    ended = healthy("doctor", "--json", PUSHFAN_DATABASE_URL="postgresql://127.0.0.1:1/x")
    assert (ended.code, status(ended)) == (
        ExitCode.REFUSED,
        {"settings": "OK", "database": "FAIL", "broker": "OK"},
    )


def test_settings_that_are_wrong_end_the_examination(healthy: Terminal) -> None:
    """All that is wrong with the settings is in the one line there is."""
    ended = healthy("doctor", "--json", PUSHFAN_NONSENSE="1", PUSHFAN_PAGE_SIZE="x")
    (finding,) = ended.lines
    assert (ended.code, finding["check"], finding["status"]) == (ExitCode.REFUSED, "settings", "FAIL")
    assert "PUSHFAN_NONSENSE" in finding["message"]
    assert "PUSHFAN_PAGE_SIZE" in finding["message"]


def test_rows_of_the_outbox_that_nobody_moves_are_found(
    healthy: Terminal, connection: psycopg.Connection
) -> None:
    """A relay that is missing, and one that is hindered, are told apart; a row that came just now is no trouble."""
    assert messages(healthy("doctor", "--json"))["outbox"] == "nothing waits"
    connection.execute("INSERT INTO pushfan.outbox (event) VALUES ('{}')")
    assert status(healthy("doctor", "--json"))["outbox"] == "OK"
    connection.execute("UPDATE pushfan.outbox SET written_at = now() - interval '5 minutes'")
    ended = healthy("doctor", "--json")
    assert "outbox" in troubles(ended)
    assert "1 row waits, the oldest for 5 min" in messages(ended)["outbox"]
    assert "no relay" in messages(ended)["outbox"]
    connection.execute(
        "INSERT INTO pushfan.outbox_relay (name, apps, trouble) VALUES ('r', '{}', 'unknown app x')"
    )
    assert messages(healthy("doctor", "--json"))["outbox"].endswith("and 1 relay runs: unknown app x")


def test_webhooks_that_fail_or_were_given_up_are_found(
    healthy: Terminal, connection: psycopg.Connection
) -> None:
    """One that its admin disabled is no trouble; nor is one that is told."""
    assert "webhooks" not in status(healthy("doctor", "--json"))
    connection.execute(
        "INSERT INTO pushfan.webhook (app_id, name, url, salt, told_xid, told_id, state)"
        " SELECT a.id, v.name, 'https://shop.example/', '', '1', 0, v.state"
        " FROM (SELECT min(id) AS id FROM pushfan.app) AS a,"
        " (VALUES ('told', 'active'), ('off', 'disabled')) AS v (name, state)"
    )
    assert status(healthy("doctor", "--json"))["webhooks"] == "OK"
    connection.execute(
        "UPDATE pushfan.webhook SET failing_since = now() - interval '2 h', failures = 7, last_error = 'answered 500',"
        " state_reason = CASE WHEN state = 'disabled' THEN 'failed for 72 h' END"
    )
    ended = healthy("doctor", "--json")
    found = {check: text for check, text in messages(ended).items() if check.startswith("webhook ")}
    assert set(found) <= set(troubles(ended))
    assert {check.partition("/")[2] for check in found} == {"told", "off"}
    assert any("7 times in a row: answered 500" in text for text in found.values())
    assert any("failed for 72 h" in text for text in found.values())
