"""Apps, channels and their circuits."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from registry import apps, channels, devices, notifications, subscriptions
from registry.channels import Access, Circuit, CircuitReason, Environment, Provider, Rest
from registry.database import Connection, Database
from registry.errors import AlreadyExists, InvalidRegistration, NotFound, RegistryError
from registry.subscriptions import Target, TargetKind
from tests.integration.registry.shop import Shop, open_shop

KEY = Access(secrets={"key": "file:AuthKey.p8"}, settings={"key_id": "K", "team_id": "T"})


def test_app_is_found_by_its_name(connection: Connection) -> None:
    """Apps are added, found and listed by name."""
    added = [apps.add(connection, name) for name in ("shop", "bank")]
    assert apps.get(connection, "shop") == added[0]
    assert [app.name for app in apps.list_all(connection)] == ["bank", "shop"]


@pytest.mark.parametrize("name", ["", "-shop", "my shop", "x" * 65, "caf\xe9"])
def test_app_with_another_name_is_refused(connection: Connection, name: str) -> None:
    """What the schema would refuse is refused before, in words."""
    with pytest.raises(InvalidRegistration, match=r"^name: "):
        apps.add(connection, name)


def test_taken_name_is_refused_without_breaking_the_transaction(connection: Connection) -> None:
    """The caller's transaction goes on after the refusal."""
    apps.add(connection, "shop")
    with connection.transaction():
        with pytest.raises(AlreadyExists, match="shop"):
            apps.add(connection, "shop")
        apps.add(connection, "bank")
    assert len(apps.list_all(connection)) == 2


def test_unknown_app_is_not_found_and_the_known_are_named(connection: Connection) -> None:
    """A mistyped name is answered with those that exist."""
    apps.add(connection, "shop")
    with pytest.raises(NotFound, match=r"there is no app 'shpo' \(apps: shop\)"):
        apps.get(connection, "shpo")


def test_removed_app_leaves_nothing_behind(shop: Shop, connection: Connection, database: Database) -> None:
    """An app goes with all that belongs to it, and another app stays whole."""
    other = open_shop(connection, "other")
    for tenant in (shop, other):
        device_id = tenant.install("ann", "phone", "t1").device_id
        tenant.install("ann", "phone", "t2")
        topic = Target(kind=TargetKind.TOPIC, name="news")
        subscriptions.subscribe(connection, tenant.app_id, topic, "ann")
        name = "shop" if tenant is shop else "other"
        event = {
            "version": 1,
            "kind": "direct",
            "app": name,
            "id": "e",
            "users": ["ann"],
            "message": {"title": "T"},
        }
        [taken] = notifications.take_in(connection, [event])
        connection.execute(
            "INSERT INTO pushfan.delivery (notification_id, device_id, outcome, attempts)"
            " VALUES (%s, %s, 'accepted', 1)",
            [taken.notification_id, device_id],
        )
    apps.remove(database, shop.app_id)
    tables = (
        "app",
        "channel",
        "device",
        "target",
        "subscription",
        "feedback",
        "event_key",
        "notification",
        "delivery",
    )
    for table in tables:
        left = connection.execute(f"SELECT count(*) AS rows FROM pushfan.{table}").fetchone()
        assert left == {"rows": 2 if table == "channel" else 1}, table
    assert [app.name for app in apps.list_all(connection)] == ["other"]


def test_channel_holds_what_it_was_given(shop: Shop) -> None:
    """A new channel is closed, healthy and complete."""
    access = replace(KEY, environment=Environment.SANDBOX, endpoint="https://127.0.0.1:1", ca_file="ca.pem")
    added = channels.add(
        shop.connection,
        shop.app_id,
        name="test",
        provider="apns",
        access=access,
        slots=4,
        rate_per_second=100,
    )
    assert channels.get(shop.connection, shop.app_id, "test") == added
    assert channels.find(shop.connection, added.id) == added
    assert (added.provider, added.access, added.slots, added.rate_per_second) == (
        Provider.APNS,
        access,
        4,
        100,
    )
    assert (added.circuit, added.circuit_generation, added.accepted, added.doubted) == (
        Circuit.CLOSED,
        0,
        0,
        0,
    )
    assert [channel.name for channel in channels.list_all(shop.connection, shop.app_id)] == [
        "android",
        "ios",
        "test",
    ]


