"""Deliver one chunk: claim it, send its open positions, record the answers.

1. Claim. Contents and the first addresses come with it; positions that may no longer be sent end at once.
2. Feed. A sub-batch is loaded, rendered and counted as issued; when that is committed it goes to libcurl.
3. Collect. Answers become decisions, which are recorded with the next feed, by number, or by age.
4. When no position is open the chunk is gone and its outcomes are added up.

Whatever happens, a position without a recorded answer is at worst *answer unknown*. The loop stops feeding when
it is told to stop, when the channel's circuit opens or its probe is over, or when its time is up; it then collects
what is out and gives the chunk back. A process that slept past its lease finds so before it sends anything more.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from hashlib import sha1
from uuid import UUID

import structlog

from events import Event, InvalidEvent, OnUnknown, decode
from providers.client import Client
from providers.outcome import (
    Accepted,
    Answer,
    AnswerUnknown,
    Content,
    CredentialsRejected,
    NotSent,
    Outcome,
    Push,
    Rejected,
    SendError,
    Throttled,
    Unavailable,
    Unregistered,
)
from providers.provider import Batch
from registry import channels, ledger
from registry.channels import Circuit, CircuitReason
from registry.database import Connection, Database, boot_seconds
from registry.ledger import Address, FinalOutcome, Published, StoredContent

from .breaker import Breaker, Probe, Trip
from .clients import ClientPool
from .decide import Attempt, Jitter, RetryPolicy, decide
from .recording import Answered, LeaseLost, Recorder
from .settings import Settings

log = structlog.get_logger()

# Positions loaded and issued together, unless the vendor takes more in one request; and how many of such
# sub-batches are out at a time, so that a slow answer does not leave the connection idle.
SUB_BATCH = 100
_SUB_BATCHES_OUT = 3
# As many as a stopped channel is probed with.
PROBE = 5
_POLL_SECONDS = 0.05
# A third claim without any answer since the first means that something in the chunk kills its owner.
_STRIKES = 2
# A single delivery must be met by more before it is given up: workers are killed for other reasons, too.
_STRIKES_ALONE = 5
_POISON = "killed its worker process repeatedly"
_DELIVERIES = UUID("0b6a3c0e-5d0e-5f53-8a7e-6a2f9f4f3c11").bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """What deliveries work with: one process's collaborators."""

    settings: Settings
    database: Database
    clients: ClientPool
    owner: str
    policy: RetryPolicy
    jitter: Jitter
    announce: Callable[[Sequence[Published]], None]
    is_stopping: Callable[[], bool]
    breakers: defaultdict[int, Breaker] = field(default_factory=lambda: defaultdict(Breaker))


def deliver(tools: Tools, *, chunk_id: int, channel_id: int) -> Counter[str] | None:
    """Work on a chunk until it is done or must be given back.

    Returns the count of positions by what became of them, `None` if there was nothing to claim.
    """
    if tools.is_stopping():
        return None
    client = _client(tools, channel_id)
    asked_at = boot_seconds()
    first = max(SUB_BATCH, client.batch_limit) if client else 0
    claim = tools.database.run(
        lambda connection: ledger.claim(
            connection,
            chunk_id=chunk_id,
            channel_id=channel_id,
            owner=tools.owner,
            lease=tools.settings.lease,
            first=first,
            probe=PROBE if client else 0,
            chunk_size=tools.settings.chunk_size,
        )
    )
    if claim is None:
        return None
    recorder = Recorder(
        tools.database,
        claim,
        lease=tools.settings.lease,
        deadline=asked_at + tools.settings.lease_seconds,
        receipt_delay=timedelta(seconds=tools.settings.receipt_delay_seconds),
    )
    if claim.strikes > (_STRIKES if len(claim.open_positions()) > 1 else _STRIKES_ALONE):
        with suppress(LeaseLost):
            recorder.divide(_POISON)
    else:
        Delivery(tools, client, recorder, sub_batch=PROBE if claim.is_probe else first).run()
    tools.announce(recorder.published)
    return recorder.counts()


