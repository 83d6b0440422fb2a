"""What each answer of APNs means: a full response beside the literal outcome, not taken from the table.

Bodies as on
https://developer.apple.com/documentation/usernotifications/handling-notification-responses-from-apns
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from events import DirectPush, Message
from providers.apns import BY_REASON, BY_STATUS, ApnsProvider
from providers.engine import Response
from providers.outcome import (
    Accepted,
    Answer,
    ChannelConfig,
    Content,
    CredentialsRejected,
    Outcome,
    Push,
    Rejected,
    SendError,
    Throttled,
    Unavailable,
    Unregistered,
)
from providers.provider import Batch, Remedy, Verdict

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
KEY = ec.generate_private_key(ec.SECP256R1()).private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
)
CHANNEL = ChannelConfig(
    provider="apns",
    settings={"key_id": "ABC123DEFG", "team_id": "DEF123GHIJ", "apns_topic": "com.example.shop"},
    secrets={"key": KEY},
)
DELIVERY_ID = "3f1c9c1e-5d44-4b5f-9a0e-0c8f7a1d2b3c"
MINUTES_15 = timedelta(minutes=15)
MINUTES_20 = timedelta(minutes=20)
SECONDS_60 = timedelta(seconds=60)


def provider() -> ApnsProvider:
    """A channel with a team's key."""
    return ApnsProvider(CHANNEL, now=lambda: NOW)


def batch(message: Message | None = None) -> Batch:
    """One prepared push."""
    event = DirectPush(app="shop", users=("u7",), message=message or Message(title="Shipped"))
    content = Content(notification_id=7, event=event, expires_at=NOW + timedelta(hours=1))
    push = Push(position=4, token="ab" * 32, content=content, delivery_id=DELIVERY_ID)
    (prepared,) = provider().prepare([push]).batches
    return prepared


def classified(
    status: int, body: bytes, headers: Mapping[str, str] | None = None, of: Batch | None = None
) -> Outcome | SendError | Verdict:
    """What the one push of a batch gets."""
    of = of or batch()
    result = provider().classify(of, Response(status=status, headers=headers or {}, body=body))
    if isinstance(result, Verdict):
        return result
    (answer,) = result
    assert answer == Answer(push=of.pushes[0], outcome=answer.outcome)
    return answer.outcome