def test_every_problem_of_a_channel_is_named(shop: Shop) -> None:
    """One refusal names everything; a secret that was given in place of a reference is not repeated."""
    access = Access(secrets={"key": "-----BEGIN PRIVATE KEY-----"}, settings={"key_id": ""})
    with pytest.raises(InvalidRegistration) as caught:
        channels.add(
            shop.connection,
            shop.app_id,
            name="a b",
            provider="acme",
            access=access,
            slots=0,
            rate_per_second=0,
        )
    assert [line.partition(":")[0] for line in str(caught.value).splitlines()] == [
        "name", "provider", "secrets.key", "settings.key_id", "slots", "rate_per_second",
    ]  # fmt: skip
    assert "PRIVATE" not in str(caught.value)


def test_channel_of_a_taken_name_or_a_missing_app_is_refused(shop: Shop) -> None:
    """The two reasons why nothing was stored are told apart."""
    with pytest.raises(AlreadyExists, match="ios"):
        channels.add(shop.connection, shop.app_id, name="ios", provider="apns", access=KEY)
    with pytest.raises(NotFound, match="no app"):
        channels.add(shop.connection, 999_999, name="ios", provider="apns", access=KEY)


def test_paused_channel_is_open_until_resumed(shop: Shop) -> None:
    """An operator stops a channel once, however often it is said, and lets it go on."""
    for _ in range(2):
        channels.pause(shop.connection, shop.ios.id, "maintenance")
    paused = shop.channel()
    assert (paused.circuit, paused.circuit_reason, paused.circuit_detail, paused.circuit_generation) == (
        Circuit.OPEN, CircuitReason.OPERATOR, "maintenance", 1,
    )  # fmt: skip
    assert channels.resume(shop.connection, shop.ios.id) is True
    assert channels.resume(shop.connection, shop.ios.id) is False
    resumed = shop.channel()
    assert (resumed.circuit, resumed.circuit_reason, resumed.circuit_detail, resumed.circuit_generation) == (
        Circuit.CLOSED, None, None, 2,
    )  # fmt: skip


def test_pausing_a_stopped_channel_keeps_it_from_closing_by_itself(shop: Shop) -> None:
    """What the operator says goes over what was seen."""
    stop(shop, CircuitReason.CREDENTIALS)
    channels.pause(shop.connection, shop.ios.id)
    assert shop.channel().circuit_reason is CircuitReason.OPERATOR
    assert channels.open_for_credentials(shop.connection) == []
    channels.set_credentials(shop.connection, shop.ios.id, KEY)
    assert shop.channel().circuit is Circuit.OPEN


def test_circuit_opens_for_what_was_seen_now(shop: Shop) -> None:
    """The reason, the detail and the refused secrets' fingerprint are kept for whoever closes it."""
    assert stop(shop, CircuitReason.CREDENTIALS, fingerprint="f1")
    found = channels.open_for_credentials(shop.connection)
    assert [(channel.id, channel.credential_fingerprint, channel.circuit_detail) for channel in found] == [
        (shop.ios.id, "f1", "seen")
    ]


def test_stale_news_does_not_open_a_circuit(shop: Shop) -> None:
    """A chunk claimed before the correction does not stop the corrected channel."""
    stop(shop, CircuitReason.CREDENTIALS)
    channels.set_credentials(shop.connection, shop.ios.id, KEY)
    assert (
        channels.open_circuit(
            shop.connection, shop.ios.id, reason=CircuitReason.CREDENTIALS, detail="late", generation=0
        )
        is False
    )
    assert shop.channel().circuit is Circuit.PROBING


def test_stop_that_somebody_must_end_has_no_probe(shop: Shop) -> None:
    """Without a rest the circuit stays open, however long."""
    stop(shop, CircuitReason.MASS_INVALIDATION)
    assert shop.channel().probe_at is None
    wait_for_something(shop)
    assert channels.begin_probes(shop.connection) == []


def test_rest_grows_with_each_failed_probe_up_to_its_cap(shop: Shop) -> None:
    """5, 10, 20 s, then the cap; what the provider asked for is a floor, and an answered probe begins anew."""
    rest = Rest(first=timedelta(seconds=5), cap=timedelta(seconds=30))
    wait_for_something(shop)
    for number, seconds in enumerate((5, 10, 20, 30, 30)):
        assert stop(shop, CircuitReason.OUTAGE, rest=rest)
        assert (shop.channel().failed_probes, round(rest_seconds(shop))) == (number, seconds)
        assert channels.probe(shop.connection, shop.ios.id)
    asked = replace(rest, floor=timedelta(seconds=90))
    assert stop(shop, CircuitReason.THROTTLED, rest=asked)
    assert round(rest_seconds(shop)) == 90
    channels.probe(shop.connection, shop.ios.id)
    assert channels.end_probe(shop.connection, shop.ios.id, generation=shop.channel().circuit_generation)
    shop.connection.execute("UPDATE pushfan.channel SET ramping_since = now() - interval '2 minutes'")
    stop(shop, CircuitReason.OUTAGE, rest=rest)
    assert shop.channel().failed_probes == 0


