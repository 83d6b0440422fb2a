"""Google's token endpoint for service accounts: a signed assertion in, a bearer token for an hour out.

https://developers.google.com/identity/protocols/oauth2/service-account
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import jwt
import orjson

from .authority import read_json, write_json
from .clock import Clock
from .exchange import Decision, HeaderList, Request
from .signing import claims_of, new_rsa_key

GOOGLE_AUDIENCE = "https://oauth2.googleapis.com/token"
GRANT_TYPE = "urn:ietf:params:oauth:grant-type:jwt-bearer"
SCOPES = frozenset({
    "https://www.googleapis.com/auth/firebase.messaging",
    "https://www.googleapis.com/auth/cloud-platform",
})  # fmt: skip
# How far a client's clock may be off.
_SKEW_SECONDS = 60
_MAX_ASSERTION_SECONDS = 3600
_MAX_REMEMBERED = 10_000
_JSON: HeaderList = [("content-type", "application/json; charset=utf-8"), ("cache-control", "private")]
_OUT_OF_TIME = (
    "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe. "
    "Check your iat and exp values in the JWT claim."
)


class _Refused(ValueError):
    """The assertion is refused: OAuth's error code and Google's description."""

    def __init__(self, error: str, description: str) -> None:
        super().__init__(description)
        self.error = error


class TokenOffice:
    """Gives out access tokens and knows its own again, also after a restart: they are signed, not stored.

    Verified tokens are remembered by their text, so that a send costs one look-up.
    """

    path = "/token"

    def __init__(
        self, state_dir: Path, clock: Clock, *, url: str, project_id: str, life_seconds: int = 3600
    ) -> None:
        self.service_account_file = state_dir / "fcm.service_account.json"
        self.life_seconds = life_seconds
        self._clock = clock
        self._token_uri = url + self.path
        self._project_id = project_id
        self._state_file = state_dir / "fcm.credentials.json"
        self._state = read_json(self._state_file) or self._new_state()
        self._admitted: dict[str, float] = {}
        self._write()

    def admits(self, authorization: str) -> bool:
        """Tell whether an Authorization header carries a token of ours that is still alive."""
        expires_at = self._admitted.get(authorization)
        if expires_at is None:
            expires_at = self._verify(authorization)
            if expires_at is None:
                return False
            if len(self._admitted) >= _MAX_REMEMBERED:
                self._admitted.clear()
            self._admitted[authorization] = expires_at
        return self._clock.now() < expires_at

    def exchange(self, request: Request, *, is_account_valid: bool) -> Decision:
        """Answer the token endpoint: check the assertion as Google does, and give a token."""
        form = parse_qs(request.body.decode("utf-8", "replace"))
        try:
            if request.method != "POST" or form.get("grant_type") != [GRANT_TYPE]:
                raise _Refused("unsupported_grant_type", "Invalid grant_type")
            if not is_account_valid:
                raise _Refused("invalid_grant", "Invalid grant: account not found")
            self._check_claims(self._read_assertion("".join(form.get("assertion", []))))
        except _Refused as error:
            refusal = {"error": error.error, "error_description": str(error)}
            return Decision(400, _JSON, orjson.dumps(refusal))
        grant = {"access_token": self._issue(), "expires_in": self.life_seconds - 1, "token_type": "Bearer"}
        return Decision(200, _JSON, orjson.dumps(grant))

    def expire_access_tokens(self) -> None:
        """End the life of every token given so far; new ones are given as before."""
        self._state["secret"] = secrets.token_hex(32)
        self._admitted.clear()
        write_json(self._state_file, self._state)

    def rotate(self) -> None:
        """Replace the service account's key and revoke the old one; the account file changes in place."""
        self._state = self._new_state()
        self._admitted.clear()
        self._write()

    def _issue(self) -> str:
        claim = f"{int(self._clock.now()) + self.life_seconds}.{secrets.token_hex(8)}"
        return f"ya29.{claim}.{self._sign(claim)}"

    def _sign(self, claim: str) -> str:
        return hmac.new(self._state["secret"].encode(), claim.encode(), hashlib.sha256).hexdigest()

    def _verify(self, authorization: str) -> float | None:
        kind, _, token = authorization.partition(" ")
        prefix, _, rest = token.partition(".")
        claim, _, signature = rest.rpartition(".")
        is_ours = hmac.compare_digest(signature.encode(), self._sign(claim).encode())
        if kind.lower() != "bearer" or prefix != "ya29" or not is_ours:
            return None
        return float(claim.partition(".")[0])

    def _read_assertion(self, assertion: str) -> dict[str, Any]:
        try:
            return claims_of(assertion, self._state["private_key"], "RS256")
        except jwt.InvalidSignatureError as error:
            raise _Refused("invalid_grant", "Invalid JWT Signature.") from error
        except jwt.PyJWTError as error:
            raise _Refused("invalid_grant", f"Invalid JWT: {error}") from error

    def _check_claims(self, claims: Mapping[str, Any]) -> None:
        if claims.get("iss") != self._state["client_email"]:
            raise _Refused("invalid_grant", "Invalid grant: account not found")
        if claims.get("aud") not in {self._token_uri, GOOGLE_AUDIENCE}:
            text = f"Invalid JWT: Failed audience check. The right audience is {GOOGLE_AUDIENCE}"
            raise _Refused("invalid_grant", text)
        if not SCOPES & set(str(claims.get("scope", "")).split()):
            raise _Refused("invalid_scope", "Invalid OAuth scope or ID token audience provided.")
        if not self._is_in_time(claims.get("iat"), claims.get("exp")):
            raise _Refused("invalid_grant", _OUT_OF_TIME)

    def _is_in_time(self, issued_at: Any, expires_at: Any) -> bool:
        if not isinstance(issued_at, int | float) or not isinstance(expires_at, int | float):
            return False
        now = self._clock.now()
        is_short = 0 < expires_at - issued_at <= _MAX_ASSERTION_SECONDS
        return is_short and issued_at <= now + _SKEW_SECONDS and expires_at > now - _SKEW_SECONDS

    def _new_state(self) -> dict[str, Any]:
        return {
            "client_email": f"sender@{self._project_id}.iam.gserviceaccount.com",
            "private_key": new_rsa_key(),
            "private_key_id": secrets.token_hex(20),
            "secret": secrets.token_hex(32),
        }

    def _write(self) -> None:
        write_json(self._state_file, self._state)
        account = {
            "type": "service_account",
            "project_id": self._project_id,
            "private_key_id": self._state["private_key_id"],
            "private_key": self._state["private_key"],
            "client_email": self._state["client_email"],
            "client_id": "100000000000000000001",
            "auth_uri": "https://accounts.google.com/o/oauth2/auth",
            "token_uri": self._token_uri,
            "universe_domain": "googleapis.com",
        }
        write_json(self.service_account_file, account)
