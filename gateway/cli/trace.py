"""`pushfan trace`: what happened to a notification, device by device, and why a user did not get it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import click

from gateway.context import Context

from .circuit import story
from .command import Command, app_option, json_option, pass_context
from .errors import NotThere
from .notification import describe
from .output import clean, note, plural, print_json, shown, span

if TYPE_CHECKING:
    from registry.channels import Channel
    from registry.notifications import Notification, Trace

# How far back `--last --user` looks for a notification that concerns the user.
_LOOK_BACK: Final = 100
_FINAL: Final[Mapping[str, str]] = {
    "accepted": "The provider took it. Whether the device shows it is between the two.",
    "unregistered": "The token is dead: the device is retired until its app registers again.",
    "rejected": "The provider refuses it for good; it is not tried again.",
    "expired": "The deadline came first.",
    "cancelled": "The notification was cancelled before it went out to this device.",
    "withdrawn": "The device was uninstalled, retired or taken over after planning.",
    "unknown": "The answer was lost, and the message says not to repeat it.",
    "dead": "It will not move by itself any more: pushfan dead-letter list says why.",
}
# These ends come from us; what a provider answered last, if it was asked at all, is the reason.
_WITHOUT_ANSWER: Final = frozenset({"expired", "cancelled", "withdrawn"})
# Ids that workers.replay makes.
_REPLAYS: Final = "dead-letter."
_COLORS: Final = {"accepted": "green", "waiting": "yellow", "planned": "yellow", "sending": "yellow"}


@click.command(
    "trace", cls=Command, example="pushfan trace order-812-shipped --user u7\npushfan trace --last"
)
@click.argument("name", required=False, metavar="[NOTIFICATION|EVENT-ID]")
@click.option("--last", is_flag=True, help="The newest one; with --user, the newest that concerns this user.")
@click.option("--user", metavar="ID", help="Only this user's devices; if there are none, why not.")
@app_option(required=False)
@click.option(
    "--limit", type=click.IntRange(1, 100_000), default=100, show_default=True, help="Devices at most."
)
@json_option
@pass_context
def trace(
    context: Context,
    *,
    name: str | None,
    last: bool,
    user: str | None,
    app: str | None,
    limit: int,
    as_json: bool,
) -> None:
    """Tell what happened to a notification, device by device.

    Attempts, answers, reasons, times, and what comes next. For a user whom it did not reach: why not.
    """
    if (name is None) != last:
        raise click.UsageError("name a notification or an event's id, or give --last")
    found, rows = context.run(lambda connection: _look_up(connection, name, app, user, limit))
    absence = None
    if user is not None and not rows:
        absence = context.run(lambda connection: list(_explain_absence(connection, found, user)))
    obstacles = context.run(_obstacles)
    deliveries = [_delivery(row, found, obstacles) for row in rows]
    if as_json:
        print_json({**describe(found), "deliveries": deliveries, "user": user, "why_not": absence})
    else:
        _print(found, deliveries, user, absence)


def _look_up(
    connection: Any, name: str | None, app: str | None, user: str | None, limit: int
) -> tuple[Notification, Sequence[Trace]]:
    from registry import notifications

    if name is not None:
        found = notifications.find(connection, name, app=app)
        return found, notifications.trace(connection, found.id, user=user, limit=limit)
    newest = notifications.list_page(connection, app=app, limit=_LOOK_BACK if user else 1)
    if not newest:
        raise NotThere("there is no notification yet")
    for found in newest:
        rows = notifications.trace(connection, found.id, user=user, limit=limit)
        if rows:
            return found, rows
    return newest[0], []


@dataclass(frozen=True, slots=True, kw_only=True)
class _Obstacles:
    """What keeps deliveries from going on: channels that are stopped, lanes that no worker serves."""

    stopped: Mapping[tuple[str, str | None], Channel]
    served: frozenset[str]


def _obstacles(connection: Any) -> _Obstacles:
    from registry import apps, channels, doctor
    from registry.channels import Circuit

    names = {app.id: app.name for app in apps.list_all(connection)}
    found = [one for one in channels.list_all(connection) if one.circuit is not Circuit.CLOSED]
    return _Obstacles(
        stopped={(names[one.app_id], one.name): one for one in found},
        served=frozenset(lane for worker in doctor.workers_alive(connection) for lane in worker.lanes),
    )


def _delivery(row: Trace, notification: Notification, obstacles: _Obstacles) -> dict[str, Any]:
    answers: list[dict[str, Any]] = [dict(answer) for answer in row.earlier or ()]
    is_final = row.state in _FINAL
    if is_final and row.state not in _WITHOUT_ANSWER:
        answers.append({"attempt": row.attempts, "outcome": row.state, "reason": row.reason, "at": row.at})
    return {
        "user": row.user_id,
        "device": row.device_id,
        "device_key": row.device_key,
        "device_state": row.device_state,
        "channel": row.channel,
        "provider": row.provider,
        "state": row.state,
        "attempts": row.attempts,
        "reason": row.reason,
        "provider_id": row.provider_id,
        "answers": answers,
        "ended_at": row.at if is_final else None,
        "next_attempt_at": row.at if row.state == "waiting" else None,
        "next": _next(row, notification, obstacles),
    }


def _next(row: Trace, notification: Notification, obstacles: _Obstacles) -> str:
    if row.state in _FINAL:
        return _FINAL[row.state]
    if notification.cancelled_at is not None:
        return "The notification is cancelled: this ends in a moment."
    stopped = obstacles.stopped.get((notification.app, row.channel))
    if stopped is not None:
        return _while_stopped(stopped, notification)
    if row.state == "sending":
        return "It is being sent now."
    what = f"It waits for a worker of lane {notification.lane}"
    if row.state == "waiting":
        left = (row.at - datetime.now(UTC)).total_seconds()
        when = f"in {span(left)}" if left > 0 else "is due"
        what = f"Attempt {row.attempts + 1} {when}, at {shown(row.at)}"
    is_served = notification.lane in obstacles.served
    return f"{what}." if is_served else f"{what}; no worker of the lane has been seen in the last 30 s."


def _while_stopped(channel: Channel, notification: Notification) -> str:
    detail = f" ({channel.circuit_detail})" if channel.circuit_detail else ""
    return (
        f"The circuit of channel {channel.name} is {story(channel, datetime.now(UTC))}{detail}. It goes on when that "
        f"closes (pushfan channel close {channel.name} --app {notification.app}), or expires at "
        f"{shown(notification.expires_at)}."
    )


def _explain_absence(connection: Any, found: Notification, user: str) -> Iterator[str]:
    """Say why a notification has nothing for a user, as far as it can be told now."""
    from registry import apps, devices

    app_id = apps.get(connection, found.app).id
    event = found.event or {}
    if found.key.startswith(_REPLAYS) and found.users == 1:
        yield "it replays a dead letter, for that letter's device alone"
    if event.get("actor") == user:
        yield f"{user} is the actor who caused the event, and is left out"
    yield from _not_addressed(connection, app_id, found, user)
    if found.planned_at is None and found.cancelled_at is None:
        yield "planning goes on: the user's turn may still come"
    elif found.planned_at is None:
        yield "the notification was cancelled before the user's turn came"
    known = devices.list_by_user(connection, app_id, user)
    if not known:
        yield f"{user} has no device in use in app {found.app}"
    elif all(device.registered_at > found.created_at for device in known):
        yield f"all devices of {user} were registered after the event was taken in"
    disabled = [name for name, section in (event.get("message") or {}).items() if section_is_off(section)]
    if known and disabled and all(device.provider in disabled for device in known):
        yield f"the message leaves out {', '.join(disabled)}, and {user} has no device elsewhere"


def section_is_off(section: object) -> bool:
    """Tell whether a message's section leaves its provider out."""
    return isinstance(section, Mapping) and section.get("enabled") is False


