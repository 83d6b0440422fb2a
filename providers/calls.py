"""Rare calls that send nothing to a device: token exchanges, credential checks, status queries.

Speed does not matter: they use httpx and wait for the answer. They may be repeated freely, so whatever goes
wrong below HTTP is `NotSent`.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping

import certifi
import httpx

from providers.engine import Response, assert_safe_address
from providers.outcome import NotSent

# Together below a chunk's lease of 10 s, since a send loop may wait: connecting, TLS, sending, one read.
TIMEOUT = httpx.Timeout(connect=2.0, read=3.0, write=1.0, pool=1.0)


def call(
    method: str, url: str, *, headers: Mapping[str, str], body: bytes = b"", ca_file: str | None = None
) -> Response:
    """Send one request on a connection of its own; any status is an answer.

    Follows no redirect and no proxy settings of the environment. Raises `NotSent` when there is no answer,
    `ValueError` for an address that is neither HTTPS nor loopback.
    """
    assert_safe_address(url)
    try:
        authorities = ssl.create_default_context(cafile=ca_file or certifi.where())
        with httpx.Client(verify=authorities, timeout=TIMEOUT, trust_env=False) as client:
            answer = client.request(method, url, headers=headers, content=body)
    except (httpx.RequestError, OSError) as error:
        host = httpx.URL(url).host
        raise NotSent(f"no answer from {host}: {type(error).__name__} {error}".rstrip()) from error
    return Response(status=answer.status_code, headers=dict(answer.headers), body=answer.content)
