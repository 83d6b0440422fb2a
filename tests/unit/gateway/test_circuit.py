from datetime import UTC, datetime, timedelta

import pytest

from gateway.cli.circuit import story
from registry.channels import Access, Channel, Circuit, CircuitReason, Provider

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def channel(circuit: str, reason: str | None = None, **more: object) -> Channel:
    """Make a channel whose circuit changed five minutes ago."""
    plain: dict[str, object] = {
        **dict.fromkeys(Channel.__slots__),
        "access": Access(secrets={}),
        "provider": Provider.FCM,
        "circuit": Circuit(circuit),
        "circuit_reason": reason and CircuitReason(reason),
        "circuit_changed_at": NOW - 5 * MINUTE,
        "failed_probes": 0,
        "rate_per_second": 10_000,
    }
    return Channel(**(plain | more))  # type: ignore[arg-type]  # what the story does not tell is of no concern


@pytest.mark.parametrize(
    ("one", "told"),
    [
        (channel("closed"), "closed"),
        (channel("closed", ramping_since=NOW - timedelta(seconds=2)), "closed, growing again"),
        (channel("closed", ramping_since=NOW - MINUTE), "closed"),
        (channel("open", "operator"), "open: operator, for 5 min"),
        (channel("open", "mass_invalidation"), "open: mass invalidation, for 5 min"),
        (
            channel("open", "throttled", probe_at=NOW + timedelta(seconds=12)),
            "open: throttled, for 5 min, probed in 12 s",
        ),
        (
            channel("open", "outage", probe_at=NOW - MINUTE, failed_probes=1),
            "open: outage, for 5 min, probed with the next push after 1 failed probe",
        ),
        (channel("probing", "outage"), "probing: outage, for 5 min"),
    ],
)
def test_circuit_is_told_in_a_line(one: Channel, told: str) -> None:
    """State, reason, how long, and when it is tried again."""
    assert story(one, NOW) == told
