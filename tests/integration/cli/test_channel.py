from __future__ import annotations

import stat
from pathlib import Path

import psycopg
import pytest

from gateway.cli.errors import ExitCode
from providers.simulators.launch import Running
from tests.integration.cli.conftest import Credentials, add_ios
from tests.integration.cli.terminal import Ended, Terminal

JPUSH_SECRETS = ("--app-key", "env:PUSHFAN_SECRET_KEY", "--master-secret", "env:PUSHFAN_SECRET_JPUSH")


@pytest.fixture
def app(pushfan: Terminal) -> Terminal:
    """Give a terminal with the app `shop`."""
    pushfan.ok("app", "add", "shop")
    return pushfan


@pytest.fixture
def china(app: Terminal, jpush: Running) -> Terminal:
    """Give a terminal with a channel to JPush's simulator."""
    app.environ["PUSHFAN_SECRET_KEY"] = jpush.info["app_key"]
    app.environ["PUSHFAN_SECRET_JPUSH"] = jpush.info["master_secret"]
    way = ("--endpoint", jpush.url, "--report-endpoint", jpush.url, "--ca-file", jpush.info["ca_file"])
    app.ok("channel", "add", "china", "--app", "shop", "--provider", "jpush", *JPUSH_SECRETS, *way)
    return app


def refused(ended: Ended) -> list[str]:
    """Return the paths of the problems of a refusal."""
    assert ended.code == ExitCode.REFUSED
    return ended.paths


def test_key_is_copied_where_only_its_owner_reads_it(
    app: Terminal, credentials: Credentials, home: Path
) -> None:
    """A credential given as a path ends up in the credentials directory, private, under a name of its channel."""
    add_ios(app, credentials)
    copy = home / "credentials" / "shop-ios-key.p8"
    assert copy.read_bytes() == credentials.key.read_bytes()
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    (channel,) = app.ok("channel", "list", "--json").lines
    assert channel["secrets"] == {"key": "file:shop-ios-key.p8"}
    assert channel["settings"] == {
        "key_id": "ABC123DEFG",
        "team_id": "DEF123GHIJ",
        "apns_topic": "com.example.shop",
    }


def test_file_inside_the_directory_is_referred_to_where_it_is(
    app: Terminal, credentials: Credentials, home: Path
) -> None:
    """A credential that lies in the credentials directory already is not copied."""
    directory = home / "credentials"
    directory.mkdir(parents=True)
    (directory / "mine.json").write_bytes(credentials.service_account.read_bytes())
    for name, given in (("one", directory / "mine.json"), ("two", "file:mine.json")):
        add = ("channel", "add", name, "--app", "shop", "--provider", "fcm", "--service-account", given)
        assert app.ok(*add, "--json").json["secrets"] == {"service_account": "file:mine.json"}
    assert [path.name for path in directory.iterdir()] == ["mine.json"]


def test_channels_with_alike_names_do_not_share_a_file(
    app: Terminal, credentials: Credentials, home: Path, tmp_path: Path
) -> None:
    """Channel b-c of app a and channel c of app a-b would have one file name: the second gets another."""
    other = tmp_path / "other.json"
    other.write_text(credentials.service_account.read_text().replace("shop", "bank"))
    for add in (("app", "add", "a"), ("app", "add", "a-b")):
        app.ok(*add)
    fcm = ("--provider", "fcm", "--json", "--service-account")
    first = app.ok("channel", "add", "b-c", "--app", "a", *fcm, credentials.service_account).json
    second = app.ok("channel", "add", "c", "--app", "a-b", *fcm, other).json
    files = [home / "credentials" / found["secrets"]["service_account"][5:] for found in (first, second)]
    assert [path.read_bytes() for path in files] == [
        credentials.service_account.read_bytes(),
        other.read_bytes(),
    ]