ROWS: dict[str, tuple[int, bytes, Outcome]] = {
    "accepted": (200, b"", Accepted(message_id="3f1c9c1e-5d44-4b5f-9a0e-0c8f7a1d2b3c")),
    "BadCollapseId": (400, b'{"reason":"BadCollapseId"}', Rejected(reason="BadCollapseId")),
    "BadDeviceToken": (
        400,
        b'{"reason":"BadDeviceToken"}',
        Rejected(reason="BadDeviceToken", suspects_token=True),
    ),
    "BadExpirationDate": (400, b'{"reason":"BadExpirationDate"}', Rejected(reason="BadExpirationDate")),
    "BadMessageId": (400, b'{"reason":"BadMessageId"}', Rejected(reason="BadMessageId")),
    "BadPriority": (400, b'{"reason":"BadPriority"}', Rejected(reason="BadPriority")),
    "DeviceTokenNotForTopic": (
        400,
        b'{"reason":"DeviceTokenNotForTopic"}',
        Rejected(reason="DeviceTokenNotForTopic", suspects_token=True),
    ),
    "DuplicateHeaders": (400, b'{"reason":"DuplicateHeaders"}', Rejected(reason="DuplicateHeaders")),
    "InvalidPushType": (400, b'{"reason":"InvalidPushType"}', Rejected(reason="InvalidPushType")),
    "MissingDeviceToken": (400, b'{"reason":"MissingDeviceToken"}', Rejected(reason="MissingDeviceToken")),
    "PayloadEmpty": (400, b'{"reason":"PayloadEmpty"}', Rejected(reason="PayloadEmpty")),
    "BadPath": (404, b'{"reason":"BadPath"}', Rejected(reason="BadPath")),
    "MethodNotAllowed": (405, b'{"reason":"MethodNotAllowed"}', Rejected(reason="MethodNotAllowed")),
    "ExpiredToken": (
        410,
        b'{"reason":"ExpiredToken","timestamp":1795435200000}',
        Unregistered(reason="ExpiredToken", invalidated_at=datetime(2026, 11, 23, 12, 0, tzinfo=UTC)),
    ),
    "Unregistered": (
        410,
        b'{"reason":"Unregistered","timestamp":1454948015990}',
        Unregistered(reason="Unregistered", invalidated_at=datetime(2016, 2, 8, 16, 13, 35, 990_000, UTC)),
    ),
    "Unregistered without a time": (
        410,
        b'{"reason":"Unregistered"}',
        Unregistered(reason="Unregistered", invalidated_at=None),
    ),
    "Unregistered at no time": (
        410,
        b'{"reason":"Unregistered","timestamp":"soon"}',
        Unregistered(reason="Unregistered", invalidated_at=None),
    ),
    "Unregistered beyond all time": (
        410,
        b'{"reason":"Unregistered","timestamp":9000000000000000000}',
        Unregistered(reason="Unregistered", invalidated_at=None),
    ),
    "PayloadTooLarge": (413, b'{"reason":"PayloadTooLarge"}', Rejected(reason="PayloadTooLarge")),
    "TooManyRequests": (
        429,
        b'{"reason":"TooManyRequests"}',
        Throttled(reason="TooManyRequests", delay=SECONDS_60),
    ),
    "InternalServerError": (
        500,
        b'{"reason":"InternalServerError"}',
        Unavailable(reason="InternalServerError", delay=MINUTES_15, is_unsure=True),
    ),
    "ServiceUnavailable": (
        503,
        b'{"reason":"ServiceUnavailable"}',
        Unavailable(reason="ServiceUnavailable", delay=MINUTES_15),
    ),
    "a new reason": (400, b'{"reason":"TokenFromMars"}', Rejected(reason="TokenFromMars")),
    "a new reason with 410": (
        410,
        b'{"reason":"Asleep","timestamp":1795435200000}',
        Rejected(reason="Asleep"),
    ),
    "a known reason with another status": (
        500,
        b'{"reason":"Unregistered","timestamp":1795435200000}',
        Unavailable(reason="Unregistered", delay=MINUTES_15, is_unsure=True),
    ),
    "a bad token with another status": (
        403 + 10,
        b'{"reason":"BadDeviceToken"}',
        Rejected(reason="BadDeviceToken"),
    ),
    "a new reason with 429": (
        429,
        b'{"reason":"TooManyMoons"}',
        Throttled(reason="TooManyMoons", delay=SECONDS_60),
    ),
    "a new reason with 5xx": (
        501,
        b'{"reason":"Strike"}',
        Unavailable(reason="Strike", delay=MINUTES_15, is_unsure=True),
    ),
    "a gateway's page": (
        502,
        b"<html><body>Bad Gateway</body></html>",
        Unavailable(reason="http 502", delay=MINUTES_15, is_unsure=True),
    ),
    "a proxy's time-out": (408, b"", Unavailable(reason="http 408", delay=MINUTES_15)),
    "a redirect": (302, b"", Unavailable(reason="http 302", delay=MINUTES_15)),
    "a reason that is no text": (400, b'{"reason":{"code":7}}', Rejected(reason="http 400")),
}


@pytest.mark.parametrize("row", ROWS)
def test_each_answer_has_its_outcome(row: str) -> None:
    """The whole response, and what it means for the push."""
    status, body, expected = ROWS[row]
    assert classified(status, body) == expected


CREDENTIALS: dict[str, tuple[int, bytes, str]] = {
    "MissingTopic": (
        400,
        b'{"reason":"MissingTopic"}',
        "MissingTopic: the certificate is for several topics",
    ),
    "BadTopic": (400, b'{"reason":"BadTopic"}', "BadTopic: the topic is not a valid one"),
    "TopicDisallowed": (
        400,
        b'{"reason":"TopicDisallowed"}',
        "TopicDisallowed: pushes to this topic are not allowed",
    ),
    "BadCertificate": (
        403,
        b'{"reason":"BadCertificate"}',
        "BadCertificate: the certificate is not valid",
    ),
    "BadCertificateEnvironment": (
        403,
        b'{"reason":"BadCertificateEnvironment"}',
        "BadCertificateEnvironment: the certificate is for the other environment",
    ),
    "BadEnvironmentKeyIdInToken": (
        403,
        b'{"reason":"BadEnvironmentKeyIdInToken"}',
        "BadEnvironmentKeyIdInToken: the key is for the other environment",
    ),
    "BadEnvironmentKeyInToken": (
        403,
        b'{"reason":"BadEnvironmentKeyInToken"}',
        "BadEnvironmentKeyInToken: the key is for the other environment",
    ),
    "Forbidden": (403, b'{"reason":"Forbidden"}', "Forbidden"),
    "InvalidProviderToken": (
        403,
        b'{"reason":"InvalidProviderToken"}',
        "InvalidProviderToken: key, key id and team id do not fit, or the key was revoked",
    ),
    "MissingProviderToken": (
        403,
        b'{"reason":"MissingProviderToken"}',
        "MissingProviderToken: no certificate came with the connection",
    ),
    "a new reason with 403": (403, b'{"reason":"NotOnSundays"}', "NotOnSundays"),
    "a page that is not Apple's": (
        404,
        b"<html>no such page</html>",
        "http 404: APNs gives a reason with each refusal: does the endpoint lead to it?",
    ),
    "a proxy that wants a password": (
        407,
        b"",
        "http 407: APNs gives a reason with each refusal: does the endpoint lead to it?",
    ),
}


