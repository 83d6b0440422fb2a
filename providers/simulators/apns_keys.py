"""Provider tokens of APNs: ES256, at most an hour old, one key to a connection, not renewed too often.

https://developer.apple.com/documentation/usernotifications/establishing-a-token-based-connection-to-apns
"""

from __future__ import annotations

import secrets
import string
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jwt

from .authority import read_json, write_json, write_private
from .clock import Clock
from .exchange import Connection
from .signing import claims_of, new_ec_key

TOKEN_LIFE_SECONDS = 3600.0
TOKEN_UPDATE_SECONDS = 1200.0
# How far a client's clock may run ahead.
_SKEW_SECONDS = 60
_MAX_REMEMBERED = 1000
_ALPHABET = string.ascii_uppercase + string.digits


@dataclass(frozen=True, slots=True)
class _Signed:
    """A provider token whose signature is good; its age is looked at for each push."""

    key_id: str
    issued_at: float


class KeyRing:
    """The team's signing keys, kept in the state directory, and what they signed.

    One key is for both environments, as older keys of Apple are, the other for the sandbox alone. A token's
    signature is verified once and remembered by the token's text.
    """

    def __init__(self, state_dir: Path, clock: Clock) -> None:
        self.key_file = state_dir / "apns.key.p8"
        self.sandbox_key_file = state_dir / "apns.sandbox_key.p8"
        self.life_seconds = TOKEN_LIFE_SECONDS
        self.update_seconds = TOKEN_UPDATE_SECONDS
        self._clock = clock
        self._state_file = state_dir / "apns.credentials.json"
        self._state = read_json(self._state_file) or {"team_id": _new_id(), **_new_keys()}
        self._signed: dict[str, _Signed | None] = {}
        self._expired: set[str] = set()
        self._write()

    @property
    def team_id(self) -> str:
        """The team that the tokens must name as issuer."""
        return str(self._state["team_id"])

    @property
    def key_id(self) -> str:
        """The id of the key for both environments."""
        return str(self._state["key_id"])

    @property
    def sandbox_key_id(self) -> str:
        """The id of the key that only the sandbox takes."""
        return str(self._state["sandbox_key_id"])

    def check(self, authorization: str, connection: Connection) -> str | None:
        """Bind the connection to the key that signed this header, or return the reason to refuse."""
        signed = self._look_up(authorization)
        if signed is None:
            return "InvalidProviderToken"
        now = self._clock.now()
        if now - signed.issued_at > self.life_seconds or authorization in self._expired:
            return "ExpiredProviderToken"
        if signed.issued_at > now + _SKEW_SECONDS:
            return "InvalidProviderToken"
        if connection.credential == authorization:
            return None
        return self._bind(connection, authorization, signed, now)

    def expire(self) -> None:
        """Call all provider tokens expired that were seen so far, whatever their age."""
        self._expired.update(self._signed)

    def rotate(self) -> None:
        """Replace both keys and revoke the old ones; the key files change in place."""
        self._state |= _new_keys()
        self._signed.clear()
        self._write()

    def _bind(self, connection: Connection, authorization: str, signed: _Signed, now: float) -> str | None:
        if signed.key_id == self.sandbox_key_id and not connection.is_sandbox:
            return "BadEnvironmentKeyIdInToken"
        if connection.credential is not None:
            if connection.key_id != signed.key_id:
                return "UnrelatedKeyIdInToken"
            # The token that a connection begins with is no update: it may open just before a renewal.
            if connection.updated_at is not None and now - connection.updated_at < self.update_seconds:
                return "TooManyProviderTokenUpdates"
            connection.updated_at = now
        connection.key_id = signed.key_id
        connection.credential = authorization
        return None

    def _look_up(self, authorization: str) -> _Signed | None:
        if authorization not in self._signed:
            if len(self._signed) >= _MAX_REMEMBERED:
                self._signed.clear()
            self._signed[authorization] = self._verify(authorization)
        return self._signed[authorization]

    def _verify(self, authorization: str) -> _Signed | None:
        kind, _, token = authorization.partition(" ")
        if kind.lower() != "bearer":
            return None
        try:
            key_id = str(jwt.get_unverified_header(token).get("kid"))
            keys = {self.key_id: self._state["key"], self.sandbox_key_id: self._state["sandbox_key"]}
            if key_id not in keys:
                return None
            claims = claims_of(token, keys[key_id], "ES256")
        except jwt.PyJWTError:
            return None
        issued_at = claims.get("iat")
        if claims.get("iss") != self.team_id or not isinstance(issued_at, int | float):
            return None
        return _Signed(key_id, issued_at)

    def _write(self) -> None:
        write_json(self._state_file, self._state)
        write_private(self.key_file, self._state["key"].encode())
        write_private(self.sandbox_key_file, self._state["sandbox_key"].encode())


def _new_keys() -> dict[str, Any]:
    return {
        "key_id": _new_id(),
        "key": new_ec_key(),
        "sandbox_key_id": _new_id(),
        "sandbox_key": new_ec_key(),
    }


def _new_id() -> str:
    """Return ten characters, as Apple's key and team ids have."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(10))
