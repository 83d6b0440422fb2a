"""What becomes of devices, call by call and answer by answer."""

from datetime import timedelta

import psycopg
import pytest

from registry import channels, devices
from registry.channels import Access
from registry.database import Connection
from registry.devices import Change, State
from registry.errors import InvalidRegistration, NotFound
from tests.integration.registry.shop import Shop, open_shop


def test_last_login_owns_the_token(shop: Shop) -> None:
    """A token that another user installs is no longer the first user's."""
    shop.install("ann", "phone", "t1")
    shop.install("bob", "phone", "t1")
    assert shop.tokens() == {"t1": "bob"}
    assert shop.feedback() == [("ann", "moved", "other_user")]


def test_moved_token_makes_a_new_row(shop: Shop) -> None:
    """A device row never changes its user, so that what was planned for the first user does not reach the second."""
    first = shop.install("ann", "phone", "t1")
    second = shop.install("bob", "tablet", "t1")
    assert second.change is Change.MOVED
    assert second.device_id != first.device_id
    assert devices.get(shop.connection, shop.app_id, first.device_id).user_id == "ann"
    assert shop.state(first.device_id) == ("retired", "other_user")


def test_same_key_with_a_new_token_keeps_the_row(shop: Shop) -> None:
    """What was planned for the device goes to its new token."""
    first = shop.install("ann", "phone", "t1")
    second = shop.install("ann", "phone", "t2")
    assert (second.device_id, second.change) == (first.device_id, Change.REPLACED)
    assert shop.tokens() == {"t2": "ann"}


def test_feedback_names_the_old_token_by_its_hash(shop: Shop) -> None:
    """A backend can tell which token was replaced, and cannot send to it."""
    shop.install("ann", "phone", "t1")
    shop.install("ann", "phone", "t2")
    row = shop.connection.execute("SELECT * FROM pushfan.feedback").fetchone()
    assert row is not None
    assert row["token_hash"] == devices.token_hash("t1")
    assert "t1" not in [str(value) for value in row.values()]


def test_devices_of_one_user_that_swap_tokens_keep_their_rows(shop: Shop) -> None:
    """Tokens may go round in a circle within one batch; each row ends with its own."""
    phone = shop.install("ann", "phone", "t1").device_id
    tablet = shop.install("ann", "tablet", "t2").device_id
    calls = [
        shop.call("ann", "phone", "t3"),
        shop.call("ann", "tablet", "t1"),
        shop.call("ann", "phone", "t2"),
    ]
    done = devices.install_many(shop.connection, calls)
    assert [(one.device_id, one.change) for one in done] == [
        (phone, Change.REPLACED),
        (tablet, Change.REPLACED),
        (phone, Change.REPLACED),
    ]
    found = devices.list_by_user(shop.connection, shop.app_id, "ann")
    assert {device.id: device.token for device in found} == {phone: "t2", tablet: "t1"}


def test_dead_token_is_retired_and_told(shop: Shop) -> None:
    """A dead token leaves the registry with the vendor's reason."""
    device_id = shop.install("ann", "phone", "t1").device_id
    assert devices.retire(shop.connection, [shop.answer(device_id)]) == {device_id}
    assert shop.state(device_id) == ("retired", "Unregistered")
    assert shop.feedback() == [("ann", "retired", "Unregistered")]


def test_token_registered_after_its_invalidation_is_kept(shop: Shop) -> None:
    """The app registered the token again after the vendor's time of invalidation: it is alive."""
    device_id = shop.install("ann", "phone", "t1").device_id
    old = shop.answer(device_id)
    shop.install("ann", "phone", "t1")
    assert devices.retire(shop.connection, [old]) == set()
    assert shop.state(device_id) == ("active", None)
    assert shop.feedback() == []


def test_token_registered_at_the_very_instant_of_the_answer_is_retired(shop: Shop) -> None:
    """A vendor's answer that is not older than the registration is about it."""
    device_id = shop.install("ann", "phone", "t1").device_id
    at = devices.get(shop.connection, shop.app_id, device_id).registered_at
    assert (
        devices.retire(shop.connection, [shop.answer(device_id, at=at - timedelta(microseconds=1))]) == set()
    )
    assert devices.retire(shop.connection, [shop.answer(device_id, at=at)]) == {device_id}


def test_stale_answer_about_another_token_keeps_the_device(shop: Shop) -> None:
    """The device got a new token while the old one was being sent to."""
    device_id = shop.install("ann", "phone", "t1").device_id
    stale = shop.answer(device_id)
    shop.install("ann", "phone", "t2")
    late = devices.TokenAnswer(
        device_id=device_id, token="t1", at=stale.at + timedelta(days=1), reason="Unregistered"
    )
    assert devices.retire(shop.connection, [late]) == set()
    assert devices.mark_suspect(shop.connection, shop.ios.id, [late], generation=0) == set()
    assert shop.state(device_id) == ("active", None)


