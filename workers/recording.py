"""Record what becomes of a chunk's positions: the only writer of a claimed chunk.

Answers are gathered and written together, with the whole result vector, the fence and the lease. A write whose
reply was lost is repeated and changes nothing; a write behind another owner's claim raises `LeaseLost`.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, assert_never

from providers.outcome import Accepted
from registry import devices, ledger, receipts
from registry.database import Connection, Database, boot_seconds
from registry.devices import TokenAnswer
from registry.ledger import CODES, WAITING, Address, Claim, Final, FinalOutcome, Held, Published, Wait

from .decide import Complete, DeadLetter, Decision, Expire, Retire, RetryAt, Snooze

_FLUSH_RESULTS = 100
_FLUSH_SECONDS = 0.25
# The lease must outlast the way from this check to libcurl.
_MARGIN_SECONDS = 0.2
# Snoozes are free and may be many: a trace keeps the last answers.
_LONGEST_HISTORY = 20


class LeaseLost(Exception):
    """Someone else has the chunk: what was not recorded is theirs to decide."""


class _NotRecorded(Exception):
    """Roll back: the flush changed nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """What one attempt came to, for the records: `number` counts attempts from 1."""

    number: int
    outcome: str
    reason: str | None = None


@dataclass(slots=True, kw_only=True)
class _Pending:
    finals: list[Final] = field(default_factory=list)
    waits: list[Wait] = field(default_factory=list)
    dead: list[TokenAnswer] = field(default_factory=list)
    doubted: list[TokenAnswer] = field(default_factory=list)
    trusted: list[TokenAnswer] = field(default_factory=list)
    exhausted: list[Final] = field(default_factory=list)
    provisional: dict[str, dict[int, Address]] = field(default_factory=dict)
    since: float = field(default_factory=time.monotonic)

    def __len__(self) -> int:
        return len(self.finals) + len(self.waits)

    @property
    def has_news(self) -> bool:
        """There is more to write than what became of positions."""
        return bool(self.dead or self.doubted or self.trusted or self.exhausted or self.provisional)