def test_everything_that_is_wrong_is_named_at_once(app: Terminal, tmp_path: Path) -> None:
    """Name, missing and needless options, addresses and files are all checked before anything is refused."""
    add = ("channel", "add", "x y", "--app", "shop", "--provider", "apns", "--key-file", tmp_path / "no.p8")
    way = ("--endpoint", "https://evil.example.com", "--ca-file", tmp_path / "no.pem")
    ended = app(*add, *way, "--key-id", "K", "--service-account", tmp_path / "no.json", "--json")
    assert sorted(refused(ended)) == [
        "--apns-topic",
        "--ca-file",
        "--endpoint",
        "--key-file",
        "--service-account",
        "--service-account",
        "--team-id",
        "NAME",
    ]
    assert app.ok("channel", "list", "--json").lines == []


@pytest.mark.parametrize(
    ("provider", "options", "problems"),
    [
        ("fcm", (), ["--service-account"]),
        ("jpush", (), ["--app-key", "--master-secret"]),
        ("apns", (), ["--apns-topic", "--certificate"]),
        ("apns", ("--key-file", "SA", "--certificate", "SA", "--apns-topic", "x"), ["--key-file"]),
        ("fcm", ("--service-account", "SA", "--report-endpoint", "https://localhost"), ["--report-endpoint"]),
        ("fcm", ("--service-account", "SA", "--endpoint", "http://elsewhere.example"), ["--endpoint"]),
        ("fcm", ("--service-account", "env:HOME"), ["--service-account"]),
        ("fcm", ("--service-account", "file:../../etc/passwd"), ["--service-account"]),
    ],
)
def test_provider_gets_what_it_needs_and_nothing_else(
    app: Terminal, credentials: Credentials, provider: str, options: tuple[str, ...], problems: list[str]
) -> None:
    """Each provider's table of needs is kept; the error names the option."""
    given = [str(credentials.service_account) if option == "SA" else option for option in options]
    ended = app("channel", "add", "x", "--app", "shop", "--provider", provider, *given, "--json")
    assert refused(ended) == problems


def test_broken_credential_is_refused_and_leaves_nothing(
    app: Terminal, credentials: Credentials, home: Path, tmp_path: Path
) -> None:
    """A key that is none is refused while somebody looks: no channel, no copy."""
    broken = tmp_path / "broken.p8"
    broken.write_text("-----BEGIN PRIVATE KEY-----\nnot a key\n-----END PRIVATE KEY-----\n")
    apns = ("--provider", "apns", "--key-id", "K", "--team-id", "T", "--apns-topic", "com.example.shop")
    ended = app("channel", "add", "ios", "--app", "shop", *apns, "--key-file", broken)
    assert (ended.code, "key is not" in ended.err) == (ExitCode.REFUSED, True)
    assert not list(home.glob("credentials/*"))
    assert app.ok("channel", "list", "--json").lines == []


def test_secret_typed_by_mistake_is_not_repeated(app: Terminal) -> None:
    """A master secret on the command line is refused without printing it."""
    add = ("channel", "add", "china", "--app", "shop", "--provider", "jpush")
    ended = app(*add, "--app-key", "hunter2", "--master-secret", "hunter2" * 60, "--json")
    assert refused(ended) == ["--app-key", "--master-secret"]
    assert "hunter2" not in app.seen


def test_taken_name_keeps_its_credential(app: Terminal, credentials: Credentials, tmp_path: Path) -> None:
    """Adding a channel whose name is taken changes neither the channel nor its file."""
    fcm = ("channel", "add", "android", "--app", "shop", "--provider", "fcm", "--service-account")
    app.ok(*fcm, credentials.service_account)
    other = tmp_path / "sa.json"
    other.write_text(credentials.service_account.read_text().replace("shop", "bank"))
    ended = app(*fcm, other, "--json")
    assert (ended.code, ended.error["code"]) == (ExitCode.REFUSED, "already_exists")
    (channel,) = app.ok("channel", "list", "--json").lines
    reference = channel["secrets"]["service_account"].removeprefix("file:")
    kept = Path(str(app.environ["PUSHFAN_HOME"])) / "credentials" / reference
    assert kept.read_bytes() == credentials.service_account.read_bytes()


