"""Compare, delivery by delivery: what the plan expects, what the ledger says, what the providers took. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Final

from registry.channels import Provider
from registry.ledger import FinalOutcome

from .world import Fate, Phone, Wave

# A delivery: a notification's id and a phone's number.
Key = tuple[int, int]

_ACCEPTED: Final = frozenset({FinalOutcome.ACCEPTED})
_WITHDRAWN: Final = frozenset({FinalOutcome.WITHDRAWN})
_DEAD: Final = frozenset({FinalOutcome.UNREGISTERED, FinalOutcome.WITHDRAWN})
# JPush accepts a request whose dead tokens it drops, and doubts a dead token that comes alone.
_DEAD_AT_JPUSH: Final = frozenset({FinalOutcome.ACCEPTED, FinalOutcome.REJECTED, FinalOutcome.WITHDRAWN})
_EXAMPLES: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """How a delivery may end. `is_certain`: it must be there; a dead token may be gone before it is planned."""

    user: str
    outcomes: frozenset[FinalOutcome]
    is_received: bool
    is_certain: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """A delivery that has ended, as the ledger has it. `refusals`: how often a provider said *not now*."""

    user: str
    outcome: FinalOutcome
    refusals: int
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconciled:
    """What the comparison found, with a sentence about each of the first few."""

    lost: int
    duplicates: int
    lost_examples: Sequence[str]
    duplicate_examples: Sequence[str]


def expect(phone: Phone, wave: Wave) -> Expected:
    """Say how a delivery to a phone ends that is planned in a wave."""
    user = phone.owner(wave)
    if phone.fate is Fate.DEAD:
        outcomes = _DEAD_AT_JPUSH if phone.provider is Provider.JPUSH else _DEAD
        return Expected(user=user, outcomes=outcomes, is_received=False, is_certain=False)
    if phone.fate is Fate.MOVED and wave is Wave.HANDOVER:
        return Expected(user=user, outcomes=_WITHDRAWN, is_received=False)
    return Expected(user=user, outcomes=_ACCEPTED, is_received=True)


def reconcile(
    expected: Mapping[Key, Expected], ledger: Mapping[Key, Delivery], received: Mapping[Key, int]
) -> Reconciled:
    """Compare the three.

    Lost: a delivery that is missing, ended otherwise or for another user than planned, or was accepted and not
    received. Duplicates: receipts beyond the one of an accepted delivery, and all receipts of others.
    """
    lost = dict(_lost(expected, ledger, received))
    repeated = {
        key: number - allowed
        for key, number in received.items()
        if number > (allowed := _allowed(expected.get(key), ledger.get(key)))
    }
    return Reconciled(
        lost=len(lost),
        duplicates=sum(repeated.values()),
        lost_examples=[f"lost: {_named(key)} {why}" for key, why in islice(lost.items(), _EXAMPLES)],
        duplicate_examples=[
            f"repeated: {_named(key)}, {number} more" for key, number in islice(repeated.items(), _EXAMPLES)
        ],
    )


def _lost(
    expected: Mapping[Key, Expected], ledger: Mapping[Key, Delivery], received: Mapping[Key, int]
) -> Iterator[tuple[Key, str]]:
    for key, plan in expected.items():
        delivery = ledger.get(key)
        if delivery is None:
            if plan.is_certain:
                yield key, "has not ended"
        elif delivery.user != plan.user:
            yield key, f"is for {delivery.user}, planned for {plan.user}"
        elif delivery.outcome not in plan.outcomes:
            yield key, f"ended {delivery.outcome}, planned {' or '.join(sorted(plan.outcomes))}"
        elif plan.is_received and not received.get(key, 0):
            yield key, "is accepted in the ledger and was not received"
    for key in ledger.keys() - expected.keys():
        yield key, "is in the ledger and nobody planned it"


def _allowed(plan: Expected | None, delivery: Delivery | None) -> int:
    is_accepted = delivery is not None and delivery.outcome is FinalOutcome.ACCEPTED
    return int(plan is not None and plan.is_received and is_accepted)


def _named(key: Key) -> str:
    return f"notification {key[0]} to phone-{key[1]}"


def count_outcomes(ledger: Mapping[Key, Delivery]) -> dict[str, int]:
    """Count the deliveries by their final outcome, all of them named."""
    found = Counter(delivery.outcome for delivery in ledger.values())
    return {outcome.value: found[outcome] for outcome in FinalOutcome}


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least this share of the values does not exceed; 0 for none."""
    ranked = sorted(values)
    if not ranked:
        return 0.0
    rank = -(-share * len(ranked) // 1)
    return ranked[max(0, int(rank) - 1)]
