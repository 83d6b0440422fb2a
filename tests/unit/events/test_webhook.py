"""Verification of webhooks, by the vector that Standard Webhooks publish and by messages that were tampered with."""

from __future__ import annotations

from datetime import timedelta

import pytest

from events import InvalidWebhook, verify_webhook

# https://github.com/standard-webhooks/standard-webhooks, the specification's own example.
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
BODY = b'{"test": 2432232314}'
AT = 1614265330
HEADERS = {
    "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
    "webhook-timestamp": str(AT),
    "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
}


def test_published_example_is_verified() -> None:
    """Others' libraries agree with this one; header names have no case."""
    assert verify_webhook(BODY, HEADERS, SECRET, now=AT) == {"test": 2432232314}
    upper = {name.title(): value for name, value in HEADERS.items()}
    assert verify_webhook(BODY, upper, SECRET, now=AT + 299)


def test_one_of_several_signatures_and_secrets_is_enough() -> None:
    """While a secret is rotated there are two on either side."""
    both = {**HEADERS, "webhook-signature": f"v1,AAAA v2,x {HEADERS['webhook-signature']}"}
    assert verify_webhook(BODY, both, "whsec_AAAA", SECRET, now=AT)


@pytest.mark.parametrize(
    ("body", "changed"),
    [
        (b'{"test": 2432232315}', {}),
        (BODY, {"webhook-id": "msg_other"}),
        (BODY, {"webhook-timestamp": str(AT + 1)}),
        (BODY, {"webhook-timestamp": "1e9"}),
        (BODY, {"webhook-timestamp": "²"}),
        (BODY, {"webhook-id": ""}),
        (BODY, {"webhook-signature": ""}),
        (BODY, {"webhook-signature": "v1,"}),
        (BODY, {"webhook-signature": "v1,ü"}),
        (BODY, {"webhook-signature": HEADERS["webhook-signature"].removeprefix("v1,")}),
    ],
)
def test_what_was_changed_is_refused(body: bytes, changed: dict[str, str]) -> None:
    """Every part is signed: body, id and time."""
    with pytest.raises(InvalidWebhook):
        verify_webhook(body, HEADERS | changed, SECRET, now=AT)


@pytest.mark.parametrize("seconds", [-301, 301])
def test_old_and_future_messages_are_refused(seconds: int) -> None:
    """A recorded message is good for five minutes, or as long as the receiver says."""
    with pytest.raises(InvalidWebhook, match="clocks"):
        verify_webhook(BODY, HEADERS, SECRET, now=AT + seconds)
    assert verify_webhook(BODY, HEADERS, SECRET, now=AT + seconds, tolerance=timedelta(minutes=6))


def test_other_secret_is_refused_and_no_secret_is_a_mistake() -> None:
    """A receiver that forgot its secret must not accept everything."""
    with pytest.raises(InvalidWebhook):
        verify_webhook(BODY, HEADERS, "whsec_AAAA", now=AT)
    with pytest.raises(ValueError, match="secret"):
        verify_webhook(BODY, HEADERS, now=AT)
    with pytest.raises(ValueError, match="whsec_"):
        verify_webhook(BODY, HEADERS, "whsec_?", now=AT)
