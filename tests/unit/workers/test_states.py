"""The states that code and schema.sql both name are the same, in the same order where that matters."""

import re
from pathlib import Path

from events import Lane
from registry import ledger
from registry.channels import Circuit, CircuitReason, Environment, Provider
from registry.dead_letters import Kind
from registry.installs import AddressKind, FeedbackKind, State
from registry.ledger import FinalOutcome
from registry.subscriptions import TargetKind

SCHEMA = (Path(__file__).resolve().parents[3] / "schema.sql").read_text(encoding="utf-8")


def listed(constraint: str) -> set[str]:
    """Read the values that a CHECK allows."""
    found = re.search(rf"CONSTRAINT {constraint} CHECK \(\s*\w+ IN \(([^)]*)\)", SCHEMA)
    assert found is not None, constraint
    return set(re.findall(r"'([^']*)'", found[1]))


def test_final_outcomes_are_the_enum_in_its_order() -> None:
    """The ordinal is the byte in every stored vector: an outcome that moved would change history."""
    found = re.search(r"CREATE TYPE pushfan\.outcome AS ENUM \((.*?)\n    \);", SCHEMA, re.DOTALL)
    assert found is not None
    values = re.findall(r"^\s*'(\w+)'", found[1], re.MULTILINE)
    assert values == [outcome.value for outcome in FinalOutcome]


def test_codes_of_the_vector_are_fixed() -> None:
    """Written as bytes into rows that outlive any version."""
    assert {outcome.value: code for outcome, code in ledger.CODES.items()} == {
        "accepted": 1,
        "unregistered": 2,
        "rejected": 3,
        "expired": 4,
        "cancelled": 5,
        "withdrawn": 6,
        "unknown": 7,
        "dead": 8,
    }
    assert (ledger.OPEN, ledger.WAITING, ledger.SPLIT) == (0, 9, 10)


def test_each_outcome_has_its_counter() -> None:
    """A notification counts every final outcome, and its check adds up all of them."""
    table = SCHEMA[SCHEMA.index("CREATE TABLE IF NOT EXISTS pushfan.notification (") :]
    for outcome in FinalOutcome:
        assert re.search(rf"^    {outcome.value} +integer     NOT NULL DEFAULT 0", table, re.MULTILINE)
    check = re.search(r"notification_counters_check CHECK \(\s*(.*?) <= devices\)", SCHEMA, re.DOTALL)
    assert check is not None
    assert {word.strip() for word in check[1].split("+")} == {outcome.value for outcome in FinalOutcome}


def test_lanes_are_the_checks() -> None:
    """Notifications and chunks know the lanes that queues are named by."""
    assert listed("notification_lane_check") == listed("chunk_lane_check") == set(Lane)


def test_circuits_are_the_checks() -> None:
    """States of a channel's circuit, and the reasons why it opens."""
    assert listed("channel_circuit_check") == set(Circuit)
    assert listed("channel_circuit_reason_check") == set(CircuitReason)


def test_other_closed_lists_are_the_checks() -> None:
    """Every enumeration that is stored is the same on both sides."""
    assert listed("channel_provider_check") == set(Provider)
    assert listed("channel_environment_check") == set(Environment)
    assert listed("device_state_check") == set(State)
    assert listed("device_address_kind_check") == set(AddressKind)
    assert listed("feedback_kind_check") == set(FeedbackKind)
    assert listed("target_kind_check") == set(TargetKind)
    assert listed("dead_letter_kind_check") == set(Kind)