def test_channel_that_fails_again_soon_rests_longer(shop: Shop) -> None:
    """A provider that answers probes and breaks down under traffic is not met at the first pace for ever."""
    rest = Rest(first=timedelta(seconds=5), cap=timedelta(seconds=30))
    stop(shop, CircuitReason.OUTAGE, rest=rest)
    channels.probe(shop.connection, shop.ios.id)
    channels.end_probe(shop.connection, shop.ios.id, generation=shop.channel().circuit_generation)
    stop(shop, CircuitReason.OUTAGE, rest=rest)
    assert round(rest_seconds(shop)) == 10


def test_probe_begins_when_its_time_has_come_and_something_waits(shop: Shop) -> None:
    """Only a push can probe; an operator need not wait for the time."""
    rest = Rest(first=timedelta(0), cap=timedelta(0))
    stop(shop, CircuitReason.OUTAGE, rest=rest)
    assert channels.begin_probes(shop.connection) == []
    wait_for_something(shop)
    assert channels.begin_probes(shop.connection) == [shop.ios.id]
    probing = shop.channel()
    assert (probing.circuit, probing.circuit_reason) == (Circuit.PROBING, CircuitReason.OUTAGE)
    assert channels.probe(shop.connection, shop.ios.id) is False
    with pytest.raises(NotFound):
        channels.probe(shop.connection, 999_999)


def test_stale_probe_closes_nothing(shop: Shop) -> None:
    """A probe that is answered after an operator has stopped the channel changes nothing."""
    stop(shop, CircuitReason.OUTAGE)
    channels.probe(shop.connection, shop.ios.id)
    generation = shop.channel().circuit_generation
    channels.pause(shop.connection, shop.ios.id)
    assert channels.end_probe(shop.connection, shop.ios.id, generation=generation) is False
    assert shop.channel().circuit is Circuit.OPEN


def test_open_circuit_is_not_opened_again(shop: Shop) -> None:
    """The first reason stays."""
    stop(shop, CircuitReason.OUTAGE)
    assert stop(shop, CircuitReason.CREDENTIALS) is False
    assert shop.channel().circuit_reason is CircuitReason.OUTAGE


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        (CircuitReason.CREDENTIALS, Circuit.PROBING),
        (CircuitReason.MASS_INVALIDATION, Circuit.PROBING),
        (CircuitReason.OUTAGE, Circuit.OPEN),
        (CircuitReason.OPERATOR, Circuit.OPEN),
    ],
)
def test_other_credentials_are_tried_where_credentials_stopped(
    shop: Shop, reason: CircuitReason, expected: Circuit
) -> None:
    """New credentials are probed where wrong ones explain the stop, and nowhere else; the reason stays in sight."""
    stop(shop, reason)
    changed = channels.set_credentials(shop.connection, shop.ios.id, KEY)
    assert (changed.circuit, changed.circuit_generation, changed.access) == (expected, 2, KEY)
    assert changed.circuit_reason is reason


def test_other_credentials_begin_health_anew(shop: Shop) -> None:
    """What was answered under the old credentials is not held against devices."""
    device_id = doubted_device(shop)
    shop.connection.execute("UPDATE pushfan.channel SET accepted = 9, doubted = 5")
    changed = channels.set_credentials(shop.connection, shop.ios.id, KEY)
    assert (changed.accepted, changed.doubted) == (0, 0)
    assert changed.health_since > shop.ios.health_since
    assert shop.state(device_id) == ("active", None)


def test_changed_secrets_behind_the_same_reference_do_the_same(shop: Shop) -> None:
    """A file that was replaced in place is probed once; later news of it is stale."""
    device_id = doubted_device(shop)
    stop(shop, CircuitReason.CREDENTIALS, fingerprint="f1")
    assert channels.credentials_changed(shop.connection, shop.ios.id, generation=1) is True
    assert channels.credentials_changed(shop.connection, shop.ios.id, generation=1) is False
    assert shop.channel().circuit is Circuit.PROBING
    assert shop.state(device_id) == ("active", None)


def test_resumed_after_mass_invalidation_suspects_are_believed(shop: Shop) -> None:
    """Otherwise the same doubts would stop the channel again at once."""
    device_id = doubted_device(shop)
    stop(shop, CircuitReason.MASS_INVALIDATION)
    channels.resume(shop.connection, shop.ios.id)
    assert shop.state(device_id) == ("active", None)


