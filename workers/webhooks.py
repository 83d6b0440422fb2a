"""Tell webhooks what happened: in batches, signed, in order, again until the receiver says that it has them.

1. A claim gives the right to tell one webhook for some time; who holds a later one has taken it over.
2. The batch's end is stored before it is told: repeated, it is the same entries under the same `webhook-id`.
3. A 2xx moves the cursor. Anything else is told again later, more and more seldom; after `webhook_patience_hours`, or
   at once when the receiver answers 410, the webhook is disabled and says why.

A process that dies in between has told the batch or not: it is told again, and its id says that it is the same one.
"""

from __future__ import annotations

import queue
import random
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import orjson
import psycopg
import structlog

from registry import webhooks
from registry.database import Database
from registry.errors import RegistryError
from registry.feedback import Cursor
from registry.ledger import FinalOutcome
from registry.webhooks import Claim, Entry, State, Topic

from .credentials import CredentialError, CredentialStore
from .decide import RetryPolicy
from .posting import Gone, Poster, PostFailed
from .settings import Settings
from .signing import Signer

log = structlog.get_logger()

BATCH: Final = 250
THREADS: Final = 8
# Of one claim; then others have their turn.
_MOST_BATCHES: Final = 20
_MARGIN: Final = timedelta(seconds=10)
_OUTCOMES: Final = tuple(outcome.value for outcome in FinalOutcome)


@dataclass(frozen=True, slots=True, kw_only=True)
class Teller:
    """What telling needs. `policy` is the backoff between the tries of one batch. Safe for threads."""

    database: Database
    poster: Poster
    signer: Signer
    policy: RetryPolicy
    jitter: Callable[[float], float]
    timeout: timedelta
    patience: timedelta

    def claim(self, limit: int) -> list[Claim]:
        """Take webhooks that have something to tell."""
        return self.database.run(lambda connection: webhooks.claim(connection, limit=limit, lease=self.lease))

    def tell(self, claim: Claim) -> int:
        """Tell batches, one after the other, while they are full. Returns how many the receiver has now."""
        told = 0
        while told < _MOST_BATCHES:
            end, is_full = self._tell_batch(claim, is_last=told + 1 == _MOST_BATCHES)
            if end is None:
                return told
            told += 1
            if not is_full:
                break
            claim = replace(claim, told=end, batch=None, failures=0)
        return told

    def _tell_batch(self, claim: Claim, *, is_last: bool) -> tuple[Cursor | None, bool]:
        """Tell one. Gives its end, `None` if the receiver does not have it, and whether there may be more."""
        begun = self.database.run(lambda connection: webhooks.begin(connection, claim, limit=BATCH))
        if begun is None:
            return None, False
        entries, end = begun
        try:
            # What was forgotten since the batch was begun is told no more.
            if told := [one for one in map(_told, entries) if one is not None]:
                self._post(claim, end, told)
        except (PostFailed, CredentialError) as error:
            self._fail(claim, error)
            return None, False
        is_full = len(entries) == BATCH
        lease = self.lease if is_full and not is_last else timedelta(0)
        is_ours = self.database.run(lambda connection: webhooks.confirm(connection, claim, end, lease=lease))
        return (end, is_full) if is_ours else (None, False)

    @property
    def lease(self) -> timedelta:
        """How long a claim lasts: longer than the longest answer, so that nobody else begins meanwhile."""
        return self.timeout + _MARGIN

    def _post(self, claim: Claim, end: Cursor, told: list[dict[str, Any]]) -> None:
        message_id = message_id_of(claim, end)
        body = body_of(claim, message_id, told)
        salts = [salt for salt in (claim.salt, claim.previous_salt) if salt is not None]
        headers = self.signer.headers(message_id, int(time.time()), body, salts)
        self.poster.post(claim.url, headers, body)

    def _fail(self, claim: Claim, error: PostFailed | CredentialError) -> None:
        floor = error.retry_after if isinstance(error, PostFailed) else timedelta(0)
        delay = self.policy.backoff(claim.failures + 1, floor, self.jitter)
        hours = self.patience.total_seconds() / 3600
        is_gone = isinstance(error, Gone)
        reason = str(error) if is_gone else f"failed for {hours:g} h, at last: {error}"
        state = self.database.run(
            lambda connection: webhooks.fail(
                connection,
                claim,
                error=str(error),
                delay=delay,
                patience=self.patience,
                reason=reason,
                is_gone=is_gone,
            )
        )
        names = {"app": claim.app, "webhook": claim.name}
        if state is State.DISABLED:
            log.error("webhook_disabled", **names, reason=reason)
        else:
            log.warning("webhook_failed", **names, error=str(error), failures=claim.failures + 1)


