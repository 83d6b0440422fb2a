"""`pushfan doctor`: what is wrong with an installation, and what to do about it.

Each check yields findings and stops at nothing: what cannot be looked at is a finding too.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Final

import click

from gateway.context import PATIENCE_SECONDS, Context

from .channel import find_all
from .circuit import story, what_to_do
from .command import Command, json_option, pass_context
from .errors import ExitCode, explain
from .output import clean, plural, print_json, span

if TYPE_CHECKING:
    from registry.channels import Channel
    from registry.doctor import Answers, Condition

_OLDEST_SERVER: Final = 140_000
_LATE_SECONDS: Final = 60.0
# A developer's few tries with a wrong token do not make a channel wrong.
_REJECTIONS: Final = 20
_LANES: Final = ("urgent", "normal", "bulk")
_UNREAD: Final = {"urgent": "; events from the broker are not taken in"}


class Status(StrEnum):
    """How a finding is meant."""

    OK = "OK"
    WARN = "WARN"
    FAIL = "FAIL"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at. `advice` says what to do, where something is to be done."""

    check: str
    status: Status
    message: str
    advice: str | None = None


@click.command("doctor", cls=Command, example="pushfan doctor")
@json_option
@pass_context
def doctor(context: Context, *, as_json: bool) -> ExitCode:
    """Find what keeps pushes from going out, and what to do.

    Exits with 1 on FAIL.
    """
    findings = []
    for finding in examine(context):
        findings.append(finding)
        if as_json:
            print_json(asdict(finding))
        else:
            _print(finding)
    return ExitCode.REFUSED if any(one.status is Status.FAIL for one in findings) else ExitCode.OK


def examine(context: Context) -> Iterator[Finding]:
    """Look at settings, database, broker, workers, channels and backlog, in this order."""
    if not (yield from _guarded("settings", lambda: _settings(context))):
        return
    is_ready = yield from _guarded("database", lambda: _database(context))
    yield from _guarded("broker", lambda: _broker(context))
    if is_ready:
        yield from _guarded("tables", lambda: _tables(context))
        yield from _guarded("channels", lambda: _channels(context))


_ADVICE: Final = {
    "settings": "correct the environment, or start pushfan up",
    "database": "start PostgreSQL, or correct PUSHFAN_DATABASE_URL",
    "broker": "start the broker, or correct PUSHFAN_BROKER_URL; nothing that was taken in is lost meanwhile",
}


def _guarded(check: str, look: Callable[[], Iterator[Finding]]) -> Generator[Finding, None, bool]:
    """Yield what a check finds; what it raises becomes a finding. Returns whether nothing failed."""
    is_good = True
    try:
        for finding in look():
            is_good = is_good and finding.status is not Status.FAIL
            yield finding
    except Exception as error:  # noqa: BLE001  the doctor reports what breaks, and goes on
        fault = explain(error)
        problems = "; ".join(": ".join(filter(None, (p["path"], p["message"]))) for p in fault.problems)
        message = f"{fault.message}: {problems}" if problems else fault.message
        yield Finding(check=check, status=Status.FAIL, message=message, advice=_ADVICE.get(check))
        return False
    return is_good


def _settings(context: Context) -> Iterator[Finding]:
    settings = context.settings
    yield Finding(check="settings", status=Status.OK, message=f"valid; home {settings.home.absolute()}")


def _database(context: Context) -> Iterator[Finding]:
    from registry import schema
    from registry.errors import SchemaMismatch

    database = context.unchecked_database
    number = database.run(
        lambda connection: connection.info.server_version, patience_seconds=PATIENCE_SECONDS
    )
    message = f"PostgreSQL {number // 10_000}.{number % 10_000} at {database.address}"
    if number < _OLDEST_SERVER:
        yield Finding(
            check="database",
            status=Status.FAIL,
            message=message,
            advice="Pushfan needs PostgreSQL 14 or newer",
        )
        return
    yield Finding(check="database", status=Status.OK, message=message)
    try:
        schema.check(database)
    except SchemaMismatch as error:
        yield Finding(check="schema", status=Status.FAIL, message=str(error), advice="pushfan db apply")
    else:
        yield Finding(check="schema", status=Status.OK, message=f"version {schema.VERSION}")


def _broker(context: Context) -> Iterator[Finding]:
    from .broker import look_at

    return look_at(context.settings.require_broker_url())


def _tables(context: Context) -> Iterator[Finding]:
    from registry import doctor as tables

    condition = context.run(tables.examine)
    yield from _workers(condition)
    yield from _backlog(condition)
    yield from _partitions(condition)
    yield from _dead_letters(condition)
    yield from _outbox(context)
    yield from _webhooks(context)


