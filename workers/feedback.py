"""Keep the registry true from what providers say later than at once: provisional acceptances, doubted tokens."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import timedelta

import structlog

from providers.outcome import Accepted, CredentialsRejected, Outcome, SendError, Unregistered
from registry import devices, receipts, suspects
from registry.database import Connection
from registry.devices import TokenAnswer
from registry.receipts import Poll

from .deliver import Tools, refused, stop_channel

log = structlog.get_logger()

_POLLS_AT_ONCE = 20
# A poller gives way after this long; the dispatcher sends for it again.
_PATIENCE_SECONDS = 20.0
_PUT_OFF = timedelta(seconds=30)
# Six times, each twice as long after the last: a vendor that still does not know then never will.
_MOST_POLLS = 6


def work(tools: Tools, *, duty: str, channel_id: int) -> dict[str, int]:
    """Do one feedback duty of one channel. Returns counts for the log."""
    if duty == "receipts":
        return poll_receipts(tools, channel_id)
    if duty == "suspects":
        return judge_suspects(tools, channel_id)
    raise ValueError(f"unknown duty {duty!r}")


def judge_suspects(tools: Tools, channel_id: int) -> dict[str, int]:
    """Retire doubted tokens where the channel is known to work; stop the channel where it is not."""
    limits = suspects.Thresholds(age=timedelta(seconds=tools.settings.suspect_age_seconds))
    judgement = tools.database.run(lambda connection: suspects.judge(connection, channel_id, limits))
    if judgement is None:
        return {"retired": 0}
    if judgement.verdict is suspects.Verdict.OPEN:
        log.error("channel_stopped", channel=channel_id, reason="mass_invalidation", health=judgement.health)
    return {"retired": judgement.retired}


def poll_receipts(tools: Tools, channel_id: int) -> dict[str, int]:
    """Ask what became of provisional acceptances, and retire the tokens that the vendor does not know."""
    counts = {"asked": 0, "retired": 0}
    started_at = time.monotonic()
    while not tools.is_stopping() and time.monotonic() - started_at < _PATIENCE_SECONDS:
        polls = _take_due(tools, channel_id)
        for poll in polls:
            try:
                client = tools.clients.get(channel_id).client
                answers = client.poll_receipts(poll.message_id, poll.tokens, poll.loaded_at)
            except CredentialsRejected as error:
                stop_channel(tools, channel_id, refused(error), generation=None)
                return counts
            except SendError as error:
                log.warning("receipts_unavailable", channel=channel_id, reason=error.reason)
                return counts
            counts["asked"] += 1
            counts["retired"] += _record(tools, poll, answers)
        if len(polls) < _POLLS_AT_ONCE:
            break
    return counts


def _take_due(tools: Tools, channel_id: int) -> list[Poll]:
    first_delay = timedelta(seconds=tools.settings.receipt_delay_seconds)
    return tools.database.run(
        lambda connection: receipts.take_due(
            connection, channel_id, limit=_POLLS_AT_ONCE, put_off=_PUT_OFF, first_delay=first_delay
        )
    )


def _record(tools: Tools, poll: Poll, answers: Mapping[str, Outcome | None]) -> int:
    members = list(zip(poll.device_ids, poll.tokens, strict=True))
    dead = [
        TokenAnswer(
            device_id=device_id, token=token, at=answer.invalidated_at or poll.loaded_at, reason=answer.reason
        )
        for device_id, token in members
        if isinstance(answer := answers.get(token), Unregistered)
    ]
    trusted = [
        TokenAnswer(device_id=device_id, token=token, at=poll.loaded_at, reason="confirmed")
        for device_id, token in members
        if isinstance(answers.get(token), Accepted)
    ]
    is_settled = all(answers.get(token) is not None for token in poll.tokens)

    def work(connection: Connection) -> int:
        settled = devices.settle(connection, poll.channel_id, generation=0, dead=dead, accepted=trusted)
        if is_settled or poll.attempts >= _MOST_POLLS:
            receipts.close(connection, [poll.id])
        return len(settled.retired)

    return tools.database.run(work)