class Tellers:
    """Threads that tell, so that a slow receiver holds up nobody but itself. They start when there is work."""

    def __init__(self, teller: Teller, *, threads: int = THREADS) -> None:
        self._teller = teller
        self._most = threads
        self._queue: queue.SimpleQueue[Claim | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._busy = 0
        self._lock = threading.Lock()

    def start_due(self) -> None:
        """Claim as much as there are idle threads."""
        with self._lock:
            idle = self._most - self._busy
        if idle <= 0:
            return
        claims = self._teller.claim(idle)
        with self._lock:
            self._busy += len(claims)
        while len(self._threads) < min(self._most, self._busy):
            thread = threading.Thread(
                target=self._run, name=f"pushfan-webhook-{len(self._threads)}", daemon=True
            )
            self._threads.append(thread)
            thread.start()
        for claim in claims:
            self._queue.put(claim)

    def close(self) -> None:
        """Begin nothing more. What is being told is not waited for: it is told again, as the same batch."""
        for _ in self._threads:
            self._queue.put(None)

    def _run(self) -> None:
        while (claim := self._queue.get()) is not None:
            try:
                self._teller.tell(claim)
            except (RegistryError, psycopg.Error) as error:
                log.warning("webhook_waits", app=claim.app, webhook=claim.name, error=str(error))
            finally:
                with self._lock:
                    self._busy -= 1
        self._teller.database.close()


def create_teller(settings: Settings, database: Database) -> Teller:
    """Make what the settings describe."""
    store = CredentialStore(settings.credentials_directory)
    return Teller(
        database=database,
        poster=Poster.of(settings),
        signer=Signer(store, settings.webhook_secret),
        policy=RetryPolicy(
            max_attempts=settings.max_attempts,
            base=timedelta(seconds=settings.backoff_seconds),
            cap=timedelta(seconds=settings.backoff_cap_seconds),
            scale=settings.delay_scale,
        ),
        jitter=lambda ceiling: random.uniform(0, ceiling),
        timeout=timedelta(seconds=settings.webhook_timeout_seconds),
        patience=timedelta(hours=settings.webhook_patience_hours),
    )


def message_id_of(claim: Claim, end: Cursor) -> str:
    """Name a batch: the same whenever it is told again."""
    return f"msg_{claim.id}_{end}"


def body_of(claim: Claim, message_id: str, told: Iterable[Mapping[str, Any]]) -> bytes:
    """Write a batch: `{"id": …, "app": …, "webhook": …, "events": […]}`."""
    document = {"id": message_id, "app": claim.app, "webhook": claim.name, "events": list(told)}
    return orjson.dumps(document, option=orjson.OPT_UTC_Z)


def _told(entry: Entry) -> dict[str, Any] | None:
    head = {"type": entry.topic.value, "cursor": str(entry.cursor), "at": _utc(entry.row["at"])}
    if entry.topic is Topic.FEEDBACK:
        # As `GET /v1/feedback` says it.
        names = ("device_key", "channel", "kind", "reason", "token_hash")
        who = {"device": entry.row["device_id"], "user": entry.row["user_id"]}
        return head | {"feedback": who | {name: entry.row[name] for name in names}}
    return None if entry.row["key"] is None else head | {"notification": _notification(entry.row)}


def _notification(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": str(row["notification_id"]),
        "event_id": row["key"],
        "kind": row["kind"],
        "lane": row["lane"],
        "created_at": _utc(row["created_at"]),
        "cancelled_at": _utc(row["cancelled_at"]),
        "finished_at": _utc(row["finished_at"]),
        "warning": row["warning"],
        "users": row["users"],
        "devices": row["devices"],
        "outcomes": {name: row[name] for name in _OUTCOMES},
    }


def _utc(at: datetime | None) -> datetime | None:
    return at and at.astimezone(UTC)