def _workers(condition: Condition) -> Iterator[Finding]:
    for lane in _LANES:
        names = [worker.name for worker in condition.workers if lane in worker.lanes]
        if names:
            yield Finding(
                check=f"lane {lane}",
                status=Status.OK,
                message=f"{plural(len(names), 'worker')}: {', '.join(names)}",
            )
        else:
            yield Finding(
                check=f"lane {lane}",
                status=Status.FAIL,
                message=f"no worker seen in the last 30 s{_left_behind(condition, lane)}{_UNREAD.get(lane, '')}",
                advice=f"pushfan worker --lane {lane}",
            )
    for worker in condition.silent:
        yield Finding(
            check=f"worker {worker.name}",
            status=Status.WARN,
            message=f"silent for {span(worker.silent_seconds)}, and was not stopped: it worked for "
            f"{', '.join(worker.lanes)}",
            advice="see whether it runs, reaches PostgreSQL, and what its log says last. Others take over what it "
            "had begun; it is forgotten after an hour",
        )


def _left_behind(condition: Condition, lane: str) -> str:
    """Say what waits in a lane that nobody works for."""
    waiting = [backlog for backlog in condition.backlogs if backlog.lane == lane]
    if not waiting:
        return ""
    count = sum(backlog.positions for backlog in waiting)
    oldest = max(backlog.oldest_seconds for backlog in waiting)
    return (
        f", and {plural(count, 'delivery waits', 'deliveries wait')} for one, the oldest for {span(oldest)}"
    )


def _backlog(condition: Condition) -> Iterator[Finding]:
    served = {lane for worker in condition.workers for lane in worker.lanes}
    for backlog in condition.backlogs:
        is_late = backlog.oldest_seconds > _LATE_SECONDS and not backlog.is_stopped
        where = "on stopped channels" if backlog.is_stopped else "to be sent"
        advice = (
            "add workers, or processes to them; pushfan status --watch shows whether it shrinks"
            if backlog.lane in served
            else f"pushfan worker --lane {backlog.lane}"
        )
        yield Finding(
            check=f"backlog {backlog.lane}",
            status=Status.WARN if is_late else Status.OK,
            message=f"{plural(backlog.positions, 'delivery', 'deliveries')} {where}, "
            f"the oldest for {span(backlog.oldest_seconds)}",
            advice=advice if is_late else None,
        )
    if not condition.backlogs:
        yield Finding(check="backlog", status=Status.OK, message="nothing waits to be sent")
    if condition.overdue_retries or condition.overdue_plans:
        yield Finding(
            check="dispatcher",
            status=Status.WARN,
            message=f"overdue: {condition.overdue_retries:,} retries, {condition.overdue_plans:,} plans",
            advice="after a stop retries are let out slowly, at a fifth of the channel's rate; else look into the "
            "workers' logs for dispatcher_waits, and start a worker if there is none",
        )


def _partitions(condition: Condition) -> Iterator[Finding]:
    if condition.is_default_partition_used:
        yield Finding(
            check="partitions",
            status=Status.WARN,
            message="deliveries lie in the default partition: their day had none of its own",
            advice="move them out of pushfan.delivery_default to a partition of their day; keep a worker running",
        )
    elif not condition.is_next_partition_ready:
        yield Finding(
            check="partitions",
            status=Status.WARN,
            message="tomorrow's partition is not made yet",
            advice="keep a worker running, or run pushfan db apply",
        )
    else:
        yield Finding(check="partitions", status=Status.OK, message="made ahead")


def _dead_letters(condition: Condition) -> Iterator[Finding]:
    letters = condition.dead_letters
    if letters:
        counts = ", ".join(f"{kind} {count:,}" for kind, count in letters.items())
        yield Finding(
            check="dead letters",
            status=Status.WARN,
            message=f"in the last 24 h: {counts}",
            advice="pushfan dead-letter list --unreplayed --newer-than 1d says why; correct that, then "
            "pushfan dead-letter replay, or drop",
        )
    else:
        yield Finding(check="dead letters", status=Status.OK, message="none in the last 24 h")


def _outbox(context: Context) -> Iterator[Finding]:
    """Tell what waits in the outbox of Pushfan's own database, and whether somebody moves it."""
    from registry import outbox

    lags, relays = context.run(lambda connection: (outbox.lag(connection), outbox.relays(connection)))
    rows, oldest = sum(lag.rows for lag in lags), max((lag.oldest_seconds for lag in lags), default=0.0)
    if oldest <= _LATE_SECONDS:
        message = f"{plural(rows, 'row waits', 'rows wait')}" if rows else "nothing waits"
        yield Finding(check="outbox", status=Status.OK, message=message)
        return
    troubles = "; ".join(sorted({relay.trouble for relay in relays if relay.trouble}))
    who = (
        f"{plural(len(relays), 'relay runs', 'relays run')}{f': {troubles}' if troubles else ''}"
        if relays
        else "no relay was heard of in the last minute"
    )
    yield Finding(
        check="outbox",
        status=Status.WARN,
        message=f"{plural(rows, 'row waits', 'rows wait')}, the oldest for {span(oldest)}, and {who}",
        advice="pushfan relay --status says of which apps; pushfan app add, if one is missing"
        if relays
        else "pushfan relay",
    )


