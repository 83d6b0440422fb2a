"""What a demo comes to: one JSON object for programs, a page of sentences for people, and an exit code."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from registry.channels import Provider

from . import columns
from .attacks import Struck
from .columns import Column
from .emptying import Emptying
from .kill import Kill
from .question import Answer
from .revocation import Revocation
from .world import Counts


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """How long direct pushes took from the call to the recorded acceptance: of how many, the median, 99 of 100."""

    pushes: int
    p50: float
    p99: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Everything that was counted.

    `latency` is of all single direct pushes, `busy_latency` of those that were published during a broadcast.
    `retired_wrongly`: tokens that were retired and are good. `findings` are sentences about what is wrong, if
    anything is. `is_consistent`: the ledger agrees with itself, and the attacks broke nothing.
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
    retired_wrongly: int
    columns: Mapping[Provider, Column]
    seconds: float
    latency: Latency
    busy_latency: Latency
    worker_cpu_seconds: float
    struck: Struck | None
    answer: Answer | None
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
        """Nothing lost, nothing repeated beyond the bound, no good token retired, all as planned, and it adds up."""
        is_bounded = self.duplicates <= self.duplicates_bound
        is_balanced = all(column.is_balanced for column in self.columns.values())
        is_planned = self.measured == self.planned and not self.retired_wrongly
        return not self.lost and is_bounded and is_balanced and is_planned and self.is_consistent

    def as_json(self) -> dict[str, Any]:
        """Return the object of `--json`; `killed`, `emptied` and `revoked` are there only after that attack."""
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
            "retired_wrongly": self.retired_wrongly,
            "columns": columns.as_json(self.columns),
            "seconds": round(self.seconds, 2),
            "deliveries_per_second": round(self.deliveries_per_second, 1),
            "latency_ms": {
                "p50": self.latency.p50,
                "p99": self.latency.p99,
                "during_broadcast": asdict(self.busy_latency),
            },
            **self._attacks_as_json(),
            "why_not": None if self.answer is None else self.answer.as_json(),
            "findings": list(self.findings),
        }

    def _attacks_as_json(self) -> dict[str, Any]:
        if self.struck is None:
            return {}
        named = {
            "killed": self.struck.kill,
            "emptied": self.struck.emptying,
            "revoked": self.struck.revocation,
        }
        found: dict[str, Any] = {
            name: attack.as_json() for name, attack in named.items() if attack is not None
        }
        if "killed" in found:
            found["killed"] |= {"repeated": self.duplicates, "repeated_at_most": self.duplicates_bound}
        return found | {"left_out": self.struck.left_out}

    def as_lines(self) -> Iterator[str]:
        """Say it to a person. Lines that do not begin with a space are headings."""
        yield f"{self.deliveries:,} deliveries to {self.devices:,} phones of {self.users:,} users"
        yield from self._counts()
        yield from self._speed()
        if self.struck is not None:
            yield ""
            yield "What the attacks did"
            yield from self._attacks(self.struck)
        yield ""
        yield from columns.as_lines(self.columns)
        if self.answer is not None:
            yield ""
            yield f"Why did {self.answer.user} not get {self.answer.event}?"
            yield f"  $ {self.answer.command}"
            yield from (f"  {line}".rstrip() for line in self.answer.lines)
        yield ""
        yield from (f"  ! {finding}" for finding in self.findings)
        yield self.verdict

    @property
    def verdict(self) -> str:
        """All of it in a sentence."""
        if self.is_good:
            return "The ledger and the providers' receipts agree, delivery by delivery."
        return "The ledger and the providers' receipts DO NOT AGREE with the plan."

    def _counts(self) -> Iterator[str]:
        planned = asdict(self.planned)
        for name, count in asdict(self.measured).items():
            verdict = "as planned" if count == planned[name] else f"PLANNED {planned[name]:,}"
            yield f"  {name:<9} {count:>6,}   {verdict:<11} {_MEANINGS[name]}"
        yield f"  lost      {self.lost:>6,}   missing, ended otherwise, or accepted and not received"
        yield f"  repeated  {self.duplicates:>6,}   {self._bound()}"
        yield f"  wronged   {self.retired_wrongly:>6,}   good tokens that were retired"

    def _bound(self) -> str:
        if self.struck is None or self.struck.kill is None:
            return "no process was killed: nothing may be repeated"
        return f"the kill left {self.duplicates_bound:,} in doubt, which may be repeated"

    def _speed(self) -> Iterator[str]:
        if self.struck is None:
            yield f"  {self.deliveries_per_second:,.0f} deliveries a second over {self.seconds:.1f} s{self._cost()}"
        busy = self.busy_latency
        if busy.pushes:
            yield (
                f"  direct pushes amid broadcasts: half accepted in {busy.p50:,.0f} ms, "
                f"99 of 100 in {busy.p99:,.0f} ms"
            )

    def _cost(self) -> str:
        if not self.deliveries or not self.worker_cpu_seconds:
            return ""
        return f"; {self.worker_cpu_seconds / self.deliveries * 1e6:.0f} µs of worker CPU for each"

    def _attacks(self, struck: Struck) -> Iterator[str]:
        if struck.kill is not None:
            yield from _told("1 worker killed", self._kill(struck.kill))
        if struck.emptying is not None:
            yield from _told("2 broker emptied", _emptying(struck.emptying))
        if struck.left_out is not None:
            yield from _told("2 left out", [struck.left_out])
        if struck.revocation is not None:
            yield from _told("3 key revoked", _revocation(struck.revocation))

    def _kill(self, kill: Kill) -> Iterator[str]:
        lease = kill.lease
        yield f"SIGKILL to process {kill.pid}, amid chunk {lease.chunk_id} of {lease.positions:,} deliveries"
        yield f"{lease.unrecorded:,} were sent, or about to be, and not recorded"
        if kill.heir_pid is not None:
            yield f"process {kill.heir_pid} took the chunk over after {kill.seconds:.2f} s"
        yield f"{self.duplicates:,} arrived twice; {self.duplicates_bound:,} could have"


def _emptying(emptying: Emptying) -> Iterator[str]:
    yield f"FLUSHALL took {emptying.messages:,} messages; chunks announced, not begun: {emptying.announced:,}"
    if emptying.repeated:
        yield f"{emptying.repeated:,} events were lost and published again, with their ids"
    if emptying.seconds is not None:
        yield f"everything moved again after {emptying.seconds:.2f} s, without a hand"


def _revocation(revocation: Revocation) -> Iterator[str]:
    stop, resumption, name = revocation.stop, revocation.resumption, revocation.provider
    if stop.opened_after is not None:
        yield f"{name}: circuit open after {stop.opened_after:.2f} s; failed probes: {stop.failed_probes}"
    yield f"{stop.waited:,} deliveries waited; tokens retired: {stop.retired}"
    before, meanwhile, afterwards = revocation.neighbour_rates
    yield f"{revocation.neighbour} a second: {before:,} before, {meanwhile:,} meanwhile, {afterwards:,} afterwards"
    if resumption.closed_after is not None:
        yield f"restored: a probe was answered after {resumption.closed_after:.2f} s"
    if resumption.drained_after is not None:
        ramp = ", ".join(f"{rate:,.0f}" for rate in resumption.ramp)
        yield f"then {ramp} a second; drained after {resumption.drained_after:.1f} s"


def _told(what: str, lines: Iterator[str] | Sequence[str]) -> Iterator[str]:
    for number, line in enumerate(lines):
        yield f"  {'' if number else what:<17} {line}"


_MEANINGS: Mapping[str, str] = {
    "retried": "deliveries that were taken only later",
    "retired": "dead tokens that left the registry",
    "replaced": "tokens replaced, some with a push under way",
    "moved": "phones that changed hands, a push waiting",
}
