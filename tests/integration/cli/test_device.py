from __future__ import annotations

from pathlib import Path

from gateway.cli.errors import ExitCode
from registry.devices import token_hash
from tests.integration.cli.conftest import ANDROID_TOKEN, IOS_TOKEN
from tests.integration.cli.terminal import Terminal

INSTALL = ("device", "install", "--app", "shop", "--json")


def devices_of(shop: Terminal, user: str, *options: str) -> dict[str, str]:
    """Return a user's devices as {key: state}."""
    listed = shop.ok("device", "list", "--app", "shop", "--user", user, "--json", *options).lines
    return {device["device_key"]: device["state"] for device in listed}


def test_install_says_what_it_did(shop: Terminal) -> None:
    """A new device is created, a new token replaces, another user's login moves."""
    phone = (*INSTALL, "--device-key", "new", "--channel", "android")
    created = shop.ok(
        *phone, "--user", "u9", "--token", "first-token-of-it", "--time-zone", "Asia/Tokyo"
    ).json
    assert (created["change"], created["user"], created["time_zone"]) == ("created", "u9", "Asia/Tokyo")
    assert shop.ok(*phone, "--user", "u9", "--token", "second-token-of-it").json["change"] == "replaced"
    assert shop.ok(*phone, "--user", "u10", "--token", "second-token-of-it").json["change"] == "moved"
    assert devices_of(shop, "u9", "--all") == {"new": "retired"}


def test_token_can_be_kept_off_the_command_line(shop: Terminal) -> None:
    """`--token -` reads it from standard input, where other users' process lists do not show it."""
    phone = (*INSTALL, "--device-key", "k", "--channel", "android", "--user", "u1", "--token", "-")
    assert shop.ok(*phone, stdin="piped-token\n").json["token_hash"] == token_hash("piped-token")


def test_installation_id_is_told_from_a_token(shop: Terminal) -> None:
    """FCM's installation ids are stored as what they are."""
    phone = (*INSTALL, "--device-key", "k", "--channel", "android", "--user", "u1", "--token", "fid-1")
    assert shop.ok(*phone, "--installation-id").json["address_kind"] == "installation_id"


def test_malformed_installs_are_refused_with_every_problem(shop: Terminal) -> None:
    """Wrong shapes are named together; a token that the channel's provider cannot have is refused by name."""
    android = (*INSTALL, "--channel", "android", "--token", "t")
    ended = shop(*android, "--user", " ", "--device-key", "", "--locale", "!", "--time-zone", "?")
    assert ended.code == ExitCode.REFUSED
    assert sorted(ended.paths) == ["device_key", "locale", "time_zone", "user"]
    ios = (*INSTALL, "--channel", "ios", "--user", "u1", "--device-key", "k")
    ended = shop(*ios, "--token", "not-hexadecimal")
    assert (ended.code, ended.paths) == (ExitCode.REFUSED, ["token"])
    assert "not-hexadecimal" not in ended.err
    assert devices_of(shop, "u1") == {}


def test_unknown_channel_is_not_found(shop: Terminal) -> None:
    """An install on a channel that is not there ends with 3 and names those that are."""
    ended = shop(*INSTALL, "--channel", "web", "--user", "u1", "--device-key", "k", "--token", "t")
    assert (ended.code, "android" in ended.error["message"]) == (ExitCode.NOT_FOUND, True)


def test_uninstall_takes_one_device_away(shop: Terminal) -> None:
    """The named device is retired, others are not; naming nothing is a usage error, nothing found a 3."""
    uninstall = ("device", "uninstall", "--app", "shop", "--json")
    shop.ok(*uninstall, "--user", "u7", "--device-key", "phone")
    assert devices_of(shop, "u7") == {"tablet": "active"}
    assert devices_of(shop, "u7", "--all") == {"phone": "retired", "tablet": "active"}
    assert shop(*uninstall, "--device-key", "phone").code == ExitCode.NOT_FOUND
    assert shop(*uninstall, "--user", "u7").code == ExitCode.USAGE
    assert shop(*uninstall, "--token", ANDROID_TOKEN, "--channel", "android").code == ExitCode.OK


def test_late_logout_spares_the_next_user(shop: Terminal) -> None:
    """An uninstall that names the user does nothing once the device is another's."""
    shop.ok(*INSTALL, "--device-key", "phone", "--channel", "ios", "--user", "u8", "--token", IOS_TOKEN)
    ended = shop("device", "uninstall", "--app", "shop", "--user", "u7", "--device-key", "phone")
    assert ended.code == ExitCode.NOT_FOUND
    assert devices_of(shop, "u8") == {"phone": "active"}


def test_token_is_shown_as_a_hash_alone(shop: Terminal) -> None:
    """No list, object or table holds a token."""
    shop.ok("device", "list", "--app", "shop", "--user", "u7")
    shop.ok("device", "list", "--app", "shop", "--user", "u7", "--json")
    assert token_hash(IOS_TOKEN) in shop.seen
    assert IOS_TOKEN not in shop.seen
    assert ANDROID_TOKEN not in shop.seen


def test_import_counts_and_names_what_cannot_be(shop: Terminal, tmp_path: Path) -> None:
    """Good rows are registered, bad ones are in a file with the reason, and the exit code tells."""
    file = tmp_path / "devices.csv"
    file.write_text(
        "user,device_key,channel,token\n"
        "u20,k20,android,imported-token-20\n"
        "u21,k21,ios,not-hexadecimal\n"
        "u22,k22,web,imported-token-22\n"
    )
    ended = shop("device", "import", file, "--app", "shop", "--json")
    done = ended.json
    counted = (ended.code, done["rows"], done["created"], done["rejected"])
    assert counted == (ExitCode.REFUSED, 3, 1, 2)
    rejected = Path(done["rejected_file"]).read_text().splitlines()
    assert [line.partition(":")[0] for line in rejected[1:]] == ['3,"token', '4,"channel']
    assert devices_of(shop, "u20") == {"k20": "active"}
    assert "imported-token-20" not in shop.seen


def test_clean_import_ends_well(shop: Terminal, tmp_path: Path) -> None:
    """JSON lines do as well as CSV; without a bad row the exit code is 0 and a summary is printed."""
    file = tmp_path / "devices.jsonl"
    file.write_text('{"user": "u20", "device_key": "k", "channel": "android", "token": "t20"}\n')
    assert "rows a second" in shop.ok("device", "import", file, "--app", "shop").out


def test_file_that_is_none_is_refused(shop: Terminal, tmp_path: Path) -> None:
    """A missing file is a usage error; a header without the columns names each that is missing."""
    assert shop("device", "import", tmp_path / "no.csv", "--app", "shop").code == ExitCode.USAGE
    (tmp_path / "bad.csv").write_text("user,key\n")
    ended = shop("device", "import", tmp_path / "bad.csv", "--app", "shop", "--json")
    assert ended.code == ExitCode.REFUSED
    assert "device_key" in str(ended.error["problems"])