def _webhooks(context: Context) -> Iterator[Finding]:
    """Name webhooks that fail or were given up."""
    from registry import webhooks

    found = context.run(webhooks.list_all)
    now = datetime.now(UTC)
    for webhook in found:
        check = f"webhook {webhook.app}/{webhook.name}"
        if webhook.failing_since is None:
            continue
        since = span((now - webhook.failing_since).total_seconds())
        if webhook.state is webhooks.State.DISABLED:
            message = f"disabled, and told nothing any more: {webhook.state_reason}"
            advice = f"put its receiver right, then pushfan webhook add {webhook.name} --app {webhook.app} --url URL"
        else:
            message = f"has failed for {since}, {webhook.failures:,} times in a row: {webhook.last_error}"
            advice = "look at its receiver; what it was not told waits, until it is disabled"
        yield Finding(check=check, status=Status.WARN, message=message, advice=advice)
    if found and all(webhook.failing_since is None for webhook in found):
        yield Finding(check="webhooks", status=Status.OK, message=f"{len(found):,}, none failing")


def _channels(context: Context) -> Iterator[Finding]:
    from registry import doctor as tables

    found = find_all(context, None)
    if not found:
        yield Finding(
            check="channels",
            status=Status.WARN,
            message="there is no channel: nothing can be sent",
            advice="pushfan channel add --help",
        )
    answers = context.run(tables.last_answers)
    now = datetime.now(UTC)
    for app, channel in found:
        check = f"channel {app}/{channel.name}"
        if channel.circuit != "closed":
            yield _circuit(check, app, channel, now)
        elif rejections := _rejections(check, channel, answers.get(channel.id)):
            yield rejections
        else:
            yield _credentials(context, check, app, channel)


def _circuit(check: str, app: str, channel: Channel, now: datetime) -> Finding:
    """Tell why a channel is stopped. What an operator or a probe has in hand is a warning only."""
    detail = f": {channel.circuit_detail}" if channel.circuit_detail else ""
    is_in_hand = channel.circuit == "probing" or channel.circuit_reason in ("operator", "throttled")
    return Finding(
        check=check,
        status=Status.WARN if is_in_hand else Status.FAIL,
        message=f"{story(channel, now)}{detail}",
        advice=what_to_do(channel, app),
    )


def _rejections(check: str, channel: Channel, answers: Answers | None) -> Finding | None:
    """Tell of a channel whose every delivery is refused for good, which stops no circuit: tokens may be malformed."""
    if answers is None or answers.rejected < max(_REJECTIONS, answers.answers):
        return None
    return Finding(
        check=check,
        status=Status.FAIL,
        message=f"all of its last {answers.answers:,} answers are rejections, most often {answers.reason}",
        advice="pushfan trace --last shows some. A reason about tokens: compare how the app registers them (whole, "
        f"unchanged, of {channel.provider} and {channel.access.environment}). One about the message: correct what is "
        "published",
    )


def _credentials(context: Context, check: str, app: str, channel: Channel) -> Finding:
    from workers.credentials import CredentialError

    try:
        context.store.resolve(channel.access.secrets)
    except CredentialError as error:
        is_elsewhere = all(reference.startswith("env:") for reference in channel.access.secrets.values())
        return Finding(
            check=check,
            status=Status.WARN if is_elsewhere else Status.FAIL,
            message=f"cannot be read here: {error}".replace("\n", "; "),
            advice="workers may have it in their own environment: one that cannot read it opens the circuit and says so"
            if is_elsewhere
            else f"put the file there, on every machine that runs a worker, or pushfan channel set {channel.name} "
            f"--app {app}",
        )
    return Finding(check=check, status=Status.OK, message=f"{channel.provider}, its credentials can be read")


_COLORS: Final = {Status.OK: "green", Status.WARN: "yellow", Status.FAIL: "red"}


def _print(finding: Finding) -> None:
    click.secho(finding.status.ljust(4), fg=_COLORS[finding.status], bold=True, nl=False)
    click.echo(f"  {finding.check}: {clean(finding.message)}")
    if finding.advice:
        click.echo(f"      → {finding.advice}")