def test_retired_device_is_not_told_twice(shop: Shop) -> None:
    """Two chunks may learn of the same dead token."""
    device_id = shop.install("ann", "phone", "t1").device_id
    answer = shop.answer(device_id)
    assert devices.retire(shop.connection, [answer, answer]) == {device_id}
    assert devices.retire(shop.connection, [answer]) == set()
    assert len(shop.feedback()) == 1


def test_doubt_makes_a_suspect_that_is_still_used(shop: Shop) -> None:
    """A weak word costs nothing yet: no feedback, and the token stays in use."""
    device_id = shop.install("ann", "phone", "t1").device_id
    marked = devices.mark_suspect(
        shop.connection, shop.ios.id, [shop.answer(device_id, "BadDeviceToken")], generation=0
    )
    assert marked == {device_id}
    assert shop.state(device_id) == ("suspect", "BadDeviceToken")
    assert shop.tokens() == {"t1": "ann"}
    assert shop.feedback() == []


def test_doubt_from_before_a_circuit_change_is_ignored(shop: Shop) -> None:
    """An answer under the old credentials says nothing about tokens under the new ones."""
    device_id = shop.install("ann", "phone", "t1").device_id
    answer = shop.answer(device_id, "BadDeviceToken")
    channels.set_credentials(shop.connection, shop.ios.id, Access(secrets={"key": "file:other"}))
    assert devices.mark_suspect(shop.connection, shop.ios.id, [answer], generation=0) == set()
    assert shop.state(device_id) == ("active", None)


def test_doubt_older_than_the_registration_is_ignored(shop: Shop) -> None:
    """The app registered the token again while it was being doubted."""
    device_id = shop.install("ann", "phone", "t1").device_id
    answer = shop.answer(device_id, "BadDeviceToken")
    shop.install("ann", "phone", "t1")
    assert devices.mark_suspect(shop.connection, shop.ios.id, [answer], generation=0) == set()


def test_acceptance_ends_a_suspicion(shop: Shop) -> None:
    """A vendor that takes a push to the token no longer doubts it."""
    device_id = shop.install("ann", "phone", "t1").device_id
    answer = shop.answer(device_id, "BadDeviceToken")
    devices.mark_suspect(shop.connection, shop.ios.id, [answer], generation=0)
    assert devices.confirm(shop.connection, [answer]) == {device_id}
    assert shop.state(device_id) == ("active", None)


def test_suspect_that_registers_again_is_active(shop: Shop) -> None:
    """The app knows its token best."""
    device_id = shop.install("ann", "phone", "t1").device_id
    devices.mark_suspect(shop.connection, shop.ios.id, [shop.answer(device_id)], generation=0)
    assert shop.install("ann", "phone", "t1").change is Change.REFRESHED
    assert shop.state(device_id) == ("active", None)


def test_answers_of_a_chunk_are_settled_together(shop: Shop) -> None:
    """One call applies deaths, doubts and acceptances."""
    dead, doubted, good = (shop.install("ann", f"phone-{n}", f"t{n}").device_id for n in range(3))
    devices.mark_suspect(shop.connection, shop.ios.id, [shop.answer(good)], generation=0)
    settled = devices.settle(
        shop.connection,
        shop.ios.id,
        generation=0,
        dead=[shop.answer(dead)],
        doubted=[shop.answer(doubted, "BadDeviceToken")],
        accepted=[shop.answer(good)],
    )
    assert settled == devices.Settled(
        retired=frozenset({dead}), suspected=frozenset({doubted}), confirmed=frozenset({good})
    )


def test_dead_tokens_are_settled_whatever_the_generation(shop: Shop) -> None:
    """A word like Unregistered is about the token under any credentials; only doubts depend on them."""
    dead, doubted = (shop.install("ann", f"phone-{n}", f"t{n}").device_id for n in range(2))
    settled = devices.settle(
        shop.connection, shop.ios.id, generation=99, dead=[shop.answer(dead)], doubted=[shop.answer(doubted)]
    )
    assert settled.retired == {dead}
    assert settled.suspected == set()


@pytest.mark.parametrize(
    "by", [{"device_key": "phone"}, {"token": "t1"}, {"device_key": "phone", "token": "t1"}]
)
def test_uninstalled_device_is_retired_and_told(shop: Shop, by: dict[str, str]) -> None:
    """A logout or an uninstall ends the device, by key or by token."""
    device_id = shop.install("ann", "phone", "t1").device_id
    assert devices.uninstall(shop.connection, shop.app_id, **by) == [device_id]  # type: ignore[arg-type]  # keywords
    assert shop.state(device_id) == ("retired", "uninstalled")
    assert shop.feedback() == [("ann", "retired", "uninstalled")]
    assert devices.uninstall(shop.connection, shop.app_id, **by) == []  # type: ignore[arg-type]  # keywords


