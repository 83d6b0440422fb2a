"""What authenticates to APNs: the JWT of a team's key, or a client certificate.

A JWT is good for an hour after its `iat`, and Apple takes a new one on a connection at most every 20 minutes
(https://developer.apple.com/documentation/usernotifications/establishing-a-token-based-connection-to-apns):

1. `iat` is the start of a fixed window of 40 minutes, so all processes use the same one and ask nobody.
2. The signature is the deterministic one of RFC 6979 where OpenSSL offers it: then the texts are equal, too.
3. Beside the turn of the window there is one way to a new JWT: Apple called the present one expired, so our
   clock is slow. Then `iat` is now, and no other JWT is made for 20 minutes, turn of the window or not.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from providers.dialect import json_bytes
from providers.outcome import CredentialsRejected

WINDOW = timedelta(minutes=40)
# A clock that is fast by less makes no JWT "from the future". The oldest JWT in use is 42 minutes old, so a
# clock may be slow by 18 minutes before Apple calls one expired.
FAST_CLOCK = timedelta(minutes=2)
LEAST_INTERVAL = timedelta(minutes=20)
COORDINATE_BYTES = 32  # of P-256: https://www.rfc-editor.org/rfc/rfc7518#section-3.4


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningKey:
    """A team's key for APNs, as Apple's developer account issues it."""

    team_id: str
    key_id: str
    private_key: ec.EllipticCurvePrivateKey = field(repr=False)


def read_signing_key(pem: bytes, *, team_id: str, key_id: str) -> SigningKey:
    """Parse a `.p8` file. Raises `CredentialsRejected` naming what is wrong."""
    for name, value in (("team_id", team_id), ("key_id", key_id)):
        if not (value.isascii() and value.isalnum()):
            raise CredentialsRejected(f"apns: {name} must be the ten letters and digits that Apple shows")
    key = _read_private_key(pem, "apns: key is not an unencrypted PEM key (AuthKey_….p8)")
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise CredentialsRejected("apns: key is not an elliptic curve key on P-256")
    return SigningKey(team_id=team_id, key_id=key_id, private_key=key)


def check_certificate(pem: bytes, now: datetime) -> None:
    """Raise `CredentialsRejected` unless the PEM holds a certificate that has not expired, and its key."""
    try:
        certificate = x509.load_pem_x509_certificate(pem)
    except ValueError as error:
        raise CredentialsRejected("apns: certificate is not a PEM certificate") from error
    key = _read_private_key(pem, "apns: certificate comes without its unencrypted private key")
    if key.public_key() != certificate.public_key():
        raise CredentialsRejected("apns: the private key is not the certificate's")
    end = certificate.not_valid_after_utc
    if end < now:
        raise CredentialsRejected(f"apns: the certificate expired on {end:%Y-%m-%d}")


def _read_private_key(pem: bytes, complaint: str) -> PrivateKeyTypes:
    try:
        return load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:  # the error's text may quote the key
        raise CredentialsRejected(complaint) from error


def window_start(now: datetime) -> datetime:
    """Return the `iat` that every process uses now."""
    seconds = int(WINDOW.total_seconds())
    return datetime.fromtimestamp((now - FAST_CLOCK).timestamp() // seconds * seconds, UTC)


def sign(key: SigningKey, issued_at: datetime) -> str:
    """Return the JWT of a key for an instant."""
    header = _encoded(json_bytes({"alg": "ES256", "kid": key.key_id}))
    claims = _encoded(json_bytes({"iss": key.team_id, "iat": int(issued_at.timestamp())}))
    text = f"{header}.{claims}"
    r, s = decode_dss_signature(_signature(key.private_key, text.encode()))
    return f"{text}.{_encoded(r.to_bytes(COORDINATE_BYTES) + s.to_bytes(COORDINATE_BYTES))}"


def _signature(key: ec.EllipticCurvePrivateKey, text: bytes) -> bytes:
    try:
        return key.sign(text, ec.ECDSA(hashes.SHA256(), deterministic_signing=True))
    except UnsupportedAlgorithm:  # OpenSSL before 3.2; `iat` is the same all the same
        return key.sign(text, ec.ECDSA(hashes.SHA256()))


def _encoded(part: bytes) -> str:
    return base64.urlsafe_b64encode(part).rstrip(b"=").decode()


class ProviderJwts:
    """The present JWT of one key in one process. Used by one thread."""

    def __init__(self, key: SigningKey, *, now: Callable[[], datetime]) -> None:
        self._key = key
        self._now = now
        self._window: datetime | None = None
        self._lines: tuple[str, ...] = ()
        self._rests_since: datetime | None = None

    def authorize(self) -> tuple[str, ...]:
        """Return the authorization lines, the same object until the JWT changes."""
        now = self._now()
        if not self._is_current(now) and not (self._lines and self._is_resting(now)):
            window = window_start(now)
            self._change(window, issued_at=window)
        return self._lines

    def renew(self) -> None:
        """Make a JWT of this very moment, unless they must not change now."""
        now = self._now()
        if not self._is_resting(now):
            self._rests_since = now
            self._change(window_start(now), issued_at=now)

    def keep(self) -> None:
        """Make no other JWT for 20 minutes: Apple finds that they change too often."""
        self._rests_since = self._now()

    def _change(self, window: datetime, *, issued_at: datetime) -> None:
        self._window = window
        self._lines = (f"authorization: bearer {sign(self._key, issued_at)}",)

    def _is_current(self, now: datetime) -> bool:
        return self._window is not None and self._window <= now - FAST_CLOCK < self._window + WINDOW

    def _is_resting(self, now: datetime) -> bool:
        # A clock that was set back must not make the rest longer: hence the absolute value.
        return self._rests_since is not None and abs(now - self._rests_since) < LEAST_INTERVAL
