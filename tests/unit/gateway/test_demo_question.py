from datetime import UTC, datetime

from gateway.demo.question import choose
from gateway.demo.reconcile import Delivery, Key
from registry.ledger import FinalOutcome


def ended(outcome: FinalOutcome, user: str) -> Delivery:
    """A delivery as the ledger has it."""
    return Delivery(user=user, outcome=outcome, refusals=0, at=datetime(2026, 1, 1, tzinfo=UTC))


LEDGER: dict[Key, Delivery] = {
    (9, 1): ended(FinalOutcome.ACCEPTED, "u1"),
    (9, 2): ended(FinalOutcome.WITHDRAWN, "u1"),
    (9, 4): ended(FinalOutcome.UNREGISTERED, "u2"),
    (9, 3): ended(FinalOutcome.WITHDRAWN, "u3"),
    (8, 3): ended(FinalOutcome.REJECTED, "u3"),
}


def test_chosen_is_somebody_who_got_nothing() -> None:
    """Whose other phone has it got it; a push that was withdrawn tells most."""
    assert choose(LEDGER, []) == (9, 3)


def test_telling_notification_comes_first() -> None:
    """Even if its delivery tells less."""
    assert choose(LEDGER, [8]) == (8, 3)


def test_nobody_is_asked_about_when_everybody_got_it() -> None:
    """A tiny world may have no such user."""
    assert choose({(9, 1): LEDGER[9, 1]}, []) is None
