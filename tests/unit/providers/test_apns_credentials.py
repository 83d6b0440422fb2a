"""The JWT of a key: one for all processes and forty minutes, and out of turn only when Apple demands it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from events import DirectPush, Message
from providers.apns import ApnsProvider
from providers.apns_credentials import ProviderJwts, read_signing_key
from providers.engine import Response
from providers.outcome import ChannelConfig, Content, CredentialsRejected, Push

NOON = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)  # the turn of a window is at 12:02
PRIVATE_KEY = ec.generate_private_key(ec.SECP256R1())


def pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, password: bytes | None = None) -> bytes:
    """A key as Apple's `.p8` files hold it."""
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if password:
        encryption = serialization.BestAvailableEncryption(password)
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)


KEY = pem(PRIVATE_KEY)


def channel(settings: Mapping[str, str] | None = None, **secrets: bytes) -> ChannelConfig:
    """A channel with these secrets."""
    complete = {"key_id": "ABC123DEFG", "team_id": "DEF123GHIJ", "apns_topic": "com.example.shop"}
    return ChannelConfig(provider="apns", settings=complete | dict(settings or {}), secrets=secrets)


def certificate(end: datetime, of: ec.EllipticCurvePrivateKey = PRIVATE_KEY) -> bytes:
    """A certificate that is good until an instant."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Apple Push Services: com.example.shop")])
    builder = x509.CertificateBuilder(issuer_name=name, subject_name=name, public_key=of.public_key())
    builder = builder.serial_number(1).not_valid_before(end - timedelta(days=365)).not_valid_after(end)
    return builder.sign(PRIVATE_KEY, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


class Clock:
    """A clock that a test sets."""

    def __init__(self, at: datetime = NOON) -> None:
        self.at = at

    def __call__(self) -> datetime:
        return self.at


def jwts(clock: Callable[[], datetime]) -> ProviderJwts:
    """What one process has."""
    return ProviderJwts(read_signing_key(KEY, team_id="DEF123GHIJ", key_id="ABC123DEFG"), now=clock)


def issued_at(lines: tuple[str, ...]) -> datetime:
    """The `iat` of a JWT whose signature and names are good."""
    (line,) = lines
    name, kind, text = line.split(" ")
    assert (name, kind) == ("authorization:", "bearer")
    claims = jwt.decode(text, PRIVATE_KEY.public_key(), algorithms=["ES256"], options={"verify_iat": False})
    assert claims.keys() == {"iss", "iat"}
    assert claims["iss"] == "DEF123GHIJ"
    assert jwt.get_unverified_header(text) == {"alg": "ES256", "kid": "ABC123DEFG"}
    return datetime.fromtimestamp(claims["iat"], UTC)


def test_the_jwt_is_signed_by_the_key_and_names_team_and_key() -> None:
    """As Apple's page asks; verified by another library than the one that signs."""
    assert issued_at(jwts(Clock()).authorize()) == datetime(2026, 11, 23, 11, 20, tzinfo=UTC)


def test_processes_make_the_same_jwt_without_talking() -> None:
    """Started at different times of the same window, they send the same text."""
    times = [NOON + timedelta(minutes=2, seconds=seconds) for seconds in (0, 1, 1200, 2399)]
    assert len({jwts(Clock(time)).authorize() for time in times}) == 1


def test_the_jwt_is_the_same_object_until_it_changes() -> None:
    """Joining header lines is skipped for the same object."""
    clock = Clock(NOON + timedelta(minutes=2))
    process = jwts(clock)
    first = process.authorize()
    clock.at += timedelta(minutes=39, seconds=59)
    assert process.authorize() is first
    clock.at += timedelta(seconds=1)
    assert process.authorize() != first


@given(st.integers(0, 10_000_000), st.lists(st.integers(1, 1800), min_size=1, max_size=60))
def test_every_jwt_in_use_is_younger_than_an_hour(start: int, steps: list[int]) -> None:
    """Apple takes it for an hour; the next one is of forty minutes later, when twenty is the least."""
    clock = Clock(NOON + timedelta(seconds=start))
    process = jwts(clock)
    changes: list[datetime] = []
    last = process.authorize()
    for step in steps:
        clock.at += timedelta(seconds=step)
        lines = process.authorize()
        age = clock.at - issued_at(lines)
        assert timedelta(minutes=2) <= age < timedelta(minutes=42)
        if lines != last:
            changes.append(issued_at(lines))
            last = lines
    assert all(b - a >= timedelta(minutes=40) for a, b in pairwise(changes))


def test_a_jwt_that_apple_called_expired_is_replaced_by_one_of_this_moment() -> None:
    """Our clock is slow then, and the window's JWT older than we believe."""
    clock = Clock(NOON)
    process = jwts(clock)
    process.authorize()
    process.renew()
    assert issued_at(process.authorize()) == NOON


def test_no_second_jwt_is_made_out_of_turn_within_twenty_minutes() -> None:
    """However often Apple says "expired": a faster change would be refused for its haste."""
    clock = Clock(NOON)
    process = jwts(clock)
    process.authorize()
    process.renew()
    renewed = process.authorize()
    for minutes in (1, 5, 19):
        clock.at = NOON + timedelta(minutes=minutes)
        process.renew()
        assert process.authorize() is renewed
    clock.at = NOON + timedelta(minutes=20)
    process.renew()
    assert issued_at(process.authorize()) == NOON + timedelta(minutes=20)


