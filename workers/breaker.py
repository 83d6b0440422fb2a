"""When to stop a channel: what one process sees of a provider's answers, weighed in a row.

A single answer that tells anything about a delivery ends the row. A row is judged by requests and by devices, since
one request may carry many devices and one device may fail many times for reasons of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta

from providers.outcome import (
    Accepted,
    CredentialsRejected,
    Outcome,
    Rejected,
    SendError,
    Throttled,
    Unavailable,
    Unregistered,
)
from registry.channels import CircuitReason, Rest

# At a failure rate of one half, 20 failures in a row come once in a million; of nine in ten, every tenth time.
_DEVICES = 20
# Where little is sent: fewer, over a time in which a passing disturbance would have ended.
_FEW_DEVICES = 5
_FEW_SECONDS = 10.0
# One request may carry a thousand devices: its failure alone is no outage.
_REQUESTS = 3


# An outage may end at any moment. Refused credentials and doubted tokens seldom mend themselves, and asking costs
# trust, or the deliveries that are asked with.
_REST = Rest(first=timedelta(seconds=5), cap=timedelta(minutes=1))
_LONG_REST = Rest(first=timedelta(minutes=1), cap=timedelta(minutes=10))


@dataclass(frozen=True, slots=True, kw_only=True)
class Trip:
    """A reason to stop a channel. `floor` is how long the provider itself asked to wait."""

    reason: CircuitReason
    detail: str
    floor: timedelta = timedelta(0)

    def rest(self, scale: float) -> Rest:
        """Say how long to rest before a probe. `scale` shortens all but the floor."""
        is_passing = self.reason in (CircuitReason.OUTAGE, CircuitReason.THROTTLED)
        rest = _REST if is_passing else _LONG_REST
        return Rest(first=rest.first * scale, cap=rest.cap * scale, floor=self.floor)


@dataclass(slots=True)
class _Row:
    """Answers of one kind without another between them."""

    reason: CircuitReason
    began_at: float
    devices: set[int] = field(default_factory=set)
    requests: set[object] = field(default_factory=set)
    floor: timedelta = timedelta(0)

    def is_enough(self, now: float) -> bool:
        if len(self.requests) < _REQUESTS:
            return False
        devices = len(self.devices)
        return devices >= _DEVICES or (devices >= _FEW_DEVICES and now - self.began_at >= _FEW_SECONDS)


class Probe:
    """Weighs the few answers that a stopped channel is tried with. `opened_for` is why it was stopped."""

    def __init__(self, opened_for: CircuitReason | None) -> None:
        self._opened_for = opened_for
        self._answered = 0
        self._failures: list[Trip] = []

    @property
    def has_answers(self) -> bool:
        """Something was sent, and came to something."""
        return self._answered > 0 or bool(self._failures)

    @property
    def trip(self) -> Trip | None:
        """The reason to stop again, the one with the longest wait; `None` if at least half was answered."""
        if len(self._failures) <= self._answered:
            return None
        return max(self._failures, key=lambda trip: trip.floor)

    def note(self, outcome: Outcome | SendError) -> None:
        """Weigh one answer. A doubted token is a failure where doubts had stopped the channel."""
        reason = reason_of(outcome)
        is_doubt = reason is CircuitReason.MASS_INVALIDATION
        if reason is None or (is_doubt and reason is not self._opened_for):
            self._answered += 1
        else:
            detail = f"a probe failed: {_word(outcome)}"
            self._failures.append(Trip(reason=reason, detail=detail, floor=_floor(outcome)))


class Breaker:
    """Weighs one channel's answers in one process.

    Doubts stop only a channel whose credentials nothing was accepted under: a row of bad tokens among good ones is
    for the pass over suspects to judge.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._row: _Row | None = None
        self._generation: int | None = None
        self._has_accepted = False

    def begin(self, generation: int) -> None:
        """Begin a chunk: what was seen under another generation of the circuit is over."""
        if generation != self._generation:
            self._generation, self._row, self._has_accepted = generation, None, False

    def note_silence(self, requests: int, seconds: float, patience: timedelta) -> Trip | None:
        """Weigh that of so many requests none was answered for so long. Gives the reason to stop, if it is one."""
        if requests < _DEVICES or seconds < patience.total_seconds():
            return None
        detail = f"none of {requests} requests was answered for {seconds:.0f} s"
        return Trip(reason=CircuitReason.OUTAGE, detail=detail)

    def note(self, device_id: int, request: object, outcome: Outcome | SendError) -> Trip | None:
        """Weigh one answer. Gives the reason to stop when a row is long enough, and begins anew."""
        reason = reason_of(outcome)
        now = self._clock()
        self._has_accepted = self._has_accepted or isinstance(outcome, Accepted)
        if reason is None or (reason is CircuitReason.MASS_INVALIDATION and self._has_accepted):
            self._row = None
            return None
        row = self._row
        if row is None or row.reason is not reason:
            row = self._row = _Row(reason=reason, began_at=now)
        row.devices.add(device_id)
        row.requests.add(request)
        row.floor = max(row.floor, _floor(outcome))
        if not row.is_enough(now):
            return None
        self._row = None
        return Trip(
            reason=reason,
            detail=_DETAILS[reason].format(
                devices=len(row.devices), seconds=now - row.began_at, last=_word(outcome)
            ),
            floor=row.floor,
        )


def reason_of(outcome: Outcome | SendError) -> CircuitReason | None:
    """Tell what a whole row of such answers would stop a channel for; `None`: it is about the delivery.

    Refused credentials need no row and are not weighed here.
    """
    match outcome:
        case Accepted() | Unregistered() | CredentialsRejected():
            return None
        case Rejected():
            is_doubt = outcome.suspects_token and not outcome.needs_proof
            return CircuitReason.MASS_INVALIDATION if is_doubt else None
        case Throttled():
            return CircuitReason.THROTTLED
        case _:
            return CircuitReason.OUTAGE


_DETAILS = {
    CircuitReason.OUTAGE: "the last {devices} devices got no answer that helps, over {seconds:.0f} s: {last}",
    CircuitReason.THROTTLED: "the last {devices} devices were all throttled, over {seconds:.0f} s: {last}",
    CircuitReason.MASS_INVALIDATION: (
        "the provider doubts the tokens of the last {devices} devices in a row ({last}), none of them was retired"
    ),
}


def _floor(outcome: Outcome | SendError) -> timedelta:
    """Give the wait that the provider named in this very answer."""
    if isinstance(outcome, (Throttled, Unavailable)) and outcome.is_vendor_delay:
        return outcome.delay
    return timedelta(0)


def _word(outcome: Outcome | SendError) -> str:
    return "" if isinstance(outcome, Accepted) else outcome.reason
