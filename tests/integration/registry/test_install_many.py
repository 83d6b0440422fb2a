"""A batch of installs does what the same installs do one after the other."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from registry import devices
from registry.database import Connection
from registry.devices import Install
from tests.integration.registry.shop import Shop, open_shop

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
NUMBERS = count()

# Few names, so that nearly every call meets another.
CALLS: st.SearchStrategy[list[dict[str, Any]]] = st.lists(
    st.builds(
        dict,
        user_id=st.sampled_from(["ann", "bob", "cid"]),
        device_key=st.sampled_from(["k1", "k2", "k3", "k4"]),
        token=st.sampled_from(["t1", "t2", "t3", "t4"]),
        locale=st.sampled_from([None, "de", "pt-BR"]),
        registered_at=st.one_of(
            st.none(), st.none(), st.integers(0, 3).map(lambda day: LONG_AGO + timedelta(days=day))
        ),
    ),
    max_size=12,
)


def calls_of(shop: Shop, said: Sequence[dict[str, Any]]) -> list[Install]:
    """Make install calls to a shop's channel."""
    return [Install(channel_id=shop.ios.id, **one) for one in said]


class Model:
    """The rules again, as plainly as possible: a list of devices, searched from end to end."""

    def __init__(self) -> None:
        self.devices: list[dict[str, Any]] = []
        self.feedback: list[tuple[int, str, str]] = []

    def install(self, said: dict[str, Any]) -> tuple[int, str]:
        """Apply one call. Returns the device's number and the change."""
        matching = [
            device
            for device in self.devices
            if device["in_use"] and (device["key"] == said["device_key"] or device["token"] == said["token"])
        ]
        matching.sort(key=lambda device: device["key"] != said["device_key"])
        at = said["registered_at"]
        newer = [
            device for device in matching if at is not None and (device["at"] is None or device["at"] > at)
        ]
        if newer:
            return newer[0]["number"], "kept"
        others = [device for device in matching if device["user"] != said["user_id"]]
        own = [device for device in matching if device["user"] == said["user_id"]]
        for device in others:
            self._leave(device, "moved")
        for device in own[1:]:
            self._leave(device, "retired")
        if not own:
            device = {"number": len(self.devices), "user": said["user_id"], "in_use": True, "locale": None}
            self.devices.append(device)
            change = "created"
        else:
            device = own[0]
            change = "refreshed"
            if device["token"] != said["token"]:
                self.feedback.append((device["number"], "replaced", device["token"]))
                change = "replaced"
        device |= {"key": said["device_key"], "token": said["token"], "at": at}
        device["locale"] = said["locale"] or device["locale"]
        return device["number"], "moved" if others else change

    def _leave(self, device: dict[str, Any], kind: str) -> None:
        device["in_use"] = False
        self.feedback.append((device["number"], kind, device["token"]))


def stored(shop: Shop) -> tuple[list[dict[str, Any]], list[tuple[int, str, str]]]:
    """Read what a shop's channel holds, with devices numbered in the order of their ids."""
    rows = shop.connection.execute(
        "SELECT * FROM pushfan.device WHERE channel_id = %s ORDER BY id", [shop.ios.id]
    ).fetchall()
    numbers = {row["id"]: number for number, row in enumerate(rows)}
    hashes = {devices.token_hash(token): token for token in ("t1", "t2", "t3", "t4")}
    found = [
        {
            "number": numbers[row["id"]],
            "user": row["user_id"],
            "in_use": row["state"] != "retired",
            "key": row["device_key"],
            "token": row["token"],
            "at": row["registered_at"] if row["registered_at"].year == LONG_AGO.year else None,
            "locale": row["locale"],
        }
        for row in rows
    ]
    told = shop.connection.execute(
        "SELECT * FROM pushfan.feedback WHERE channel_id = %s ORDER BY xid, id", [shop.ios.id]
    )
    return found, [(numbers[row["device_id"]], row["kind"], hashes[row["token_hash"]]) for row in told]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(before=CALLS, batch=CALLS)
def test_batch_equals_one_by_one(
    connection: Connection, before: list[dict[str, Any]], batch: list[dict[str, Any]]
) -> None:
    """Results, devices and feedback are the same from a batch, from single calls and from the model."""
    one_by_one, at_once = (open_shop(connection, f"shop-{next(NUMBERS)}") for _ in range(2))
    model = Model()
    results: list[list[tuple[int, str]]] = []
    for shop in (one_by_one, at_once):
        first_id = min_id(connection)
        done = [devices.install(connection, call) for call in calls_of(shop, before)]
        if shop is at_once:
            done += devices.install_many(connection, calls_of(shop, batch))
        else:
            done += [devices.install(connection, call) for call in calls_of(shop, batch)]
        results.append([(one.device_id - first_id, one.change.value) for one in done])
    expected = [model.install(said) for said in (*before, *batch)]
    assert results[0] == expected
    assert results[1] == expected
    assert stored(one_by_one) == (model.devices, model.feedback)
    assert stored(at_once) == (model.devices, model.feedback)


def min_id(connection: Connection) -> int:
    """Say which id the next device will have."""
    row = connection.execute(
        "SELECT last_value + is_called::integer AS next FROM pushfan.device_id_seq"
    ).fetchone()
    assert row is not None
    return int(row["next"])


def test_batch_over_several_channels_keeps_them_apart(shop: Shop, connection: Connection) -> None:
    """One batch may hold calls to all channels of an app."""
    calls = [
        Install(channel_id=channel.id, user_id=f"u{n}", device_key="key", token=f"t{n % 2}")
        for n in range(4)
        for channel in (shop.ios, shop.android)
    ]
    done = devices.install_many(connection, calls)
    assert [one.change.value for one in done] == ["created", "created", *["moved"] * 6]
    rows = connection.execute(
        "SELECT channel_id, user_id FROM pushfan.device WHERE state = 'active' ORDER BY channel_id"
    ).fetchall()
    assert [(row["channel_id"], row["user_id"]) for row in rows] == [
        (shop.ios.id, "u3"),
        (shop.android.id, "u3"),
    ]


@pytest.mark.parametrize("size", [1, 4_999, 5_001, 12_000])
def test_batch_of_any_size_is_stored(shop: Shop, connection: Connection, size: int) -> None:
    """More calls than one statement takes are several statements in one transaction."""
    calls = [shop.call(f"u{n}", f"key-{n}", f"token-{n}") for n in range(size)]
    done = devices.install_many(connection, calls)
    assert len({one.device_id for one in done}) == size
    assert len(shop.tokens()) == size
