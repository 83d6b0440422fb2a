"""The ledger: chunks and who works on them, deliveries that wait, deliveries that ended.

1. `dispatch` picks chunks to publish, as many as each channel's window has room for.
2. `claim` takes the right to work on one: a fence that grows, and a lease.
3. `renew` says how far the send engine has been fed; `flush` records answers. Both carry the fence.
4. `finish` removes a chunk that has no open position and adds its outcomes to its notifications.
5. `move_due_retries` makes new chunks of deliveries whose time has come.

Every function runs in the caller's transaction. Lock order everywhere: channel, chunk, device, notification.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from .channels import CircuitReason
from .database import Connection
from .statements import load

_SQL = load("ledger")


class FinalOutcome(StrEnum):
    """What finally became of a delivery, in the order of `pushfan.outcome`: the ordinal is the vector's byte."""

    ACCEPTED = "accepted"
    UNREGISTERED = "unregistered"
    REJECTED = "rejected"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    WITHDRAWN = "withdrawn"
    UNKNOWN = "unknown"
    DEAD = "dead"


OPEN = 0
CODES: Mapping[FinalOutcome, int] = {outcome: code for code, outcome in enumerate(FinalOutcome, start=1)}
WAITING = 9
SPLIT = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A chunk that is to be announced over the broker, now that its row says so."""

    chunk_id: int
    channel_id: int
    lane: str
    notification_id: int
    positions: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredContent:
    """What a notification says, in wire form; `event` is `None` once it was cleared."""

    notification_id: int
    event: dict[str, Any] | None
    expires_at: datetime
    is_cancelled: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where a position's device is reached now."""

    token: str = field(repr=False)
    is_installation_id: bool
    locale: str | None
    is_suspect: bool
    loaded_at: datetime


@dataclass(slots=True, kw_only=True)
class Claim:
    """A chunk that is ours while the lease lasts. `issued_before`: what the last owner had handed to libcurl."""

    chunk_id: int
    app_id: int
    channel_id: int
    lane: str
    notification_ids: list[int]
    device_ids: list[int]
    attempts: list[int]
    earlier: list[list[dict[str, Any]]] | None
    request_tags: list[str | None] | None
    expires_at: datetime
    fence: int
    strikes: int
    result: bytearray
    issued: int
    issued_before: int
    circuit_generation: int
    circuit_reason: CircuitReason | None
    is_probe: bool
    contents: dict[int, StoredContent]
    addresses: dict[int, Address]
    claimed_at: datetime

    def __len__(self) -> int:
        return len(self.device_ids)

    def notification_id(self, position: int) -> int:
        """Say whose delivery a position is."""
        return self.notification_ids[position if len(self.notification_ids) > 1 else 0]

    def attempts_spent(self, position: int) -> int:
        """Say how many attempts a position had before this chunk."""
        return self.attempts[position if len(self.attempts) > 1 else 0]

    def earlier_answers(self, position: int) -> Sequence[dict[str, Any]]:
        """List what was answered to a position in earlier chunks."""
        return self.earlier[position] if self.earlier is not None else ()

    def open_positions(self) -> list[int]:
        """List the positions without a result."""
        return [position for position, code in enumerate(self.result) if code == OPEN]

    def unsure_positions(self) -> list[int]:
        """List the positions that the last owner issued and did not record: they may have been accepted."""
        return [position for position in range(self.issued_before) if self.result[position] == OPEN]

    @property
    def is_complete(self) -> bool:
        """No position is open."""
        return OPEN not in self.result


