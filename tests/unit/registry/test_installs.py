"""The rules of registration, call by call, without a database."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from registry.installs import Change, FeedbackKind, Install, Registrations, Row, State

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
LAST_WEEK = NOW - timedelta(days=7)


def stored(row_id: int, user: str, key: str, token: str, **changes: Any) -> Row:
    """Make a device that was there before."""
    values: dict[str, Any] = {
        "id": row_id,
        "app_id": 1,
        "channel_id": 1,
        "user_id": user,
        "device_key": key,
        "token": token,
        "address_kind": "token",
        "locale": None,
        "time_zone": None,
        "app_version": None,
        "registered_at": LAST_WEEK,
        "seen_at": LAST_WEEK,
        "state": "active",
        "state_changed_at": LAST_WEEK,
        **changes,
    }
    return Row(**values)


def call(user: str, key: str, token: str, **changes: Any) -> Install:
    """Make an install call to channel 1."""
    return Install(channel_id=1, user_id=user, device_key=key, token=token, **changes)


def registrations(*rows: Row) -> Registrations:
    """Begin with these devices."""
    return Registrations(rows, now=NOW, app_ids={1: 1, 2: 1})


def told(book: Registrations) -> list[tuple[str, str, str]]:
    """List what feedback will say."""
    return [(note.row.user_id, note.token, note.kind.value) for note in book.notes]


def test_unknown_install_makes_a_device() -> None:
    """A key and a token that nobody has become a new active device, registered and seen now."""
    book = registrations()
    row, change = book.install(call("ann", "phone", "t1", locale="pt-BR"))
    assert change is Change.CREATED
    assert book.created == [row]
    assert (row.user_id, row.device_key, row.token, row.locale) == ("ann", "phone", "t1", "pt-BR")
    assert (row.registered_at, row.seen_at, row.state) == (NOW, NOW, "active")
    assert book.notes == []


def test_same_install_again_is_refreshed() -> None:
    """The same user, key and token keep the row, move its times and say nothing in feedback."""
    book = registrations(stored(7, "ann", "phone", "t1"))
    row, change = book.install(call("ann", "phone", "t1"))
    assert (row.id, change) == (7, Change.REFRESHED)
    assert (row.registered_at, row.seen_at) == (NOW, NOW)
    assert book.created == []
    assert book.notes == []


def test_what_a_call_does_not_say_stays_known() -> None:
    """A refresh without a locale keeps the old one, and a new time zone replaces the old."""
    book = registrations(stored(7, "ann", "phone", "t1", locale="de", time_zone="Europe/Berlin"))
    row, _ = book.install(call("ann", "phone", "t1", time_zone="Asia/Tokyo"))
    assert (row.locale, row.time_zone) == ("de", "Asia/Tokyo")


def test_new_token_for_the_same_install_keeps_the_row() -> None:
    """The same key with a new token is the same device, and feedback names the old token."""
    book = registrations(stored(7, "ann", "phone", "t1"))
    row, change = book.install(call("ann", "phone", "t2"))
    assert (row.id, row.token, change) == (7, "t2", Change.REPLACED)
    assert told(book) == [("ann", "t1", "replaced")]


def test_token_of_another_user_moves_to_a_new_row() -> None:
    """The last login owns the token: the old user's row is retired and a new one is made."""
    book = registrations(stored(7, "ann", "phone", "t1"))
    row, change = book.install(call("bob", "tablet", "t1"))
    assert change is Change.MOVED
    assert row.id == 0
    assert row.user_id == "bob"
    assert (book.touched[7].state, book.touched[7].state_reason) == (State.RETIRED, "other_user")
    assert told(book) == [("ann", "t1", "moved")]


def test_another_user_on_the_same_install_moves_it_even_with_a_new_token() -> None:
    """A second user who logs in on the phone retires the first user's row, whatever its token was."""
    book = registrations(stored(7, "ann", "phone", "t1"))
    row, change = book.install(call("bob", "phone", "t2"))
    assert (row.id, change) == (0, Change.MOVED)
    assert book.touched[7].state == State.RETIRED
    assert told(book) == [("ann", "t1", "moved")]


def test_key_of_one_user_and_token_of_another_retire_both() -> None:
    """A call that takes a key from one user and a token from another leaves neither with it."""
    book = registrations(stored(7, "ann", "phone", "t1"), stored(8, "cid", "tablet", "t2"))
    row, change = book.install(call("bob", "phone", "t2"))
    assert (row.id, change) == (0, Change.MOVED)
    assert {book.touched[7].state, book.touched[8].state} == {"retired"}
    assert told(book) == [("ann", "t1", "moved"), ("cid", "t2", "moved")]


