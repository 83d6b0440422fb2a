"""Users with a device each, made by PostgreSQL itself: a million in seconds, where installs would take minutes.

Each is `<name>-<number>`, from 1. The tokens have the vendors' forms, so that the simulators accept them.
"""

from __future__ import annotations

from collections.abc import Sequence

import psycopg

from .statements import load

_SQL = load("crowd")


def settle_in(url: str, name: str, size: int, channel_ids: Sequence[int]) -> None:
    """Make users and devices, spread over the channels in turn."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(_SQL["add_devices"], {"name": name, "size": size, "channels": list(channel_ids)})
        connection.execute(_SQL["tidy_devices"])


def subscribe(url: str, app_id: int, topic: str, name: str, size: int) -> None:
    """Subscribe the first `size` users of a crowd to a topic."""
    with psycopg.connect(url, autocommit=True) as connection:
        parameters = {"app_id": app_id, "topic": topic, "name": name, "size": size}
        connection.execute(_SQL["add_topic"], parameters)
        connection.execute(_SQL["add_subscriptions"], parameters)
        connection.execute(_SQL["tidy_subscriptions"])


def tokens(url: str, channel_id: int, limit: int) -> list[str]:
    """List the tokens of a channel's first devices."""
    with psycopg.connect(url, autocommit=True) as connection:
        rows = connection.execute(_SQL["tokens"], {"channel_id": channel_id, "limit": limit})
        return [token for (token,) in rows]


def user(name: str, number: int) -> str:
    """Name a user of a crowd."""
    return f"{name}-{number:08d}"
