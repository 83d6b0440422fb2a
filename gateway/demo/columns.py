"""Add the columns up: what the ledger says ended, what phones received, and what explains each difference. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from registry.channels import Provider
from registry.ledger import FinalOutcome

from .reconcile import Delivery, Expected, Key
from .world import Phone


class Account(StrEnum):
    """Where a delivery that has ended belongs: a phone has it, or why none has."""

    RECEIVED = "received"
    DEAD = "dead"
    DROPPED = "dropped"
    WITHDRAWN = "withdrawn"
    UNEXPLAINED = "unexplained"


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One provider's deliveries. `ended`: by the ledger. `logged`: pushes in the provider's own log."""

    ended: int = 0
    logged: int = 0
    accounts: Mapping[Account, int]

    @property
    def repeated(self) -> int:
        """Pushes beyond the first of each delivery."""
        return self.logged - self.accounts[Account.RECEIVED]

    @property
    def is_balanced(self) -> bool:
        """All that ended is received or explained."""
        return not self.accounts[Account.UNEXPLAINED] and self.ended == sum(self.accounts.values())

    def as_json(self) -> dict[str, int]:
        """Say it to a program."""
        accounts = {account.value: self.accounts[account] for account in Account}
        return {"ended": self.ended, **accounts, "logged": self.logged, "repeated": self.repeated}


def classify(plan: Expected | None, delivery: Delivery, received: int) -> Account:
    """Say where a delivery belongs. Unplanned, ended otherwise than planned or contradicted by a phone: unexplained."""
    if plan is None or delivery.user != plan.user or delivery.outcome not in plan.outcomes:
        return Account.UNEXPLAINED
    if delivery.outcome is FinalOutcome.ACCEPTED and plan.is_received:
        return Account.RECEIVED if received else Account.UNEXPLAINED
    if received:
        return Account.UNEXPLAINED
    if delivery.outcome is FinalOutcome.ACCEPTED:
        return Account.DROPPED
    return Account.WITHDRAWN if delivery.outcome is FinalOutcome.WITHDRAWN else Account.DEAD


def add_up(
    phones: Sequence[Phone],
    expected: Mapping[Key, Expected],
    ledger: Mapping[Key, Delivery],
    received: Mapping[Key, int],
) -> dict[Provider, Column]:
    """Make the column of each provider. What no phone of the world has is in none: the reconciling finds it."""
    where = {phone.number: phone.provider for phone in phones}
    accounts = {provider: Counter[Account]() for provider in Provider}
    logged = Counter[Provider]()
    for key, delivery in ledger.items():
        if key[1] in where:
            accounts[where[key[1]]][classify(expected.get(key), delivery, received.get(key, 0))] += 1
    for key, number in received.items():
        if key[1] in where:
            logged[where[key[1]]] += number
    return {
        provider: Column(ended=found.total(), logged=logged[provider], accounts=found)
        for provider, found in accounts.items()
    }


def total(columns: Mapping[Provider, Column]) -> Column:
    """Add the columns of all providers."""
    accounts = Counter[Account]()
    for column in columns.values():
        accounts.update(column.accounts)
    return Column(
        ended=sum(column.ended for column in columns.values()),
        logged=sum(column.logged for column in columns.values()),
        accounts=accounts,
    )


def as_json(columns: Mapping[Provider, Column]) -> dict[str, Any]:
    """Say it to a program, by provider and in all."""
    found = {provider.value: column.as_json() for provider, column in columns.items()}
    return {**found, "all": total(columns).as_json()}


def as_lines(columns: Mapping[Provider, Column]) -> Iterator[str]:
    """Say it to a person, as a table that is to be read downwards."""
    every = [*columns.values(), total(columns)]
    yield _line("Does it add up?", [*columns, "all"])
    yield _line("  ended, by our ledger", [f"{column.ended:,}" for column in every])
    for account, text in _TEXTS.items():
        yield _line(f"  {text}", [f"{column.accounts[account]:,}" for column in every])
    yield _line("  in the providers' own logs", [f"{column.logged:,}" for column in every])
    yield _line("    of these a second time", [f"{column.repeated:,}" for column in every])


def _line(first: str, others: Sequence[str]) -> str:
    return f"{first:<{_FIRST}}" + "".join(f"{one:>{_WIDTH}}" for one in others)


_FIRST, _WIDTH = 42, 9
_TEXTS: Final[Mapping[Account, str]] = {
    Account.RECEIVED: "= received by a phone",
    Account.DEAD: "+ refused: the token is dead",
    Account.DROPPED: "+ dead token, dropped without a word",
    Account.WITHDRAWN: "+ phone left or changed hands before",
    Account.UNEXPLAINED: "+ NOT explained",
}