def test_same_user_with_a_new_key_keeps_the_row() -> None:
    """An app that was installed anew and kept its token keeps its device, under the new key."""
    book = registrations(stored(7, "ann", "phone", "t1"))
    row, change = book.install(call("ann", "phone-2", "t1"))
    assert (row.id, row.device_key, change) == (7, "phone-2", Change.REFRESHED)
    assert book.notes == []


def test_token_of_the_users_own_other_install_retires_that_one() -> None:
    """Of one user's two rows the one with the key stays, and pending pushes reach the phone once."""
    book = registrations(stored(7, "ann", "phone", "t1"), stored(8, "ann", "tablet", "t2"))
    row, change = book.install(call("ann", "phone", "t2"))
    assert (row.id, row.token, change) == (7, "t2", Change.REPLACED)
    assert (book.touched[8].state, book.touched[8].state_reason) == (State.RETIRED, "other_install")
    assert told(book) == [("ann", "t2", "retired"), ("ann", "t1", "replaced")]


def test_suspect_that_registers_again_is_active() -> None:
    """The app knows its token best: a new registration ends a vendor's doubt."""
    book = registrations(stored(7, "ann", "phone", "t1", state="suspect", state_reason="BadDeviceToken"))
    row, _ = book.install(call("ann", "phone", "t1"))
    assert (row.state, row.state_reason, row.state_changed_at) == (State.ACTIVE, None, NOW)


@pytest.mark.parametrize(
    ("user", "key", "token"),
    [("ann", "phone", "t1"), ("ann", "phone", "t2"), ("bob", "phone", "t2"), ("bob", "tablet", "t1")],
)
def test_older_registration_changes_nothing(user: str, key: str, token: str) -> None:
    """An imported registration that is older than what is known is kept out, whoever it is about."""
    book = registrations(stored(7, "ann", "phone", "t1"))
    row, change = book.install(call(user, key, token, registered_at=LAST_WEEK - timedelta(seconds=1)))
    assert (row.id, change) == (7, Change.KEPT)
    assert (book.created, book.touched, book.notes) == ([], {}, [])


def test_registration_of_the_same_instant_is_applied() -> None:
    """Importing the same file twice refreshes its devices."""
    book = registrations(stored(7, "ann", "phone", "t1"))
    assert book.install(call("ann", "phone", "t1", registered_at=LAST_WEEK))[1] is Change.REFRESHED


def test_registration_from_the_future_counts_as_now() -> None:
    """A wrong clock must not make a token that no later answer can retire."""
    row, _ = registrations().install(call("ann", "phone", "t1", registered_at=NOW + timedelta(days=365)))
    assert (row.registered_at, row.seen_at) == (NOW, NOW)


def test_earlier_registration_does_not_make_a_device_unseen() -> None:
    """When we heard from the app last never goes back."""
    book = registrations(stored(7, "ann", "phone", "t1", seen_at=NOW - timedelta(hours=1)))
    row, _ = book.install(call("ann", "phone", "t1", registered_at=NOW - timedelta(hours=2)))
    assert row.registered_at == NOW - timedelta(hours=2)
    assert row.seen_at == NOW - timedelta(hours=1)


def test_devices_that_swap_tokens_are_named_as_colliding() -> None:
    """Two stored rows that end with each other's tokens cannot be stored one after the other."""
    book = registrations(stored(7, "ann", "phone", "t1"), stored(8, "ann", "tablet", "t2"))
    book.install(call("ann", "phone", "t3"))
    book.install(call("ann", "tablet", "t1"))
    book.install(call("ann", "phone", "t2"))
    assert (book.touched[7].token, book.touched[8].token) == ("t2", "t1")
    assert sorted(book.collisions()) == [7, 8]


def test_channels_do_not_share_keys_and_tokens() -> None:
    """The same key and token on another channel are another device."""
    book = registrations(stored(7, "ann", "phone", "t1"))
    other = Install(channel_id=2, user_id="bob", device_key="phone", token="t1")
    assert book.install(other)[1] is Change.CREATED
    assert book.notes == []


def test_kinds_of_feedback_are_those_of_the_schema() -> None:
    """The log's kinds are a closed list."""
    assert list(FeedbackKind) == ["retired", "replaced", "moved"]
