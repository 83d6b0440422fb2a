"""Rare calls that send nothing to a device: token exchanges, credential checks, status queries.

Speed does not matter: they use httpx and wait for the answer. They may be repeated freely, so whatever goes
wrong below HTTP is `NotSent`.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator, Mapping
from typing import Final

import certifi
import httpx

from providers.engine import Response, assert_safe_address
from providers.outcome import NotSent
from providers.reach import Reach

# Together below a chunk's lease of 10 s, since a send loop may wait: connecting, TLS, sending, one read.
TIMEOUT: Final = httpx.Timeout(connect=2.0, read=3.0, write=1.0, pool=1.0)
# A report on a thousand ids has 100 KB.
MOST_BYTES: Final = 4 * 1024 * 1024


def call(
    method: str,
    url: str,
    *,
    headers: Mapping[str, str],
    body: bytes = b"",
    ca_file: str | None = None,
    reach: Reach | None = None,
) -> Response:
    """Send one request on a connection of its own; any status is an answer.

    `reach` judges the address that is connected to; `None` allows any. Follows no redirect and no proxy settings of
    the environment. Raises `NotSent` when there is no answer, `ValueError` for an address that is neither HTTPS nor
    loopback.
    """
    assert_safe_address(url)
    place = httpx.URL(url)
    try:
        authorities = ssl.create_default_context(cafile=ca_file or certifi.where())
        with httpx.Client(verify=authorities, timeout=TIMEOUT, trust_env=False) as client:
            request = client.build_request(method, url, headers=headers, content=body)
            if reach is not None:
                _pin(request, _judged(place, reach))
            return _ask(client, request)
    except (httpx.RequestError, OSError) as error:
        raise NotSent(f"no answer from {place.host}: {type(error).__name__} {error}".rstrip()) from error


def _judged(place: httpx.URL, reach: Reach) -> str:
    """Resolve a name, and give an address that may be connected to. Raises `NotSent`."""
    port = place.port or (443 if place.scheme == "https" else 80)
    found = [str(one[4][0]) for one in socket.getaddrinfo(place.host, port, type=socket.SOCK_STREAM)]
    allowed = next((address for address in found if reach.allows(address)), None)
    if allowed is None:
        raise NotSent(f"{place.host} has no address that is allowed (see PUSHFAN_ALLOWED_NETWORKS)")
    return allowed


def _pin(request: httpx.Request, address: str) -> None:
    """Have a request connect to this very address: a name that is resolved again may have changed its mind.

    `Host` was set before, and the certificate must still be the name's.
    """
    request.extensions["sni_hostname"] = request.url.host
    request.url = request.url.copy_with(host=address)


def _ask(client: httpx.Client, request: httpx.Request) -> Response:
    answer = client.send(request, stream=True)
    try:
        return Response(
            status=answer.status_code, headers=dict(answer.headers), body=b"".join(_parts(answer))
        )
    finally:
        answer.close()


def _parts(answer: httpx.Response) -> Iterator[bytes]:
    size = 0
    for part in answer.iter_bytes():
        size += len(part)
        if size > MOST_BYTES:
            raise NotSent(f"the answer is longer than {MOST_BYTES:,} bytes")
        yield part
