"""Access tokens of a Google service account: a signed assertion is exchanged, the token kept and renewed.

1. The first `authorize` exchanges and waits for it, a few seconds at most.
2. From 5 minutes before its end a thread fetches the next token, while sending goes on with the present one.
3. A failed exchange is remembered for some seconds, so that a hundred waiting pushes ask once and not each.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from urllib.parse import urlencode

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from providers.calls import call
from providers.dialect import Json, json_object
from providers.engine import Response, assert_safe_address
from providers.outcome import CredentialsRejected, NotSent, SendError
from providers.reach import Reach

# https://developers.google.com/identity/protocols/oauth2/service-account
GRANT_TYPE = "urn:ietf:params:oauth:grant-type:jwt-bearer"
DEFAULT_TOKEN_URI = "https://oauth2.googleapis.com/token"
ASSERTION_LIFE = timedelta(hours=1)  # the longest that is allowed
REFRESH_BEFORE_END = timedelta(minutes=5)  # or at half of a shorter life
UNUSED_AT_END = timedelta(seconds=30)  # a request may wait for a stream; or the last quarter of a short life
FAILURE_IS_KEPT = timedelta(seconds=5)
LONGEST_WAIT = timedelta(seconds=8)  # less than a chunk's lease of 10 s


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceAccount:
    """What a service account's JSON file says."""

    project_id: str
    client_email: str
    token_uri: str
    private_key_id: str | None
    private_key: RSAPrivateKey = field(repr=False)


def read_service_account(document: bytes) -> ServiceAccount:
    """Parse the JSON file that Google's console issues. Raises `CredentialsRejected` naming what is wrong."""
    content = json_object(document)
    if not content:
        raise CredentialsRejected("service account: not a JSON object")
    missing = [
        name for name in ("project_id", "client_email", "private_key") if not _is_text(content.get(name))
    ]
    if missing:
        raise CredentialsRejected(f"service account: lacks {', '.join(missing)}")
    token_uri = content.get("token_uri") or DEFAULT_TOKEN_URI
    try:
        assert_safe_address(str(token_uri))
    except ValueError as error:
        raise CredentialsRejected(f"service account: token_uri: {error}") from error
    return ServiceAccount(
        project_id=content["project_id"],
        client_email=content["client_email"],
        token_uri=str(token_uri),
        private_key_id=content.get("private_key_id"),
        private_key=_read_key(content["private_key"]),
    )


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _read_key(pem: str) -> RSAPrivateKey:
    try:
        key = load_pem_private_key(pem.encode(), password=None)
    except (ValueError, TypeError) as error:  # the error's text may quote the key
        raise CredentialsRejected("service account: private_key is not an unencrypted PEM key") from error
    if not isinstance(key, RSAPrivateKey):
        raise CredentialsRejected("service account: private_key is not an RSA key")
    return key


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessToken:
    """A bearer token as the header lines it is sent in."""

    lines: tuple[str, ...] = field(repr=False)
    issued_at: datetime
    life: timedelta

    @property
    def refresh_at(self) -> datetime:
        """When the next token should be fetched."""
        return self.issued_at + self.life - min(REFRESH_BEFORE_END, self.life / 2)

    @property
    def usable_until(self) -> datetime:
        """When a request that is submitted might arrive too late."""
        return self.issued_at + self.life - min(UNUSED_AT_END, self.life / 4)


class _Exchange:
    """One exchange, running in a thread of its own; `token` or `error` is set when it has ended."""

    def __init__(self, exchange: Callable[[], AccessToken]) -> None:
        self.token: AccessToken | None = None
        self.error: SendError | None = None
        self._exchange = exchange
        self._thread = threading.Thread(target=self._run, name="pushfan-oauth", daemon=True)
        self._thread.start()

    def wait(self, longest: timedelta) -> bool:
        """Wait for the end; tell whether it came."""
        self._thread.join(longest.total_seconds())
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            self.token = self._exchange()
        except SendError as error:
            self.error = error


