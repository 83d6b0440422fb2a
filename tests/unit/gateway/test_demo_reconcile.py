from datetime import UTC, datetime

import pytest

from gateway.demo.reconcile import Delivery, Expected, count_outcomes, expect, percentile, reconcile
from gateway.demo.world import Fate, Phone, Wave
from registry.channels import Provider
from registry.ledger import FinalOutcome

KEY = (7, 1)
AT = datetime(2026, 1, 1, tzinfo=UTC)
HEALTHY = Expected(user="u1", outcomes=frozenset({FinalOutcome.ACCEPTED}), is_received=True)
DEAD = Expected(
    user="u1",
    outcomes=frozenset({FinalOutcome.UNREGISTERED, FinalOutcome.WITHDRAWN}),
    is_received=False,
    is_certain=False,
)


def ended(outcome: FinalOutcome, *, user: str = "u1", refusals: int = 0) -> Delivery:
    """A delivery as the ledger has it."""
    return Delivery(user=user, outcome=outcome, refusals=refusals, at=AT)


def phone(fate: Fate, provider: Provider = Provider.FCM) -> Phone:
    """One phone with that fate."""
    heir = "u2" if fate is Fate.MOVED else None
    return Phone(number=1, provider=provider, user="u1", token="t", fate=fate, heir=heir)


def test_accepted_and_received_once_agrees() -> None:
    """The normal case: nothing lost, nothing repeated."""
    found = reconcile({KEY: HEALTHY}, {KEY: ended(FinalOutcome.ACCEPTED)}, {KEY: 1})
    assert (found.lost, found.duplicates) == (0, 0)


@pytest.mark.parametrize(
    ("ledger", "received"),
    [
        pytest.param({}, {}, id="missing from the ledger"),
        pytest.param({KEY: ended(FinalOutcome.ACCEPTED)}, {}, id="accepted without a receipt"),
        pytest.param({KEY: ended(FinalOutcome.DEAD)}, {}, id="ended otherwise than planned"),
        pytest.param({KEY: ended(FinalOutcome.ACCEPTED, user="u9")}, {KEY: 1}, id="for another user"),
    ],
)
def test_delivery_that_should_have_arrived_is_lost(
    ledger: dict[tuple[int, int], Delivery], received: dict[tuple[int, int], int]
) -> None:
    """Whatever is wrong with it, it is counted as one lost delivery and explained."""
    found = reconcile({KEY: HEALTHY}, ledger, received)
    assert found.lost == 1
    assert len(found.lost_examples) == 1


def test_delivery_that_nobody_planned_is_lost() -> None:
    """The plan is the measure, not the ledger."""
    assert reconcile({}, {KEY: ended(FinalOutcome.ACCEPTED)}, {}).lost == 1


def test_dead_token_may_be_gone_before_it_is_planned() -> None:
    """Its delivery is there or not; there it may not have been received."""
    assert reconcile({KEY: DEAD}, {}, {}).lost == 0
    assert reconcile({KEY: DEAD}, {KEY: ended(FinalOutcome.UNREGISTERED)}, {}).lost == 0


def test_each_receipt_beyond_the_first_is_a_duplicate() -> None:
    """Three receipts of one delivery are two too many."""
    found = reconcile({KEY: HEALTHY}, {KEY: ended(FinalOutcome.ACCEPTED)}, {KEY: 3})
    assert (found.lost, found.duplicates) == (0, 2)


@pytest.mark.parametrize("ledger", [{}, {KEY: ended(FinalOutcome.UNREGISTERED)}])
def test_receipt_of_what_was_not_accepted_is_a_duplicate(ledger: dict[tuple[int, int], Delivery]) -> None:
    """Also of a push that went to a phone for which none was planned."""
    assert reconcile({KEY: DEAD}, ledger, {KEY: 1}).duplicates == 1
    assert reconcile({}, {}, {KEY: 1}).duplicates == 1


def test_push_that_waited_for_a_moved_phone_is_withdrawn() -> None:
    """In the wave of the handover; before and after it arrives, at whoever has the phone."""
    moved = phone(Fate.MOVED)
    assert expect(moved, Wave.HANDOVER).outcomes == {FinalOutcome.WITHDRAWN}
    assert not expect(moved, Wave.HANDOVER).is_received
    assert expect(moved, Wave.NEWS) == HEALTHY
    assert expect(moved, Wave.BROADCAST).user == "u2"


def test_jpush_accepts_what_it_does_not_deliver() -> None:
    """Its 200 names no dead tokens, so an acceptance of one has no receipt."""
    expected = expect(phone(Fate.DEAD, Provider.JPUSH), Wave.NEWS)
    assert FinalOutcome.ACCEPTED in expected.outcomes
    assert not expected.is_received
    assert FinalOutcome.ACCEPTED not in expect(phone(Fate.DEAD), Wave.NEWS).outcomes


def test_every_outcome_is_counted_by_name() -> None:
    """The counts add up to the deliveries, and name those that did not occur."""
    counts = count_outcomes({(1, 1): ended(FinalOutcome.ACCEPTED), (1, 2): ended(FinalOutcome.WITHDRAWN)})
    assert counts == {
        "accepted": 1,
        "unregistered": 0,
        "rejected": 0,
        "expired": 0,
        "cancelled": 0,
        "withdrawn": 1,
        "unknown": 0,
        "dead": 0,
    }


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [([], 0.5, 0.0), ([3.0], 0.99, 3.0), ([4.0, 1.0, 3.0, 2.0], 0.5, 2.0), (list(range(1, 101)), 0.99, 99)],
)
def test_percentile_is_a_value_that_was_measured(values: list[float], share: float, expected: float) -> None:
    """No interpolation: the smallest value that this share does not exceed."""
    assert percentile(values, share) == expected
