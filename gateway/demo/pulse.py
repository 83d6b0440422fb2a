"""Take the pulse: what the providers have taken and what waits, a few times a second, in a thread of its own.

The beats are kept. An attack reads from them how fast a provider went before, meanwhile and afterwards.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Self

from gateway.view import Meter
from providers.simulators.launch import SimulatorError
from registry import channels, overview
from registry.channels import Circuit, CircuitReason, Provider
from registry.database import Connection, Database
from registry.errors import DatabaseUnavailable

from .stage import Stage

_PERIOD_SECONDS: Final = 0.2
_PATIENCE_SECONDS: Final = 1.0
_STOP_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Vital:
    """How one provider's channel is at one moment. `received` is the simulator's own count, and only grows."""

    circuit: Circuit
    reason: CircuitReason | None
    failed_probes: int
    received: int
    rate: float
    open: int
    waiting: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Beat:
    """How all providers are at one moment of the monotonic clock."""

    at: float
    vitals: Mapping[Provider, Vital]


class Pulse:
    """Beats while it is entered; `beats` grows. Reads over a connection of its own, and disturbs nobody."""

    def __init__(self, stage: Stage) -> None:
        self.beats: list[Beat] = []
        self._stage = stage
        self._database = Database(stage.database.url, application_name="pushfan demo")
        self._meters = {provider: Meter() for provider in stage.ways}
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._beat_on, name="pulse", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join(_STOP_SECONDS)

    @property
    def latest(self) -> Mapping[Provider, Vital]:
        """How all providers are now; nothing before the first beat."""
        return self.beats[-1].vitals if self.beats else {}

    def rate(self, provider: Provider, since: float, until: float) -> float:
        """How many pushes a second a provider took between two moments."""
        return rate(self.beats, provider, since, until)

    def _beat_on(self) -> None:
        try:
            while not self._is_over.wait(_PERIOD_SECONDS):
                try:
                    self.beats.append(self._beat())
                except (DatabaseUnavailable, SimulatorError, OSError):
                    continue  # a beat is missed: rates are over longer
        finally:
            self._database.close()

    def _beat(self) -> Beat:
        found, waiting, being = self._database.run(self._look, patience_seconds=_PATIENCE_SECONDS)
        received = {provider: self._stage.count_receipts(provider) for provider in self._stage.ways}
        at = time.monotonic()
        return Beat(
            at=at,
            vitals={
                one.provider: Vital(
                    circuit=one.circuit,
                    reason=one.circuit_reason,
                    failed_probes=one.failed_probes,
                    received=received[one.provider],
                    rate=self._meters[one.provider].rate(at, received[one.provider]),
                    open=being[one.id],
                    waiting=waiting[one.id],
                )
                for one in found
            },
        )

    def _look(self, connection: Connection) -> tuple[list[channels.Channel], Counter[int], Counter[int]]:
        waiting, being = Counter[int](), Counter[int]()
        for backlog in overview.backlogs(connection):
            waiting[backlog.channel_id] += backlog.waiting
            being[backlog.channel_id] += backlog.positions
        return channels.list_all(connection, self._stage.app_id), waiting, being


def rate(beats: Sequence[Beat], provider: Provider, since: float, until: float) -> float:
    """How many pushes a second a provider took, over the beats between two moments; 0 if there are not two."""
    within = [beat for beat in beats if since <= beat.at <= until]
    if len(within) < 2:
        return 0.0
    first, last = within[0], within[-1]
    taken = last.vitals[provider].received - first.vitals[provider].received
    return taken / (last.at - first.at)