class AccessTokens:
    """One credential's access tokens in one process. Used by one thread, never across a fork.

    `exchange` fetches a token over the network, or raises a `SendError`; it is run in a thread.
    """

    def __init__(
        self,
        exchange: Callable[[], AccessToken],
        *,
        now: Callable[[], datetime],
        longest_wait: timedelta = LONGEST_WAIT,
    ) -> None:
        self._fetch = exchange
        self._now = now
        self._longest_wait = longest_wait
        self._token: AccessToken | None = None
        self._refresh_at = datetime.min.replace(tzinfo=UTC)
        self._exchange: _Exchange | None = None
        self._failure: SendError | None = None
        self._ask_again_at: datetime | None = None

    def authorize(self) -> tuple[str, ...]:
        """Return the authorization lines, the same object until the token changes.

        Waits for an exchange only when there is no usable token. Raises `CredentialsRejected` or `NotSent`.
        """
        now = self._now()
        token = self._token
        if token is not None and now < self._refresh_at:
            return token.lines
        if token is not None and now < token.usable_until:
            return (self._renewed(now, longest_wait=timedelta(0)) or token).lines
        renewed = self._renewed(now, longest_wait=self._longest_wait)
        if renewed is None:
            raise _again(self._failure or NotSent("the token exchange ended without a token"))
        return renewed.lines

    def forget(self) -> None:
        """Drop the token: the vendor does not take it any more."""
        self._token = None

    def _renewed(self, now: datetime, *, longest_wait: timedelta) -> AccessToken | None:
        """Start an exchange unless one runs or has just failed; return its token if it ends in time."""
        is_resting = self._ask_again_at is not None and now < self._ask_again_at
        if self._exchange is None:
            if is_resting:
                return None
            self._exchange = _Exchange(self._fetch)
        if self._exchange.wait(timedelta(0) if is_resting else longest_wait):
            ended, self._exchange = self._exchange, None
            self._rest_after(ended.error)
            if ended.token is not None:
                self._token, self._refresh_at = ended.token, ended.token.refresh_at
            return ended.token
        if longest_wait and not is_resting:
            self._rest_after(NotSent(f"no access token within {longest_wait.total_seconds():g} s"))
        return None

    def _rest_after(self, failure: SendError | None) -> None:
        self._failure = failure
        self._ask_again_at = self._now() + FAILURE_IS_KEPT if failure else None


def _again(failure: SendError) -> SendError:
    """Make the same error anew: one that is raised many times would drag all its tracebacks along."""
    return type(failure)(failure.reason)


def exchange_assertion(
    account: ServiceAccount,
    *,
    scope: str,
    ca_file: str | None,
    asked_at: datetime,
    reach: Reach | None = None,
) -> AccessToken:
    """Sign an assertion and exchange it for an access token. Raises `CredentialsRejected` or `NotSent`.

    `reach` judges the address of a token endpoint that is not Google's own.
    """
    form = {"grant_type": GRANT_TYPE, "assertion": sign_assertion(account, scope, asked_at)}
    response = call(
        "POST",
        account.token_uri,
        headers={"content-type": "application/x-www-form-urlencoded"},
        body=urlencode(form).encode(),
        ca_file=ca_file,
        reach=None if account.token_uri == DEFAULT_TOKEN_URI else reach,
    )
    return read_token_response(response, asked_at)


def sign_assertion(account: ServiceAccount, scope: str, issued_at: datetime) -> str:
    """Return the JWT by which the account asks for a token."""
    claims: Json = {
        "iss": account.client_email,
        "scope": scope,
        "aud": account.token_uri,
        "iat": int(issued_at.timestamp()),
        "exp": int((issued_at + ASSERTION_LIFE).timestamp()),
    }
    headers = {"kid": account.private_key_id} if account.private_key_id else None
    return jwt.encode(claims, account.private_key, algorithm="RS256", headers=headers)


def read_token_response(response: Response, asked_at: datetime) -> AccessToken:
    """Return the token issued. Raises `CredentialsRejected` when the account was refused, else `NotSent`.

    Errors: https://developers.google.com/identity/protocols/oauth2/service-account#error-codes
    """
    answer = json_object(response.body)
    token = answer.get("access_token")
    if response.status == 200 and isinstance(token, str) and re.fullmatch(r"[!-~]+", token):
        life = answer.get("expires_in")
        seconds = life if isinstance(life, int) and life > 0 else 3600
        lines = (f"authorization: Bearer {token}",)
        return AccessToken(lines=lines, issued_at=asked_at, life=timedelta(seconds=seconds))
    said = (answer.get(name) for name in ("error", "error_description"))
    words = " ".join(word for word in said if isinstance(word, str))
    reason = f"OAuth {response.status} {words}".rstrip()[:300]
    if 400 <= response.status < 500 and response.status not in (408, 429):
        raise CredentialsRejected(reason)
    raise NotSent(reason)
