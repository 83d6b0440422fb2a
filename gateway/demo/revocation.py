"""Revoke one provider's credential while it is in use, restore it, and watch its channel stop and begin again.

Nobody helps: the circuit opens at the first refusal, probes by itself ever more seldom, and closes when a probe is
answered; then traffic grows from 200 pushes a second. A neighbour, which nobody touches, is watched meanwhile.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from registry import channels
from registry.channels import Channel, Circuit, CircuitReason, Provider
from registry.installs import FeedbackKind

from .pulse import Pulse
from .stage import Stage
from .traffic import Traffic

# How long the neighbour's rate is measured: before, from the stop on, and from the restoring on.
_MEASURED_SECONDS: Final = 3.0
# Traffic flows at so much of a channel's rate; in a small world it never may.
_FLOWING: Final = 0.6
_FLOWING_SECONDS: Final = 5.0
_PATIENCE_SECONDS: Final = 60.0
_RAMP_SECONDS: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """How the channel stopped. `None`: not in time. `waited`: deliveries that waited for it at the end.

    `retired`: tokens that were given up meanwhile. `neighbour_rate`: what the neighbour took meanwhile, a second.
    """

    opened_after: float | None
    failed_probes: int
    waited: int
    retired: int
    neighbour_rate: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Resumption:
    """How the channel began again. Seconds are from the restoring on; `None`: not in time.

    `ramp`: what the provider took in each of the first seconds after its circuit had closed.
    """

    closed_after: float | None
    drained_after: float | None
    ramp: Sequence[float]
    neighbour_rate: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Revocation:
    """What happened to a channel whose credential was revoked and restored, and to its neighbour."""

    provider: Provider
    neighbour: Provider
    neighbour_rate: float
    stop: Stop
    resumption: Resumption

    @property
    def faults(self) -> Iterator[str]:
        """Say what it broke."""
        if self.stop.opened_after is None:
            yield f"{self.provider} refused the credential, and its circuit did not open"
        if self.stop.retired:
            yield f"{self.stop.retired} tokens were retired while {self.provider} refused the credential"
        if self.resumption.closed_after is None or self.resumption.drained_after is None:
            yield f"{self.provider} took the credential again, and its channel did not recover"

    @property
    def neighbour_rates(self) -> Sequence[int]:
        """What the neighbour took a second: before, while the channel was stopped, and afterwards."""
        rates = self.neighbour_rate, self.stop.neighbour_rate, self.resumption.neighbour_rate
        return [round(rate) for rate in rates]

    def as_json(self) -> dict[str, Any]:
        """Say it to a program."""
        return {
            "provider": self.provider.value,
            "opened_after_seconds": _rounded(self.stop.opened_after),
            "failed_probes": self.stop.failed_probes,
            "waited": self.stop.waited,
            "retired": self.stop.retired,
            "closed_after_seconds": _rounded(self.resumption.closed_after),
            "ramp_per_second": [round(rate) for rate in self.resumption.ramp],
            "drained_after_seconds": _rounded(self.resumption.drained_after),
            "neighbour": self.neighbour.value,
            "neighbour_per_second": dict(
                zip(("before", "meanwhile", "afterwards"), self.neighbour_rates, strict=True)
            ),
        }


class Revoker:
    """Revokes the credential of one provider, once. `tell` is told what happens."""

    def __init__(
        self, stage: Stage, pulse: Pulse, provider: Provider, neighbour: Provider, tell: Callable[[str], None]
    ) -> None:
        self._stage = stage
        self._pulse = pulse
        self._provider = provider
        self._neighbour = neighbour
        self._tell = tell

    def revoke(self, traffic: Traffic) -> Revocation:
        """Revoke and restore while traffic is under way, then let everything drain."""
        traffic.until(self._is_flowing, seconds=_FLOWING_SECONDS)
        began = time.monotonic()
        traffic.until(lambda: _has_lasted(began), seconds=_PATIENCE_SECONDS)
        return Revocation(
            provider=self._provider,
            neighbour=self._neighbour,
            neighbour_rate=self._neighbour_rate(began),
            stop=self._stop(traffic),
            resumption=self._resume(traffic),
        )

    def _stop(self, traffic: Traffic) -> Stop:
        retired = self._retired()
        self._tell(f"attack 3: {self._provider} refuses the credential from now on")
        self._stage.set_credentials(self._provider, are_valid=False)
        opened_after = traffic.until(self._is_refused, seconds=_PATIENCE_SECONDS)
        began, opened = time.monotonic(), self._channel()
        self._tell(f"{self._provider}: circuit open, {opened.circuit_detail}; its tokens are not touched")
        traffic.until(
            lambda: _has_lasted(began) and self._channel().failed_probes > opened.failed_probes,
            seconds=_PATIENCE_SECONDS,
        )
        return Stop(
            opened_after=opened_after,
            failed_probes=self._channel().failed_probes - opened.failed_probes,
            waited=self._waiting(),
            retired=self._retired() - retired,
            neighbour_rate=self._neighbour_rate(began),
        )

    def _resume(self, traffic: Traffic) -> Resumption:
        began = time.monotonic()
        self._tell(f"{self._provider} takes the credential again; nobody tells the workers")
        self._stage.set_credentials(self._provider, are_valid=True)
        closed_after = traffic.until(self._is_closed, seconds=_PATIENCE_SECONDS)
        closed_at = time.monotonic()
        self._tell(
            f"{self._provider}: a probe was answered, the circuit is closed, traffic grows from 200 a second"
        )
        traffic.until(lambda: _has_lasted(began), seconds=_PATIENCE_SECONDS)
        neighbour_rate = self._neighbour_rate(began)
        traffic.end()
        drained = traffic.until(lambda: self._waiting() == 0, seconds=_PATIENCE_SECONDS)
        return Resumption(
            closed_after=closed_after,
            drained_after=None if drained is None else time.monotonic() - began,
            ramp=self._ramp(closed_at),
            neighbour_rate=neighbour_rate,
        )

    def _is_flowing(self) -> bool:
        """Tell whether both providers take pushes just now, the neighbour about as many as it may."""
        now, usual = self._pulse.latest, self._stage.ways[self._neighbour].rate_per_second
        if not now or not now[self._provider].rate:
            return False
        return now[self._neighbour].rate >= _FLOWING * usual

    def _is_refused(self) -> bool:
        channel = self._channel()
        return channel.circuit is Circuit.OPEN and channel.circuit_reason is CircuitReason.CREDENTIALS

    def _is_closed(self) -> bool:
        return self._channel().circuit is Circuit.CLOSED

    def _channel(self) -> Channel:
        channel_id = self._stage.ways[self._provider].id
        return self._stage.database.run(lambda connection: channels.find(connection, channel_id))

    def _waiting(self) -> int:
        vital = self._pulse.latest[self._provider]
        return vital.open + vital.waiting

    def _retired(self) -> int:
        channel_id = self._stage.ways[self._provider].id
        return sum(
            one.kind is FeedbackKind.RETIRED and one.channel_id == channel_id
            for one in self._stage.feedback()
        )

    def _neighbour_rate(self, since: float) -> float:
        return self._pulse.rate(self._neighbour, since, time.monotonic())

    def _ramp(self, since: float) -> list[float]:
        """Read what the provider took in each of the first seconds."""
        seconds = min(_RAMP_SECONDS, int(time.monotonic() - since))
        return [self._pulse.rate(self._provider, since + n, since + n + 1) for n in range(seconds)]


def _has_lasted(began: float) -> bool:
    return time.monotonic() - began >= _MEASURED_SECONDS


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 2)
