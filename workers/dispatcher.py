"""The dispatcher: keeps every window full and every clock running, from the tables alone.

It runs beside each worker: a supervised process of its own under prefork, a thread under other pools. Any number
may run; what one has picked, another skips. There is nothing in it to lose: it is killed and started at will.

1. Leases of dead processes of this machine are released at once.
2. Stopped channels whose rest is over begin to probe.
3. Retries whose time has come become chunks, as many as their budget allows.
4. Chunks are announced, as many as each channel's window has room for. Commit, then announce.
5. Notifications whose planning waits are announced to planners, feedback duties to feedback.
6. Webhooks that have something to tell are told, by threads of their own.
7. Now and then: heartbeat, channels stopped for credentials that have changed, house-keeping.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import psycopg
import structlog

from providers.outcome import CredentialsRejected
from registry import channels, ledger, notifications, receipts, suspects, webhooks
from registry.channels import Channel
from registry.database import Connection, Database
from registry.errors import RegistryError

from . import processes
from .announce import Announcer
from .clients import ClientPool
from .credentials import CredentialStore, fingerprint
from .settings import Settings
from .webhooks import Tellers, create_teller

log = structlog.get_logger()

_PATIENCE_SECONDS = 5.0
_LEAVE_SECONDS = 1.0
_RETRIES_AT_ONCE = 5000
_FINISHES_AT_ONCE = 10_000
_LONGEST_REST_SECONDS = 80.0
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """The worker that a dispatcher runs beside."""

    name: str
    lanes: Sequence[str]
    processes: int
    version: str


@dataclass(slots=True)
class _Duty:
    """Something to do every so often. Doing it may say that there is more at once."""

    period_seconds: float
    run: Callable[[], bool | None]
    due_at: float = 0.0


class Dispatcher:
    """Does what is due. Used by one thread."""

    def __init__(self, settings: Settings, database: Database, announcer: Announcer, node: Node) -> None:
        self._settings = settings
        self._database = database
        self._announcer = announcer
        self._node = node
        self._store = CredentialStore(settings.credentials_directory)
        self._clients = ClientPool(settings, database, self._store)
        self._tellers = Tellers(create_teller(settings, database))
        self._machine = processes.machine()
        self._said: dict[str, dict[int, tuple[float, float]]] = {}
        self._duties = [
            _Duty(0, self._release_dead),
            _Duty(settings.tick_seconds, self._begin_probes),
            _Duty(0, self._move_retries),
            _Duty(1, self._recall),
            _Duty(0, self._dispatch),
            _Duty(settings.tick_seconds, self._announce_plans),
            _Duty(1, self._dispatch_expired),
            _Duty(1, self._announce_receipts),
            _Duty(settings.tick_seconds, self._tellers.start_due),
            _Duty(settings.suspect_pass_seconds, self._announce_suspects),
            _Duty(2, self._beat),
            _Duty(2, self._try_credentials),
            _Duty(60, self._keep_house),
        ]

    def run(self, stop: threading.Event) -> None:
        """Work until told to stop. A database that is away is waited for."""
        while not stop.is_set():
            try:
                is_busy = self.tick()
            except (RegistryError, psycopg.Error) as error:
                log.warning("dispatcher_waits", error=str(error))
                is_busy = False
            if not is_busy:
                stop.wait(self._settings.tick_seconds)
        self._tellers.close()
        with suppress(RegistryError, psycopg.Error):
            self._database.run(
                lambda connection: notifications.take_leave(connection, self._node.name),
                patience_seconds=_LEAVE_SECONDS,
            )
        self._database.close()

    def tick(self) -> bool:
        """Do everything that is due. `True` if there is more to do at once."""
        is_busy = False
        for duty in self._duties:
            if time.monotonic() >= duty.due_at:
                is_busy = bool(duty.run()) or is_busy
                duty.due_at = time.monotonic() + duty.period_seconds
        return is_busy

    def _run(self, work: Callable[[Connection], T]) -> T:
        return self._database.run(work, patience_seconds=_PATIENCE_SECONDS)

    def _release_dead(self) -> None:
        owners = self._run(lambda connection: ledger.owners(connection, self._machine))
        dead = [owner for owner in owners if processes.is_dead(owner)]
        if dead:
            released = self._run(lambda connection: ledger.release_dead(connection, dead))
            log.warning("leases_released", owners=dead, chunks=[row["chunk_id"] for row in released])

    def _begin_probes(self) -> None:
        for channel_id in self._run(channels.begin_probes):
            log.info("channel_probing", channel=channel_id, reason="its rest is over")

    def _move_retries(self) -> bool:
        _, moved = self._run(
            lambda connection: ledger.move_due_retries(
                connection, chunk_size=self._settings.chunk_size, limit=_RETRIES_AT_ONCE
            )
        )
        return moved == _RETRIES_AT_ONCE

    def _recall(self) -> None:
        self._run(ledger.recall)

    def _dispatch(self) -> None:
        self._announcer.chunks(self._run(ledger.dispatch))

    def _dispatch_expired(self) -> None:
        self._announcer.chunks(self._run(ledger.dispatch_expired))

    def _announce_plans(self) -> None:
        self._announcer.plans([notification_id for notification_id, _ in self._run(notifications.due_plans)])

    def _announce_receipts(self) -> None:
        self._announce_feedback("receipts", self._run(receipts.due_channels))

    def _announce_suspects(self) -> None:
        self._announce_feedback("suspects", self._run(suspects.to_judge))

    def _announce_feedback(self, duty: str, channel_ids: Sequence[int]) -> None:
        """Announce duties, more and more seldom while nobody does them: the queue shall not grow without workers."""
        now = time.monotonic()
        said = self._said.get(duty, {})
        self._said[duty] = {channel_id: said[channel_id] for channel_id in channel_ids if channel_id in said}
        for channel_id in channel_ids:
            due_at, rest_seconds = self._said[duty].get(channel_id, (now, 1.0))
            if now >= due_at:
                self._said[duty][channel_id] = (
                    now + rest_seconds,
                    min(2 * rest_seconds, _LONGEST_REST_SECONDS),
                )
                self._announcer.feedback([(duty, channel_id)])

    def _beat(self) -> None:
        node = self._node
        self._run(
            lambda connection: notifications.heartbeat(
                connection, name=node.name, lanes=node.lanes, processes=node.processes, version=node.version
            )
        )

    def _try_credentials(self) -> None:
        """Probe a channel at once whose refused credentials have been replaced."""
        for channel in self._run(channels.open_for_credentials):
            try:
                current = fingerprint(self._clients.read_secrets(channel))
            except CredentialsRejected:
                continue
            if current != channel.credential_fingerprint:
                self._change_credentials(channel)
                log.info("channel_probing", channel=channel.id, reason="other credentials")

    def _change_credentials(self, channel: Channel) -> None:
        self._run(
            lambda connection: channels.credentials_changed(
                connection, channel.id, generation=channel.circuit_generation
            )
        )

    def _keep_house(self) -> None:
        limits = self._settings
        self._run(
            lambda connection: notifications.keep_house(
                connection,
                content_age=timedelta(hours=limits.content_hours),
                key_age=timedelta(days=limits.key_days),
                days=limits.retention_days,
            )
        )
        self._run(
            lambda connection: webhooks.forget_finishes(
                connection, days=limits.retention_days, limit=_FINISHES_AT_ONCE
            )
        )