def _client(tools: Tools, channel_id: int) -> Client | None:
    """Give the channel's client. Without usable credentials the channel stops, and only what is expired may end."""
    try:
        return tools.clients.get(channel_id).client
    except CredentialsRejected as error:
        # Other machines may have the credentials: say which one has not.
        detail = f"{error.reason} (says the worker on {tools.owner.partition('/')[0]})"
        trip = Trip(reason=CircuitReason.CREDENTIALS, detail=detail)
        stop_channel(tools, channel_id, trip, generation=None)
        return None


def refused(error: CredentialsRejected) -> Trip:
    """Give the reason to stop for credentials that are refused or cannot be read."""
    return Trip(reason=CircuitReason.CREDENTIALS, detail=error.reason)


def stop_channel(tools: Tools, channel_id: int, trip: Trip, *, generation: int | None) -> None:
    """Open a channel's circuit, unless it has changed since `generation`; `None`: whatever it is now.

    Doubts stop no channel by which others have accepted.
    """
    known = tools.clients.fingerprint(channel_id) if trip.reason is CircuitReason.CREDENTIALS else None

    def work(connection: Connection) -> bool:
        channel = channels.find(connection, channel_id)
        is_doubt = trip.reason is CircuitReason.MASS_INVALIDATION
        if is_doubt and channel.accepted and channel.circuit is not Circuit.PROBING:
            return False
        return channels.open_circuit(
            connection,
            channel_id,
            reason=trip.reason,
            detail=trip.detail,
            rest=trip.rest(tools.settings.delay_scale),
            fingerprint=known,
            generation=channel.circuit_generation if generation is None else generation,
        )

    if tools.database.run(work):
        log.error("channel_stopped", channel=channel_id, reason=trip.reason.value, detail=trip.detail)


