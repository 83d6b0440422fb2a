"""What a demo comes to: one JSON object for programs, a page of sentences for people, and an exit code."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from .kill import Kill
from .world import Counts


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Everything that was counted.

    `findings` are sentences about what is wrong, if anything is. `is_consistent`: the ledger agrees with itself.
    """

    events: Sequence[str]
    providers: Sequence[str]
    users: int
    devices: int
    outcomes: Mapping[str, int]
    measured: Counts
    planned: Counts
    lost: int
    duplicates: int
    duplicates_bound: int
    seconds: float
    latencies_ms: Mapping[str, float]
    worker_cpu_seconds: float
    kill: Kill | None
    findings: Sequence[str]
    is_consistent: bool = True

    @property
    def deliveries(self) -> int:
        """How many deliveries have ended."""
        return sum(self.outcomes.values())

    @property
    def deliveries_per_second(self) -> float:
        """The rate while deliveries were open."""
        return self.deliveries / self.seconds if self.seconds else 0.0

    @property
    def is_good(self) -> bool:
        """Nothing is lost, nothing repeated beyond the bound, and everything happened as often as planned."""
        is_bounded = self.duplicates <= self.duplicates_bound
        return not self.lost and is_bounded and self.measured == self.planned and self.is_consistent

    def as_json(self) -> dict[str, Any]:
        """Return the object of `--json`; `killed` is there only after a kill."""
        killed = {} if self.kill is None else {"killed": self.kill.as_json()}
        return {
            "events": list(self.events),
            "providers": list(self.providers),
            "users": self.users,
            "devices": self.devices,
            "deliveries": self.deliveries,
            "outcomes": dict(self.outcomes),
            **asdict(self.measured),
            "planned": asdict(self.planned),
            "lost": self.lost,
            "duplicates": self.duplicates,
            "duplicates_bound": self.duplicates_bound,
            "seconds": round(self.seconds, 2),
            "deliveries_per_second": round(self.deliveries_per_second, 1),
            "latency_ms": dict(self.latencies_ms),
            **killed,
        }

    def as_lines(self) -> Iterator[str]:
        """Say it to a person."""
        outcomes = ", ".join(f"{name} {count:,}" for name, count in self.outcomes.items() if count)
        yield f"  {self.deliveries:,} deliveries   {outcomes}"
        planned = asdict(self.planned)
        for name, count in asdict(self.measured).items():
            verdict = "as planned" if count == planned[name] else f"PLANNED {planned[name]:,}"
            yield f"  {name:<9} {count:>6,}   {verdict:<14} {_MEANINGS[name]}"
        yield f"  lost      {self.lost:>6,}   accepted in the ledger and not received, missing, or ended otherwise"
        yield f"  repeated  {self.duplicates:>6,}   {self._bound()}"
        yield f"  {self.deliveries_per_second:,.0f} deliveries a second over {self.seconds:.1f} s{self._cost()}"
        p50, p99 = self.latencies_ms["p50"], self.latencies_ms["p99"]
        yield f"  direct pushes are accepted {p50:.0f} ms after the call (median), 99 of 100 within {p99:.0f} ms"
        yield from (f"  ! {finding}" for finding in self.findings)
        if self.is_good:
            yield "The ledger and the providers' receipts agree, delivery by delivery."
        else:
            yield "The ledger and the providers' receipts DO NOT AGREE with the plan."

    def _bound(self) -> str:
        if self.kill is None:
            return "no process was killed: nothing may be repeated"
        return f"a kill may repeat what was issued and not recorded: {self.duplicates_bound:,} at most"

    def _cost(self) -> str:
        if not self.deliveries or not self.worker_cpu_seconds:
            return ""
        return f"; {self.worker_cpu_seconds / self.deliveries * 1e6:.0f} µs of worker CPU for each"


_MEANINGS: Mapping[str, str] = {
    "retried": "deliveries that a provider took only later",
    "retired": "dead tokens that left the registry",
    "replaced": "tokens that their app replaced, some with a push under way",
    "moved": "phones that changed hands; the push that waited was withdrawn",
}