@dataclass(slots=True, kw_only=True)
class Final:
    """A position that ended. Not frozen: one is made for each push, and freezing costs time."""

    position: int
    outcome: FinalOutcome
    attempts: int
    reason: str | None = None
    provider_id: str | None = None
    earlier: Sequence[dict[str, Any]] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """A position that is tried again after `delay`. `attempts` counts those spent."""

    position: int
    attempts: int
    delay: timedelta
    expires_at: datetime
    request_tag: str | None
    earlier: list[dict[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What the database says to who still holds a chunk: for how long, and what of its surroundings has changed."""

    lease_left: timedelta
    circuit_generation: int
    cancelled: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Owned:
    """Whether a chunk still carries our fence, and our vector. A chunk that is gone is recorded."""

    is_owner: bool
    is_recorded: bool


def dispatch(connection: Connection, channel_ids: Sequence[int] | None = None) -> list[Published]:
    """Pick chunks to publish, of some channels or all. Publish them after the commit."""
    rows = connection.execute(
        _SQL["dispatch"], {"channel_ids": None if channel_ids is None else list(channel_ids)}
    )
    return [Published(**row) for row in rows]


def recall(connection: Connection) -> None:
    """Put begun chunks whose announcement came to nothing before the backlog again."""
    connection.execute(_SQL["recall"])


def dispatch_expired(connection: Connection, *, limit: int = 100) -> list[Published]:
    """Pick chunks that may no longer be sent, whatever their circuit says."""
    return [Published(**row) for row in connection.execute(_SQL["dispatch_expired"], {"limit": limit})]


def claim(
    connection: Connection,
    *,
    chunk_id: int,
    channel_id: int,
    owner: str,
    lease: timedelta,
    first: int,
    probe: int,
    chunk_size: int,
) -> Claim | None:
    """Take a chunk, with its contents and the addresses of its first positions; `None` if it is not to be had.

    A small one takes in others that wait, up to `chunk_size` positions. One round trip. The first `first` positions
    count as issued from the commit on, of a probe the first `probe`.
    """
    chunk = {"chunk_id": chunk_id, "channel_id": channel_id}
    with connection.pipeline():
        connection.execute(_SQL["lock_channel"], chunk)
        connection.execute(_SQL["absorb"], {**chunk, "chunk_size": chunk_size})
        terms = {"owner": owner, "lease": lease, "first": first, "probe": probe}
        claimed = connection.execute(_SQL["claim"], {**chunk, **terms})
        contents = connection.execute(_SQL["load_contents"], chunk)
        addresses = connection.execute(_SQL["load_first_addresses"], {**chunk, "first": first})
        row = claimed.fetchone()
        stored = contents.fetchall()
        located = addresses.fetchall()
    if row is None:
        return None
    result = _claim_of(row, stored, located)
    unsure = Counter(result.notification_id(position) for position in result.unsure_positions())
    if unsure:
        connection.execute(
            _SQL["count_unsure"], {"notification_ids": list(unsure), "counts": list(unsure.values())}
        )
    return result


def _claim_of(row: dict[str, Any], contents: list[dict[str, Any]], located: list[dict[str, Any]]) -> Claim:
    reason = row["circuit_reason"]
    return Claim(
        **{
            **row,
            "result": bytearray(row["result"]),
            "circuit_reason": None if reason is None else CircuitReason(reason),
        },
        contents={
            content["id"]: StoredContent(
                notification_id=content["id"],
                event=content["event"],
                expires_at=content["expires_at"],
                is_cancelled=content["is_cancelled"],
            )
            for content in contents
        },
        addresses=_addresses(located),
        claimed_at=contents[0]["loaded_at"],
    )


def load_addresses(connection: Connection, claim: Claim, positions: Sequence[int]) -> dict[int, Address]:
    """Load where the devices of some positions are reached now; a device that left is missing."""
    rows = connection.execute(
        _SQL["load_addresses"],
        {
            "positions": list(positions),
            "device_ids": [claim.device_ids[position] for position in positions],
            "channel_id": claim.channel_id,
        },
    )
    return _addresses(rows.fetchall())


def _addresses(rows: Iterable[dict[str, Any]]) -> dict[int, Address]:
    return {
        row["position"]: Address(
            token=row["token"],
            is_installation_id=row["is_installation_id"],
            locale=row["locale"],
            is_suspect=row["is_suspect"],
            loaded_at=row["loaded_at"],
        )
        for row in rows
    }


def renew(connection: Connection, claim: Claim, *, lease: timedelta) -> Held | None:
    """Say how many positions are issued and hold the lease; `None` if it is lost."""
    row = connection.execute(_SQL["renew"], {**_fenced(claim), "lease": lease}).fetchone()
    return None if row is None else Held(**row)


def flush(
    connection: Connection, claim: Claim, finals: Sequence[Final], waits: Sequence[Wait], *, lease: timedelta
) -> Held | None:
    """Record answers with the whole vector; `None` if the fence moved or the vector is already recorded.

    `unnest` fills what is empty with NULLs.
    """
    notification_ids, device_ids = claim.notification_id, claim.device_ids
    row = connection.execute(
        _SQL["flush"],
        {
            **_fenced(claim),
            "lease": lease,
            "result": bytes(claim.result),
            "final_notifications": _numbers(notification_ids(final.position) for final in finals),
            "final_devices": _numbers(device_ids[final.position] for final in finals),
            "final_outcomes": _texts([final.outcome for final in finals]),
            "final_attempts": _numbers(final.attempts for final in finals),
            "final_reasons": _texts([final.reason for final in finals]),
            "final_provider_ids": _texts([final.provider_id for final in finals]),
            "final_earlier": _texts(
                [json.dumps(final.earlier) if final.earlier else None for final in finals]
            ),
            "wait_notifications": [notification_ids(wait.position) for wait in waits],
            "wait_devices": [device_ids[wait.position] for wait in waits],
            "wait_attempts": [wait.attempts for wait in waits],
            "wait_delays": [wait.delay for wait in waits],
            "wait_expiries": [wait.expires_at for wait in waits],
            "wait_tags": [wait.request_tag for wait in waits],
            "wait_earlier": [json.dumps(wait.earlier) for wait in waits],
        },
    ).fetchone()
    return None if row is None else Held(**{**row, "cancelled": frozenset(row["cancelled"])})


def _numbers(values: Iterable[int]) -> str:
    """Write an array literal: several times as fast as a list, which would cost more than PostgreSQL's part."""
    return "{" + ",".join(map(str, values)) + "}"


def _texts(values: Sequence[str | None]) -> str:
    """Write an array literal of texts; an empty one if there is none at all."""
    if not any(value is not None for value in values):
        return "{}"
    return "{" + ",".join("NULL" if value is None else _quoted(value) for value in values) + "}"


def _quoted(value: str) -> str:
    if '"' in value or "\\" in value:
        value = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{value}"'


def holds(connection: Connection, claim: Claim) -> Owned:
    """Tell, after a flush that changed nothing, whether it had arrived or the chunk is no longer ours."""
    parameters = {"chunk_id": claim.chunk_id, "fence": claim.fence, "result": bytes(claim.result)}
    row = connection.execute(_SQL["holds"], parameters).fetchone()
    if row is None:
        return Owned(is_owner=False, is_recorded=True)
    return Owned(is_owner=row["is_owner"], is_recorded=row["is_recorded"])


def lock_channel(connection: Connection, channel_id: int) -> None:
    """Lock a channel before its chunk, where a transaction needs both (lock order)."""
    connection.execute(_SQL["lock_channel"], {"channel_id": channel_id})


def count_ended(connection: Connection, claim: Claim, *, accepted: int, doubted: int) -> None:
    """Add a complete chunk to its channel's outcomes and health, before the flush that records it (lock order).

    `accepted` and `doubted` are the answers that this claim's owner got itself.
    """
    counts = Counter(claim.result)
    connection.execute(
        _SQL["count_ended"],
        {
            "channel_id": claim.channel_id,
            "generation": claim.circuit_generation,
            "accepted": accepted,
            "doubted": doubted,
            "outcomes": _numbers(counts[code] for code in CODES.values()),
            "chunk_id": claim.chunk_id,
            "fence": claim.fence,
            "result": bytes(claim.result),
        },
    )


def finish(connection: Connection, claim: Claim) -> None:
    """Remove a complete chunk and add its outcomes to its notifications. Does nothing if it is gone."""
    sums = _sums(claim)
    parameters: dict[str, Any] = {
        "chunk_id": claim.chunk_id,
        "fence": claim.fence,
        "notification_ids": _numbers(sums),
    }
    for outcome, code in CODES.items():
        parameters[outcome.value] = _numbers(counts[code] for counts in sums.values())
    parameters["retries"] = _numbers(counts[WAITING] for counts in sums.values())
    connection.execute(_SQL["finish"], parameters)


def _sums(claim: Claim) -> dict[int, Counter[int]]:
    if len(claim.notification_ids) == 1:
        return {claim.notification_ids[0]: Counter(claim.result)}
    sums: dict[int, Counter[int]] = defaultdict(Counter)
    for notification_id, code in zip(claim.notification_ids, claim.result, strict=True):
        sums[notification_id][code] += 1
    return sums


def release(connection: Connection, claim: Claim, *, issued: int) -> None:
    """Give a chunk back for someone else to go on. Nothing of it may be in flight; `issued` are still unsure."""
    connection.execute(_SQL["release"], {"chunk_id": claim.chunk_id, "fence": claim.fence, "issued": issued})


def owners(connection: Connection, prefix: str) -> list[str]:
    """List who holds leases among the owners whose name begins so."""
    return [row["owner"] for row in connection.execute(_SQL["owners"], {"prefix": prefix})]


def release_dead(connection: Connection, dead: Sequence[str]) -> list[dict[str, Any]]:
    """Take the leases of processes that certainly no longer exist."""
    return connection.execute(_SQL["release_dead"], {"owners": list(dead)}).fetchall()


def split(connection: Connection, claim: Claim, positions: Sequence[int]) -> None:
    """Move what were the open positions of a chunk without progress into two new chunks, the unsure ones first.

    Run before `flush` and `finish` of the same transaction, with a vector that says `SPLIT` for them.
    """
    unsure = {position for position in positions if position < claim.issued_before}
    positions = sorted(positions, key=lambda position: position not in unsure)
    middle = (len(positions) + 1) // 2
    for half in filter(None, (positions[:middle], positions[middle:])):
        connection.execute(
            _SQL["insert_chunk"],
            {
                "app_id": claim.app_id,
                "channel_id": claim.channel_id,
                "lane": claim.lane,
                "notification_ids": [claim.notification_id(position) for position in half],
                "device_ids": [claim.device_ids[position] for position in half],
                "attempts": [claim.attempts_spent(position) for position in half],
                "earlier": json.dumps([claim.earlier_answers(position) for position in half]),
                "request_tags": claim.request_tags and [claim.request_tags[position] for position in half],
                "expires_at": claim.expires_at,
                "issued": sum(position in unsure for position in half),
                "result": bytes(len(half)),
                # The next kill divides a half again; a single delivery is judged anew.
                "strikes": min(1, len(half) - 1),
            },
        )


def record_dead(connection: Connection, claim: Claim, position: int, kind: str, error: str) -> None:
    """Store the dead letter of one delivery: `poison` killed its workers, `exhausted` spent its attempts."""
    connection.execute(
        _SQL["record_dead"],
        {
            "app_id": claim.app_id,
            "kind": kind,
            "error": error,
            "notification_id": claim.notification_id(position),
            "device_id": claim.device_ids[position],
        },
    )


def move_due_retries(connection: Connection, *, chunk_size: int, limit: int = 5000) -> tuple[set[int], int]:
    """Make chunks of deliveries whose time has come. Returns the channels concerned and how many moved."""
    rows = connection.execute(_SQL["move_due_retries"], {"chunk_size": chunk_size, "limit": limit}).fetchall()
    return {row["channel_id"] for row in rows}, sum(row["positions"] for row in rows)


def _fenced(claim: Claim) -> dict[str, Any]:
    return {
        "chunk_id": claim.chunk_id,
        "fence": claim.fence,
        "issued": claim.issued,
        "request_tags": claim.request_tags,
    }
