from collections import Counter
from datetime import UTC, datetime

import pytest

from gateway.demo.columns import Account, add_up, as_lines, classify, total
from gateway.demo.reconcile import Delivery, expect
from gateway.demo.world import Fate, Phone, Wave
from registry.channels import Provider
from registry.ledger import FinalOutcome

AT = datetime(2026, 1, 1, tzinfo=UTC)


def phone(number: int, fate: Fate = Fate.HEALTHY, provider: Provider = Provider.FCM) -> Phone:
    """One phone with that fate."""
    return Phone(number=number, provider=provider, user="u1", token=f"t{number}", fate=fate, heir="u2")


def ended(outcome: FinalOutcome, user: str = "u1") -> Delivery:
    """A delivery as the ledger has it."""
    return Delivery(user=user, outcome=outcome, refusals=0, at=AT)


@pytest.mark.parametrize(
    ("one", "wave", "outcome", "received", "account"),
    [
        (phone(1), Wave.NEWS, FinalOutcome.ACCEPTED, 1, Account.RECEIVED),
        (phone(1), Wave.NEWS, FinalOutcome.ACCEPTED, 2, Account.RECEIVED),
        (phone(1), Wave.NEWS, FinalOutcome.ACCEPTED, 0, Account.UNEXPLAINED),
        (phone(1), Wave.NEWS, FinalOutcome.DEAD, 0, Account.UNEXPLAINED),
        (phone(1, Fate.DEAD), Wave.NEWS, FinalOutcome.UNREGISTERED, 0, Account.DEAD),
        (phone(1, Fate.DEAD), Wave.NEWS, FinalOutcome.UNREGISTERED, 1, Account.UNEXPLAINED),
        (phone(1, Fate.DEAD), Wave.NEWS, FinalOutcome.WITHDRAWN, 0, Account.WITHDRAWN),
        (phone(1, Fate.DEAD, Provider.JPUSH), Wave.NEWS, FinalOutcome.ACCEPTED, 0, Account.DROPPED),
        (phone(1, Fate.DEAD, Provider.JPUSH), Wave.NEWS, FinalOutcome.REJECTED, 0, Account.DEAD),
        (phone(1, Fate.MOVED), Wave.HANDOVER, FinalOutcome.WITHDRAWN, 0, Account.WITHDRAWN),
    ],
)
def test_delivery_belongs_to_one_account(
    one: Phone, wave: Wave, outcome: FinalOutcome, received: int, account: Account
) -> None:
    """What the plan, the ledger and the phone say together decides; a contradiction explains nothing."""
    assert classify(expect(one, wave), ended(outcome), received) is account


def test_delivery_that_is_not_planned_or_for_another_user_is_not_explained() -> None:
    """However well it went."""
    assert classify(None, ended(FinalOutcome.ACCEPTED), 1) is Account.UNEXPLAINED
    plan = expect(phone(1), Wave.NEWS)
    assert classify(plan, ended(FinalOutcome.ACCEPTED, user="u9"), 1) is Account.UNEXPLAINED


def test_columns_are_by_provider_and_add_up() -> None:
    """A second receipt is a repeat, in the column of its phone's provider."""
    phones = [phone(1), phone(2, Fate.DEAD), phone(3, provider=Provider.APNS)]
    expected = {(7, one.number): expect(one, Wave.NEWS) for one in phones}
    ledger = {
        (7, 1): ended(FinalOutcome.ACCEPTED),
        (7, 2): ended(FinalOutcome.UNREGISTERED),
        (7, 3): ended(FinalOutcome.ACCEPTED),
    }
    columns = add_up(phones, expected, ledger, Counter({(7, 1): 1, (7, 3): 3}))
    assert [columns[provider].ended for provider in Provider] == [2, 1, 0]
    assert [columns[provider].repeated for provider in Provider] == [0, 2, 0]
    assert all(column.is_balanced for column in columns.values())
    assert (total(columns).ended, total(columns).logged) == (3, 4)


def test_table_has_a_column_for_each_provider_and_one_for_all() -> None:
    """Every row has as many numbers, in the same places."""
    lines = list(as_lines(add_up([phone(1)], {}, {}, {})))
    assert lines[0].split()[-4:] == ["fcm", "apns", "jpush", "all"]
    assert len({len(line) for line in lines}) == 1
