"""A terminal on a fresh database, credentials made for the tests, and a shop that uses them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import structlog
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from providers.simulators.launch import Running, launch
from tests.integration.cli.terminal import Terminal

IOS_TOKEN = "5f" * 32
ANDROID_TOKEN = "android-registration-token-of-the-tests"


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """Files as vendors issue them, and a line of each that must never be printed."""

    service_account: Path
    key: Path
    secret_lines: tuple[str, ...]


@pytest.fixture(scope="session")
def credentials(tmp_path_factory: pytest.TempPathFactory) -> Credentials:
    """Give a service account and a signing key that nobody else has."""
    directory = tmp_path_factory.mktemp("credentials")
    pem = _pem(rsa.generate_private_key(public_exponent=65537, key_size=2048))
    account = {"type": "service_account", "project_id": "shop", "private_key": pem}
    service_account, key = directory / "sa.json", directory / "AuthKey.p8"
    service_account.write_text(json.dumps({**account, "client_email": "push@shop.example.com"}))
    p8 = _pem(ec.generate_private_key(ec.SECP256R1()))
    key.write_text(p8)
    lines = (pem.splitlines()[3], p8.splitlines()[1])
    return Credentials(service_account=service_account, key=key, secret_lines=lines)


def _pem(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


@pytest.fixture(scope="session")
def jpush(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Give a JPush that answers."""
    with launch("jpush", tmp_path_factory.mktemp("jpush")) as simulator:
        yield simulator


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Give PUSHFAN_HOME, which does not exist yet."""
    return tmp_path / "home"


@pytest.fixture
def pushfan(database_url: str, home: Path) -> Iterator[Terminal]:
    """Give a terminal that has a database and no broker."""
    yield Terminal({"PUSHFAN_DATABASE_URL": database_url, "PUSHFAN_HOME": str(home)})
    structlog.reset_defaults()


@pytest.fixture
def shop(pushfan: Terminal, credentials: Credentials) -> Terminal:
    """Give the terminal with the app `shop`, its channels `ios` and `android`, and a device of u7 on each."""
    pushfan.ok("app", "add", "shop")
    add_ios(pushfan, credentials)
    account = ("--service-account", credentials.service_account)
    pushfan.ok("channel", "add", "android", "--app", "shop", "--provider", "fcm", *account)
    install = ("device", "install", "--app", "shop", "--user", "u7")
    pushfan.ok(
        *install, "--device-key", "phone", "--channel", "ios", "--token", IOS_TOKEN, "--locale", "de-AT"
    )
    pushfan.ok(*install, "--device-key", "tablet", "--channel", "android", "--token", ANDROID_TOKEN)
    return pushfan


def add_ios(pushfan: Terminal, credentials: Credentials) -> None:
    """Add the channel `ios`."""
    key = ("--key-file", credentials.key, "--key-id", "ABC123DEFG", "--team-id", "DEF123GHIJ")
    topic = ("--apns-topic", "com.example.shop")
    pushfan.ok("channel", "add", "ios", "--app", "shop", "--provider", "apns", *key, *topic)
