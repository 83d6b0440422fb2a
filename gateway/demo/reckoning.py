"""Reckon: read the plan, the ledger and the receipts of a demo that was played, and compare them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Final

from registry import notifications
from registry.installs import FeedbackKind
from registry.ledger import FinalOutcome
from registry.notifications import Notification, Trace

from .play import Played
from .post import Post
from .reconcile import Delivery, Expected, Key, count_outcomes, expect, percentile, reconcile
from .report import Report
from .stage import Stage
from .world import Counts

_PAGE: Final = 20_000
_FINAL: Final = frozenset(outcome.value for outcome in FinalOutcome)


def reckon(stage: Stage, post: Post, played: Played) -> Report:
    """Compare everything."""
    ledger = dict(_ledger(stage, post))
    found = reconcile(_expected(stage, post), ledger, _received(stage))
    outcomes, bound = count_outcomes(ledger), sum(one.unsure for one in post.found.values())
    problems = _contradictions(post, outcomes)
    if played.kills_worker and played.kill is None:
        problems.append("no worker process was caught with pushes on their way: none was killed")
    examples = [*found.lost_examples, *(found.duplicate_examples if found.duplicates > bound else ())]
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
        seconds=played.seconds,
        latencies_ms=_latencies(stage, post, ledger),
        worker_cpu_seconds=played.worker_cpu_seconds,
        kill=played.kill,
        findings=[*examples, *problems],
        is_consistent=not problems,
    )


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
    """Tell an answer from the mark that a killed worker's successor leaves."""
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


def _latencies(stage: Stage, post: Post, ledger: Mapping[Key, Delivery]) -> dict[str, float]:
    """From the publish call to the commit of the acceptance, for each phone of the single direct pushes."""
    began = {
        post.found[name].id: one.at
        for name, one in post.publications.items()
        if one.is_probe and name in post.found
    }
    taken = [
        (stage.clock(delivery.at) - began[notification_id]) * 1000
        for (notification_id, _), delivery in ledger.items()
        if notification_id in began and delivery.outcome is FinalOutcome.ACCEPTED
    ]
    return {"p50": round(percentile(taken, 0.5), 1), "p99": round(percentile(taken, 0.99), 1)}