def _not_addressed(connection: Any, app_id: int, found: Notification, user: str) -> Iterator[str]:
    from registry import subscriptions
    from registry.subscriptions import Scope, Target, TargetKind

    event = found.event
    if event is None:
        yield "whom it addressed is not kept any more"
    elif found.kind == "direct":
        if user not in event["users"]:
            yield f"it does not name {user}: it went to {plural(len(event['users']), 'user')}"
    else:
        scope = Scope.parse(event.get("scope", "app"))
        target = Target(kind=TargetKind(found.kind), name=event[found.kind], scope=scope)
        if not subscriptions.is_subscribed(connection, app_id, target, user):
            yield f"{user} is not subscribed to the {found.kind} {target.name} (scope {scope})"


def _print(
    found: Notification,
    deliveries: Sequence[Mapping[str, Any]],
    user: str | None,
    absence: Sequence[str] | None,
) -> None:
    about = [found.key, found.kind, f"app {found.app}", f"lane {found.lane}", found.state]
    click.secho(f"{found.id}  " + " · ".join(map(clean, about)), bold=True)
    counts = shown({outcome.value: count for outcome, count in found.outcomes.items()})
    click.echo(
        f"taken in {shown(found.created_at)}; {plural(found.devices, 'device')}: {counts or 'none is final yet'}"
    )
    if found.warning:
        click.secho(f"warning: {found.warning}", fg="yellow")
    for delivery in deliveries:
        _print_delivery(delivery)
    if user is not None and absence is not None:
        click.echo(f"\nNothing of it is for {clean(user)}:")
        for line in absence or ["why cannot be told any more"]:
            click.echo(f"  {clean(line)}")
    elif user is None and len(deliveries) < found.devices:
        note(
            f"{len(deliveries):,} of {plural(found.devices, 'device')} shown: name a --user, or raise --limit"
        )


def _print_delivery(delivery: Mapping[str, Any]) -> None:
    state = delivery["state"]
    who = f"{delivery['user'] or 'a forgotten user'}  {delivery['device_key'] or ''}"
    way = f"{delivery['channel']} ({delivery['provider']})" if delivery["channel"] else "a removed channel"
    attempts = plural(delivery["attempts"], "attempt")
    click.secho(f"\n{clean(who)}  {way}  ", nl=False)
    click.secho(state, fg=_COLORS.get(state, "red"), bold=True, nl=False)
    click.echo(f"  {attempts}" + (f"  {clean(delivery['provider_id'])}" if delivery["provider_id"] else ""))
    for answer in delivery["answers"]:
        reason = f"  {clean(str(answer['reason']))}" if answer.get("reason") else ""
        click.echo(f"  {_moment(answer['at'])}  attempt {answer['attempt']}  {answer['outcome']}{reason}")
    if state in _WITHOUT_ANSWER:
        click.echo(f"  {_moment(delivery['ended_at'])}  {state}  {clean(delivery['reason'] or '')}".rstrip())
    click.echo(f"  {clean(delivery['next'])}")


def _moment(at: object) -> str:
    """Write an answer's instant to the millisecond: attempts can be close."""
    instant = at if isinstance(at, datetime) else datetime.fromisoformat(str(at))
    return f"{instant.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f}"[:-3] + "Z"