class Delivery:
    """One claimed chunk on its way. Used once, by one thread."""

    def __init__(self, tools: Tools, client: Client | None, recorder: Recorder, *, sub_batch: int) -> None:
        self._tools = tools
        self._client = client
        self._recorder = recorder
        self._claim = recorder.claim
        self._sub_batch = sub_batch
        self._first_load: dict[int, Address] | None = self._claim.addresses
        self._sent: dict[int, tuple[Push, Address]] = {}
        self._contents: dict[int, Content | None] = {}
        self._draws: dict[str, float] = {}
        self._breaker = tools.breakers[self._claim.channel_id]
        self._breaker.begin(self._claim.circuit_generation)
        self._probe = Probe(self._claim.circuit_reason) if self._claim.is_probe else None
        self._is_over = False
        self._heard_at = time.monotonic()
        limits = tools.settings
        self._give_back_at = (
            time.monotonic() + limits.task_soft_limit_seconds - limits.provider_timeout_seconds
        )

    def run(self) -> None:
        """Send what may be sent and record what becomes of it."""
        queue = self._claim.open_positions()
        try:
            if self._client is None:
                now = self._recorder.now
                for position in queue:
                    self._may_be_sent(position, now)
            else:
                self._send(self._client, queue)
            self._conclude()
        except LeaseLost:
            log.warning("lease_lost", chunk=self._claim.chunk_id)
        finally:
            if self._client is not None and self._client.in_flight:
                # Answers to this chunk must not reach the next one that uses the client.
                self._tools.clients.discard(self._claim.channel_id)

    def _send(self, client: Client, queue: list[int]) -> None:
        """Feed and collect until everything is answered, or nothing more may be fed and all that is out is in."""
        window = PROBE if self._claim.is_probe else max(self._sub_batch, _SUB_BATCHES_OUT * SUB_BATCH)
        out = 0
        while queue or out:
            if self._must_stop():
                queue.clear()
            elif out + min(self._sub_batch, len(queue)) <= window:
                out += self._feed(client, queue[: self._sub_batch])
                del queue[: self._sub_batch]
            has_room = out + min(self._sub_batch, len(queue)) <= window
            out -= self._collect(client, is_urgent=bool(queue) and has_room)
            if self._recorder.is_flush_due:
                self._recorder.save()
            if out:
                self._mind_silence(client)
            elif self._probe and self._probe.has_answers:
                self._end_probe(self._probe)

    def _must_stop(self) -> bool:
        return (
            self._is_over
            or self._recorder.is_channel_changed
            or self._tools.is_stopping()
            or time.monotonic() > self._give_back_at
        )

    def _conclude(self) -> None:
        if self._recorder.has_pending:
            self._recorder.save()
        if not self._claim.is_complete:
            self._recorder.release()

    def _feed(self, client: Client, positions: list[int]) -> int:
        """Load, render, commit as issued, send. Returns how many positions will be answered."""
        now = self._recorder.now
        positions = [position for position in positions if self._may_be_sent(position, now)]
        addresses = self._load(positions)
        pushes = [
            self._push(position, addresses[position])
            for position in positions
            if position in addresses or self._withdraw(position)
        ]
        if not pushes:
            return 0
        self._sent |= {push.position: (push, addresses[push.position]) for push in pushes}
        if not client.in_flight:
            self._heard_at = time.monotonic()
        batches = client.prepare(pushes)
        has_new_tags = self._tag(batches)
        self._recorder.issue(positions[-1] + 1, has_new_tags=has_new_tags)
        for batch in batches:
            client.submit(batch)
        return len(pushes)

    def _may_be_sent(self, position: int, now: datetime) -> bool:
        """End a position that is cancelled, expired, unreadable, or possibly sent and not to be repeated."""
        recorder, content = self._recorder, self._content(position)
        if self._claim.notification_id(position) in recorder.cancelled:
            recorder.end(position, FinalOutcome.CANCELLED)
        elif content is None:
            recorder.end(position, FinalOutcome.REJECTED, reason="ContentUnreadable")
        elif content.expires_at <= now:
            recorder.end(position, FinalOutcome.EXPIRED)
        elif recorder.is_unsure(position) and not _is_repeatable(content.event):
            recorder.end(position, FinalOutcome.UNKNOWN, reason="the worker died")
        else:
            return True
        return False

    def _withdraw(self, position: int) -> bool:
        self._recorder.end(position, FinalOutcome.WITHDRAWN)
        return False

    def _load(self, positions: Sequence[int]) -> dict[int, Address]:
        """Load addresses as they are now; the first came with the claim."""
        loaded, self._first_load = self._first_load, None
        if loaded is not None and positions and positions[-1] < self._sub_batch:
            return {position: loaded[position] for position in positions if position in loaded}
        if not positions:
            return {}
        return self._tools.database.run(
            lambda connection: ledger.load_addresses(connection, self._claim, positions),
            is_one_statement=True,
        )

    def _push(self, position: int, address: Address) -> Push:
        content = self._content(position)
        assert content is not None
        tags = self._claim.request_tags
        return Push(
            position=position,
            token=address.token,
            content=content,
            delivery_id=_delivery_id(content.notification_id, self._claim.device_ids[position]),
            is_installation_id=address.is_installation_id,
            locale=address.locale,
            request_tag=tags[position] if tags else None,
        )

    def _content(self, position: int) -> Content | None:
        """Read what a position's notification says, once for each notification of the chunk."""
        notification_id = self._claim.notification_id(position)
        if notification_id not in self._contents:
            stored = self._claim.contents[notification_id]
            self._contents[notification_id] = _read(stored)
        return self._contents[notification_id]

    def _tag(self, batches: Sequence[Batch]) -> bool:
        """Note which vendor request each position belongs to, where a vendor can recognise a repeat."""
        has_new = False
        for batch in batches:
            if batch.request_tag is None:
                continue
            tags = self._claim.request_tags = self._claim.request_tags or [None] * len(self._claim)
            for push in batch.pushes:
                has_new = has_new or tags[push.position] != batch.request_tag
                tags[push.position] = batch.request_tag
        return has_new

    def _collect(self, client: Client, *, is_urgent: bool) -> int:
        """Take the answers that are there, waiting a little for the first unless there is more to feed."""
        answers = client.poll(0.0 if is_urgent else _POLL_SECONDS)
        if answers:
            self._heard_at = time.monotonic()
        for answer in answers:
            self._settle(answer)
        return len(answers)

    def _settle(self, answer: Answer) -> None:
        """Turn one answer into a decision and record it."""
        outcome, position, content = answer.outcome, answer.push.position, answer.push.content
        push, address = self._sent[position]
        tag = self._claim.request_tags[position] if self._claim.request_tags else None
        if answer.push is not push:
            # The client divided the request: each part is a request of its own to the vendor.
            tag = answer.push.request_tag
        self._weigh(position, tag or push.delivery_id, outcome)
        number = self._recorder.attempts_spent(position) + 1
        if isinstance(outcome, Accepted):
            self._recorder.accept(position, address, outcome, attempts=number)
            return
        attempt = Attempt(
            number=number,
            now=self._recorder.now,
            expires_at=content.expires_at,
            is_repeatable=_is_repeatable(content.event),
            is_only=content.event.ttl_seconds == 0,
            is_probe=self._claim.is_probe,
        )
        self._recorder.record(
            position,
            address,
            Answered(
                number=attempt.number,
                outcome=_NAMES[type(outcome)],
                reason=outcome.reason,
            ),
            decide(outcome, attempt, self._tools.policy, self._jitter(tag)),
            tag=tag,
        )

    def _jitter(self, tag: str | None) -> Jitter:
        """Draw for each delivery, but once for all members of one vendor request: they must meet again."""
        if tag is None:
            return self._tools.jitter
        if tag not in self._draws:
            self._draws[tag] = self._tools.jitter(1.0)
        draw = self._draws[tag]
        return lambda ceiling: ceiling * draw

    def _weigh(self, position: int, request: str, outcome: Outcome | SendError) -> None:
        """Stop the channel when its credentials are refused, or when it has failed too often in a row."""
        if isinstance(outcome, CredentialsRejected):
            self._stop(refused(outcome))
        elif self._probe:
            self._probe.note(outcome)
        elif trip := self._breaker.note(self._claim.device_ids[position], request, outcome):
            self._stop(trip)

    def _end_probe(self, probe: Probe) -> None:
        """Close the circuit if the probe was answered, or open it for a longer rest. The chunk is given back."""
        self._recorder.save()
        if probe.trip:
            self._stop(probe.trip)
            return
        self._is_over = True
        channel_id, generation = self._claim.channel_id, self._claim.circuit_generation
        if self._tools.database.run(
            lambda connection: channels.end_probe(connection, channel_id, generation=generation)
        ):
            log.info("channel_resumed", channel=channel_id, reason="a probe was answered")

    def _mind_silence(self, client: Client) -> None:
        """Feed a provider that has stopped answering no further, long before its time-outs say so."""
        patience = self._tools.settings.provider_timeout / 2
        silent_seconds = time.monotonic() - self._heard_at
        if not self._is_over and (
            trip := self._breaker.note_silence(client.in_flight, silent_seconds, patience)
        ):
            self._stop(trip)

    def _stop(self, trip: Trip | None) -> None:
        if trip is not None and not self._is_over:
            self._is_over = True
            stop_channel(self._tools, self._claim.channel_id, trip, generation=self._claim.circuit_generation)


def _read(stored: StoredContent) -> Content | None:
    """Read a stored event; `None` if it is gone or of a form that this version does not know."""
    try:
        event = decode(stored.event)
    except InvalidEvent:
        return None
    return Content(notification_id=stored.notification_id, event=event, expires_at=stored.expires_at)


def _delivery_id(notification_id: int, device_id: int) -> str:
    """Name a delivery: what `uuid5` says, in a third of its time."""
    digest = sha1(_DELIVERIES + b"%d/%d" % (notification_id, device_id), usedforsecurity=False).hexdigest()
    variant = "89ab"[int(digest[16], 16) & 3]
    return f"{digest[:8]}-{digest[8:12]}-5{digest[13:16]}-{variant}{digest[17:20]}-{digest[20:32]}"


def _is_repeatable(event: Event) -> bool:
    return event.message.on_unknown is not OnUnknown.DROP


_NAMES: Mapping[type, str] = {
    Unregistered: "unregistered",
    Rejected: "rejected",
    Throttled: "throttled",
    Unavailable: "unavailable",
    NotSent: "not sent",
    AnswerUnknown: "unknown",
    CredentialsRejected: "credentials rejected",
}
