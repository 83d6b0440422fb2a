"""Provisional acceptances: requests whose vendor must be asked later which of their tokens it really knew.

1. `ask_later` stores a request's devices and tokens with the flush that records their acceptance.
2. `take_due` picks requests whose time has come and puts them off, so that nobody else asks meanwhile.
3. `close` forgets a request that was answered, or asked about often enough.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from .database import Connection
from .ledger import Address
from .statements import load

_SQL = load("receipts")


@dataclass(frozen=True, slots=True, kw_only=True)
class Poll:
    """One accepted request to ask about: parallel devices and tokens, and when the tokens were loaded."""

    id: int
    channel_id: int
    message_id: str
    device_ids: Sequence[int]
    tokens: Sequence[str] = field(repr=False)
    loaded_at: datetime
    attempts: int


def ask_later(
    connection: Connection,
    *,
    channel_id: int,
    message_id: str,
    members: Mapping[int, Address],
    delay: timedelta,
) -> None:
    """Remember to ask about a request. `members` maps device ids to the addresses it was sent to."""
    connection.execute(
        _SQL["ask_later"],
        {
            "channel_id": channel_id,
            "message_id": message_id,
            "device_ids": list(members),
            "tokens": [address.token for address in members.values()],
            "loaded_at": min(address.loaded_at for address in members.values()),
            "delay": delay,
        },
    )


def due_channels(connection: Connection) -> list[int]:
    """List the channels that have a request to ask about now."""
    return [row["channel_id"] for row in connection.execute(_SQL["due_channels"])]


def take_due(
    connection: Connection, channel_id: int, *, limit: int, put_off: timedelta, first_delay: timedelta
) -> list[Poll]:
    """Pick requests to ask about. They are asked about again after `put_off` or twice the last wait, unless closed."""
    rows = connection.execute(
        _SQL["take_due"],
        {"channel_id": channel_id, "limit": limit, "put_off": put_off, "first_delay": first_delay},
    )
    return [Poll(**row) for row in rows]


def close(connection: Connection, poll_ids: Sequence[int]) -> None:
    """Forget requests that need no more asking."""
    connection.execute(_SQL["close"], {"ids": list(poll_ids)})
