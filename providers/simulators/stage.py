"""What every simulated vendor stands on: clock, rules, receipts, counters; and the bad answers all share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import orjson

from .clock import Clock
from .exchange import Decision, Effect, HeaderList, Request
from .receipts import ReceiptLog
from .rules import Rule, RuleBook

# Answers that are about the transport or the wait, the same for all vendors.
TRANSPORT_ANSWERS: Mapping[str, Effect] = {
    "accepted": Effect.ANSWER,
    "slow": Effect.ANSWER,
    "custom": Effect.ANSWER,
    "hang": Effect.SILENCE,
    "accept_no_answer": Effect.SILENCE,
    "reset": Effect.RESET,
    "connection_reset": Effect.CUT,
    "goaway": Effect.GOAWAY,
    "blackhole": Effect.BLACKHOLE,
    "truncated": Effect.TRUNCATE,
}

Accept = Callable[[bool], Decision]


class ControlError(ValueError):
    """A control request that the simulator does not understand; the text says why."""


@dataclass(slots=True, kw_only=True)
class Stage:
    """The shared state of one simulator process; lives as long as the process, used on its loop only.

    `known` maps each known token to a note (APNs: its environment); `None` means that every well-formed token
    is known.
    """

    state_dir: Path
    url: str
    clock: Clock
    rules: RuleBook
    receipts: ReceiptLog
    known: dict[str, str] | None = None
    are_credentials_valid: bool = True
    latency_seconds: float = 0.0
    tally: Counter[str] = field(default_factory=Counter)

    def knows(self, token: str) -> bool:
        """Tell whether the token was ever given to a device, as far as this simulator was told."""
        return self.known is None or token in self.known


class Vendor(Protocol):
    """The logic of one vendor, without any transport."""

    name: str
    answers: frozenset[str]

    def handle(self, request: Request) -> Decision:
        """Check the request as the vendor does, and decide."""

    def ready_info(self) -> dict[str, Any]:
        """Return what clients need: addresses and files with credentials."""

    def control(self, subject: str, values: Mapping[str, Any]) -> dict[str, Any]:
        """Carry out a control request that only this vendor knows; raises `ControlError`."""


def follow(rule: Rule, accept: Accept, refuse: Callable[[Rule], Decision]) -> Decision:
    """Turn a rule into a decision. `accept(answered)` writes the receipt and gives the good answer."""
    decision = _follow(rule, accept, refuse)
    decision.delay_seconds += rule.ms / 1000
    return decision


def _follow(rule: Rule, accept: Accept, refuse: Callable[[Rule], Decision]) -> Decision:
    effect = TRANSPORT_ANSWERS.get(rule.answer)
    if rule.answer in {"accepted", "slow"}:
        return accept(True)
    if rule.answer == "truncated":
        decision = accept(False)
    else:
        if rule.is_delivered or rule.answer == "accept_no_answer":
            accept(False)
        if effect is None:
            return refuse(rule)
        decision = _custom(rule) if rule.answer == "custom" else Decision(0, [], b"")
    decision.effect = effect or Effect.ANSWER
    decision.is_processed = effect is not Effect.GOAWAY or rule.is_delivered
    decision.goaway_reason = rule.reason
    decision.error_code = (
        rule.error_code if rule.error_code is not None else (2 if effect is Effect.RESET else 0)
    )
    return decision


def _custom(rule: Rule) -> Decision:
    """Answer exactly what the rule says: for answers that no vendor documents."""
    body = rule.body
    headers: HeaderList = [(name.lower(), value) for name, value in rule.headers.items()]
    if isinstance(body, str):
        return Decision(rule.status, headers, body.encode())
    if "content-type" not in rule.headers:
        headers.append(("content-type", "application/json"))
    return Decision(rule.status, headers, b"" if body is None else orjson.dumps(body))


def retry_after_header(rule: Rule) -> HeaderList:
    """Return the Retry-After header that the rule asks for, if it does."""
    return [] if rule.retry_after is None else [("retry-after", str(int(rule.retry_after)))]


def notification_of(value: Any) -> str | None:
    """Return the notification id from the reserved data key `pushfan`, an object or its JSON text."""
    if isinstance(value, str):
        try:
            value = orjson.loads(value)
        except orjson.JSONDecodeError:
            return None
    if not isinstance(value, dict) or "n" not in value:
        return None
    return str(value["n"])
