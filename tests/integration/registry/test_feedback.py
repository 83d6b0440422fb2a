"""The feedback log as backends read it."""

import time

import psycopg

from registry import devices, feedback
from registry.database import Connection, Database
from registry.feedback import BEGINNING, Cursor, Feedback, FeedbackKind
from tests.integration.registry.shop import Shop, open_shop


def settle(connection: Connection) -> None:
    """Wait until no transaction on the server is older than what the log holds."""
    statement = (
        "SELECT count(*) AS young FROM pushfan.feedback WHERE xid >= pg_snapshot_xmin(pg_current_snapshot())"
    )
    deadline = time.monotonic() + 20
    while (row := connection.execute(statement).fetchone()) is not None and row["young"]:
        assert time.monotonic() < deadline, "another session on this server keeps a transaction open"


def test_feedback_tells_what_happened_to_a_token(shop: Shop) -> None:
    """A row names the user, the install, the channel, what happened and the token's hash."""
    device_id = shop.install("ann", "phone", "t1").device_id
    devices.retire(shop.connection, [shop.answer(device_id)])
    settle(shop.connection)
    [row] = feedback.read(shop.connection, shop.app_id)
    assert row == Feedback(
        cursor=row.cursor,
        device_id=device_id,
        user_id="ann",
        device_key="phone",
        channel_id=shop.ios.id,
        channel="ios",
        kind=FeedbackKind.RETIRED,
        reason="Unregistered",
        token_hash=devices.token_hash("t1"),
        at=row.at,
    )


def test_pages_follow_each_other_without_gaps(shop: Shop) -> None:
    """Reading on after each page's last row gives every row once, in order."""
    for number in range(10):
        shop.install("ann", "phone", f"t{number}")
    settle(shop.connection)
    after, hashes = BEGINNING, []
    while page := feedback.read(shop.connection, shop.app_id, after=after, limit=4):
        hashes += [row.token_hash for row in page]
        after = Cursor.parse(str(page[-1].cursor))
    assert hashes == [devices.token_hash(f"t{number}") for number in range(9)]


def test_row_committed_late_is_not_skipped(shop: Shop, database_url: str) -> None:
    """A transaction that began first and commits last is waited for."""
    shop.install("ann", "phone", "t1")
    shop.install("bob", "tablet", "t2")
    with psycopg.connect(database_url, autocommit=True, row_factory=psycopg.rows.dict_row) as slow:
        with slow.transaction():
            devices.install(slow, shop.call("ann", "phone", "t1-new"))
            shop.install("bob", "tablet", "t2-new")
            seen = feedback.read(shop.connection, shop.app_id, limit=1)
            assert seen == []
        settle(shop.connection)
        after, users = BEGINNING, []
        while page := feedback.read(shop.connection, shop.app_id, after=after, limit=1):
            users.append(page[0].user_id)
            after = page[0].cursor
    assert users == ["ann", "bob"]


def test_row_with_a_smaller_id_in_a_younger_transaction_is_not_skipped(
    shop: Shop, database: Database, database_url: str
) -> None:
    """A reader that has read on meets every row later, whatever its id."""
    shop.install("ann", "phone", "t1")
    shop.install("bob", "tablet", "t2")
    seen: list[Feedback] = []
    with psycopg.connect(database_url, autocommit=True, row_factory=psycopg.rows.dict_row) as slow:
        with slow.transaction():
            devices.install(slow, shop.call("ann", "phone", "t1-new"))
            shop.install("bob", "tablet", "t2-new")
            seen += feedback.read(shop.connection, shop.app_id)
        shop.install("bob", "tablet", "t2-newer")
        settle(shop.connection)
        seen += feedback.read(shop.connection, shop.app_id, after=seen[-1].cursor if seen else BEGINNING)
    assert [row.user_id for row in seen] == ["ann", "bob", "bob"]


def test_apps_read_their_own_feedback(shop: Shop, connection: Connection) -> None:
    """A tenant does not see another's."""
    other = open_shop(connection, "other")
    shop.install("ann", "phone", "t1")
    shop.install("ann", "phone", "t2")
    settle(connection)
    assert feedback.read(connection, other.app_id) == []
    assert len(feedback.read(connection, shop.app_id)) == 1
