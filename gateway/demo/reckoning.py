"""Reckon: read the plan, the ledger and the receipts of a demo that was played, and compare them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from gateway.stack import Stack
from registry import notifications
from registry.installs import FeedbackKind
from registry.ledger import FinalOutcome
from registry.notifications import Notification, Trace

from .columns import add_up
from .play import Played
from .post import Post
from .question import Answer, ask, choose
from .reconcile import Delivery, Expected, Key, count_outcomes, expect, percentile, reconcile
from .report import Latency, Report
from .stage import Stage
from .world import Counts, Fate, Wave

_PAGE: Final = 20_000
_FINAL: Final = frozenset(outcome.value for outcome in FinalOutcome)


def reckon(stack: Stack, stage: Stage, post: Post, played: Played) -> Report:
    """Compare everything."""
    expected, ledger, received = _expected(stage, post), dict(_ledger(stage, post)), _received(stage)
    found = reconcile(expected, ledger, received)
    outcomes, bound = count_outcomes(ledger), sum(one.unsure for one in post.found.values())
    problems = [*_contradictions(post, outcomes), *(played.struck.faults if played.struck else ())]
    examples = [*found.lost_examples, *(found.duplicate_examples if found.duplicates > bound else ())]
    latencies = dict(_latencies(stage, post, ledger))
    return Report(
        events=sorted({one.kind for one in post.found.values()}),
        providers=stage.providers,
        users=len(stage.world.users),
        devices=len(stage.world.phones),
        outcomes=outcomes,
        measured=_measured(stage, ledger),
        planned=stage.world.planned,
        lost=found.lost,
        duplicates=found.duplicates,
        duplicates_bound=bound,
        retired_wrongly=_retired_wrongly(stage),
        columns=add_up(stage.world.phones, expected, ledger, received),
        seconds=played.seconds,
        latency=_latency(latencies.values()),
        busy_latency=_latency(latencies[key] for key in latencies.keys() & _during_broadcasts(stage, post)),
        worker_cpu_seconds=played.worker_cpu_seconds,
        struck=played.struck,
        answer=_answer(stack, stage, post, ledger),
        findings=[*examples, *problems],
        is_consistent=not problems,
    )


def _answer(stack: Stack, stage: Stage, post: Post, ledger: Mapping[Key, Delivery]) -> Answer | None:
    """Ask about somebody who did not get something."""
    waited = [post.found[name].id for name in post.names(Wave.HANDOVER) if name in post.found]
    key = choose(ledger, waited)
    if key is None:
        return None
    event = next(name for name, one in post.found.items() if one.id == key[0])
    return ask(stack, stage.app, event, ledger[key].user)


def _contradictions(post: Post, outcomes: Mapping[str, int]) -> list[str]:
    """Say where the ledger does not agree with itself."""
    counters = {
        outcome.value: sum(one.outcomes[outcome] for one in post.found.values()) for outcome in FinalOutcome
    }
    found = []
    if counters != outcomes:
        found.append(f"the notifications' counters say {counters}, the deliveries {dict(outcomes)}")
    if post.has_stalled:
        found.append("some notifications never finished")
    return found


def _expected(stage: Stage, post: Post) -> dict[Key, Expected]:
    """Work out from the plan alone who is to receive what. An event that was never taken in has the id 0."""
    expected: dict[Key, Expected] = {}
    for name, publication in post.publications.items():
        notification_id = post.found[name].id if name in post.found else 0
        for phone in stage.world.phones_of(publication.users, publication.wave):
            expected[notification_id, phone.number] = expect(phone, publication.wave)
    return expected


def _ledger(stage: Stage, post: Post) -> Iterator[tuple[Key, Delivery]]:
    for notification in post.found.values():
        for row in _rows(stage, notification):
            if row.state in _FINAL:
                delivery = Delivery(
                    user=row.user_id or "",
                    outcome=FinalOutcome(row.state),
                    refusals=sum(map(_is_refusal, row.earlier or ())),
                    at=row.at,
                )
                yield (notification.id, int((row.device_key or "phone--1").removeprefix("phone-"))), delivery


def _rows(stage: Stage, notification: Notification) -> Iterator[Trace]:
    after = 0
    while True:
        page = notifications.trace(stage.database.connection(), notification.id, after=after, limit=_PAGE)
        yield from page
        if len(page) < _PAGE:
            return
        after = page[-1].device_id


def _is_refusal(entry: Mapping[str, Any]) -> bool:
    """Tell a provider's *not now* from the mark of a killed worker's successor, and from refused credentials."""
    if entry["outcome"] == "credentials rejected":
        return False
    return bool(entry["outcome"] != "unknown" or entry["reason"] != "the worker died")


def _received(stage: Stage) -> Counter[Key]:
    phones = {
        token: phone.number
        for phone in stage.world.phones
        for token in (phone.token, phone.new_token)
        if token
    }
    return Counter((notification_id, phones.get(token, -1)) for notification_id, token in stage.receipts())


def _measured(stage: Stage, ledger: Mapping[Key, Delivery]) -> Counts:
    kinds = Counter(one.kind for one in stage.feedback())
    return Counts(
        retried=sum(delivery.refusals > 0 for delivery in ledger.values()),
        retired=kinds[FeedbackKind.RETIRED],
        replaced=kinds[FeedbackKind.REPLACED],
        moved=kinds[FeedbackKind.MOVED],
    )


def _retired_wrongly(stage: Stage) -> int:
    """Count the tokens that were given up although the provider knows them."""
    dead = {phone.key for phone in stage.world.having(Fate.DEAD)}
    return sum(one.kind is FeedbackKind.RETIRED and one.device_key not in dead for one in stage.feedback())


def _latencies(stage: Stage, post: Post, ledger: Mapping[Key, Delivery]) -> Iterator[tuple[Key, float]]:
    """From the publish call to the commit of the acceptance, for each phone of the single direct pushes."""
    began = {
        post.found[name].id: one.at
        for name, one in post.publications.items()
        if one.is_probe and name in post.found
    }
    for key, delivery in ledger.items():
        if key[0] in began and delivery.outcome is FinalOutcome.ACCEPTED:
            yield key, (stage.clock(delivery.at) - began[key[0]]) * 1000


def _during_broadcasts(stage: Stage, post: Post) -> frozenset[Key]:
    """List the deliveries of direct pushes that were published while a topic message was on its way."""
    broadcasts = [
        (post.publications[name].at, stage.clock(one.finished_at))
        for name, one in post.found.items()
        if one.kind == "topic" and one.finished_at is not None
    ]
    return frozenset(
        (post.found[name].id, phone.number)
        for name, one in post.publications.items()
        if one.is_probe and name in post.found and any(since < one.at < until for since, until in broadcasts)
        for phone in stage.world.phones_of(one.users, one.wave)
    )


def _latency(taken: Iterable[float]) -> Latency:
    values = list(taken)
    return Latency(
        pushes=len(values), p50=round(percentile(values, 0.5), 1), p99=round(percentile(values, 0.99), 1)
    )
