from datetime import timedelta
from typing import Any

import pytest

from registry import dead_letters
from registry.database import Database
from registry.dead_letters import Kind, Wanted
from registry.errors import NotFound
from tests.integration.registry.shop import Shop


def bury(
    shop: Shop, *, kind: str = "invalid", error: str = "x", age: timedelta = timedelta(0), **more: Any
) -> int:
    """Store a dead letter of the app, some time ago."""
    row = shop.connection.execute(
        "INSERT INTO pushfan.dead_letter (app_id, kind, error, notification_id, at, replayed_as) "
        "VALUES (%s, %s, %s, %s, now() - %s, %s) RETURNING id",
        [shop.app_id, kind, error, more.get("notification_id"), age, more.get("replayed_as")],
    ).fetchone()
    assert row is not None
    return int(row["id"])


@pytest.mark.parametrize(
    "wanted",
    [
        Wanted(app="shop", kind=Kind.EXHAUSTED),
        Wanted(notification_id=7),
        Wanted(reason="unavailable"),
        Wanted(older_than=timedelta(hours=2), newer_than=timedelta(hours=4)),
    ],
)
def test_each_filter_finds_counts_and_drops_what_fits(shop: Shop, database: Database, wanted: Wanted) -> None:
    """List, count, walk and drop agree on which letters are meant."""
    hour = timedelta(hours=1)
    meant = bury(shop, kind="exhausted", error="ServiceUnavailable", age=3 * hour, notification_id=7)
    others = [bury(shop), bury(shop, kind="poison", age=5 * hour), bury(shop, kind="conflict", age=hour)]
    assert [letter.id for letter in dead_letters.list_page(shop.connection, wanted)] == [meant]
    measured = dead_letters.measure(shop.connection, wanted)
    assert (measured.letters, measured.newest) == (1, meant)
    assert [letter.id for letter in dead_letters.walk(database, wanted, newest=meant)] == [meant]
    assert dead_letters.drop_all(database, wanted, newest=meant) == 1
    assert sorted(letter.id for letter in dead_letters.list_page(shop.connection)) == others


def test_many_are_dropped_in_batches_up_to_the_newest_that_was_counted(
    shop: Shop, database: Database
) -> None:
    """More than a batch goes; a letter that came after the count was not meant and stays."""
    for _ in range(3):
        bury(shop)
    shop.connection.execute(
        "INSERT INTO pushfan.dead_letter (app_id, kind, error) SELECT %s, 'invalid', 'x' FROM generate_series(1, 1200)",
        [shop.app_id],
    )
    measured = dead_letters.measure(shop.connection, Wanted())
    late = bury(shop)
    assert dead_letters.drop_all(database, Wanted(), newest=measured.newest) == measured.letters == 1203
    assert [letter.id for letter in dead_letters.list_page(shop.connection)] == [late]


def test_replay_is_noted_once(shop: Shop) -> None:
    """The first notification stays; a letter that is gone is told."""
    letter = bury(shop)
    assert dead_letters.note_replay(shop.connection, letter, 5)
    assert not dead_letters.note_replay(shop.connection, letter, 6)
    assert dead_letters.find(shop.connection, letter).replayed_as == 5
    assert dead_letters.measure(shop.connection, Wanted(unreplayed=True)).letters == 0
    assert dead_letters.drop(shop.connection, [letter, 999]) == 1
    assert not dead_letters.note_replay(shop.connection, letter, 6)
    with pytest.raises(NotFound):
        dead_letters.find_delivery(shop.connection, letter)