def test_resumed_after_an_outage_suspects_stay_suspects(shop: Shop) -> None:
    """An outage explains no doubt."""
    device_id = doubted_device(shop)
    stop(shop, CircuitReason.OUTAGE)
    channels.resume(shop.connection, shop.ios.id)
    assert shop.state(device_id) == ("suspect", "BadDeviceToken")


def test_removed_channel_takes_its_devices_along(shop: Shop, database: Database) -> None:
    """A channel goes with its devices, and another channel's devices stay."""
    devices.install_many(shop.connection, [shop.call(f"u{n}", f"k{n}", f"t{n}") for n in range(12_000)])
    other = devices.Install(channel_id=shop.android.id, user_id="ann", device_key="k", token="t")
    devices.install(shop.connection, other)
    assert channels.remove(database, shop.ios.id) == 12_000
    assert [channel.name for channel in channels.list_all(shop.connection)] == ["android"]
    rows = shop.connection.execute("SELECT user_id FROM pushfan.device").fetchall()
    assert [row["user_id"] for row in rows] == ["ann"]


def test_channel_with_unfinished_deliveries_is_not_removed(shop: Shop, database: Database) -> None:
    """Each delivery must end first; nothing of the channel changes."""
    shop.connection.execute(
        "INSERT INTO pushfan.chunk (app_id, channel_id, lane, notification_ids, device_ids, expires_at, result)"
        " VALUES (%s, %s, 'normal', '{1}', '{1}', now(), '\\x00')",
        [shop.app_id, shop.ios.id],
    )
    with pytest.raises(RegistryError, match="have not ended"):
        channels.remove(database, shop.ios.id)
    assert shop.channel() == shop.ios


@pytest.mark.parametrize("act", ["pause", "resume", "find", "set_credentials", "remove"])
def test_missing_channel_is_not_found(connection: Connection, database: Database, act: str) -> None:
    """Every door says so in the same way."""
    acts: dict[str, Callable[[], object]] = {
        "pause": lambda: channels.pause(connection, 7),
        "resume": lambda: channels.resume(connection, 7),
        "find": lambda: channels.find(connection, 7),
        "set_credentials": lambda: channels.set_credentials(connection, 7, KEY),
        "remove": lambda: channels.remove(database, 7),
    }
    with pytest.raises(NotFound, match="id 7"):
        acts[act]()


def test_names_are_those_of_the_schema(connection: Connection) -> None:
    """The enumerations and the schema's checks are the same lists."""
    rows = connection.execute(
        "SELECT conname AS name, pg_get_constraintdef(oid) AS text FROM pg_constraint"
        " WHERE conrelid = 'pushfan.channel'::regclass AND contype = 'c'"
    )
    checks = {row["name"]: row["text"] for row in rows}
    for check, names in (
        ("channel_provider_check", Provider),
        ("channel_environment_check", Environment),
        ("channel_circuit_check", Circuit),
        ("channel_circuit_reason_check", CircuitReason),
    ):
        assert checks[check].count("'::text") == len(names)
        assert all(f"'{name}'" in checks[check] for name in names)


def stop(
    shop: Shop, reason: CircuitReason, *, fingerprint: str | None = None, rest: Rest | None = None
) -> bool:
    """Open the circuit for what was seen just now."""
    return channels.open_circuit(
        shop.connection,
        shop.ios.id,
        reason=reason,
        detail="seen",
        generation=shop.channel().circuit_generation,
        fingerprint=fingerprint,
        rest=rest,
    )


def rest_seconds(shop: Shop) -> float:
    """Read how long the channel rests from now on."""
    probe_at = shop.channel().probe_at
    assert probe_at is not None
    return (probe_at - datetime.now(UTC)).total_seconds()


def wait_for_something(shop: Shop) -> None:
    """Let one delivery wait for the channel."""
    shop.connection.execute(
        "INSERT INTO pushfan.chunk (app_id, channel_id, lane, notification_ids, device_ids, expires_at, result)"
        " VALUES (%s, %s, 'normal', '{1}', '{1}', now() + interval '1 day', '\\x00')",
        [shop.app_id, shop.ios.id],
    )


def doubted_device(shop: Shop) -> int:
    """Install a device and doubt it."""
    device_id = shop.install("ann", "phone", "t1").device_id
    answer = shop.answer(device_id, "BadDeviceToken")
    assert devices.mark_suspect(shop.connection, shop.ios.id, [answer], generation=0) == {device_id}
    return device_id