def test_unknown_app_and_channel_are_not_found(app: Terminal, credentials: Credentials) -> None:
    """What is named and not there ends with 3 and tells what there is."""
    add = ("channel", "add", "x", "--app", "bank", "--provider", "fcm", "--json")
    ended = app(*add, "--service-account", credentials.service_account)
    assert (ended.code, "shop" in ended.error["message"]) == (ExitCode.NOT_FOUND, True)
    for command in ("open", "close", "probe", "check", "remove"):
        ended = app("channel", command, "x", "--app", "shop", "--json")
        assert (ended.code, ended.error["code"]) == (ExitCode.NOT_FOUND, "not_found")


def test_rotated_key_gets_a_file_of_its_own(
    app: Terminal, credentials: Credentials, home: Path, tmp_path: Path
) -> None:
    """`set` changes what is named and keeps the rest; the old file stays, so that nothing is half rotated."""
    add_ios(app, credentials)
    new = tmp_path / "new.p8"
    new.write_bytes(credentials.key.read_bytes() + b"\n")
    changed = app.ok("channel", "set", "ios", "--key-file", new, "--key-id", "NEWKEY1234", "--json").json
    reference = changed["secrets"]["key"].removeprefix("file:")
    assert reference != "shop-ios-key.p8"
    assert (home / "credentials" / reference).read_bytes() == new.read_bytes()
    assert (home / "credentials" / "shop-ios-key.p8").read_bytes() == credentials.key.read_bytes()
    assert changed["settings"]["key_id"] == "NEWKEY1234"
    assert changed["settings"]["team_id"] == "DEF123GHIJ"


def test_changing_one_setting_keeps_the_way_to_authenticate(app: Terminal, credentials: Credentials) -> None:
    """A new topic for a channel with a key does not ask for a certificate."""
    add_ios(app, credentials)
    changed = app.ok("channel", "set", "ios", "--apns-topic", "com.example.other", "--json").json
    assert changed["secrets"] == {"key": "file:shop-ios-key.p8"}
    assert changed["settings"]["apns_topic"] == "com.example.other"


def test_refused_rotation_changes_nothing(app: Terminal, credentials: Credentials, tmp_path: Path) -> None:
    """A new key that cannot be used leaves channel and file as they were."""
    add_ios(app, credentials)
    (before,) = app.ok("channel", "list", "--json").lines
    (tmp_path / "bad.p8").write_text("nonsense")
    assert app("channel", "set", "ios", "--key-file", tmp_path / "bad.p8").code == ExitCode.REFUSED
    assert app("channel", "set", "ios").code == ExitCode.USAGE
    assert app.ok("channel", "list", "--json").lines == [before]


def test_address_is_set_and_given_back(app: Terminal, credentials: Credentials) -> None:
    """An endpoint that the operator listed is taken; an empty one returns to the provider's own."""
    add_ios(app, credentials)
    address = ("channel", "set", "ios", "--json", "--endpoint")
    allowed = {"PUSHFAN_ALLOWED_HOSTS": "proxy.example.com"}
    set_to = app.ok(*address, "https://proxy.example.com", **allowed).json["endpoint"]
    assert (set_to, app.ok(*address, "").json["endpoint"]) == ("https://proxy.example.com", None)


def test_check_asks_the_provider(china: Terminal, jpush: Running) -> None:
    """`check` ends with 0 when the provider takes the credentials, with 1 and the reason when it does not."""
    (row,) = china.ok("channel", "check", "--json").lines
    assert (row["app"], row["channel"], row["status"]) == ("shop", "china", "ok")
    ended = china("channel", "check", "china", "--json", PUSHFAN_SECRET_JPUSH="wrong")
    assert (ended.code, ended.json["status"]) == (ExitCode.REFUSED, "refused")
    ended = china("channel", "check", "--json", PUSHFAN_SECRET_JPUSH=None)
    assert ended.code == ExitCode.REFUSED
    assert "PUSHFAN_SECRET_JPUSH is not set" in ended.json["reason"]
    assert jpush.info["master_secret"] not in china.seen