@pytest.mark.parametrize("row", CREDENTIALS)
def test_each_answer_about_us_says_so(row: str) -> None:
    """These stop the channel, with a reason that an operator understands."""
    status, body, reason = CREDENTIALS[row]
    outcome = classified(status, body)
    assert isinstance(outcome, CredentialsRejected)
    assert outcome.reason == reason


REMEDIES: dict[str, tuple[int, bytes, Remedy, object]] = {
    "IdleTimeout": (
        400,
        b'{"reason":"IdleTimeout"}',
        Remedy.RECONNECT,
        Unavailable(reason="IdleTimeout", delay=timedelta(seconds=5)),
    ),
    "ExpiredProviderToken": (
        403,
        b'{"reason":"ExpiredProviderToken"}',
        Remedy.REAUTHORIZE,
        "ExpiredProviderToken: is this machine's clock slow?",
    ),
    "UnrelatedKeyIdInToken": (
        403,
        b'{"reason":"UnrelatedKeyIdInToken"}',
        Remedy.RECONNECT,
        "UnrelatedKeyIdInToken: the key is not of this team, or not for this topic",
    ),
    "TooManyProviderTokenUpdates": (
        429,
        b'{"reason":"TooManyProviderTokenUpdates"}',
        Remedy.RECONNECT,
        Unavailable(reason="TooManyProviderTokenUpdates", delay=MINUTES_20),
    ),
    "Shutdown": (
        503,
        b'{"reason":"Shutdown"}',
        Remedy.RECONNECT,
        Unavailable(reason="Shutdown", delay=MINUTES_15),
    ),
}


@pytest.mark.parametrize("row", REMEDIES)
def test_each_answer_with_a_remedy_names_it_and_what_follows(row: str) -> None:
    """The same request is sent once more after the remedy; then the outcome is final."""
    status, body, remedy, otherwise = REMEDIES[row]
    verdict = classified(status, body)
    assert isinstance(verdict, Verdict)
    assert verdict.remedy is remedy
    if isinstance(otherwise, str):
        assert isinstance(verdict.otherwise, CredentialsRejected)
        assert verdict.otherwise.reason == otherwise
    else:
        assert verdict.otherwise == otherwise


def test_every_row_of_the_table_is_pinned_here() -> None:
    """No row can be added without a literal expectation beside it."""
    rows = [row[:2] for row in ROWS.values()] + [row[:2] for row in CREDENTIALS.values()]
    rows += [row[:2] for row in REMEDIES.values()]
    pinned = {
        (status, json.loads(body)["reason"]) for status, body in rows if body.startswith(b'{"reason":"')
    }
    assert set(BY_REASON) <= pinned
    assert set(BY_STATUS) <= {status for status, _ in pinned}


def test_every_row_names_its_source() -> None:
    """A vendor's fact carries the vendor's address."""
    assert all(row.source.startswith("https://") for row in BY_REASON.values())


@pytest.mark.parametrize(
    ("status", "reason", "expected"),
    [
        (429, b"TooManyRequests", Throttled),
        (500, b"InternalServerError", Unavailable),
        (503, b"ServiceUnavailable", Unavailable),
    ],
)
def test_a_delay_in_the_answer_replaces_the_documented_one(
    status: int, reason: bytes, expected: type[Throttled | Unavailable]
) -> None:
    """Apple documents no Retry-After; should one come, it knows better."""
    outcome = classified(status, b'{"reason":"%s"}' % reason, {"retry-after": "7"})
    assert isinstance(outcome, expected)
    assert (outcome.delay, outcome.is_vendor_delay) == (timedelta(seconds=7), True)


@pytest.mark.parametrize(
    "reason", [b"TopicDisallowed", b"BadTopic", b"DeviceTokenNotForTopic", b"BadDeviceToken"]
)
def test_a_topic_that_the_message_chose_costs_neither_channel_nor_token(reason: bytes) -> None:
    """A push type adds to the topic: that it is not allowed, or not the token's, is the message's fault."""
    voip = batch(Message(title="Call", apns={"headers": {"apns-push-type": "voip"}}))
    outcome = classified(400, b'{"reason":"%s"}' % reason, of=voip)
    assert outcome == Rejected(reason=reason.decode())


def test_a_very_long_reason_is_cut() -> None:
    """What is stored by the million stays small."""
    outcome = classified(400, b'{"reason":"%s"}' % (b"x" * 5000))
    assert outcome == Rejected(reason="x" * 200)
