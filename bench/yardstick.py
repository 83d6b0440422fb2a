"""The yardstick: what libcurl alone needs for the same pushes, on this machine, to the same simulator.

Our own cost divided by this one says what we add, whatever the machine. No engine of ours takes part.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pycurl

from events import TopicMessage
from providers import create_provider
from providers.outcome import ChannelConfig, Content, Push
from providers.provider import Batch, Provider
from registry.channels import Provider as ProviderName

from . import crowd
from .arena import APP, MESSAGE, Arena

_STREAMS = 300
_WAIT_SECONDS = 0.05


def bare_cpu_us(arena: Arena, number: int) -> float:
    """Push to the first FCM devices with libcurl alone; returns this process's CPU for a push, in microseconds."""
    tokens = crowd.tokens(arena.url, arena.channels[ProviderName.FCM].id, number)
    ca_file = str(arena.stack.simulators["fcm"].info["ca_file"])
    provider = _provider(arena, ca_file)
    headers = (*provider.authorize(), "content-type: application/json")
    batches = provider.prepare([_push(position, token) for position, token in enumerate(tokens)]).batches
    return _send(batches, list(headers), ca_file) / len(batches) * 1e6


def _send(batches: Sequence[Batch], headers: list[str], ca_file: str) -> float:
    """Keep `_STREAMS` requests in flight until all are answered; returns the CPU seconds of this thread."""
    multi = pycurl.CurlMulti()
    multi.setopt(pycurl.M_PIPELINING, pycurl.PIPE_MULTIPLEX)
    multi.setopt(pycurl.M_MAX_HOST_CONNECTIONS, 1)
    free = [_handle(headers, ca_file) for _ in range(min(_STREAMS, len(batches)))]
    waiting, left = list(batches), len(batches)
    began = time.thread_time()
    while left:
        while free and waiting:
            batch, curl = waiting.pop(), free.pop()
            curl.setopt(pycurl.URL, batch.url)
            curl.setopt(pycurl.POSTFIELDS, batch.body)
            multi.add_handle(curl)
        multi.perform()
        _, succeeded, failed = multi.info_read()
        if failed:
            raise RuntimeError(f"libcurl alone failed: {failed[0][2]}")
        for curl in succeeded:
            multi.remove_handle(curl)
            free.append(curl)
        left -= len(succeeded)
        if not succeeded:
            multi.select(_WAIT_SECONDS)
    return time.thread_time() - began


def _handle(headers: list[str], ca_file: str) -> Any:
    curl = pycurl.Curl()
    curl.setopt(pycurl.NOSIGNAL, 1)
    curl.setopt(pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_2TLS)
    curl.setopt(pycurl.PIPEWAIT, 1)
    curl.setopt(pycurl.PROXY, "")
    curl.setopt(pycurl.CAINFO, ca_file)
    curl.setopt(pycurl.HTTPHEADER, headers)
    curl.setopt(pycurl.POST, 1)
    curl.setopt(pycurl.WRITEFUNCTION, bytearray().extend)
    return curl


def _provider(arena: Arena, ca_file: str) -> Provider:
    info = arena.stack.simulators["fcm"].info
    account = Path(info["service_account_file"]).read_bytes()
    config = ChannelConfig(
        provider="fcm", secrets={"service_account": account}, endpoint=str(info["url"]), ca_file=ca_file
    )
    return create_provider(config, now=lambda: datetime.now(UTC))


def _push(position: int, token: str) -> Push:
    return Push(position=position, token=token, content=_CONTENT, delivery_id=str(position))


_CONTENT = Content(
    notification_id=1,
    event=TopicMessage(app=APP, id="yardstick", topic="all", message=MESSAGE),
    expires_at=datetime.now(UTC) + timedelta(days=1),
)
