"""What to do when an attempt was not accepted: a pure and total function, and the backoff curve.

Complete     ended, with a final outcome
Retire       ended, and the token is dead
RetryAt      tried again later; an attempt is spent
Snooze       tried again later; no attempt is spent
Expire       no further attempt fits before the deadline
DeadLetter   all attempts are spent
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import assert_never

from providers.outcome import (
    AnswerUnknown,
    CredentialsRejected,
    NotSent,
    Rejected,
    SendError,
    Throttled,
    Unavailable,
    Unregistered,
)
from registry.ledger import FinalOutcome

# A stopped channel keeps its deliveries anyway; this is how long they rest before they queue for it again.
CREDENTIALS_REST = timedelta(seconds=5)
# 2**40 s is longer than anything; beyond it the exponent would only make large numbers.
_LARGEST_EXPONENT = 40

Jitter = Callable[[float], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Complete:
    """The delivery ended. `suspects_token`: the vendor doubted the token. `needs_proof`: or the message."""

    outcome: FinalOutcome
    reason: str
    suspects_token: bool = False
    needs_proof: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Retire:
    """The delivery ended and the token is dead since `invalidated_at`; `None`: since it was loaded."""

    reason: str
    invalidated_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryAt:
    """Try again after `delay`; this attempt is spent."""

    delay: timedelta
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Snooze:
    """Try again after `delay`, at no cost of an attempt."""

    delay: timedelta
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Expire:
    """The deadline comes before any further attempt."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """All attempts are spent."""

    reason: str


Decision = Complete | Retire | RetryAt | Snooze | Expire | DeadLetter


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often and how patiently to try. `scale` shortens documented delays, never a delay the vendor answered."""

    max_attempts: int
    base: timedelta
    cap: timedelta
    scale: float = 1.0

    def backoff(self, attempt: int, floor: timedelta, jitter: Jitter) -> timedelta:
        """Return the floor plus full jitter below an exponential, capped ceiling. `attempt` is 1-based."""
        exponent = min(attempt - 1, _LARGEST_EXPONENT)
        ceiling = min(self.base.total_seconds() * 2**exponent, self.cap.total_seconds())
        return floor + timedelta(seconds=jitter(ceiling) * self.scale)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """The circumstances of one try: which it was, when, until when, and whether repeating is allowed.

    `is_probe`: the channel was tried more than the delivery; to be turned away then costs no attempt.
    """

    number: int
    now: datetime
    expires_at: datetime
    is_repeatable: bool = True
    is_only: bool = False
    is_probe: bool = False


Failure = Unregistered | Rejected | Throttled | Unavailable | SendError


def decide(  # noqa: PLR0911  one return for each outcome
    outcome: Failure, attempt: Attempt, policy: RetryPolicy, jitter: Jitter
) -> Decision:
    """Decide what becomes of a delivery. `jitter(ceiling)` draws from [0, ceiling], in seconds."""
    match outcome:
        case Unregistered():
            return Retire(reason=outcome.reason, invalidated_at=outcome.invalidated_at)
        case Rejected():
            return Complete(
                outcome=FinalOutcome.REJECTED,
                reason=outcome.reason,
                suspects_token=outcome.suspects_token,
                needs_proof=outcome.needs_proof,
            )
        case Throttled() if attempt.is_only:
            return Expire(reason=outcome.reason)
        case Throttled():
            delay = _floor(outcome, policy) + timedelta(seconds=jitter(1.0))
            return _unless_late(Snooze(delay=delay, reason=outcome.reason), attempt)
        case Unavailable() if outcome.is_unsure and not attempt.is_repeatable:
            return Complete(outcome=FinalOutcome.UNKNOWN, reason=outcome.reason)
        case Unavailable():
            floor = _floor(outcome, policy)
            return _retry(floor, outcome.reason, attempt, policy, jitter, is_free=attempt.is_probe)
        case SendError():
            return _decide_unanswered(outcome, attempt, policy, jitter)
        case _:
            assert_never(outcome)


def _decide_unanswered(error: SendError, attempt: Attempt, policy: RetryPolicy, jitter: Jitter) -> Decision:
    match error:
        case CredentialsRejected():
            return _unless_late(Snooze(delay=CREDENTIALS_REST * policy.scale, reason=error.reason), attempt)
        case AnswerUnknown() if not attempt.is_repeatable:
            return Complete(outcome=FinalOutcome.UNKNOWN, reason=error.reason)
        case AnswerUnknown():
            return _retry(timedelta(0), error.reason, attempt, policy, jitter)
        case NotSent():
            return _retry(timedelta(0), error.reason, attempt, policy, jitter, is_free=attempt.is_probe)
    raise TypeError(f"not an outcome: {error!r}")


def _retry(
    floor: timedelta,
    reason: str,
    attempt: Attempt,
    policy: RetryPolicy,
    jitter: Jitter,
    *,
    is_free: bool = False,
) -> Decision:
    if attempt.is_only:
        return Expire(reason=reason)
    if is_free:
        return _unless_late(Snooze(delay=policy.backoff(1, floor, jitter), reason=reason), attempt)
    if attempt.number >= policy.max_attempts:
        return DeadLetter(reason=reason)
    delay = policy.backoff(attempt.number, floor, jitter)
    return _unless_late(RetryAt(delay=delay, reason=reason), attempt)


def _unless_late(decision: RetryAt | Snooze, attempt: Attempt) -> Decision:
    if attempt.now + decision.delay >= attempt.expires_at:
        return Expire(reason=decision.reason)
    return decision


def _floor(outcome: Throttled | Unavailable, policy: RetryPolicy) -> timedelta:
    return outcome.delay if outcome.is_vendor_delay else outcome.delay * policy.scale