class Recorder:
    """Owns a claim's result vector. `deadline` is when the lease ends, in `boot_seconds`, taken before the claim."""

    def __init__(
        self, database: Database, claim: Claim, *, lease: timedelta, deadline: float, receipt_delay: timedelta
    ) -> None:
        self.claim = claim
        self.published: list[Published] = []
        self.cancelled = {
            content.notification_id for content in claim.contents.values() if content.is_cancelled
        }
        # Its circuit was opened, closed or corrected since the claim: what remains is somebody else's to send.
        self.is_channel_changed = False
        self._database = database
        self._lease = lease
        self._deadline = deadline
        self._asked_at = deadline - lease.total_seconds()
        self._receipt_delay = receipt_delay
        self._unsure = frozenset(claim.unsure_positions())
        self._issued_saved = claim.issued
        self._pending = _Pending()
        self._accepted = 0
        self._doubted = 0
        self._proven: set[tuple[int, str | None]] = set()
        self._held: dict[tuple[int, str | None], list[TokenAnswer]] = {}

    @property
    def now(self) -> datetime:
        """The database's time, as far as this process can tell: its own clock may be wrong."""
        return self.claim.claimed_at + timedelta(seconds=boot_seconds() - self._asked_at)

    @property
    def has_pending(self) -> bool:
        """Answers are waiting to be written."""
        return len(self._pending) > 0

    @property
    def may_send(self) -> bool:
        """The lease certainly still holds, even if this process slept meanwhile."""
        return boot_seconds() < self._deadline - _MARGIN_SECONDS

    @property
    def is_flush_due(self) -> bool:
        """Enough answers, or old enough ones, or half of the lease is gone."""
        pending = self._pending
        if len(pending) >= _FLUSH_RESULTS or (pending and time.monotonic() - pending.since >= _FLUSH_SECONDS):
            return True
        return boot_seconds() > self._deadline - self._lease.total_seconds() / 2

    def is_unsure(self, position: int) -> bool:
        """Tell whether a killed owner had issued this position and not recorded it: it may have been accepted."""
        return position in self._unsure

    def attempts_spent(self, position: int) -> int:
        """Count attempts before now, one that a killed owner may have made included."""
        return self.claim.attempts_spent(position) + (position in self._unsure)

    def history(self, position: int) -> Sequence[dict[str, Any]]:
        """List the earlier answers to a position."""
        earlier = self.claim.earlier_answers(position)
        if not earlier and position not in self._unsure:
            return earlier
        if position in self._unsure:
            lost = Answered(
                number=self.claim.attempts_spent(position) + 1, outcome="unknown", reason="the worker died"
            )
            earlier = [*earlier, _entry(lost, self.now)]
        return earlier[-_LONGEST_HISTORY:]

    def end(
        self,
        position: int,
        outcome: FinalOutcome,
        *,
        attempts: int | None = None,
        reason: str | None = None,
        provider_id: str | None = None,
    ) -> Final:
        """Give a position its final outcome. `attempts` defaults to those spent before now."""
        final = Final(
            position=position,
            outcome=outcome,
            attempts=self.attempts_spent(position) if attempts is None else attempts,
            reason=reason,
            provider_id=provider_id,
            earlier=self.history(position),
        )
        self._note_time()
        self._pending.finals.append(final)
        self.claim.result[position] = CODES[outcome]
        return final

    def accept(self, position: int, address: Address, accepted: Accepted, *, attempts: int) -> None:
        """Record an acceptance: what most answers are."""
        self.end(position, FinalOutcome.ACCEPTED, attempts=attempts, provider_id=accepted.message_id)
        self._accepted += 1
        self._prove(position, address)
        if accepted.provisional and accepted.message_id is not None:
            members = self._pending.provisional.setdefault(accepted.message_id, {})
            members[self.claim.device_ids[position]] = address
        elif address.is_suspect:
            self._pending.trusted.append(self._about_token(position, address, "accepted"))

    def record(
        self,
        position: int,
        address: Address,
        answered: Answered,
        decision: Decision,
        *,
        tag: str | None = None,
    ) -> None:
        """Record what another answer led to. `tag` keeps a vendor's request together for a repeat."""
        number = answered.number
        match decision:
            case Complete():
                self.end(position, decision.outcome, attempts=number, reason=decision.reason)
                if decision.suspects_token:
                    self._doubt(position, address, decision)
            case Retire():
                self.end(position, FinalOutcome.UNREGISTERED, attempts=number, reason=decision.reason)
                self._pending.dead.append(
                    self._about_token(position, address, decision.reason, at=decision.invalidated_at)
                )
            case RetryAt():
                self._wait(position, answered, attempts=number, delay=decision.delay, tag=tag)
            case Snooze():
                self._wait(position, answered, attempts=number - 1, delay=decision.delay, tag=tag)
            case Expire():
                self.end(position, FinalOutcome.EXPIRED, attempts=number, reason=decision.reason)
            case DeadLetter():
                final = self.end(position, FinalOutcome.DEAD, attempts=number, reason=decision.reason)
                self._pending.exhausted.append(final)
            case _:
                assert_never(decision)

    def _doubt(self, position: int, address: Address, decision: Complete) -> None:
        """Doubt a token: at once, or as soon as its message is proven good, which may be never."""
        about = self._about_token(position, address, decision.reason)
        words = self.claim.notification_id(position), address.locale
        if decision.needs_proof and words not in self._proven:
            self._held.setdefault(words, []).append(about)
        else:
            self._pending.doubted.append(about)
            self._doubted += 1

    def _prove(self, position: int, address: Address) -> None:
        """Note that what a notification says in one language was accepted: it was not at fault elsewhere."""
        words = self.claim.notification_id(position), address.locale
        self._proven.add(words)
        if not self._held:
            return
        believed = self._held.pop(words, [])
        self._pending.doubted += believed
        self._doubted += len(believed)

    def _about_token(
        self, position: int, address: Address, reason: str, *, at: datetime | None = None
    ) -> TokenAnswer:
        return TokenAnswer(
            device_id=self.claim.device_ids[position],
            token=address.token,
            at=at or address.loaded_at,
            reason=reason,
        )

    def _wait(
        self, position: int, answered: Answered, *, attempts: int, delay: timedelta, tag: str | None
    ) -> None:
        self._note_time()
        self._pending.waits.append(
            Wait(
                position=position,
                attempts=attempts,
                delay=delay,
                expires_at=self.claim.contents[self.claim.notification_id(position)].expires_at,
                request_tag=tag,
                earlier=[*self.history(position), _entry(answered, self.now)],
            )
        )
        self.claim.result[position] = WAITING

    def issue(self, upto: int, *, has_new_tags: bool) -> None:
        """Commit that positions below `upto` go to the send engine. The first sub-batch came with the claim."""
        self.claim.issued = max(self.claim.issued, upto)
        if has_new_tags or self.claim.issued > self._issued_saved or self.is_flush_due:
            self.save()
        while not self.may_send:
            self.save()

    def save(self) -> None:
        """Write what is pending, or at least hold the lease. Raises `LeaseLost`."""
        asked_at = boot_seconds()
        if self.has_pending:
            held = self._flush()
        else:
            held = self._database.run(
                lambda connection: ledger.renew(connection, self.claim, lease=self._lease),
                is_one_statement=True,
            )
            if held is None:
                raise LeaseLost
        self._issued_saved = self.claim.issued
        if held is not None:
            self._deadline = asked_at + held.lease_left.total_seconds()
            self.cancelled |= held.cancelled
            self.is_channel_changed = held.circuit_generation != self.claim.circuit_generation

    def divide(self, reason: str) -> None:
        """Halve a chunk that makes no progress; a single position becomes a dead letter. Its neighbours go on."""
        positions = self.claim.open_positions()
        if len(positions) > 1:
            # Before, not in the transaction: that may run twice, and must find the same positions again.
            for position in positions:
                self.claim.result[position] = ledger.SPLIT
            self._flush(before=lambda connection: ledger.split(connection, self.claim, positions))
        elif positions:
            self.end(positions[0], FinalOutcome.DEAD, reason=reason)
            self._flush(
                before=lambda connection: ledger.record_dead(
                    connection, self.claim, positions[0], "poison", reason
                )
            )

    def release(self) -> None:
        """Give the chunk back. Nothing is in flight: only a killed owner's unsure positions stay so."""
        unsure = [position for position in self._unsure if self.claim.result[position] == ledger.OPEN]
        issued = max(unsure) + 1 if unsure else 0
        self._database.run(lambda connection: ledger.release(connection, self.claim, issued=issued))

    def _note_time(self) -> None:
        if not self.has_pending:
            self._pending.since = time.monotonic()

    def _flush(self, *, before: Callable[[Connection], None] | None = None) -> Held | None:
        """Write what is pending; `None` if it had been written already. Raises `LeaseLost`."""

        def work(connection: Connection) -> Held:
            return self._write(connection, before)

        is_alone = before is None and not (self.claim.is_complete or self._pending.has_news)
        try:
            held = self._database.run(work, is_one_statement=is_alone)
        except _NotRecorded:
            owned = self._database.run(lambda connection: ledger.holds(connection, self.claim))
            if not owned.is_recorded or not (owned.is_owner or self.claim.is_complete):
                raise LeaseLost from None
            held = None
        self._pending = _Pending()
        return held

    def _write(self, connection: Connection, before: Callable[[Connection], None] | None) -> Held:
        """One transaction, in lock order: channel, chunk, device, notification."""
        claim, pending = self.claim, self._pending
        if before is not None:
            before(connection)
        if pending.doubted:
            ledger.lock_channel(connection, claim.channel_id)
        if claim.is_complete:
            ledger.count_ended(connection, claim, accepted=self._accepted, doubted=self._doubted)
        held = ledger.flush(connection, claim, pending.finals, pending.waits, lease=self._lease)
        if held is None:
            raise _NotRecorded
        self._write_news(connection)
        if claim.is_complete:
            ledger.finish(connection, claim)
            self.published = ledger.dispatch(connection, [claim.channel_id])
        return held

    def _write_news(self, connection: Connection) -> None:
        pending = self._pending
        for final in pending.exhausted:
            ledger.record_dead(connection, self.claim, final.position, "exhausted", final.reason or "")
        if pending.dead or pending.doubted or pending.trusted:
            devices.settle(
                connection,
                self.claim.channel_id,
                generation=self.claim.circuit_generation,
                dead=pending.dead,
                doubted=pending.doubted,
                accepted=pending.trusted,
            )
        for message_id, members in pending.provisional.items():
            receipts.ask_later(
                connection,
                channel_id=self.claim.channel_id,
                message_id=message_id,
                members=members,
                delay=self._receipt_delay,
            )

    def counts(self) -> Counter[str]:
        """Count the chunk's positions by what became of them."""
        names = {code: outcome.value for outcome, code in CODES.items()}
        names |= {ledger.OPEN: "open", WAITING: "waiting", ledger.SPLIT: "split"}
        return Counter(names[code] for code in self.claim.result)


def _entry(answered: Answered, at: datetime) -> dict[str, Any]:
    return {
        "attempt": answered.number,
        "outcome": answered.outcome,
        "reason": answered.reason,
        "at": at.isoformat(timespec="milliseconds"),
    }