def test_late_logout_does_not_remove_the_next_users_device(shop: Shop) -> None:
    """The first user's logout arrives after the second user's login on the same phone."""
    shop.install("ann", "phone", "t1")
    shop.install("bob", "phone", "t1")
    assert devices.uninstall(shop.connection, shop.app_id, token="t1", user_id="ann") == []
    assert shop.tokens() == {"t1": "bob"}


def test_uninstall_names_a_device(shop: Shop) -> None:
    """Without key and token it would remove everything."""
    with pytest.raises(ValueError, match="key or its token"):
        devices.uninstall(shop.connection, shop.app_id, user_id="ann")


def test_apps_do_not_see_each_others_devices(shop: Shop, connection: Connection) -> None:
    """A tenant can neither read nor remove another's device."""
    other = open_shop(connection, "other")
    device_id = shop.install("ann", "phone", "t1").device_id
    with pytest.raises(NotFound):
        devices.get(connection, other.app_id, device_id)
    assert devices.uninstall(connection, other.app_id, token="t1") == []
    assert devices.list_by_user(connection, other.app_id, "ann") == []
    assert shop.tokens() == {"t1": "ann"}


def test_same_token_on_two_channels_is_two_devices(shop: Shop, connection: Connection) -> None:
    """Channels do not share keys and tokens."""
    shop.install("ann", "phone", "t1")
    call = devices.Install(channel_id=shop.android.id, user_id="bob", device_key="phone", token="t1")
    assert devices.install(connection, call).change is Change.CREATED
    assert shop.tokens() == {"t1": "ann"}


def test_devices_of_a_user_are_listed(shop: Shop, connection: Connection) -> None:
    """A list shows what is in use, and on demand what is not; tokens stay out of its print."""
    first = shop.install(
        "ann", "phone", "secret-1", locale="pt-BR", time_zone="Europe/Lisbon", app_version="1.0"
    )
    shop.install("ann", "tablet", "secret-2")
    devices.uninstall(connection, shop.app_id, device_key="tablet")
    found = devices.list_by_user(connection, shop.app_id, "ann")
    assert [(device.id, device.channel, device.provider, device.locale) for device in found] == [
        (first.device_id, "ios", "apns", "pt-BR")
    ]
    everything = devices.list_by_user(connection, shop.app_id, "ann", with_retired=True)
    assert [device.state for device in everything] == [State.ACTIVE, State.RETIRED]
    assert "secret" not in repr(everything)
    assert devices.find(connection, shop.app_id, user_id="ann", device_key="phone") == found
    assert devices.find(connection, shop.app_id, user_id="ann", device_key="tablet") == []


def test_every_problem_of_every_call_is_named(shop: Shop) -> None:
    """A batch is refused as a whole, with all that is wrong in it."""
    calls = [shop.call("ann", "phone", "t1"), shop.call("", "phone", "a b"), shop.call("bob", "", "t2")]
    with pytest.raises(InvalidRegistration) as caught:
        devices.install_many(shop.connection, calls)
    assert str(caught.value).splitlines() == [
        "1.user: must not be empty",
        "1.token: must be printable ASCII without spaces",
        "2.device_key: must not be empty",
    ]
    assert shop.tokens() == {}


def test_longest_token_fits_into_the_index(shop: Shop) -> None:
    """A token that passes the check is stored, however little it compresses."""
    token = "".join(chr(33 + (n * n * 31 + n // 7) % 94) for n in range(2048))
    shop.install("ann", "phone", token)
    assert shop.tokens() == {token: "ann"}


@pytest.mark.parametrize("many", [False, True])
def test_unknown_channel_is_not_found(shop: Shop, many: bool) -> None:  # noqa: FBT001  a parameter of the test
    """A device cannot be registered on a channel that is not there."""
    call = devices.Install(channel_id=999_999, user_id="ann", device_key="phone", token="t1")
    with pytest.raises(NotFound, match="999999"):
        devices.install_many(shop.connection, [call]) if many else devices.install(shop.connection, call)


def test_nothing_to_install_is_nothing_done(shop: Shop) -> None:
    """An empty batch is no error."""
    assert devices.install_many(shop.connection, []) == []


def test_install_is_undone_with_the_callers_transaction(shop: Shop, connection: Connection) -> None:
    """A caller that composes several steps can take all of them back."""
    with connection.transaction(force_rollback=True):
        shop.install("ann", "phone", "t1")
    assert shop.tokens() == {}


def test_uncommitted_retirement_is_waited_for(shop: Shop, database_url: str) -> None:
    """An install that meets a device being retired makes a new one, and not a second life of the old."""
    device_id = shop.install("ann", "phone", "t1").device_id
    answer = shop.answer(device_id)
    with psycopg.connect(database_url, row_factory=psycopg.rows.dict_row) as other:
        devices.retire(other, [answer])
        shop.connection.execute("SET lock_timeout = '50ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            shop.install("ann", "phone", "t1")
        other.commit()
    again = shop.install("ann", "phone", "t1")
    assert again.change is Change.CREATED
    assert again.device_id != device_id
