"""The doctor's look at a broker: whether it answers, and is set up so that it throws no message away."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from events.names import QUEUE_INTAKE

from .doctor import Finding, Status
from .output import plural

_TIMEOUT_SECONDS: Final = 3
# Messages with events are taken in within moments: so many wait only where too few workers are.
_MANY_MESSAGES: Final = 1_000
_FULL: Final = 0.9
# Quorum queues need 3.8; what is older than 3.13 is no longer maintained by anybody.
_OLDEST_RABBITMQ: Final = (3, 13)


def look_at(url: str) -> Iterator[Finding]:
    """Yield findings about the broker. Raises `kombu.exceptions.OperationalError` when it is away."""
    parts = urlsplit(url)
    address = f"{parts.hostname or 'local'}{f':{parts.port}' if parts.port else ''}"
    if parts.scheme == "memory":
        yield Finding(
            check="broker",
            status=Status.WARN,
            message="memory:// reaches this process alone",
            advice="set PUSHFAN_BROKER_URL to a redis:// or amqp:// URL",
        )
    elif parts.scheme in ("redis", "rediss"):
        yield from _redis(url, address)
    else:
        yield from _others(url, address)


def _redis(url: str, address: str) -> Iterator[Finding]:
    import redis
    from kombu.exceptions import OperationalError

    client = redis.Redis.from_url(
        url, socket_connect_timeout=_TIMEOUT_SECONDS, socket_timeout=_TIMEOUT_SECONDS, decode_responses=True
    )
    try:
        facts: dict[str, Any] = client.info()
        messages = client.llen(QUEUE_INTAKE)
    except redis.RedisError as error:
        raise OperationalError(f"{address} does not answer: {error}") from error
    finally:
        client.close()
    name = facts.get("server_name", "redis").capitalize()
    version = facts.get(f"{name.lower()}_version") or facts.get("redis_version", "unknown")
    yield Finding(check="broker", status=Status.OK, message=f"{name} {version} at {address}")
    yield from _intake(messages)
    yield from _memory(facts)


def _intake(messages: int) -> Iterator[Finding]:
    """Look at the events that nobody has taken in yet: the tables know nothing of them."""
    if messages >= _MANY_MESSAGES:
        yield Finding(
            check="intake",
            status=Status.WARN,
            message=f"{plural(messages, 'message')} with events wait at the broker to be taken in",
            advice="every worker takes events in: start one, or add processes; look into their logs if they run",
        )


def _memory(facts: Mapping[str, Any]) -> Iterator[Finding]:
    """Look at what a Redis does when its memory is full, and whether it soon is."""
    used, most = facts.get("used_memory", 0), facts.get("maxmemory", 0)
    if most and used > _FULL * most:
        yield Finding(
            check="broker memory",
            status=Status.FAIL,
            message=f"{100 * used / most:.0f} % of its maxmemory are used: when it is full it refuses events",
            advice="raise its maxmemory, or find what else is stored there: Pushfan needs a few megabytes",
        )
        return
    policy = facts.get("maxmemory_policy", "noeviction")
    if policy != "noeviction" and facts.get("maxmemory"):
        yield Finding(
            check="broker memory",
            status=Status.FAIL,
            message=f"maxmemory-policy is {policy}: under pressure it throws away queues",
            advice="CONFIG SET maxmemory-policy noeviction, and the same in its configuration",
        )
    elif policy != "noeviction":
        yield Finding(
            check="broker memory",
            status=Status.WARN,
            message=f"maxmemory-policy is {policy}, which throws away queues as soon as a maxmemory is set",
            advice="CONFIG SET maxmemory-policy noeviction, and the same in its configuration",
        )


def _others(url: str, address: str) -> Iterator[Finding]:
    import kombu
    from kombu.exceptions import OperationalError

    connection = kombu.Connection(url, connect_timeout=_TIMEOUT_SECONDS)
    try:
        connection.ensure_connection(max_retries=1, interval_start=0, timeout=_TIMEOUT_SECONDS)
        facts = getattr(connection.connection, "server_properties", {}) or {}
    except (OSError, *connection.connection_errors) as error:
        raise OperationalError(f"{address} does not answer: {error}") from error
    finally:
        connection.release()
    version = str(facts.get("version", ""))
    message = f"{facts.get('product', urlsplit(url).scheme)} {version} at {address}"
    numbers = tuple(map(int, re.findall(r"\d+", version)[:2]))
    if facts.get("product") == "RabbitMQ" and numbers < _OLDEST_RABBITMQ:
        yield Finding(
            check="broker",
            status=Status.WARN,
            message=message,
            advice="quorum queues are safest from RabbitMQ 3.13 on: plan an upgrade",
        )
    else:
        yield Finding(check="broker", status=Status.OK, message=message)