def test_check_tells_away_from_refused(china: Terminal) -> None:
    """A provider that cannot be reached says nothing about the credentials."""
    china.ok("channel", "set", "china", "--endpoint", "https://127.0.0.1:1")
    ended = china("channel", "check", "china", "--json")
    assert (ended.code, ended.json["status"]) == (ExitCode.REFUSED, "unreachable")


def test_circuit_is_opened_probed_and_closed(shop: Terminal) -> None:
    """By its name alone where that is unique; it says why, and what is already so is a warning."""
    opened = shop.ok("channel", "open", "ios", "--reason", "new key", "--json").json
    told = (opened["circuit"], opened["circuit_reason"], opened["circuit_detail"])
    assert told == ("open", "operator", "new key")
    assert shop.ok("channel", "probe", "ios", "--json").json["circuit"] == "probing"
    assert "is not open" in shop.ok("channel", "probe", "ios").err
    closed = shop.ok("channel", "close", "ios", "--json").json
    assert (closed["circuit"], closed["circuit_reason"]) == ("closed", None)
    assert closed["ramping_since"] is not None
    assert "was closed already" in shop.ok("channel", "close", "ios").err


def test_list_tells_a_circuit_and_what_to_do(shop: Terminal, connection: psycopg.Connection) -> None:
    """Why it is open, for how long, when it is probed; details and advice go to standard error."""
    connection.execute(
        "UPDATE pushfan.channel SET circuit = 'open', circuit_reason = 'outage', circuit_detail = '503 all over', "
        "circuit_changed_at = now() - interval '5 minutes', probe_at = now() + interval '1 hour', failed_probes = 3 "
        "WHERE name = 'ios'"
    )
    ended = shop.ok("channel", "list")
    (line,) = (line for line in ended.out.splitlines() if "ios" in line)
    assert "open: outage, for 5 min, probed in 60 min after 3 failed probes" in line
    assert "503 all over" in ended.err
    assert "pushfan channel probe ios --app shop" in ended.err
    (channel,) = (row for row in shop.ok("channel", "list", "--json").lines if row["channel"] == "ios")
    assert (channel["failed_probes"], channel["circuit_reason"]) == (3, "outage")


def test_name_in_two_apps_needs_the_app(shop: Terminal, credentials: Credentials) -> None:
    """A channel's name that two apps have must be told apart."""
    shop.ok("app", "add", "bank")
    account = ("--service-account", credentials.service_account)
    shop.ok("channel", "add", "android", "--app", "bank", "--provider", "fcm", *account)
    assert shop("channel", "open", "android").code == ExitCode.USAGE
    assert shop.ok("channel", "open", "android", "--app", "bank", "--json").json["app"] == "bank"


def test_remove_asks_and_says_how_many_devices_went(shop: Terminal) -> None:
    """Without a yes nothing is removed; with it channel and devices are gone."""
    remove = ("channel", "remove", "android", "--app", "shop", "--json")
    assert shop(*remove, stdin="n\n").code == ExitCode.REFUSED
    assert shop.ok(*remove, "--yes").json["devices_removed"] == 1
    assert [channel["channel"] for channel in shop.ok("channel", "list", "--json").lines] == ["ios"]


def test_no_secret_is_ever_printed(shop: Terminal, credentials: Credentials) -> None:
    """Lists, tables and errors hold references, never what they refer to."""
    shop.ok("channel", "list")
    shop.ok("channel", "list", "--json")
    shop("channel", "set", "ios", "--key-file", credentials.service_account)
    assert not [line for line in credentials.secret_lines if line in shop.seen]
