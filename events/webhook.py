"""Verify what a Pushfan webhook sends, with the standard library alone.

Messages are signed as Standard Webhooks say (https://www.standardwebhooks.com), so other libraries for that do as well.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

TOLERANCE: Final = timedelta(minutes=5)
_BEGINNING: Final = "whsec_"
_SCHEME: Final = "v1"
_MOST_SIGNATURES: Final = 16


class InvalidWebhook(ValueError):
    """The message is not one that Pushfan signed for this receiver just now: answer 400, and do nothing."""


def verify_webhook(
    body: bytes,
    headers: Mapping[str, str],
    *secrets: str,
    tolerance: timedelta = TOLERANCE,
    now: float | None = None,
) -> dict[str, Any]:
    """Check the signature and the age of a message, and read it. Raises `InvalidWebhook`.

    `body` is what was received, byte for byte. `secrets` are those that are good, `whsec_…`: while one is
    rotated, both. A message may come more than once: remember its `id`. `now` is in seconds since the epoch.
    """
    keys = [_key_of(secret) for secret in secrets]
    if not keys:
        raise ValueError("give the webhook's secret")
    lower = {name.lower(): value for name, value in headers.items()}
    message_id, timestamp = lower.get("webhook-id", ""), lower.get("webhook-timestamp", "")
    if not message_id or not (timestamp.isascii() and timestamp.isdecimal()) or len(timestamp) > 15:
        raise InvalidWebhook("the headers webhook-id and webhook-timestamp are missing or malformed")
    if abs((time.time() if now is None else now) - int(timestamp)) > tolerance.total_seconds():
        raise InvalidWebhook("the message is too old, or from the future: look at the clocks")
    signed = f"{message_id}.{timestamp}.".encode() + body
    given = [part for part in lower.get("webhook-signature", "").split(" ") if part.isascii()]
    # Each is compared, and each in constant time: how long it takes tells nothing about a signature.
    matches = [
        hmac.compare_digest(part, _signature(key, signed))
        for part in given[:_MOST_SIGNATURES]
        for key in keys
    ]
    if not any(matches):
        raise InvalidWebhook("no signature is by any of the secrets")
    return _read(body)


def _key_of(secret: str) -> bytes:
    try:
        return base64.b64decode(secret.removeprefix(_BEGINNING), validate=True)
    except binascii.Error as error:
        raise ValueError("a webhook's secret is whsec_ and base64") from error


def _signature(key: bytes, signed: bytes) -> str:
    return f"{_SCHEME},{base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()}"


def _read(body: bytes) -> dict[str, Any]:
    try:
        document = json.loads(body)
    except ValueError as error:
        raise InvalidWebhook("the body is not JSON") from error
    if not isinstance(document, dict):
        raise InvalidWebhook("the body is not an object")
    return document
