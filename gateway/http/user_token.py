"""User tokens: what a backend gives a mobile app, so that it registers its own user's devices and nothing else.

A token is a JWT signed with HMAC-SHA-256: only Pushfan mints and reads them, so a signature that others could verify
would be no gain, and no key pair is to be distributed. The key of each app is derived from one secret, which is a
credential like any other (`file:` or `env:`) and never in the database: who can read the database cannot mint tokens,
and one app's key says nothing about another's. A file may hold several lines: the first signs, all are believed, so
that rotation needs no restart and no moment without valid tokens.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import jwt

from registry.apps import App
from workers.credentials import CredentialError, CredentialStore

from .problem import Problem

LONGEST: Final = timedelta(days=1)
USUAL: Final = timedelta(hours=1)
_ALGORITHM: Final = "HS256"
_AUDIENCE: Final = "pushfan"
_SHORTEST_SECRET: Final = 32
_LONGEST_TOKEN: Final = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class UserToken:
    """What a valid token says: this user of this app."""

    app: str
    app_id: int
    user: str
    expires_at: datetime


class UserTokens:
    """Mints and reads user tokens. Safe for threads."""

    def __init__(self, store: CredentialStore, reference: str, now: Callable[[], datetime]) -> None:
        self._store = store
        self._reference = reference
        self._now = now

    def mint(self, app: App, user: str, life: timedelta) -> tuple[str, datetime]:
        """Make a token; gives it and when it ends. Raises `Problem` where no secret is set up."""
        try:
            secret = next(iter(self._secrets()))
        except (CredentialError, StopIteration) as error:
            raise Problem(
                "not-set-up", f"user tokens need a secret of 32 bytes or more at {self._reference}"
            ) from error
        now = self._now()
        expires_at = (now + life).replace(microsecond=0)
        claims = {"aud": _AUDIENCE, "app": app.name, "app_id": app.id, "sub": user}
        claims |= {"iat": int(now.timestamp()), "exp": int(expires_at.timestamp())}
        return jwt.encode(claims, _derive(secret, app.name), _ALGORITHM), expires_at

    def read(self, token: str) -> UserToken | None:
        """Read a token; `None` if it is not valid, or no longer."""
        if len(token) > _LONGEST_TOKEN or token.count(".") != 2:
            return None
        try:
            unproven = jwt.decode(token, options={"verify_signature": False})
            app = str(unproven.get("app"))
            secrets = list(self._secrets())
        except (jwt.InvalidTokenError, CredentialError, ValueError):
            return None
        read = (self._verify(token, _derive(secret, app)) for secret in secrets)
        claims = next((found for found in read if found is not None), None)
        return None if claims is None else _token_of(claims)

    def _verify(self, token: str, key: bytes) -> dict[str, Any] | None:
        try:
            return jwt.decode(
                token,
                key,
                algorithms=[_ALGORITHM],
                audience=_AUDIENCE,
                options={"require": ["exp", "sub", "aud", "iat"]},
            )
        except jwt.InvalidTokenError:
            return None

    def _secrets(self) -> Iterator[bytes]:
        """Read the secrets as they are now: the store reads a file again when it has changed."""
        for line in self._store.read(self._reference).splitlines():
            if len(line.strip()) >= _SHORTEST_SECRET:
                yield line.strip()


def _derive(secret: bytes, app: str) -> bytes:
    return hmac.digest(secret, b"pushfan user token\0" + app.encode(errors="replace"), hashlib.sha256)


def _token_of(claims: dict[str, Any]) -> UserToken | None:
    app_id, user = claims.get("app_id"), claims["sub"]
    if not isinstance(app_id, int) or not isinstance(user, str):
        return None
    expires_at = datetime.fromtimestamp(claims["exp"], tz=UTC)
    return UserToken(app=claims["app"], app_id=app_id, user=user, expires_at=expires_at)