def test_the_turn_of_the_window_waits_for_a_jwt_made_out_of_turn() -> None:
    """12:02 is the turn; the JWT of 12:01 stays until 12:21, and then all processes agree again."""
    clock = Clock(NOON + timedelta(minutes=1))
    process = jwts(clock)
    process.authorize()
    process.renew()
    for minutes in (2, 20):
        clock.at = NOON + timedelta(minutes=minutes)
        assert issued_at(process.authorize()) == NOON + timedelta(minutes=1)
    clock.at = NOON + timedelta(minutes=21)
    assert process.authorize() == jwts(clock).authorize()


def test_a_hasty_change_keeps_the_present_jwt_for_twenty_minutes() -> None:
    """What APNs calls TooManyProviderTokenUpdates stops the turn of the window, too."""
    clock = Clock(NOON)
    provider = ApnsProvider(channel(key=KEY), now=clock)
    present = provider.authorize()
    refusal = Response(status=429, body=b'{"reason":"TooManyProviderTokenUpdates"}')
    event = DirectPush(app="shop", users=("u7",), message=Message(title="-"))
    content = Content(notification_id=7, event=event, expires_at=NOON + timedelta(hours=1))
    push = Push(position=0, token="ab" * 32, content=content, delivery_id="-")
    (batch,) = provider.prepare([push]).batches
    provider.classify(batch, refusal)
    clock.at = NOON + timedelta(minutes=19)
    provider.reauthorize()
    assert provider.authorize() is present
    clock.at = NOON + timedelta(minutes=20)
    assert provider.authorize() != present


def test_a_clock_that_was_set_back_does_not_keep_the_future_jwt() -> None:
    """A JWT from the future is refused, so the right one is made at once."""
    clock = Clock(NOON + timedelta(hours=5))
    process = jwts(clock)
    process.authorize()
    process.renew()
    clock.at = NOON
    assert issued_at(process.authorize()) == datetime(2026, 11, 23, 11, 20, tzinfo=UTC)


NEXT_YEAR = NOON + timedelta(days=365)
UNUSABLE: dict[str, tuple[ChannelConfig, str]] = {
    "no secret": (channel(), "apns: give either a key or a certificate"),
    "two secrets": (
        channel(key=KEY, certificate=certificate(NEXT_YEAR) + KEY),
        "apns: give either a key or a certificate",
    ),
    "a key that is none": (channel(key=b"-"), "apns: key is not an unencrypted PEM key (AuthKey_….p8)"),
    "a key with a password": (
        channel(key=pem(PRIVATE_KEY, b"secret")),
        "apns: key is not an unencrypted PEM key (AuthKey_….p8)",
    ),
    "an RSA key": (
        channel(key=pem(rsa.generate_private_key(65537, 2048))),
        "apns: key is not an elliptic curve key on P-256",
    ),
    "a key on another curve": (
        channel(key=pem(ec.generate_private_key(ec.SECP384R1()))),
        "apns: key is not an elliptic curve key on P-256",
    ),
    "no key id": (
        channel({"key_id": ""}, key=KEY),
        "apns: key_id must be the ten letters and digits that Apple shows",
    ),
    "a team id that breaks out": (
        channel({"team_id": 'X","iat":1'}, key=KEY),
        "apns: team_id must be the ten letters and digits that Apple shows",
    ),
    "no topic": (
        channel({"apns_topic": ""}, key=KEY),
        "apns: apns_topic must be the app's bundle id, such as com.example.shop",
    ),
    "a topic that breaks out": (
        channel({"apns_topic": "com.example.shop\r\nx: y"}, key=KEY),
        "apns: apns_topic must be the app's bundle id, such as com.example.shop",
    ),
    "a certificate that is none": (channel(certificate=b"-"), "apns: certificate is not a PEM certificate"),
    "a certificate without its key": (
        channel(certificate=certificate(NEXT_YEAR)),
        "apns: certificate comes without its unencrypted private key",
    ),
    "a certificate with another key": (
        channel(certificate=certificate(NEXT_YEAR) + pem(ec.generate_private_key(ec.SECP256R1()))),
        "apns: the private key is not the certificate's",
    ),
    "a certificate that has expired": (
        channel(certificate=certificate(NOON - timedelta(days=1)) + KEY),
        "apns: the certificate expired on 2026-11-22",
    ),
}


@pytest.mark.parametrize("case", UNUSABLE)
def test_unusable_credentials_are_refused_with_what_is_wrong(case: str) -> None:
    """Before anything is sent, and without quoting the secret."""
    config, reason = UNUSABLE[case]
    with pytest.raises(CredentialsRejected) as caught:
        ApnsProvider(config, now=Clock())
    assert caught.value.reason == reason


def test_with_a_certificate_there_are_no_authorization_lines() -> None:
    """The connection itself authenticates."""
    provider = ApnsProvider(channel(certificate=certificate(NEXT_YEAR) + KEY), now=Clock())
    assert provider.authorize() == ()
    provider.reauthorize()
    assert provider.authorize() == ()


@pytest.mark.parametrize(
    "change", [{"environment": "staging"}, {"endpoint": "http://apns.example.com"}, {"endpoint": "ftp://x"}]
)
def test_an_environment_or_endpoint_that_cannot_be_is_refused(change: dict[str, str]) -> None:
    """A typing error must not become an address."""
    with pytest.raises(ValueError, match=r"environment|https"):
        ApnsProvider(replace(channel(key=KEY), **change), now=Clock())  # type: ignore[arg-type]  # all are strings


def test_no_secret_is_shown() -> None:
    """Neither by the channel nor by the key."""
    key = read_signing_key(KEY, team_id="DEF123GHIJ", key_id="ABC123DEFG")
    assert "PRIVATE" not in repr(channel(key=KEY)) + repr(key)
    assert "private" not in repr(key)
