"""How webhooks are signed: as Standard Webhooks say, https://www.standardwebhooks.com.

A webhook's secret is derived from a secret of the servers and the webhook's salt. The first is a credential like any
other (`file:` or `env:`) and never in the database, the second is there and worth nothing alone. A file may hold
several lines: new secrets are told by the first, and all sign, so that it is rotated without a gap.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Iterator, Sequence
from typing import Final

from .credentials import CredentialError, CredentialStore

_SHORTEST: Final = 32
_BEGINNING: Final = "whsec_"


class Signer:
    """Derives secrets and signs with them. Reads the servers' secret each time, so that it may be changed."""

    def __init__(self, store: CredentialStore, reference: str) -> None:
        self._store = store
        self._reference = reference

    def secret(self, salt: bytes) -> str:
        """Give the secret that the receiver needs, `whsec_…`. Raises `CredentialError`."""
        return _BEGINNING + base64.b64encode(next(iter(self._derived(salt)))).decode()

    def headers(self, message_id: str, at: int, body: bytes, salts: Sequence[bytes]) -> dict[str, str]:
        """Give the headers that prove a message: one signature for each secret. Raises `CredentialError`."""
        signed = f"{message_id}.{at}.".encode() + body
        signatures = [
            "v1," + base64.b64encode(hmac.digest(secret, signed, hashlib.sha256)).decode()
            for salt in salts
            for secret in self._derived(salt)
        ]
        return {
            "webhook-id": message_id,
            "webhook-timestamp": str(at),
            "webhook-signature": " ".join(signatures),
        }

    def _derived(self, salt: bytes) -> Iterator[bytes]:
        lines = [line.strip() for line in self._store.read(self._reference).splitlines()]
        usable = [line for line in lines if len(line) >= _SHORTEST]
        if not usable:
            raise CredentialError(
                f"{self._reference} has no line of {_SHORTEST} bytes or more: webhooks need one"
            )
        for line in usable:
            yield hmac.digest(line, b"pushfan webhook\0" + salt, hashlib.sha256)
