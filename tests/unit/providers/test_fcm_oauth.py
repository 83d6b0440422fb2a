"""When access tokens are fetched, kept, renewed and given up, with an exchange that the test controls."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest

from providers.engine import Response
from providers.oauth import AccessToken, AccessTokens, read_token_response
from providers.outcome import CredentialsRejected, NotSent, SendError

START = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


@dataclass
class Office:
    """Issues numbered tokens, or fails; `gate` keeps an exchange waiting while it is clear."""

    now: datetime = START
    life: timedelta = timedelta(hours=1)
    failure: SendError | None = None
    longest_wait: timedelta = timedelta(seconds=8)
    issued: int = 0
    asked: int = 0
    gate: threading.Event = field(default_factory=threading.Event)
    tokens: AccessTokens = field(init=False)

    def __post_init__(self) -> None:
        self.gate.set()
        self.tokens = AccessTokens(self.exchange, now=lambda: self.now, longest_wait=self.longest_wait)

    def exchange(self) -> AccessToken:
        self.asked += 1
        self.gate.wait(30)
        if self.failure is not None:
            raise self.failure
        self.issued += 1
        return AccessToken(
            lines=(f"authorization: Bearer {self.issued}",), issued_at=self.now, life=self.life
        )

    def token(self) -> int:
        """The number of the token that is in use."""
        (line,) = self.tokens.authorize()
        return int(line.rpartition(" ")[2])


def wait_for(condition: Callable[[], bool]) -> None:
    """Poll until a thread has done its work."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_a_token_is_fetched_once_and_kept() -> None:
    """The very same object, so that comparing is cheap."""
    office = Office()
    first = office.tokens.authorize()
    office.now += timedelta(minutes=54, seconds=59)
    assert office.tokens.authorize() is first
    assert office.asked == 1


def test_the_next_token_is_fetched_in_the_background() -> None:
    """From five minutes before the end; sending goes on with the present one meanwhile."""
    office = Office()
    office.token()
    office.now += timedelta(minutes=55)
    office.gate.clear()
    assert office.token() == 1
    assert office.token() == 1
    office.gate.set()
    wait_for(lambda: office.token() == 2)
    assert office.asked == 2


def test_a_failed_renewal_keeps_the_present_token_and_is_tried_again() -> None:
    """Not at each push, but every few seconds."""
    office = Office()
    office.token()
    office.now += timedelta(minutes=56)
    office.failure = NotSent("no answer")
    office.token()
    wait_for(lambda: office.asked == 2)
    assert [office.token() for _ in range(50)] == [1] * 50
    assert office.asked == 2
    office.now += timedelta(seconds=6)
    office.failure = None
    wait_for(lambda: office.token() == 2)


def test_a_token_at_its_end_is_not_used() -> None:
    """The request could reach the vendor too late."""
    office = Office(longest_wait=timedelta(seconds=0.05))
    office.token()
    office.now += timedelta(minutes=59, seconds=31)
    office.gate.clear()
    with pytest.raises(NotSent):
        office.tokens.authorize()
    office.gate.set()


@pytest.mark.parametrize("failure", [NotSent("no answer"), CredentialsRejected("OAuth 400 invalid_grant")])
def test_a_failure_is_repeated_for_some_seconds_without_asking(failure: SendError) -> None:
    """A hundred waiting pushes ask once; each gets an error of its own."""
    office = Office(failure=failure)
    errors = []
    for _ in range(100):
        with pytest.raises(type(failure)) as caught:
            office.tokens.authorize()
        errors.append(caught.value)
    assert {error.reason for error in errors} == {failure.reason}
    assert len({id(error) for error in errors}) == 100
    assert office.asked == 1
    office.now += timedelta(seconds=6)
    office.failure = None
    assert office.token() == 1


def test_a_forgotten_token_is_replaced() -> None:
    """The vendor called it expired."""
    office = Office()
    office.token()
    office.tokens.forget()
    assert office.token() == 2


def test_a_short_lived_token_is_still_used() -> None:
    """Five minutes before its end would be before its beginning."""
    office = Office(life=timedelta(seconds=40))
    assert office.token() == 1
    office.now += timedelta(seconds=19)
    assert office.token() == 1
    assert office.asked == 1
    office.now += timedelta(seconds=12)
    assert office.token() == 2


def test_a_slow_exchange_holds_the_sender_only_so_long() -> None:
    """Less than a lease; later calls do not wait again, and the token is used once it comes."""
    office = Office(longest_wait=timedelta(seconds=0.05))
    office.gate.clear()
    started = time.monotonic()
    for _ in range(20):
        with pytest.raises(NotSent):
            office.tokens.authorize()
    assert time.monotonic() - started < 0.9
    assert office.asked == 1
    office.gate.set()

    def is_there() -> bool:
        try:
            return office.token() == 1
        except NotSent:
            return False

    wait_for(is_there)
    assert office.asked == 1


def test_a_token_response_is_read() -> None:
    """The example of https://developers.google.com/identity/protocols/oauth2/service-account ."""
    body = b'{"access_token": "ya29.abc", "expires_in": 3599, "token_type": "Bearer"}'
    assert read_token_response(Response(status=200, body=body), START) == AccessToken(
        lines=("authorization: Bearer ya29.abc",), issued_at=START, life=timedelta(seconds=3599)
    )


@pytest.mark.parametrize(
    ("status", "body", "error", "reason"),
    [
        (
            400,
            b'{"error": "invalid_grant", "error_description": "Invalid JWT Signature."}',
            CredentialsRejected,
            "OAuth 400 invalid_grant Invalid JWT Signature.",
        ),
        (401, b'{"error": "invalid_client"}', CredentialsRejected, "OAuth 401 invalid_client"),
        (403, b"", CredentialsRejected, "OAuth 403"),
        (404, b"<html>", CredentialsRejected, "OAuth 404"),
        (408, b"", NotSent, "OAuth 408"),
        (429, b'{"error": "rate_limit_exceeded"}', NotSent, "OAuth 429 rate_limit_exceeded"),
        (500, b'{"error": "internal_failure"}', NotSent, "OAuth 500 internal_failure"),
        (503, b"<html>", NotSent, "OAuth 503"),
        (302, b"", NotSent, "OAuth 302"),
        (200, b"<html>", NotSent, "OAuth 200"),
        (200, b'{"access_token": ""}', NotSent, "OAuth 200"),
        (200, b'{"access_token": "a\\r\\nx-injected: 1"}', NotSent, "OAuth 200"),
    ],
)
def test_a_refusal_is_about_the_account_and_anything_else_passes(
    status: int, body: bytes, error: type[SendError], reason: str
) -> None:
    """Error codes: https://developers.google.com/identity/protocols/oauth2/service-account ."""
    with pytest.raises(error) as caught:
        read_token_response(Response(status=status, body=body), START)
    assert caught.value.reason == reason
    assert type(caught.value) is error
