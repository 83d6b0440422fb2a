"""What a run came to, for programs and for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(slots=True, kw_only=True)
class Findings:
    """Counts of a reckoning. Each of `failures` is a sentence about a broken promise."""

    seed: int
    scenarios: Sequence[str]
    decisions: str
    devices: int
    events: int = 0
    kills: int = 0
    kills_mid_send: int = 0
    freezes: int = 0
    faults: Mapping[str, int] = field(default_factory=dict)
    deliveries: int = 0
    outcomes: Mapping[str, int] = field(default_factory=dict)
    receipts: int = 0
    lost: int = 0
    duplicates: int = 0
    duplicates_bound: int = 0
    # the part of the bound that is no kill's: accepted by a provider whose answer was withheld or cut off
    ambiguous: int = 0
    # what the ledger itself counted as possibly repeated after kills; a cross-check
    unsure: int = 0
    unfinished: int = 0
    retired: int = 0
    retired_wrongly: int = 0
    misdirected: int = 0
    # received after the phone changed hands, loaded before: the documented window of one sub-batch
    in_window: int = 0
    republished: int = 0
    revived: int = 0
    recovery_seconds: Mapping[str, float | None] = field(default_factory=dict)
    memory_growth: Mapping[str, float | None] = field(default_factory=dict)
    # how many processes wanted each CPU at the end, anybody's: above 2 or 3, times tell more of the machine than of us
    pressure: float = 0.0
    seconds: float = 0.0
    failures: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """No promise was broken."""
        return not self.failures

    def as_json(self) -> dict[str, Any]:
        """Say everything to a program."""
        return {**asdict(self), "passed": self.passed}
